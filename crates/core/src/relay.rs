//! The answer so far, in the vocabularies of two models that write it by turns.
//!
//! The base's list is the answer. The draft's list follows it: as ids where the draft has all of the
//! base's text tokens and the base those of the draft, else as text, encoded anew. A list keeps the
//! prefix that it has in common with what it held before, and with it the engine's cache.

use crate::steps::{check_vocabularies, render};
use crate::{
    Answer, Bridge, Detokenizer, Engine, Flow, Generation, Guide, Job, Rendered, Result, Sampled, Seat, Session, Stop,
    Terms, TextCodec, Token, TokenRecord, common_prefix,
};

/// One of the two models.
pub(crate) struct Side<'a> {
    pub(crate) engine: &'a dyn Engine,
    pub(crate) session: Box<dyn Session>,
    pub(crate) prompt: Rendered,
}

impl<'a> Side<'a> {
    /// Opens a session that holds the prompt.
    pub(crate) async fn open(engine: &'a dyn Engine, job: &Job) -> Result<Self> {
        let prompt = render(engine, job)?;
        Ok(Self { engine, session: engine.open(&prompt.tokens).await?, prompt })
    }

    /// Number of tokens for which the context has space.
    pub(crate) fn space(&self) -> usize {
        self.engine.card().max_len.saturating_sub(self.session.tokens().len())
    }

    /// The prompt and `answer` after it.
    fn encode(&self, answer: &str) -> Result<Vec<Token>> {
        let codec = self.engine.codec();
        if self.prompt.text.is_empty() {
            return Ok([&self.prompt.tokens[..], &codec.tokenizer().encode(answer)?].concat());
        }
        codec.encode_after(&self.prompt, answer)
    }
}

/// The form in which the answer passes between the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// Ids where the vocabularies allow it.
    Ids,
    /// Text in any case.
    Text,
}

/// Two models that write one answer by turns.
pub(crate) struct Relay<'a> {
    pub(crate) base: Side<'a>,
    pub(crate) draft: Side<'a>,
    by_ids: bool,
    /// The answer so far.
    text: String,
    /// The decoder of the base's tokens, behind the text.
    detokenizer: Detokenizer,
}

impl<'a> Relay<'a> {
    /// Begins an answer: renders the prompt, opens the sessions, and prepares `answer`.
    pub(crate) async fn begin(
        (draft, base): (&'a dyn Engine, &'a dyn Engine),
        exchange: Exchange,
        job: &Job,
        answer: &mut Answer,
    ) -> Result<Self> {
        check_vocabularies(&job.prompt, draft.codec(), base.codec())?;
        // The base's prompt is the first to be refused.
        let prompt = render(base, job)?;
        let draft = Side::open(draft, job).await?;
        let base = Side { engine: base, session: base.open(&prompt.tokens).await?, prompt };
        answer.prompt(base.prompt.tokens.len()).await;
        answer.begin(base.engine.codec(), &base.prompt.tokens, 0);
        let by_ids = exchange == Exchange::Ids && pass_ids(&draft, &base);
        let detokenizer = base.engine.codec().detokenizer(&base.prompt.tokens);
        Ok(Self { base, draft, by_ids, text: String::new(), detokenizer })
    }

    /// Goes on with an answer that the base's list holds behind its prompt, whose last tokens may have
    /// joined with the answer.
    pub(crate) fn resume(draft: Side<'a>, base: Side<'a>) -> Result<Self> {
        let (list, prompt) = (base.session.tokens(), &base.prompt.tokens);
        let keep = common_prefix(list, prompt);
        let codec = base.engine.codec();
        let mut detokenizer = codec.detokenizer(&list[..keep]);
        let text = spell(&mut detokenizer, &list[keep..])?;
        let joined = spell(&mut codec.detokenizer(&list[..keep]), &prompt[keep..])?.len();
        let by_ids = keep == prompt.len() && pass_ids(&draft, &base);
        Ok(Self { text: text.get(joined..).unwrap_or_default().to_owned(), by_ids, base, draft, detokenizer })
    }

    /// True if ids pass between the models, so that both lists hold the same answer.
    pub(crate) fn passes_ids(&self) -> bool {
        self.by_ids
    }

    /// A decoder of the base's tokens, behind the answer.
    pub(crate) fn detokenizer(&self) -> Detokenizer {
        self.detokenizer.clone()
    }

