//! Texts and conversations as token sequences with targets.

use std::ops::Range;

use wsd_core::{Message, Prompt, Rendered, TextCodec};
use wsd_nn::{Checkpoint, TemplateChoice};

use crate::error::{Error, Result};
use crate::example::Sequence;

/// The end of a step of an answer.
const STEP_END: &str = "\n\n";

/// Encodes training texts as a model reads them.
#[derive(Clone, Debug)]
pub struct Encoder {
    name: String,
    /// The name of the setting that chose the template, for messages.
    template_setting: &'static str,
    codec: TextCodec,
    end_tokens: Vec<u32>,
    end: Option<u32>,
    vocab: usize,
    max_len: Option<usize>,
}

impl Encoder {
    /// An encoder with a checkpoint's tokenizer and chat template. Token ids must be below `vocab`;
    /// sequences are cut after `max_len` tokens, if given.
    ///
    /// # Errors
    /// A chat template that does not parse.
    pub fn try_new(
        checkpoint: &Checkpoint,
        template: &TemplateChoice,
        vocab: usize,
        max_len: Option<usize>,
    ) -> Result<Self> {
        Ok(Self {
            name: checkpoint.name.clone(),
            template_setting: "template",
            end: checkpoint.eos(),
            end_tokens: checkpoint.end_tokens.clone(),
            codec: checkpoint.clone().into_codec(&checkpoint.name, template)?,
            vocab,
            max_len,
        })
    }

    /// The same encoder, whose messages name the setting of the template `setting` instead of `template`.
    #[must_use]
    pub fn with_template_setting(self, setting: &'static str) -> Self {
        Self { template_setting: setting, ..self }
    }

