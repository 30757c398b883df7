//! Texts and conversations as token sequences with targets.

use std::ops::Range;

use wsd_core::{ChatRole, Message, Prompt, Rendered, TextCodec};
use wsd_nn::{Checkpoint, TemplateChoice};

use crate::error::{Error, Result};
use crate::example::Sequence;

/// Encodes training texts as a model reads them.
#[derive(Clone, Debug)]
pub struct Encoder {
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
        let tokenizer = &checkpoint.tokenizer;
        let end = checkpoint.special.eos.as_deref().and_then(|eos| tokenizer.token_to_id(eos));
        Ok(Self {
            end: end.or(checkpoint.end_tokens.first().copied()),
            end_tokens: checkpoint.end_tokens.clone(),
            codec: checkpoint.clone().into_codec(&checkpoint.name, template)?,
            vocab,
            max_len,
        })
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

    /// A conversation; all tokens are targets.
    ///
    /// # Errors
    /// Those of [`Encoder::document`].
    pub fn conversation(&self, messages: &[Message]) -> Result<Sequence> {
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

    /// A conversation whose targets are the assistant's messages from index `from` on, each with
    /// the token that ends it.
    ///
    /// A message's tokens are the difference between rendering the conversation through it and
    /// rendering what precedes it with the generation prompt. This works with every template that
    /// renders a prefix of a conversation the same whatever follows; other templates are refused.
    ///
    /// # Errors
    /// Those of [`Encoder::document`]; a template that is refused; a conversation without such a message.
    pub fn chat(&self, messages: &[Message], from: usize) -> Result<Sequence> {
        let whole = self.codec.render_whole(messages)?;
        let mut sequence = Sequence { tokens: whole.tokens.clone(), target_ranges: Vec::new() };
        for index in (from..messages.len()).filter(|&index| messages[index].role == ChatRole::Assistant) {
            sequence.target_ranges.extend(self.message(messages, index, &whole)?);
        }
        if sequence.target_ranges.is_empty() {
            return Err(refused("it has no message of the assistant"));
        }
        // The plain form has no token that ends an answer.
        if let (true, Some(end), Some(last)) = (self.codec.is_plain(), self.end, sequence.target_ranges.last_mut())
            && last.end == sequence.tokens.len()
        {
            sequence.tokens.push(end);
            last.end += 1;
        }
        self.checked(sequence)
    }

    /// The targets of one message of the assistant.
    fn message(&self, messages: &[Message], index: usize, whole: &Rendered) -> Result<Option<Range<usize>>> {
        if index == 0 {
            return Err(refused("the first message is the assistant's, so it answers nothing"));
        }
        let before = self.codec.render(&Prompt::Chat(messages[..index].to_vec()))?;
        let through = self.codec.render_whole(&messages[..=index])?;
        if !through.text.starts_with(&before.text) || !whole.text.starts_with(&through.text) {
            let position = index + 1;
            return Err(refused(&format!(
                "the chat template renders message {position} differently when more messages follow, so its tokens \
                 cannot be told from the others"
            )));
        }
        let start = common_prefix(&before.tokens, &whole.tokens).max(1);
        let end = common_prefix(&through.tokens, &whole.tokens);
        Ok(self.answer(&whole.tokens, start, end))
    }

    /// The part of a range through the last token that ends an answer, or all of it without such a
    /// token. Templates put line breaks after that token.
    fn answer(&self, tokens: &[u32], start: usize, end: usize) -> Option<Range<usize>> {
        let range = tokens.get(start..end)?;
        let ended = range.iter().rposition(|token| self.end_tokens.contains(token));
        let end = ended.map_or(end, |at| start + at + 1);
        (start < end).then_some(start..end)
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
