//! Translates drafted tokens into the base's vocabulary.
//!
//! Models with one vocabulary exchange ids. Otherwise the draft crosses as text: the base's list is
//! always a prefix of the encoding of the prompt and the whole drafted text. A token that later
//! text could still change is held back until it is settled
//! ([`Tokenizer::settled`](crate::Tokenizer::settled)), so no token is retracted.

use crate::{Detokenizer, Rendered, Result, TextCodec, Token, common_prefix};

/// A change of the base's list: keep a prefix, then append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The length of the prefix to keep, in tokens. It is less than the prompt's length only in the
    /// first edit, where the prompt's last tokens may join with the first drafted text.
    pub keep: usize,
    /// Tokens to append.
    pub append: Vec<Token>,
}

/// A translation of one draft into one base's vocabulary, chunk by chunk.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{Pieces, Scripted};
/// use wsd_core::{Bridge, Engine as _, Prompt};
///
/// let letters = Scripted::random("draft", Arc::new(Pieces::letters("ab ")), 1);
/// let pieces = ["ab", "a", "b", " "].map(String::from);
/// let pairs = Scripted::random("base", Arc::new(Pieces::new(pieces)), 2);
/// let (draft, base) = (letters.codec(), pairs.codec());
///
/// let prompt = Prompt::Raw("b ".into());
/// let (draft_prompt, base_prompt) = (draft.render(&prompt)?, base.render(&prompt)?);
/// let mut bridge = Bridge::new(draft, base, &draft_prompt, &base_prompt);
/// let mut list = base_prompt.tokens.clone();
/// // "a" is held back, because the base may join it with the next letter.
/// for (drafted, is_last) in [("a", false), ("ba", true)] {
///     let edit = bridge.push(&draft.tokenizer().encode(drafted)?, is_last)?;
///     list.truncate(edit.keep);
///     list.extend(edit.append);
/// }
/// assert_eq!(list, base.encode_after(&base_prompt, "aba")?);
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Bridge<'a> {
    codecs: Codecs<'a>,
    /// The base's list: the prompt and all drafted tokens passed on so far.
    list: Vec<Token>,
    held: Held,
}

/// The tokenizers and templates of both models, and the base's prompt.
#[derive(Debug)]
struct Codecs<'a> {
    draft: &'a TextCodec,
    base: &'a TextCodec,
    prompt: &'a Rendered,
}

/// The part of the draft that is held back, for equal and for different vocabularies.
#[derive(Debug)]
enum Held {
    Ids(HeldIds),
    Text(HeldText),
}

/// State if the base has every id of the draft: ids are passed on.
#[derive(Debug, Default)]
struct HeldIds {
    /// White space at the end of the draft so far, held back until another token follows and dropped
    /// if none does.
    held: Vec<Token>,
    /// True once a token of the answer was passed on.
    has_begun: bool,
}

/// State for different vocabularies: text is decoded and encoded again.
#[derive(Debug)]
struct HeldText {
    detokenizer: Detokenizer,
    /// All text drafted so far.
    drafted: String,
    /// Length of the part of prompt and draft that the base's list spells, in bytes; 0 before the
    /// first edit.
    spelled: usize,
}

impl<'a> Bridge<'a> {
    /// A bridge from `draft` to `base`, with the prompt rendered for each of them.
    #[must_use]
    pub fn new(draft: &'a TextCodec, base: &'a TextCodec, draft_prompt: &Rendered, prompt: &'a Rendered) -> Self {
        let held = if Self::passes_ids(draft, base) {
            Held::Ids(HeldIds::default())
        } else {
            let detokenizer = draft.detokenizer(&draft_prompt.tokens);
            Held::Text(HeldText { detokenizer, drafted: String::new(), spelled: 0 })
        };
        Self { codecs: Codecs { draft, base, prompt }, list: prompt.tokens.clone(), held }
    }

    /// Tells whether every text token of the draft has the same id in the base's vocabulary.
    #[must_use]
    pub fn passes_ids(draft: &TextCodec, base: &TextCodec) -> bool {
        draft.tokenizer().vocabulary().is_within(base.tokenizer().vocabulary())
    }