    /// A document with its end-of-text token; all tokens are targets.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn document(&self, text: &str) -> Result<Sequence> {
        let mut tokens = self.codec.render(&Prompt::Raw(text.to_owned()))?.tokens;
        tokens.extend(self.end);
        self.checked(Sequence::targets_from(1, tokens))
    }

    /// Checks that conversations can be rendered.
    fn check_form(&self) -> Result<()> {
        if self.codec.has_chat_form() {
            return Ok(());
        }
        let value = format!("own\n  hint: the files of `{}` have no chat template, and the data has chats", self.name);
        Err(Error::setting(self.template_setting, "plain or a Jinja file", value))
    }

    /// A conversation; all tokens are targets.
    ///
    /// # Errors
    /// Those of [`Encoder::document`]; [`Error::Setting`] for a model without a chat template, here and
    /// for the other forms of conversations.
    pub fn conversation(&self, messages: &[Message]) -> Result<Sequence> {
        self.check_form()?;
        let mut tokens = self.codec.render_whole(messages)?.tokens;
        if self.codec.is_plain() {
            tokens.extend(self.end);
        }
        self.checked(Sequence::targets_from(1, tokens))
    }

    /// A prompt and its completion, whose tokens are the targets, with the end-of-text token.
    ///
    /// # Errors
    /// Those of [`Encoder::document`]; an empty completion.
    pub fn completion(&self, prompt: &str, completion: &str) -> Result<Sequence> {
        let rendered = match prompt {
            "" => Rendered::default(),
            prompt => self.codec.render(&Prompt::Raw(prompt.to_owned()))?,
        };
        let mut tokens = self.codec.encode_after(&rendered, completion)?;
        let start = common_prefix(&rendered.tokens, &tokens);
        tokens.extend(self.end);
        self.checked(Sequence::targets_from(start, tokens))
    }

    /// A conversation whose targets are some of the assistant's messages, given by their ascending
    /// indices, each with the token that ends it.
    ///
    /// A message is learned as the model writes it: after the messages before it and the generation
    /// prompt. Messages that the template renders the same when more messages follow are targets of
    /// one sequence; for others, as those of templates that drop earlier reasoning, the
    /// conversation is rendered again through the message, as a sequence of its own. The sequences
    /// are in the order of the conversation. Those whose targets all come after the maximum length
    /// are left out, unless no other remains.
    ///
    /// # Errors
    /// Those of [`Encoder::document`]; a conversation without such a message; a template that renders
    /// a message's context differently for its answer.
    pub fn chat(&self, messages: &[Message], targets: &[usize]) -> Result<Vec<Sequence>> {
        self.check_form()?;
        let mut sequences: Vec<(Rendered, Vec<Range<usize>>)> = Vec::new();
        let mut whole = self.codec.render_whole(messages)?;
        for index in targets.iter().copied().rev() {
            let turn = self.turn(messages, index)?;
            let range = match self.range_in(&turn, &whole) {
                Some(range) => Some(range),
                None => {
                    whole = turn.through.clone();
                    self.range_in(&turn, &whole)
                }
            };
            let Some(range) = range else { continue };
            match sequences.last_mut().filter(|(rendered, _)| rendered.text == whole.text) {
                Some((_, ranges)) => ranges.insert(0, range),
                None => sequences.push((whole.clone(), vec![range])),
            }
        }
        let sequences = sequences
            .into_iter()
            .rev()
            .map(|(rendered, target_ranges)| self.ended(Sequence { tokens: rendered.tokens, target_ranges }));
        let sequences = sequences.map(|sequence| self.checked(sequence)).collect::<Vec<_>>();
        if sequences.is_empty() {
            return Err(refused("it has no message of the assistant to learn"));
        }
        if sequences.iter().all(Result::is_err) {
            return sequences.into_iter().collect();
        }
        Ok(sequences.into_iter().flatten().collect())
    }

    /// The maximum length of a sequence.
    pub(crate) fn max_len(&self) -> Option<usize> {
        self.max_len
    }

    /// The same sequence through its last target, which is the only one: the token that ends an
    /// answer.
    ///
    /// # Errors
    /// An answer that the maximum length may have cut.
    pub(crate) fn end(&self, mut sequence: Sequence) -> Result<Sequence> {
        let end = sequence.target_ranges.last().map_or(0, |range| range.end);
        if let Some(max_len) = self.max_len.filter(|max_len| end >= *max_len) {
            return Err(refused(&format!("its answer must end before `max_length` = {max_len} tokens")));
        }
        sequence.truncate(end);
        sequence.target_ranges = std::iter::once(end.saturating_sub(1).max(1)..end).collect();
        Ok(sequence)
    }

    /// A prompt and the steps of an answer, each with a blank line at its end; the targets are the
    /// last tokens of the steps. Each step is encoded by itself.
    ///
    /// # Errors
    /// Those of [`Encoder::document`]; steps that do not end within the maximum length.
    pub(crate) fn steps(&self, prompt: &Prompt, steps: &[String]) -> Result<Sequence> {
        if prompt.messages().is_some() {
            self.check_form()?;
        }
        let mut tokens = self.codec.render(prompt)?.tokens;
        let mut target_ranges = Vec::new();
        for step in steps {
            tokens.extend(self.codec.tokenizer().encode(&format!("{step}{STEP_END}"))?);
            target_ranges.push((tokens.len() - 1).max(1)..tokens.len());
        }
        if let Some(max_len) = self.max_len.filter(|max_len| tokens.len() > *max_len) {
            let tokens = tokens.len();
            return Err(refused(&format!("its steps must end within `max_length` = {max_len} tokens, got {tokens}")));
        }
        self.checked(Sequence { tokens, target_ranges })
    }

    /// Renders what the model reads before a message of the assistant, and that with the message.
    fn turn<'m>(&self, messages: &'m [Message], index: usize) -> Result<Turn<'m>> {
        if index == 0 {
            return Err(refused("the first message is the assistant's, so it answers nothing"));
        }
        let before = self.codec.render(&Prompt::Chat(messages[..index].to_vec()))?;
        let through = self.codec.render_whole(&messages[..=index])?;
        // The generation prompt may differ from the beginning of a finished answer, as with an opened `<think>`.
        let context_end = end_of(&before.text, &messages[index - 1].content);
        if common_bytes(&before.text, &through.text) < context_end.unwrap_or(before.text.len()) {
            let position = index + 1;
            return Err(refused(&format!(
                "the chat template renders the messages before message {position} differently when it follows, so \
                 its tokens cannot be told from the others"
            )));
        }
        Ok(Turn { before, through, content: &messages[index].content })
    }

    /// The targets of a turn within a rendered conversation; `None` if they stand there in another
    /// form than after their own context, or after another context.
    fn range_in(&self, turn: &Turn<'_>, whole: &Rendered) -> Option<Range<usize>> {
        let Turn { before, through, content } = turn;
        let start = common_prefix(&before.tokens, &through.tokens).max(1);
        let shared = common_prefix(&through.tokens, &whole.tokens);
        if through.text == whole.text {
            return self.answer(&through.tokens, start, shared);
        }
        let is_whole =
            end_of(&through.text, content).is_some_and(|end| common_bytes(&through.text, &whole.text) >= end);
        let range = self.answer(&whole.tokens, start, shared).filter(|_| is_whole)?;
        let ends = |range: &Range<usize>| self.end_tokens.contains(&through.tokens[range.end - 1]);
        let is_ended = self.answer(&through.tokens, start, through.tokens.len()).as_ref().is_some_and(ends);
        (ends(&range) || !is_ended).then_some(range)
    }

    /// The part of a range through the last token that ends an answer, or all of it without such a
    /// token. Templates put line breaks after that token.
    fn answer(&self, tokens: &[u32], start: usize, end: usize) -> Option<Range<usize>> {
        let range = tokens.get(start..end)?;
        let ended = range.iter().rposition(|token| self.end_tokens.contains(token));
        let end = ended.map_or(end, |at| start + at + 1);
        (start < end).then_some(start..end)
    }

    /// Adds the end-of-text token to a conversation in the plain form that ends with a target: the
    /// form has no token that ends an answer.
    fn ended(&self, mut sequence: Sequence) -> Sequence {
        if let (true, Some(end), Some(last)) = (self.codec.is_plain(), self.end, sequence.target_ranges.last_mut())
            && last.end == sequence.tokens.len()
        {
            sequence.tokens.push(end);
            last.end += 1;
        }
        sequence
    }

    /// Cuts a sequence to the maximum length, and refuses one that no target is left of.
    fn checked(&self, mut sequence: Sequence) -> Result<Sequence> {
        if let Some(token) = sequence.tokens.iter().find(|token| **token as usize >= self.vocab) {
            let vocab = self.vocab;
            return Err(refused(&format!("the tokenizer returns token {token}, but the model has {vocab}")));
        }
        let before = sequence.targets();
        sequence.truncate(self.max_len.unwrap_or(usize::MAX));
        match (before, sequence.targets()) {
            (0, _) => Err(refused("it has no token to learn")),
            (_, 0) => {
                let max_len = self.max_len.unwrap_or(usize::MAX);
                Err(refused(&format!("its first token to learn comes after `max_length` = {max_len} tokens")))
            }
            _ => Ok(sequence),
        }
    }
}

/// A message of the assistant, rendered.
struct Turn<'m> {
    /// The messages before it, with the generation prompt.
    before: Rendered,
    /// The messages through it.
    through: Rendered,
    content: &'m str,
}

/// The byte after the last occurrence of `content` in `text`, white space at its ends aside.
fn end_of(text: &str, content: &str) -> Option<usize> {
    let content = content.trim();
    text.rfind(content).map(|start| start + content.len())
}

/// The length of the longest common prefix of two texts, in bytes.
fn common_bytes(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

fn refused(reason: &str) -> Error {
    Error::Example { reason: reason.to_owned() }
}

/// The length of the longest common prefix.
fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Concatenates documents and cuts the result into sequences of `len` tokens; the last may be
/// shorter.
#[must_use]
pub(crate) fn packed(documents: &[Sequence], len: usize) -> Vec<Sequence> {
    let tokens: Vec<u32> = documents.iter().flat_map(|document| document.tokens.iter().copied()).collect();
    let rows = tokens.chunks(len.max(2)).filter(|row| row.len() > 1);
    rows.map(|row| Sequence::targets_from(1, row.to_vec())).collect()
}
