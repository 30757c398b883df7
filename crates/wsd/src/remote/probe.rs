//! Finding out what a server can do, by trying it once at the start.

mod reading;
mod trials;

use serde_json::Value;
use wsd_core::{Caps, Card, Cost, TextCodec};

use super::dialect::{DIALECTS, Dialect, Post, Way};
use super::fault::Fault;
use super::http::{Http, Target};
use super::{Address, RemoteError, RemoteOptions};

/// A text of which every model knows the words.
const PLAIN: &str = "The answer to the question is that a fox is red.";
/// What is assumed of a context that nobody tells the length of.
const UNKNOWN_MAX_LEN: usize = 4096;

/// What is known of a model after the probe.
pub(super) struct Found {
    pub(super) card: Card,
    pub(super) text: TextCodec,
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
            Some(Way::Prompt) if dialect.facts().rescores_from_start => {
                "it scores, reading everything anew at each call"
            }
            Some(Way::Prompt | Way::Rows) => "it scores from its cache",
            Some(Way::Forced { .. }) => "it scores one token per call, exactly, by teacher forcing",
            None => "it does not score",
        };
        let context = max_len.map_or_else(
            || format!("a context that it does not tell, taken for {UNKNOWN_MAX_LEN}"),
            |len| format!("{len} tokens of context"),
        );
        let note = format!(
            "{} at {}: {}, model `{model}`, {context}; {scores}; {}",
            self.options.role,
            self.target.root,
            dialect.facts().name,
            reading.about
        );
        let card = Card {
            name: model.rsplit(['/', '\\']).next().unwrap_or(&model).to_owned(),
            max_len: max_len.unwrap_or(UNKNOWN_MAX_LEN),
            vocab,
            caps: Caps { score: way.is_some(), logits: false },
            cost: Cost {
                is_remote: true,
                rescores_from_start: dialect.facts().rescores_from_start && way == Some(Way::Prompt),
            },
            end_tokens: reading.end_tokens,
        };
        Ok(Found { card, text: reading.text, model, dialect, way, notes: vec![note] })
    }

    /// Replicas are one model.
    fn compare(&self, first: &Found, other: &Found) -> Result<(), RemoteError> {
        let unlike = if first.dialect.facts().scheme != other.dialect.facts().scheme {
            Some(("engine", first.dialect.facts().name.to_owned(), other.dialect.facts().name.to_owned()))
        } else if first.model != other.model {
            Some(("model", first.model.clone(), other.model.clone()))
        } else if first.way != other.way {
            Some(("way to score", format!("{:?}", first.way), format!("{:?}", other.way)))
        } else {
            None
        };
        match unlike {
            Some((what, a, b)) => {
                Err(self.fault("comparing it with its replicas", format!("another {what}: `{b}`, not `{a}`")))
            }
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
        let entries = list["data"].as_array().into_iter().flatten();
        let models: Vec<_> = entries.filter_map(|entry| Some((entry["id"].as_str()?, entry))).collect();
        let owner = models.first().and_then(|(_, entry)| entry["owned_by"].as_str());
        let by_owner =
            DIALECTS.iter().find(|dialect| dialect.facts().owner.is_some() && dialect.facts().owner == owner);
        let generic = DIALECTS.iter().find(|dialect| dialect.facts().owner.is_none());
        let dialect = self.address.dialect.or(by_owner.copied()).or(generic.copied());
        let dialect = dialect.ok_or_else(|| self.fault(phase, "no engine is known".into()))?;
        let llama = dialect.facts().owner == Some("llamacpp");
        // llama-server has one model, and knows it by the path of its file.
        let wanted = self.address.model.as_deref().filter(|_| !llama || models.len() > 1);
        let found = match (wanted, models.as_slice()) {
            (None, [only]) => Some(only),
            (Some(name), models) => models.iter().find(|(id, _)| *id == name),
            (None, _) => None,
        };
        let (model, entry) = found.ok_or_else(|| {
            let known = models.iter().map(|(id, _)| *id).collect::<Vec<_>>().join(", ");
            let missing =
                wanted.map_or_else(|| "the address names no model".into(), |name| format!("it has no model `{name}`"));
            self.fault(phase, format!("{missing}\n  hint: it has {known}"))
        })?;
        let props = if llama { self.http.get(self.target, "/props").await.unwrap_or_default() } else { Value::Null };
        let number = |value: &Value| value.as_u64().map(|number| number as usize).filter(|&number| number > 0);
        Ok(Greeting {
            dialect,
            model: (*model).to_owned(),
            source: entry["root"].as_str().map(str::to_owned),
            max_len: number(&entry["max_model_len"])
                .or_else(|| number(&props["default_generation_settings"]["n_ctx"]))
                .or_else(|| number(&entry["meta"]["n_ctx"])),
            vocab: number(&entry["meta"]["n_vocab"]),
            props,
        })
    }
}
