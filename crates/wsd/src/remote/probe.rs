//! Finding out what a server can do, by trying it once at the start.

use std::sync::Arc;

use serde_json::Value;
use wsd_core::{Caps, Card, ChatTemplate, Habits, Sampled, Sampling, Specials, Template, Text, Token};
use wsd_nn::{Checkpoint, TemplateChoice};

use super::dialect::{self, DIALECTS, Dialect, Piece, Post, ScoreAsk, Way, WriteAsk};
use super::fault::Fault;
use super::http::{Http, Target};
use super::tokenizer::ServerTokenizer;
use super::{Address, RemoteError, RemoteOptions};
use crate::hub;

/// A text of which every model knows the words.
const PLAIN: &str = "The answer to the question is that a fox is red.";
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
/// Two scores of one token, or a score and what the server itself said when it wrote it, may be this far apart.
const TOLERANCE: f64 = 0.05;
/// What is assumed of a context that nobody tells the length of.
const UNKNOWN_MAX_LEN: usize = 4096;

/// What is known of a model after the probe.
pub(super) struct Found {
    pub(super) card: Card,
    pub(super) text: Text,
    pub(super) model: String,
    pub(super) dialect: &'static dyn Dialect,
    pub(super) way: Option<Way>,
    /// Lines for the user.
    pub(super) notes: Vec<String>,
}

/// Probe from code that is not async: connections belong to a runtime, and this one's end with it.
pub(super) fn on_a_thread_of_its_own(options: &RemoteOptions, targets: &[Target]) -> Result<Found, RemoteError> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| RemoteError::Tls(error.to_string()))?;
        runtime.block_on(all(options, targets))
    };
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(RemoteError::Tls("the probe ended unexpectedly".into())))
    })
}

/// Probe every replica. One that cannot be reached may come later; one that is another model may not.
async fn all(options: &RemoteOptions, targets: &[Target]) -> Result<Found, RemoteError> {
    let http = Http::new(options.limits)?;
    let (mut found, mut unreached) = (None::<Found>, None);
    let mut notes = Vec::new();
    for (address, target) in options.addresses.iter().zip(targets) {
        let probe = Probe { http: &http, target, address, options };
        match probe.run().await {
            Ok(mut one) => {
                notes.append(&mut one.notes);
                if let Some(first) = &mut found {
                    probe.compare(first, &one)?;
                    first.card.max_len = first.card.max_len.min(one.card.max_len);
                }
                found.get_or_insert(one);
            }
            Err(Failed { error, passing: true }) => {
                notes.push(format!("{error}; its replicas go on without it"));
                unreached = Some(error);
            }
            Err(Failed { error, .. }) => return Err(error),
        }
    }
    match (found, unreached) {
        (Some(found), _) => Ok(Found { notes, ..found }),
        (None, Some(error)) => Err(error),
        (None, None) => {
            let why = "no address is given".into();
            Err(RemoteError::Address { address: String::new(), why })
        }
    }
}

/// Why a probe failed, and whether the server may come to itself.
struct Failed {
    error: RemoteError,
    passing: bool,
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        Self { error, passing: false }
    }
}

/// What the list of models says.
struct Greeting {
    dialect: &'static dyn Dialect,
    model: String,
    /// Where the server has the model from.
    source: Option<String>,
    max_len: Option<usize>,
    vocab: Option<usize>,
    /// llama-server's properties.
    props: Value,
}

/// A model's text side, and what its files say beside it.
struct Reading {
    text: Text,
    end_tokens: Vec<Token>,
    vocab: Option<usize>,
    max_len: Option<usize>,
    about: String,
}

struct Probe<'a> {
    http: &'a Http,
    target: &'a Target,
    address: &'a Address,
    options: &'a RemoteOptions,
}