    /// Puts the answer so far into the draft's list. Returns the number of tokens that are new to it.
    pub(crate) fn follow(&mut self) -> Result<usize> {
        let known = if self.by_ids {
            let answer = &self.base.session.tokens()[self.base.prompt.tokens.len()..];
            [&self.draft.prompt.tokens[..], answer].concat()
        } else {
            self.draft.encode(&self.text)?
        };
        let common = common_prefix(self.draft.session.tokens(), &known);
        self.draft.session.truncate(common);
        self.draft.session.append(&known[common..]);
        Ok(known.len() - common)
    }

    /// The generation of at most `max_tokens` tokens by the draft, without alternatives.
    pub(crate) fn drafting(&self, terms: &Terms, max_tokens: usize) -> Generation {
        let sampling = terms.sampling.for_seat(Seat::DRAFT, self.draft.prompt.tokens.len());
        Generation { max_tokens, sampling, top_logprobs: 0, guide: None }
    }

    /// The constraint on what the draft writes behind the text of the answer.
    pub(crate) fn draft_guide(&self, terms: &Terms) -> Result<Option<Guide>> {
        terms.guide(self.draft.engine, self.text.as_bytes(), self.draft.session.tokens().len())
    }

    /// Decodes what the draft wrote after the answer, without the white space that belongs to the prompt's
    /// form.
    pub(crate) fn spell(&self, drafted: &[Token], stop: Stop) -> Result<String> {
        // Without the tokens before them, some tokenizers drop the space that words begin with.
        let list = self.draft.session.tokens();
        let context = list.strip_suffix(drafted).unwrap_or(list);
        let text = spell(&mut self.draft.engine.codec().detokenizer(context), drafted)?;
        let text = text.as_str();
        let prompt = &self.base.prompt;
        let text = if prompt.strip_start && self.text.is_empty() { text.trim_start() } else { text };
        Ok(if prompt.strip_end && stop == Stop::End { text.trim_end() } else { text }.to_owned())
    }

    /// The base's tokens for what the draft wrote after the answer: its ids, or the encoding of its text.
    pub(crate) fn base_tokens(&self, drafted: &[Token], stop: Stop) -> Result<Vec<Token>> {
        let text = self.spell(drafted, stop)?;
        let vocabulary = self.draft.engine.codec().tokenizer().vocabulary();
        let ids: Vec<_> = drafted.iter().copied().filter(|&token| vocabulary.is_text(token)).collect();
        if self.by_ids && spell(&mut self.detokenizer(), &ids)? == text {
            return Ok(ids);
        }
        self.encode(&text)
    }

    /// Encodes `text` for the base as a continuation of the answer so far: as part of the whole, where that
    /// leaves the earlier tokens unchanged.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<Token>> {
        let before = self.base.encode(&self.text)?;
        let whole = self.base.encode(&format!("{}{text}", self.text))?;
        match whole.strip_prefix(&before[..]) {
            Some(tokens) => Ok(tokens.to_vec()),
            None => self.base.engine.codec().tokenizer().encode(text),
        }
    }

    /// Takes note of a token that is in the base's list and in the answer.
    pub(crate) fn note(&mut self, token: Token) -> Result<()> {
        self.text.push_str(&self.detokenizer.push(token)?);
        Ok(())
    }

    /// Writes a token that is in the base's list into the answer, with at most `top` alternatives.
    pub(crate) async fn push(&mut self, record: TokenRecord, top: usize, answer: &mut Answer) -> Result<Flow> {
        self.note(record.id)?;
        let mut record = record;
        record.top.truncate(top);
        answer.token(record).await
    }

    /// Writes a token without a window, as [`Relay::push`] does.
    pub(crate) async fn write(&mut self, sampled: Sampled, by: Seat, top: usize, answer: &mut Answer) -> Result<Flow> {
        self.push(TokenRecord::new(sampled, by), top, answer).await
    }
}

/// Tells whether each model has the other's text tokens.
fn pass_ids(draft: &Side<'_>, base: &Side<'_>) -> bool {
    let passes = |from: &TextCodec, to: &TextCodec| Bridge::passes_ids(from, to);
    let (draft, base) = (draft.engine.codec(), base.engine.codec());
    passes(draft, base) && passes(base, draft)
}

/// Decodes tokens and what is incomplete behind them.
fn spell(detokenizer: &mut Detokenizer, tokens: &[Token]) -> Result<String> {
    let mut text = String::new();
    for &token in tokens {
        text.push_str(&detokenizer.push(token)?);
    }
    Ok(text)
}
