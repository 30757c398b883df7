//! The text side of a remote model: its tokenizer, from files on this machine or from the server.

use std::sync::Arc;

use serde_json::Value;
use wsd_core::{BosTokens, ChatTemplate, Specials, Template, TextCodec, Token};
use wsd_nn::{Checkpoint, TemplateChoice};

use super::{Failed, Greeting, PLAIN, Probe};
use crate::hub;
use crate::remote::RemoteError;
use crate::remote::dialect;
use crate::remote::fault::Fault;
use crate::remote::tokenizer::ServerTokenizer;

/// Texts on which tokenizers differ if they differ at all.
const TELLING: [&str; 12] = [
    PLAIN,
    " leading space",
    "two  spaces, a\ttab\n\nand lines\r\n",
    "It's 1234567.89 (or 10%), isn't it?",
    "Ünïcödé, naïve café",
    "e\u{301} and \u{e9}",
    "語言模型 говорит مرحبا",
    "👩\u{200d}👩\u{200d}👧 👍🏽",
    "fn main() { println!(\"{}\", x_1 + y); }",
    "AAAAAAAAAAAAAAAAAAAAAAAA",
    "https://example.org/a?b=c&d=%20",
    "<b>tags</b> [INST] ### End",
];

/// A model's text side, and what its files say beside it.
pub(super) struct Reading {
    pub(super) text: TextCodec,
    pub(super) end_tokens: Vec<Token>,
    pub(super) vocab: Option<usize>,
    pub(super) max_len: Option<usize>,
    pub(super) about: String,
}