    /// Returns the number of bytes of the prompt's text that its tokens from `keep` on spell. After
    /// an edit that joined the prompt's last tokens with the draft, those bytes are at the start of
    /// the new text.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn overlap(&self, keep: usize) -> Result<usize> {
        let Codecs { base, prompt, .. } = self.codecs;
        let Some(replaced) = prompt.tokens.get(keep..).filter(|replaced| !replaced.is_empty()) else { return Ok(0) };
        let mut detokenizer = base.detokenizer(&prompt.tokens[..keep]);
        let mut text = String::new();
        for &token in replaced {
            text.push_str(&detokenizer.push(token)?);
        }
        text.push_str(&detokenizer.flush()?);
        Ok(text.len())
    }

    /// Takes in tokens that the draft generated and returns the edit of the base's list; `is_last`
    /// marks the end of the draft.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`].
    pub fn push(&mut self, drafted: &[Token], is_last: bool) -> Result<Edit> {
        let edit = match &mut self.held {
            Held::Ids(held) => held.push(&self.codecs, &self.list, drafted)?,
            Held::Text(held) => {
                held.decode(drafted, is_last)?;
                held.encode(&self.codecs, &self.list, is_last)?
            }
        };
        self.list.truncate(edit.keep);
        self.list.extend(&edit.append);
        Ok(edit)
    }
}

impl HeldIds {
    /// Takes in drafted tokens and returns the edit of the base's `list`.
    fn push(&mut self, codecs: &Codecs<'_>, list: &[Token], drafted: &[Token]) -> Result<Edit> {
        let vocabulary = codecs.draft.tokenizer().vocabulary();
        self.held.extend(drafted.iter().filter(|&&token| vocabulary.is_text(token)));
        let mut ready = self.held.len();
        while codecs.prompt.strip_end && ready > 0 && is_blank(codecs.draft, self.held[ready - 1])? {
            ready -= 1;
        }
        let ready: Vec<_> = self.held.drain(..ready).collect();
        let is_first = !self.has_begun;
        self.has_begun |= !ready.is_empty();
        if codecs.prompt.strip_start && is_first {
            return first_ids(codecs.base, codecs.prompt, &ready);
        }
        Ok(Edit { keep: list.len(), append: ready })
    }
}

impl HeldText {
    /// Takes in drafted tokens as text.
    fn decode(&mut self, drafted: &[Token], is_last: bool) -> Result<()> {
        for &token in drafted {
            self.drafted.push_str(&self.detokenizer.push(token)?);
        }
        if is_last {
            // An incomplete character at the end is dropped.
            self.drafted.push_str(self.detokenizer.flush()?.trim_end_matches('\u{FFFD}'));
        }
        Ok(())
    }

    /// Encodes the part of the text that is settled and returns the edit of the base's `list`.
    fn encode(&mut self, codecs: &Codecs<'_>, list: &[Token], is_last: bool) -> Result<Edit> {
        let prompt = codecs.prompt;
        let answer = if prompt.strip_start { self.drafted.trim_start() } else { &self.drafted };
        // White space at the end is held back until something follows it.
        let answer = if prompt.strip_end { answer.trim_end() } else { answer };
        let text = format!("{}{answer}", prompt.text);
        let tokenizer = codecs.base.tokenizer();
        let end = if is_last { text.len() } else { tokenizer.settled(&text) };
        if answer.is_empty() || end <= prompt.text.len().max(self.spelled) {
            return Ok(Edit { keep: list.len(), append: Vec::new() });
        }
        let tokens = codecs.base.encode_after(prompt, &text[prompt.text.len()..end])?;
        let common = common_prefix(list, &tokens);
        let edit = if self.spelled == 0 || common == list.len() {
            Edit { keep: common, append: tokens[common..].to_vec() }
        } else {
            // The encoding of text that was settled changed, against the contract of `settled`. The
            // tokens already passed on are kept, and the remaining text is encoded separately.
            Edit { keep: list.len(), append: tokenizer.encode(&text[self.spelled..end])? }
        };
        self.spelled = end;
        Ok(edit)
    }
}

/// Tells whether a token is white space only.
fn is_blank(codec: &TextCodec, token: Token) -> Result<bool> {
    Ok(codec.tokenizer().decode(&[token])?.trim().is_empty())
}

/// Returns the first edit after a prompt, without the white space before the answer. A first token
/// that begins with white space is re-encoded without it.
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
        let tokens = base.encode_after(prompt, text.trim_start())?;
        let keep = common_prefix(&prompt.tokens, &tokens);
        return Ok(Edit { keep, append: [&tokens[keep..], rest].concat() });
    }
    Ok(Edit { keep, append: ids.to_vec() })
}
