//! Detection of a server's abilities by trial requests at startup.

mod codec;
mod trials;

use serde_json::Value;
use wsd_core::{Caps, Card, Cost, TextCodec};

use super::address::Address;
use super::dialect::{DIALECTS, Dialect, Facts, Post, Scoring};
use super::error::RemoteError;
use super::fault::Fault;
use super::http::{Http, Target};
use super::options::RemoteOptions;

/// A text of common words, which every tokenizer can encode.
const PLAIN: &str = "The answer to the question is that a fox is red.";
/// Context length assumed where the server reports none.
const UNKNOWN_MAX_LEN: usize = 4096;

/// The findings about a model.
pub(super) struct Probed {
    pub(super) card: Card,
    pub(super) codec: TextCodec,
    pub(super) model: String,
    pub(super) dialect: &'static dyn Dialect,
    pub(super) scoring: Option<Scoring>,
    /// Lines for the user.
    pub(super) notes: Vec<String>,
}

/// Probes from synchronous code. The probe has a thread and a runtime of its own, which end with it: it
/// reads the hub and servers' tokenizers, which wait for the runtime of [`crate::http::wait`].
pub(super) fn on_own_thread(options: &RemoteOptions, targets: &[Target]) -> Result<Probed, RemoteError> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| RemoteError::Runtime(error.to_string()))?;
        runtime.block_on(probe_all(options, targets))
    };
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(RemoteError::Runtime("the probe ended unexpectedly".into())))
    })
}

/// Probes every replica. An unreachable replica gives a note, as it may recover; a replica with
/// another model is an error.
async fn probe_all(options: &RemoteOptions, targets: &[Target]) -> Result<Probed, RemoteError> {
    let http = Http::open(options.limits)?;
    let (mut probed, mut unreached) = (None::<Probed>, None);
    let mut notes = Vec::new();
    for (address, target) in options.addresses.iter().zip(targets) {
        let probe = Probe { http: &http, target, address, options };
        match probe.run().await {
            Ok(mut one) => {
                notes.append(&mut one.notes);
                if let Some(first) = &mut probed {
                    probe.compare(first, &one)?;
                    first.card.max_len = first.card.max_len.min(one.card.max_len);
                }
                probed.get_or_insert(one);
            }
            Err(Failed { error, is_transient: true }) => {
                notes.push(format!("{error}; its replicas go on without it"));
                unreached = Some(error);
            }
            Err(Failed { error, .. }) => return Err(error),
        }
    }
    match (probed, unreached) {
        (Some(probed), _) => Ok(Probed { notes, ..probed }),
        (None, Some(error)) => Err(error),
        (None, None) => {
            let why = "no address is given".into();
            Err(RemoteError::Address { address: String::new(), why })
        }
    }
}

/// A failed probe.
struct Failed {
    error: RemoteError,
    /// The server may recover.
    is_transient: bool,
}

impl From<RemoteError> for Failed {
    fn from(error: RemoteError) -> Self {
        Self { error, is_transient: false }
    }
}

/// The server's description of its engine and model.
struct ServerInfo {
    dialect: &'static dyn Dialect,
    model: String,
    /// The folder or hub name from which the server loaded the model.
    source: Option<String>,
    max_len: Option<usize>,
    vocab: Option<usize>,
    /// The reply of [`Facts::properties_path`]; null where the engine has no such path.
    properties: Value,
}

struct Probe<'a> {
    http: &'a Http,
    target: &'a Target,
    address: &'a Address,
    options: &'a RemoteOptions,
}

