//! Carries what the draft writes into the base's vocabulary.
//!
//! Equal vocabularies pass ids. Otherwise the draft crosses as text: at every moment the base's list is the beginning of what
//! encoding the prompt and the whole drafted text at once gives. A token that later text could still change is held back
//! until it is settled ([`Tokenizer::settled`](crate::Tokenizer::settled)), so nothing is ever taken back.

use crate::{Detokenizer, Rendered, Result, TextCodec, Token, common_prefix};

/// How the base's list changes: keep the first `keep` tokens, then append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Tokens to keep. Less than the prompt's length only in the first edit, where the prompt's last tokens may join with
    /// the first drafted text.
    pub keep: usize,
    /// Tokens to append.
    pub append: Vec<Token>,
}

/// The way from one draft to one base.
#[derive(Debug)]
pub struct Bridge<'a> {
    draft: &'a TextCodec,
    base: &'a TextCodec,
    prompt: &'a Rendered,
    /// What the base's list holds: the prompt and all drafted tokens handed over.
    list: Vec<Token>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Ids pass; white space at the end waits until something follows it.
    Ids { waiting: Vec<Token>, begun: bool },
    /// Text passes: all drafted so far, and how many bytes of prompt and draft the list spells.
    Text { detokenizer: Detokenizer, drafted: String, spelled: usize },
}

impl<'a> Bridge<'a> {
    /// A bridge between prompts rendered for either model.
    #[must_use]
    pub fn new(draft: &'a TextCodec, base: &'a TextCodec, draft_prompt: &Rendered, prompt: &'a Rendered) -> Self {
        let way = if Self::passes_ids(draft, base) {
            Way::Ids { waiting: Vec::new(), begun: false }
        } else {
            Way::Text { detokenizer: draft.detokenizer(&draft_prompt.tokens), drafted: String::new(), spelled: 0 }
        };
        Self { draft, base, prompt, list: prompt.tokens.clone(), way }
    }

    /// Whether ids mean the same to both models.
    #[must_use]
    pub fn passes_ids(draft: &TextCodec, base: &TextCodec) -> bool {
        draft.tokenizer().vocabulary().is_within(base.tokenizer().vocabulary())
    }

    /// Bytes of the prompt's text that the tokens from `keep` on still spell, where the seam has moved.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn overlap(&self, keep: usize) -> Result<usize> {
        let Some(moved) = self.prompt.tokens.get(keep..).filter(|moved| !moved.is_empty()) else { return Ok(0) };
        let mut detokenizer = self.base.detokenizer(&self.prompt.tokens[..keep]);
        let mut text = String::new();
        for &token in moved {
            text.push_str(&detokenizer.push(token)?);
        }
        text.push_str(&detokenizer.flush()?);
        Ok(text.len())
    }

    /// Take in tokens the draft wrote; with `done` they are its last.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn push(&mut self, drafted: &[Token], done: bool) -> Result<Edit> {
        let edit = match &mut self.way {
            Way::Ids { waiting, begun } => {
                let vocabulary = self.draft.tokenizer().vocabulary();
                waiting.extend(drafted.iter().filter(|&&token| vocabulary.is_text(token)));
                let mut ready = waiting.len();
                while self.prompt.strip_end && ready > 0 && is_blank(self.draft, waiting[ready - 1])? {
                    ready -= 1;
                }
                let ready: Vec<_> = waiting.drain(..ready).collect();
                match self.prompt.strip_start && !std::mem::replace(begun, *begun || !ready.is_empty()) {
                    true => first_ids(self.base, self.prompt, &ready)?,
                    false => Edit { keep: self.list.len(), append: ready },
                }
            }
            Way::Text { detokenizer, drafted: text, spelled } => {
                for &token in drafted {
                    text.push_str(&detokenizer.push(token)?);
                }
                if done {
                    // Half a character is not text: the base writes its own.
                    text.push_str(detokenizer.flush()?.trim_end_matches('\u{FFFD}'));
                }
                let answer = if self.prompt.strip_start { text.trim_start() } else { text };
                // White space at the end waits until something follows it.
                let answer = if self.prompt.strip_end { answer.trim_end() } else { answer };
                let whole = format!("{}{answer}", self.prompt.text);
                let upto = if done { whole.len() } else { self.base.tokenizer().settled(&whole) };
                if answer.is_empty() || upto <= self.prompt.text.len().max(*spelled) {
                    return Ok(Edit { keep: self.list.len(), append: Vec::new() });
                }
                let answer = &whole[self.prompt.text.len()..upto];
                let want = self.base.encode_after(self.prompt, answer)?;
                let common = common_prefix(&self.list, &want);
                let first = *spelled == 0;
                let edit = if first || common == self.list.len() {
                    Edit { keep: common, append: want[common..].to_vec() }
                } else {
                    // A tokenizer that broke its promise: what is handed over stays, the rest is spelled after it.
                    let rest = &whole[*spelled..upto];
                    Edit { keep: self.list.len(), append: self.base.tokenizer().encode(rest)? }
                };
                *spelled = upto;
                edit
            }
        };
        self.list.truncate(edit.keep);
        self.list.extend(&edit.append);
        Ok(edit)
    }
}

fn is_blank(text: &TextCodec, token: Token) -> Result<bool> {
    Ok(text.tokenizer().decode(&[token])?.trim().is_empty())
}

/// The first ids after a prompt, less the white space before the answer; it may be a part of a token, which is then spelled
/// anew.
fn first_ids(base: &TextCodec, prompt: &Rendered, ids: &[Token]) -> Result<Edit> {
    let (mut ids, keep) = (ids, prompt.tokens.len());
    while let [first, rest @ ..] = ids {
        if is_blank(base, *first)? {
            ids = rest;
            continue;
        }
        let text = base.detokenizer(&prompt.tokens).push(*first)?;
        if !text.starts_with(char::is_whitespace) {
            break;
        }
        let want = base.encode_after(prompt, text.trim_start())?;
        let keep = common_prefix(&prompt.tokens, &want);
        return Ok(Edit { keep, append: [&want[keep..], rest].concat() });
    }
    Ok(Edit { keep, append: ids.to_vec() })
}
