//! The tokenizer and template of a remote model: from files on this machine, or from the server.

use std::sync::Arc;

use serde_json::Value;
use wsd_core::{BosTokens, ChatTemplate, Specials, Template, TextCodec, Token, Tokenizer as _};
use wsd_nn::{Checkpoint, TemplateChoice};

use super::{Failed, PLAIN, Probe, ServerInfo};
use crate::hub;
use crate::remote::dialect;
use crate::remote::error::RemoteError;
use crate::remote::fault::Fault;
use crate::remote::tokenizer::ServerTokenizer;

/// Texts that are likely to expose a difference between two tokenizers.
const COMPARED: [&str; 12] = [
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

/// A codec, with the limits that its files state.
pub(super) struct FoundCodec {
    pub(super) codec: TextCodec,
    pub(super) end_tokens: Vec<Token>,
    /// Entries in the vocabulary.
    pub(super) vocab: Option<usize>,
    /// Context length, in tokens.
    pub(super) max_len: Option<usize>,
    /// Its origin, in words for the user.
    pub(super) about: String,
}

impl Probe<'_> {
    /// Finds the codec: files on this machine, compared with the server's tokenizer, or the
    /// server's own.
    pub(super) async fn codec(&self, server: &ServerInfo) -> Result<FoundCodec, Failed> {
        match self.local_codec(server)? {
            Some(found) => {
                let about = self.compare_tokenizers(server, &found.codec).await?;
                Ok(FoundCodec { about: format!("{}, {about}", found.about), ..found })
            }
            None => self.server_codec(server).await,
        }
    }

    fn local_codec(&self, server: &ServerInfo) -> Result<Option<FoundCodec>, RemoteError> {
        let seat = self.options.seat;
        let names = match &self.options.tokenizer {
            Some(name) => vec![name.as_str()],
            None => server.source.iter().chain([&server.model]).map(String::as_str).collect(),
        };
        for name in names {
            let Some(path) = hub::text_files(name, &self.options.hub)? else { continue };
            let fault = |source| RemoteError::Tokenizer { name: name.to_owned(), seat, source: Box::new(source) };
            let files = Checkpoint::open_text(&path).map_err(fault)?;
            let number = |key: &str| files.config.get(key).and_then(Value::as_u64).map(|number| number as usize);
            let (vocab, max_len) = (number("vocab_size"), number("max_position_embeddings"));
            let end_tokens = files.end_tokens.clone();
            let codec = files.into_codec(&server.model, &self.options.template).map_err(fault)?;
            let codec = codec.with_variables(&self.options.template_variables);
            let pieces = codec.tokenizer().vocabulary().pieces.len();
            let vocab = Some(vocab.unwrap_or(0).max(pieces));
            let codec = match server.max_len.or(max_len) {
                Some(max_len) => codec.with_limit(max_len),
                None => codec,
            };
            let about = format!("tokenizer from {}", path.display());
            return Ok(Some(FoundCodec { codec, end_tokens, vocab, max_len, about }));
        }
        match &self.options.tokenizer {
            Some(name) => Err(self.fault(
                "looking for its tokenizer",
                format!("there is no `tokenizer.json` in `{name}`, nor in the hub's cache under that name"),
            )),
            None => Ok(None),
        }
    }

    async fn server_codec(&self, server: &ServerInfo) -> Result<FoundCodec, Failed> {
        let phase = "looking for its tokenizer";
        let hint = "hint: name a folder or a model in the hub's cache with --base-tokenizer or --draft-tokenizer";
        let facts = server.dialect.facts();
        if facts.exits_at_unknown_ids {
            let name = facts.name;
            let why = format!("{name} exits at an id outside the vocabulary, and does not report its size\n  {hint}");
            return Err(self.fault(phase, why).into());
        }
        let Some(post) = server.dialect.tokenize(&server.model, PLAIN, false) else {
            return Err(self.fault(phase, format!("{}\n  {hint}", RemoteError::NO_TOKENIZER)).into());
        };
        self.post(phase, &post).await?;
        let limits = &self.options.limits;
        let tokenizer = ServerTokenizer::open(self.target.clone(), server.dialect, &server.model, limits)?;
        let fault = |error: wsd_core::Error| self.fault(phase, error.to_string());
        let encode = |text: &str| tokenizer.encode(text).map_err(fault);
        let (whole, plain) = (tokenizer.encode_whole("a").map_err(fault)?, encode("a")?);
        let bos = whole.strip_suffix(plain.as_slice()).and_then(|first| first.first()).copied();
        let name = |key: &str| server.properties[key].as_str().map(str::to_owned);
        let specials = Specials { bos: name("bos_token"), eos: name("eos_token"), pad: None, unk: None };
        let id = |text: &Option<String>| match encode(text.as_deref()?).as_deref() {
            Ok(&[token]) => Some(token),
            _ => None,
        };
        let (eos, chat_bos) = (id(&specials.eos), id(&specials.bos).or(bos));
        let template = self.server_template(server, specials).map_err(fault)?;
        let bos = BosTokens { chat: chat_bos, raw: bos };
        let codec = TextCodec::new(&server.model, Arc::new(tokenizer), template, bos).with_eos(eos);
        let codec = codec.with_variables(&self.options.template_variables);
        let end_tokens = eos.into_iter().collect();
        let about = "the server's own tokenizer, one request per text: local files (--base-tokenizer, \
                     --draft-tokenizer) are faster";
        let about = about.into();
        Ok(FoundCodec { codec, end_tokens, vocab: None, max_len: None, about })
    }

    /// The template that the user chose, or the server's own where it publishes it.
    fn server_template(&self, server: &ServerInfo, specials: Specials) -> wsd_core::Result<Option<Template>> {
        let (name, source) = match (&self.options.template, server.properties["chat_template"].as_str()) {
            (TemplateChoice::Plain, _) => return Ok(Some(Template::Plain)),
            (TemplateChoice::Source { name, text }, _) => (name.as_str(), text.as_str()),
            (TemplateChoice::Own, Some(source)) => (server.model.as_str(), source),
            (TemplateChoice::Own, None) => return Ok(None),
        };
        ChatTemplate::parse(name, source, specials).map(|template| Some(Template::Jinja(Box::new(template))))
    }

    /// Checks that both tokenizers return the same ids; otherwise the server would score another
    /// text than the one written. Returns the result in words for the user.
    async fn compare_tokenizers(&self, server: &ServerInfo, codec: &TextCodec) -> Result<String, Failed> {
        let phase = "comparing its tokenizer with the local one";
        for sample in COMPARED {
            let Some(post) = server.dialect.tokenize(&server.model, sample, false) else {
                return Ok("which cannot be compared with the server's".into());
            };
            let reply = match self.http.post(self.target, post.path, &post.body).await {
                Ok(reply) => reply,
                // Routers do not forward this path.
                Err(Fault::Status { status: 401 | 403 | 404 | 405 | 501, .. }) => {
                    return Ok("which cannot be compared with the server's".into());
                }
                Err(fault) => return Err(self.failed(phase, &fault)),
            };
            let there = dialect::tokens(&reply).map_err(|why| self.fault(phase, why))?;
            let here = codec.tokenizer().encode(sample).map_err(|error| self.fault(phase, error.to_string()))?;
            if here != there {
                let why = format!(
                    "{sample:?} is {here:?} here and {there:?} there\n  \
                     hint: --base-tokenizer and --draft-tokenizer name the right files"
                );
                return Err(self.fault(phase, why).into());
            }
        }
        Ok(format!("equal to the server's on {} texts", COMPARED.len()))
    }
}