impl Probe<'_> {
    async fn run(&self) -> Result<Probed, Failed> {
        let server = self.describe().await?;
        let found = self.codec(&server).await?;
        let sample = self.sample(&found)?;
        let max_len = server.max_len.or(found.max_len);
        let (dialect, model) = (server.dialect, server.model.clone());
        let vocab = found.vocab.or(server.vocab).unwrap_or(usize::MAX);
        let written = self.try_generating(&server, &found, &sample).await?;
        let (scoring, reason) = self.try_scoring(&server, &found, &sample, &written).await?;
        if self.options.must_score && scoring.is_none() {
            return Err(self.fault("trying to score", reason).into());
        }
        let context = max_len.map_or_else(
            || format!("unknown context length, assumed to be {UNKNOWN_MAX_LEN} tokens"),
            |len| format!("{len} tokens of context"),
        );
        let note = format!(
            "{} at {}: {}, model `{model}`, {context}; {}; {}",
            self.options.seat,
            self.target.root,
            dialect.facts().name,
            describe_scoring(dialect.facts(), scoring),
            found.about
        );
        let card = Card {
            name: model.rsplit(['/', '\\']).next().unwrap_or(&model).to_owned(),
            max_len: max_len.unwrap_or(UNKNOWN_MAX_LEN),
            vocab,
            caps: Caps { score: scoring.is_some(), ..Caps::GENERATE },
            cost: Cost {
                is_remote: true,
                rescores_from_start: dialect.facts().rescores_from_start && scoring == Some(Scoring::Prompt),
                ..Cost::default()
            },
            end_tokens: found.end_tokens,
        };
        Ok(Probed { card, codec: found.codec, model, dialect, scoring, notes: vec![note] })
    }

    /// Checks that two replicas are the same model on the same engine.
    fn compare(&self, first: &Probed, other: &Probed) -> Result<(), RemoteError> {
        let name = |probed: &Probed| probed.dialect.facts().name.to_owned();
        let scoring = |probed: &Probed| format!("{:?}", probed.scoring);
        let (property, a, b) = if first.dialect.facts().scheme != other.dialect.facts().scheme {
            ("engine", name(first), name(other))
        } else if first.model != other.model {
            ("model", first.model.clone(), other.model.clone())
        } else if first.scoring != other.scoring {
            ("method of scoring", scoring(first), scoring(other))
        } else {
            return Ok(());
        };
        Err(self.fault("comparing it with its replicas", format!("the {property} must be `{a}`, got `{b}`")))
    }

    fn fault(&self, phase: &'static str, why: String) -> RemoteError {
        RemoteError::Probe { seat: self.options.seat, address: self.address.to_string(), phase, why }
    }

    fn failed(&self, phase: &'static str, fault: &Fault) -> Failed {
        let hint = match fault {
            Fault::Status { status: 401 | 403, .. } => {
                "\n  hint: name the environment variable that holds its key with --base-key-env or --draft-key-env"
            }
            Fault::Connect(_) => "\n  hint: is it running, and is this its port?",
            _ => "",
        };
        Failed { error: self.fault(phase, format!("{fault}{hint}")), is_transient: fault.is_transient() }
    }

    async fn post(&self, phase: &'static str, post: &Post) -> Result<Value, Failed> {
        self.http.post(self.target, post.path, &post.body).await.map_err(|fault| self.failed(phase, &fault))
    }

    /// Finds the engine and the model in the server's list of models.
    async fn describe(&self) -> Result<ServerInfo, Failed> {
        let phase = "asking for its models";
        let list = self.http.get(self.target, "/v1/models").await.map_err(|fault| self.failed(phase, &fault))?;
        let entries = list["data"].as_array().into_iter().flatten();
        let models: Vec<_> = entries.filter_map(|entry| Some((entry["id"].as_str()?, entry))).collect();
        let owner = models.first().and_then(|(_, entry)| entry["owned_by"].as_str());
        let dialect = self.address.dialect.or_else(|| dialect_of(owner));
        let dialect = dialect.ok_or_else(|| self.fault(phase, "no engine is known".into()))?;
        let facts = dialect.facts();
        let wanted = self.address.model.as_deref().filter(|_| !facts.serves_one_model || models.len() > 1);
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
        let properties = match facts.properties_path {
            Some(path) => self.http.get(self.target, path).await.unwrap_or_default(),
            None => Value::Null,
        };
        let number = |value: &Value| value.as_u64().map(|number| number as usize).filter(|&number| number > 0);
        Ok(ServerInfo {
            dialect,
            model: (*model).to_owned(),
            source: entry["root"].as_str().map(str::to_owned),
            max_len: number(&entry["max_model_len"])
                .or_else(|| number(&properties["default_generation_settings"]["n_ctx"]))
                .or_else(|| number(&entry["meta"]["n_ctx"])),
            vocab: number(&entry["meta"]["n_vocab"]),
            properties,
        })
    }
}

/// Returns the dialect of the engine that reports this `owned_by`, or the generic one.
fn dialect_of(owner: Option<&str>) -> Option<&'static dyn Dialect> {
    let by_owner = DIALECTS.iter().find(|dialect| dialect.facts().owner.is_some_and(|name| Some(name) == owner));
    let generic = || DIALECTS.iter().find(|dialect| dialect.facts().owner.is_none());
    by_owner.or_else(generic).copied()
}

/// The method of scoring in words for the user.
fn describe_scoring(facts: &Facts, scoring: Option<Scoring>) -> &'static str {
    match scoring {
        Some(Scoring::Prompt) if facts.rescores_from_start => "it scores, recomputing the whole list at each call",
        Some(Scoring::Prompt | Scoring::Rows) => "it scores from its cache",
        Some(Scoring::Forced { .. }) => "it scores one token per call, exactly, by teacher forcing",
        None => "it does not score",
    }
}