impl Probe<'_> {
    async fn run(&self) -> Result<Found, Failed> {
        let greeting = self.greet().await?;
        let reading = self.reading(&greeting).await?;
        let sample = self.sample(&reading)?;
        let max_len = greeting.max_len.or(reading.max_len);
        let (dialect, model) = (greeting.dialect, greeting.model.clone());
        let vocab = reading.vocab.or(greeting.vocab).unwrap_or(usize::MAX);
        let written = self.try_writing(&greeting, &reading, &sample).await?;
        let (way, reason) = self.try_scoring(&greeting, &reading, &sample, &written).await?;
        if self.options.must_score && way.is_none() {
            return Err(self.fault("trying to score", reason).into());
        }
        let scores = match way {
            Some(Way::Prompt) if dialect.rereads(Way::Prompt) => "it scores, reading everything anew at each call",
            Some(Way::Prompt | Way::Rows) => "it scores from its cache",
            Some(Way::Forced { .. }) => "it scores one token per call, exactly, by teacher forcing",
            None => "it does not score",
        };
        let context = max_len.map_or_else(|| format!("a context that it does not tell, taken for {UNKNOWN_MAX_LEN}"), |len| format!("{len} tokens of context"));
        let note = format!(
            "{} at {}: {}, model `{model}`, {context}; {scores}; {}",
            self.options.role, self.target.root, dialect.name(), reading.about
        );
        let card = Card {
            name: model.rsplit(['/', '\\']).next().unwrap_or(&model).to_owned(),
            max_len: max_len.unwrap_or(UNKNOWN_MAX_LEN),
            vocab,
            caps: Caps { score: way.is_some(), logits: false },
            habits: Habits { elsewhere: true, rereads: way.is_some_and(|way| dialect.rereads(way)) },
            end_tokens: reading.end_tokens,
        };
        Ok(Found { card, text: reading.text, model, dialect, way, notes: vec![note] })
    }

    /// Replicas are one model.
    fn compare(&self, first: &Found, other: &Found) -> Result<(), RemoteError> {
        let unlike = if first.dialect.scheme() != other.dialect.scheme() {
            Some(("engine", first.dialect.name().to_owned(), other.dialect.name().to_owned()))
        } else if first.model != other.model {
            Some(("model", first.model.clone(), other.model.clone()))
        } else if first.way != other.way {
            Some(("way to score", format!("{:?}", first.way), format!("{:?}", other.way)))
        } else {
            None
        };
        match unlike {
            Some((what, a, b)) => Err(self.fault("comparing it with its replicas", format!("another {what}: `{b}`, not `{a}`"))),
            None => Ok(()),
        }
    }

    fn fault(&self, phase: &'static str, why: String) -> RemoteError {
        RemoteError::Probe { role: self.options.role, address: self.address.to_string(), phase, why }
    }

    fn failed(&self, phase: &'static str, fault: &Fault) -> Failed {
        let hint = match fault {
            Fault::Status { status: 401 | 403, .. } => "\n  hint: name the environment variable that holds its key",
            Fault::Connect(_) => "\n  hint: is it running, and is this its port?",
            _ => "",
        };
        Failed { error: self.fault(phase, format!("{fault}{hint}")), passing: fault.is_passing() }
    }

    async fn post(&self, phase: &'static str, post: &Post) -> Result<Value, Failed> {
        self.http.post(self.target, post.path, &post.body).await.map_err(|fault| self.failed(phase, &fault))
    }

    /// Which engine it is, and which model.
    async fn greet(&self) -> Result<Greeting, Failed> {
        let phase = "asking for its models";
        let list = self.http.get(self.target, "/v1/models").await.map_err(|fault| self.failed(phase, &fault))?;
        let models = list["data"].as_array().map_or(&[][..], Vec::as_slice);
        let ids: Vec<_> = models.iter().filter_map(|model| model["id"].as_str()).collect();
        let owner = models.first().and_then(|model| model["owned_by"].as_str());
        let by_owner = DIALECTS.iter().find(|dialect| dialect.owner().is_some() && dialect.owner() == owner);
        let generic = DIALECTS.iter().find(|dialect| dialect.owner().is_none());
        let dialect = self.address.dialect.or(by_owner.copied()).or(generic.copied());
        let dialect = dialect.ok_or_else(|| self.fault(phase, "no engine is known".into()))?;
        let llama = dialect.owner() == Some("llamacpp");
        let index = match &self.address.model {
            None if ids.len() == 1 => 0,
            None => return Err(self.fault(phase, format!("it has {} models\n  hint: name one in the address: {}", ids.len(), ids.join(", "))).into()),
            // llama-server has one model, and knows it by the path of its file.
            Some(_) if llama && ids.len() == 1 => 0,
            Some(name) => match ids.iter().position(|id| id == name) {
                Some(index) => index,
                None => return Err(self.fault(phase, format!("it has no model `{name}`\n  hint: it has {}", ids.join(", "))).into()),
            },
        };
        let entry = &models[index];
        let props = if llama { self.http.get(self.target, "/props").await.unwrap_or_default() } else { Value::Null };
        let number = |value: &Value| value.as_u64().map(|number| number as usize).filter(|&number| number > 0);
        Ok(Greeting {
            dialect,
            model: ids[index].to_owned(),
            source: entry["root"].as_str().map(str::to_owned),
            max_len: number(&entry["max_model_len"]).or_else(|| number(&props["default_generation_settings"]["n_ctx"])).or_else(|| number(&entry["meta"]["n_ctx"])),
            vocab: number(&entry["meta"]["n_vocab"]),
            props,
        })
    }

    /// The text side: from files on this machine, compared with the server's, or the server's alone.
    async fn reading(&self, greeting: &Greeting) -> Result<Reading, Failed> {
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
            let fault = |source| RemoteError::Tokenizer { name: name.to_owned(), role, source };
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
            Some(name) => Err(self.fault("looking for its tokenizer", format!("there is no `tokenizer.json` in `{name}`, nor in the hub's cache under that name"))),
            None => Ok(None),
        }
    }

    async fn server_reading(&self, greeting: &Greeting) -> Result<Reading, Failed> {
        let phase = "looking for its tokenizer";
        let hint = "hint: name a folder or a model in the hub's cache with --base-tokenizer or --draft-tokenizer";
        if greeting.dialect.owner() == Some("sglang") {
            let why = format!("SGLang ends at an id outside the vocabulary, whose size it does not tell\n  {hint}");
            return Err(self.fault(phase, why).into());
        }
        let Some(asked) = greeting.dialect.tokenize(&greeting.model, PLAIN, false) else {
            return Err(self.fault(phase, format!("{}\n  {hint}", RemoteError::NO_TOKENIZER)).into());
        };
        self.post(phase, &asked).await?;
        let tokenizer = ServerTokenizer::new(self.target.clone(), greeting.dialect, &greeting.model, &self.options.limits);
        let ask = |text: &str, whole: bool| {
            let ids = if whole { tokenizer.encode_whole(text) } else { wsd_core::Tokenizer::encode(&tokenizer, text) };
            ids.map_err(|error| self.fault(phase, error.to_string()))
        };
        let (whole, plain) = (ask("a", true)?, ask("a", false)?);
        let bos = whole.strip_suffix(plain.as_slice()).and_then(|first| first.first()).copied();
        let name = |key: &str| greeting.props[key].as_str().map(str::to_owned);
        let specials = Specials { bos: name("bos_token"), eos: name("eos_token"), pad: None, unk: None };
        let one = |text: &Option<String>| text.as_ref().and_then(|text| match ask(text, false).as_deref() {
            Ok(&[token]) => Some(token),
            _ => None,
        });
        let (end_tokens, chat_bos) = (one(&specials.eos).into_iter().collect(), one(&specials.bos).or(bos));
        let parse = |name: &str, source: &str| ChatTemplate::parse(name, source, specials.clone()).map(|template| Template::Jinja(Box::new(template)));
        let template = match (&self.options.template, greeting.props["chat_template"].as_str()) {
            (TemplateChoice::Plain, _) => Some(Template::Plain),
            (TemplateChoice::Source { name, text }, _) => Some(parse(name, text).map_err(|error| self.fault(phase, error.to_string()))?),
            (TemplateChoice::Own, Some(source)) => Some(parse(&greeting.model, source).map_err(|error| self.fault(phase, error.to_string()))?),
            (TemplateChoice::Own, None) => None,
        };
        let text = Text::new(&greeting.model, Arc::new(tokenizer), template, chat_bos, bos);
        let about = "the server's own tokenizer, asked for every text: a local one (--base-tokenizer, --draft-tokenizer) is faster".into();
        Ok(Reading { text, end_tokens, vocab: None, max_len: None, about })
    }

    /// Both must give the same ids, or text would be scored that nobody wrote.
    async fn compare_tokenizers(&self, greeting: &Greeting, text: &Text) -> Result<String, Failed> {
        let phase = "comparing its tokenizer with the local one";
        for sample in TELLING {
            let Some(post) = greeting.dialect.tokenize(&greeting.model, sample, false) else {
                return Ok("which cannot be compared with the server's".into());
            };
            let reply = match self.http.post(self.target, post.path, &post.body).await {
                Ok(reply) => reply,
                // Routers leave the path out.
                Err(Fault::Status { status: 401 | 403 | 404 | 405 | 501, .. }) => return Ok("which cannot be compared with the server's".into()),
                Err(fault) => return Err(self.failed(phase, &fault)),
            };
            let there = dialect::tokens(&reply).map_err(|why| self.fault(phase, why))?;
            let here = text.tokenizer().encode(sample).map_err(|error| self.fault(phase, error.to_string()))?;
            if here != there {
                let why = format!("{sample:?} is {here:?} here and {there:?} there\n  hint: --base-tokenizer and --draft-tokenizer name the right files");
                return Err(self.fault(phase, why).into());
            }
        }
        Ok(format!("equal to the server's on {} texts", TELLING.len()))
    }

    /// A prompt to try things with.
    fn sample(&self, reading: &Reading) -> Result<Vec<Token>, RemoteError> {
        let rendered = reading.text.render(&wsd_core::Prompt::Raw(PLAIN.into()));
        rendered.map(|rendered| rendered.tokens).map_err(|error| self.fault("encoding a text for it", error.to_string()))
    }

    /// Let it continue given tokens, which a service that only chats cannot.
    async fn try_writing(&self, greeting: &Greeting, reading: &Reading, sample: &[Token]) -> Result<Vec<Sampled>, Failed> {
        let phase = "trying to continue given tokens";
        let ask = WriteAsk { model: &greeting.model, list: sample, max_tokens: 1, sampling: Sampling::default(), top: 0, end_tokens: &reading.end_tokens };
        let written = self.write(greeting, &ask).await;
        let pieces = written.map_err(|fault| match fault {
            Fault::Status { status: 404 | 405 | 501, .. } => {
                let hint = "hint: WSD continues and scores token lists, which a service that only chats cannot do; run vLLM, SGLang or llama-server";
                self.fault(phase, format!("{fault}\n  {hint}")).into()
            }
            fault => self.failed(phase, &fault),
        })?;
        let limit = reading.vocab.or(greeting.vocab).unwrap_or(usize::MAX);
        let tokens: Vec<_> = pieces.into_iter().flat_map(|piece| piece.tokens).collect();
        match tokens.iter().find(|sampled| sampled.token as usize >= limit) {
            Some(sampled) => Err(self.fault(phase, format!("it wrote token {}, and its tokenizer has {limit}", sampled.token)).into()),
            None => Ok(tokens),
        }
    }

    async fn write(&self, greeting: &Greeting, ask: &WriteAsk<'_>) -> Result<Vec<Piece>, Fault> {
        let (dialect, post) = (greeting.dialect, greeting.dialect.write(ask));
        let (mut pieces, mut seen) = (Vec::new(), 0);
        let mut read = |event: &Value| -> Result<(), Fault> {
            let piece = dialect.piece(ask, event, seen).map_err(Fault::Unreadable)?;
            seen += piece.tokens.len();
            pieces.push(piece);
            Ok(())
        };
        if dialect.streams() {
            let mut events = self.http.stream(self.target, post.path, &post.body).await?;
            while let Some(event) = events.next().await? {
                read(&event)?;
            }
        } else {
            read(&self.http.post(self.target, post.path, &post.body).await?)?;
        }
        match pieces.iter().any(|piece| piece.stop.is_some()) {
            true => Ok(pieces),
            false => Err(Fault::Broken("the stream ended before the answer did".into())),
        }
    }

    /// The best way of scoring that proves itself, or why there is none.
    async fn try_scoring(
        &self,
        greeting: &Greeting,
        reading: &Reading,
        sample: &[Token],
        written: &[Sampled],
    ) -> Result<(Option<Way>, String), Failed> {
        // A token that the server wrote itself: its score is known.
        let list: Vec<_> = sample.iter().copied().chain(written.iter().map(|sampled| sampled.token)).collect();
        let known = written.first().map(|sampled| sampled.logprob).filter(|logprob| !logprob.is_nan());
        let (mut best, mut reason) = (None::<(Way, Vec<f64>)>, String::new());
        for &way in greeting.dialect.ways() {
            let way = match way {
                Way::Forced { width, .. } => match self.harmless(reading) {
                    _ if !self.options.teacher_forcing => {
                        reason = format!(
                            "{} returns no scores of a prompt\n  hint: --teacher-forcing asks it for one token at a time: exact, and as slow as writing",
                            greeting.dialect.name()
                        );
                        continue;
                    }
                    Some(harmless) => Way::Forced { width, harmless },
                    None => {
                        reason = "no token of its vocabulary is a plain full stop, which teacher forcing needs".into();
                        continue;
                    }
                },
                way => way,
            };
            match self.scores(greeting, &list, way).await {
                Ok(scores) => match (&best, known) {
                    (None, Some(known)) if (known - scores.last().copied().unwrap_or(f64::NAN)).abs() > TOLERANCE => {
                        reason = format!("it wrote a token with a log-probability of {known:.3} and scores it {:.3}", scores[scores.len() - 1]);
                    }
                    (Some((_, proven)), _) if proven.iter().zip(&scores).any(|(a, b)| (a - b).abs() > TOLERANCE) => {}
                    _ => best = Some((way, scores)),
                },
                Err(fault) if fault.is_passing() && best.is_none() && matches!(fault, Fault::Connect(_) | Fault::Broken(_) | Fault::Late { .. }) => {
                    return Err(self.failed("trying to score", &fault));
                }
                Err(fault) => reason = fault.to_string(),
            }
        }
        Ok((best.map(|(way, _)| way), reason))
    }

    fn harmless(&self, reading: &Reading) -> Option<Token> {
        match reading.text.tokenizer().encode(".").ok()?.as_slice() {
            &[token] => Some(token),
            _ => None,
        }
    }

    /// Score a list twice: what is right once by chance, or from an empty cache only, is not right.
    async fn scores(&self, greeting: &Greeting, list: &[Token], way: Way) -> Result<Vec<f64>, Fault> {
        let mut before = None::<Vec<f64>>;
        // One token at a time takes long: the last two will do.
        let first = if matches!(way, Way::Forced { .. }) { list.len().saturating_sub(2).max(1) } else { 1 };
        for _ in 0..2 {
            let mut scores = Vec::new();
            let ends = if first == 1 { list.len()..=list.len() } else { first + 1..=list.len() };
            for end in ends {
                let from = if first == 1 { 1 } else { end - 1 };
                let mut ask = ScoreAsk { model: &greeting.model, list: &list[..end], from, top: 0, way };
                let mut found = None;
                // The likeliest, then all of them.
                for width in [None, greeting.vocab] {
                    if let (Way::Forced { width: asked, .. }, Some(width)) = (&mut ask.way, width) {
                        *asked = width;
                    }
                    let post = greeting.dialect.score(&ask);
                    let reply = self.http.post(self.target, post.path, &post.body).await?;
                    found = greeting.dialect.scores(&ask, &reply).map_err(Fault::Unreadable)?;
                    if found.is_some() {
                        break;
                    }
                }
                let found = found.ok_or_else(|| Fault::Unreadable("there is no score in it".into()))?;
                scores.extend(found.into_iter().map(|scored| scored.logprob));
            }
            let steady = before.as_ref().is_none_or(|before| before.iter().zip(&scores).all(|(a, b)| (a - b).abs() <= TOLERANCE));
            if !steady {
                return Err(Fault::Unreadable("it scores the same tokens differently from one time to the next".into()));
            }
            before = Some(scores);
        }
        Ok(before.unwrap_or_default())
    }
}
