//! Texts and conversations to tokens, and which of these are to be learnt.

use wsd_core::{ChatRole, Message, Prompt, Rendered, TextCodec};

use super::model::Sequence;
use crate::error::{Error, Result};
use wsd_nn::{Checkpoint, TemplateChoice};

/// Writes examples as a model is to read them.
#[derive(Clone, Debug)]
pub struct Encoder {
    text: TextCodec,
    end_tokens: Vec<u32>,
    end: Option<u32>,
    vocab: usize,
    max_len: Option<usize>,
}

impl Encoder {
    /// The tokenizer and the chat form of a checkpoint; texts end after `max_len` tokens, where that is given.
    ///
    /// # Errors
    /// A chat template that does not parse.
    pub fn new(
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
            text: checkpoint.clone().into_text(&checkpoint.name, template)?,
            vocab,
            max_len,
        })
    }

    /// A document, all of it to be learnt, its end too.
    ///
    /// # Errors
    /// A text that does not become tokens.
    pub fn document(&self, text: &str) -> Result<Sequence> {
        let mut tokens = self.text.render(&Prompt::Raw(text.to_owned()))?.tokens;
        tokens.extend(self.end);
        self.checked(Sequence::learned_from(1, tokens))
    }

    /// A conversation, all of it to be learnt.
    ///
    /// # Errors
    /// As [`Encoder::document`].
    pub fn conversation(&self, messages: &[Message]) -> Result<Sequence> {
        let mut tokens = self.text.render_whole(messages)?.tokens;
        if self.text.is_plain() {
            tokens.extend(self.end);
        }
        self.checked(Sequence::learned_from(1, tokens))
    }

    /// A text of which what follows the prompt is to be learnt, its end too.
    ///
    /// # Errors
    /// As [`Encoder::document`]; nothing that follows.
    pub fn completion(&self, prompt: &str, completion: &str) -> Result<Sequence> {
        let rendered = match prompt {
            "" => Rendered::default(),
            prompt => self.text.render(&Prompt::Raw(prompt.to_owned()))?,
        };
        let mut tokens = self.text.encode_after(&rendered, completion)?;
        let start = common(&rendered.tokens, &tokens);
        tokens.extend(self.end);
        self.checked(Sequence::learned_from(start, tokens))
    }

    /// A conversation, of which the assistant's messages from the one at `from` on are to be learnt, each with the token
    /// that ends it.
    ///
    /// What belongs to a message is what the conversation up to and with it has more than the conversation before it
    /// with the assistant asked to speak. So it works with any template that writes the beginning of a conversation the
    /// same whatever follows; others are refused.
    ///
    /// # Errors
    /// As [`Encoder::document`]; a template that is refused; no message of the assistant's.
    pub fn chat(&self, messages: &[Message], from: usize) -> Result<Sequence> {
        let whole = self.text.render_whole(messages)?;
        let mut sequence = Sequence { tokens: whole.tokens.clone(), learned: Vec::new() };
        for index in (from..messages.len()).filter(|&index| messages[index].role == ChatRole::Assistant) {
            if index == 0 {
                return Err(refused("the assistant speaks first: there is nothing that it answers"));
            }
            let before = self.text.render(&Prompt::Chat(messages[..index].to_vec()))?;
            let with = self.text.render_whole(&messages[..=index])?;
            if !with.text.starts_with(&before.text) || !whole.text.starts_with(&with.text) {
                let position = index + 1;
                return Err(refused(&format!(
                    "the chat template does not write message {position} the same once more follows, so that what is to \
                     be learnt cannot be told from the rest"
                )));
            }
            let start = common(&before.tokens, &whole.tokens).max(1);
            let end = common(&with.tokens, &whole.tokens);
            sequence.learned.extend(self.answer(&whole.tokens, start, end));
        }
        if sequence.learned.is_empty() {
            return Err(refused("the assistant says nothing: there is nothing to learn"));
        }
        // The plain form has no token that ends an answer.
        if let (true, Some(end), Some(last)) = (self.text.is_plain(), self.end, sequence.learned.last_mut())
            && last.end == sequence.tokens.len()
        {
            sequence.tokens.push(end);
            last.end += 1;
        }
        self.checked(sequence)
    }

    /// The answer in a range of tokens: up to the token that ends it, where there is one; templates write line breaks
    /// behind that.
    fn answer(&self, tokens: &[u32], start: usize, end: usize) -> Option<std::ops::Range<usize>> {
        let range = tokens.get(start..end)?;
        let ended = range.iter().rposition(|token| self.end_tokens.contains(token));
        let end = ended.map_or(end, |at| start + at + 1);
        (start < end).then_some(start..end)
    }

    fn checked(&self, mut sequence: Sequence) -> Result<Sequence> {
        if let Some(token) = sequence.tokens.iter().find(|token| **token as usize >= self.vocab) {
            let vocab = self.vocab;
            return Err(refused(&format!("the tokenizer gives token {token}, the model has {vocab}")));
        }
        let before = sequence.targets();
        sequence.truncate(self.max_len.unwrap_or(usize::MAX));
        match (before, sequence.targets()) {
            (0, _) => Err(refused("there is nothing to learn in it")),
            (_, 0) => {
                let max_len = self.max_len.unwrap_or(usize::MAX);
                Err(refused(&format!("what is to be learnt begins after `max_length` = {max_len} tokens")))
            }
            _ => Ok(sequence),
        }
    }
}

fn refused(reason: &str) -> Error {
    Error::Example { reason: reason.to_owned() }
}

/// How many tokens two lists have in common from the start.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Documents end to end, cut into rows of `len` tokens; what is left over is a shorter row.
#[must_use]
pub fn wrapped(documents: &[Sequence], len: usize) -> Vec<Sequence> {
    let tokens: Vec<u32> = documents.iter().flat_map(|document| document.tokens.iter().copied()).collect();
    let rows = tokens.chunks(len.max(2)).filter(|row| row.len() > 1);
    rows.map(|row| Sequence::learned_from(1, row.to_vec())).collect()
}