impl Probe<'_> {
    /// The text side: from files on this machine, compared with the server's, or the server's alone.
    pub(super) async fn reading(&self, greeting: &Greeting) -> Result<Reading, Failed> {
        match self.local_reading(greeting)? {
            Some(reading) => {
                let about = self.compare_tokenizers(greeting, &reading.text).await?;
                Ok(Reading { about: format!("{}, {about}", reading.about), ..reading })
            }
            None => self.server_reading(greeting).await,
        }
    }

    fn local_reading(&self, greeting: &Greeting) -> Result<Option<Reading>, RemoteError> {
        let role = self.options.role;
        let names = match &self.options.tokenizer {
            Some(name) => vec![name.as_str()],
            None => greeting.source.iter().chain([&greeting.model]).map(String::as_str).collect(),
        };
        for name in names {
            let Some(path) = hub::text_files(name, &self.options.hub)? else { continue };
            let fault = |source| RemoteError::Tokenizer { name: name.to_owned(), role, source: Box::new(source) };
            let files = Checkpoint::open_text(&path).map_err(fault)?;
            let number = |key: &str| files.config.get(key).and_then(Value::as_u64).map(|number| number as usize);
            let (vocab, max_len) = (number("vocab_size"), number("max_position_embeddings"));
            let end_tokens = files.end_tokens.clone();
            let text = files.into_text(&greeting.model, &self.options.template).map_err(fault)?;
            let pieces = text.tokenizer().vocabulary().pieces.len();
            let vocab = Some(vocab.unwrap_or(0).max(pieces));
            let text = match greeting.max_len.or(max_len) {
                Some(max_len) => text.with_limit(max_len),
                None => text,
            };
            let about = format!("tokenizer from {}", path.display());
            return Ok(Some(Reading { text, end_tokens, vocab, max_len, about }));
        }
        match &self.options.tokenizer {
            Some(name) => Err(self.fault(
                "looking for its tokenizer",
                format!("there is no `tokenizer.json` in `{name}`, nor in the hub's cache under that name"),
            )),
            None => Ok(None),
        }
    }

    async fn server_reading(&self, greeting: &Greeting) -> Result<Reading, Failed> {
        let phase = "looking for its tokenizer";
        let hint = "hint: name a folder or a model in the hub's cache with --base-tokenizer or --draft-tokenizer";
        if greeting.dialect.facts().owner == Some("sglang") {
            let why = format!("SGLang ends at an id outside the vocabulary, whose size it does not tell\n  {hint}");
            return Err(self.fault(phase, why).into());
        }
        let Some(asked) = greeting.dialect.tokenize(&greeting.model, PLAIN, false) else {
            return Err(self.fault(phase, format!("{}\n  {hint}", RemoteError::NO_TOKENIZER)).into());
        };
        self.post(phase, &asked).await?;
        let tokenizer =
            ServerTokenizer::new(self.target.clone(), greeting.dialect, &greeting.model, &self.options.limits);
        let ask = |text: &str, whole: bool| {
            let ids = if whole { tokenizer.encode_whole(text) } else { wsd_core::Tokenizer::encode(&tokenizer, text) };
            ids.map_err(|error| self.fault(phase, error.to_string()))
        };
        let (whole, plain) = (ask("a", true)?, ask("a", false)?);
        let bos = whole.strip_suffix(plain.as_slice()).and_then(|first| first.first()).copied();
        let name = |key: &str| greeting.props[key].as_str().map(str::to_owned);
        let specials = Specials { bos: name("bos_token"), eos: name("eos_token"), pad: None, unk: None };
        let one = |text: &Option<String>| {
            text.as_ref().and_then(|text| match ask(text, false).as_deref() {
                Ok(&[token]) => Some(token),
                _ => None,
            })
        };
        let (end_tokens, chat_bos) = (one(&specials.eos).into_iter().collect(), one(&specials.bos).or(bos));
        let template = self.server_template(greeting, specials);
        let template = template.map_err(|error| self.fault(phase, error.to_string()))?;
        let bos = BosTokens { chat: chat_bos, raw: bos };
        let text = TextCodec::new(&greeting.model, Arc::new(tokenizer), template, bos);
        let about = "the server's own tokenizer, asked for every text: a local one (--base-tokenizer, --draft-tokenizer) is faster".into();
        Ok(Reading { text, end_tokens, vocab: None, max_len: None, about })
    }

    /// The template that the user chose, or the server's own where it shows it.
    fn server_template(&self, greeting: &Greeting, specials: Specials) -> wsd_core::Result<Option<Template>> {
        let (name, source) = match (&self.options.template, greeting.props["chat_template"].as_str()) {
            (TemplateChoice::Plain, _) => return Ok(Some(Template::Plain)),
            (TemplateChoice::Source { name, text }, _) => (name.as_str(), text.as_str()),
            (TemplateChoice::Own, Some(source)) => (greeting.model.as_str(), source),
            (TemplateChoice::Own, None) => return Ok(None),
        };
        ChatTemplate::parse(name, source, specials).map(|template| Some(Template::Jinja(Box::new(template))))
    }

    /// Both must give the same ids, or text would be scored that nobody wrote.
    async fn compare_tokenizers(&self, greeting: &Greeting, text: &TextCodec) -> Result<String, Failed> {
        let phase = "comparing its tokenizer with the local one";
        for sample in TELLING {
            let Some(post) = greeting.dialect.tokenize(&greeting.model, sample, false) else {
                return Ok("which cannot be compared with the server's".into());
            };
            let reply = match self.http.post(self.target, post.path, &post.body).await {
                Ok(reply) => reply,
                // Routers leave the path out.
                Err(Fault::Status { status: 401 | 403 | 404 | 405 | 501, .. }) => {
                    return Ok("which cannot be compared with the server's".into());
                }
                Err(fault) => return Err(self.failed(phase, &fault)),
            };
            let there = dialect::tokens(&reply).map_err(|why| self.fault(phase, why))?;
            let here = text.tokenizer().encode(sample).map_err(|error| self.fault(phase, error.to_string()))?;
            if here != there {
                let why = format!(
                    "{sample:?} is {here:?} here and {there:?} there\n  hint: --base-tokenizer and --draft-tokenizer name the right files"
                );
                return Err(self.fault(phase, why).into());
            }
        }
        Ok(format!("equal to the server's on {} texts", TELLING.len()))
    }
}
