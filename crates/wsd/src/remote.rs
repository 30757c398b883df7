//! Models on other machines, behind vLLM, SGLang, llama-server or whatever speaks OpenAI's protocol.
//!
//! A remote session is a token list that is sent whole with each question; the server's prefix cache does the rest. So an edit
//! is free here too, and a question can be asked again, of the same server or of another, with the same ids.
//!
//! What a server can do is found out when it is opened ([`open`]), by trying: what cannot work is refused then.

mod address;
mod asking;
mod dialect;
mod fault;
mod http;
mod probe;
mod replicas;
mod session;
mod sse;
mod tokenizer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use wsd_core::{Activity, Card, Engine, Error, Role, Session, TextCodec, Token};
use wsd_nn::TemplateChoice;

pub use address::Address;
use dialect::{Dialect, Way};
pub use http::TimeLimits;
use http::{Http, Target};
use replicas::Replicas;

use crate::hub::{HubError, HubOptions, Progress};

/// How a remote model is reached and read.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// What it is for.
    pub role: Role,
    /// Its servers: replicas of one model.
    pub addresses: Vec<Address>,
    /// Where its tokenizer is, a folder or a name in the hub's cache; looked for under the model's name where absent.
    pub tokenizer: Option<String>,
    /// The hub's cache.
    pub hub: HubOptions,
    /// The environment variable that holds the key.
    pub key_env: Option<String>,
    /// How it reads chats.
    pub template: TemplateChoice,
    /// How long things may take.
    pub limits: TimeLimits,
    /// Failures in a row after which a question is given up.
    pub attempts: u32,
    /// Whether an engine that scores no prompts may be asked one token at a time.
    pub teacher_forcing: bool,
    /// Whether it must score.
    pub must_score: bool,
}

/// A remote model that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// An address that is none.
    #[error("`{address}` is not the address of a model: {why}\n  hint: for example vllm+http://host:8000/model")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// No key where one was named.
    #[error("the environment variable `{name}`, which should hold the key for the {role} model, {why}")]
    Key {
        /// The variable.
        name: String,
        /// The model.
        role: Role,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No certificates to trust.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A server that cannot do what it must, or does not answer.
    #[error("the {role} model at {address}, {phase}: {why}")]
    Probe {
        /// What it is for.
        role: Role,
        /// Where it is.
        address: String,
        /// What was tried.
        phase: &'static str,
        /// What came of it, with a hint where there is a next step.
        why: String,
    },
    /// The tokenizer's files cannot be read.
    #[error("the tokenizer `{name}` for the {role} model cannot be read")]
    Tokenizer {
        /// Its name.
        name: String,
        /// The model.
        role: Role,
        /// Why not.
        source: Box<wsd_nn::Error>,
    },
    /// The hub's cache cannot be read.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl RemoteError {
    pub(crate) const NO_TOKENIZER: &'static str = "the server has no tokenizer to ask";
}

/// What all sessions of a remote model share.
#[derive(Debug)]
struct Shared {
    card: Card,
    text: TextCodec,
    /// The model's name on the servers.
    model: String,
    dialect: &'static dyn Dialect,
    /// How it scores, where it does.
    way: Option<Way>,
    http: Http,
    limits: TimeLimits,
    attempts: u32,
    replicas: Replicas,
    working: AtomicUsize,
    requests: AtomicUsize,
}

/// A model on other machines.
#[derive(Debug)]
pub struct Remote {
    shared: Arc<Shared>,
}

/// Find out what the servers of a model can do, and make an engine of them. What was found is noted to `progress`.
///
/// # Errors
/// [`RemoteError`] names the server, what was tried, and what came of it.
pub fn open(options: &RemoteOptions, progress: &mut dyn Progress) -> Result<Remote, RemoteError> {
    let headers = headers(options)?;
    let target = |address: &Address| Target { root: address.root.clone(), headers: headers.clone() };
    let targets: Vec<_> = options.addresses.iter().map(target).collect();
    let found = probe::on_a_thread_of_its_own(options, &targets)?;
    found.notes.iter().for_each(|note| progress.note(note));
    let shared = Shared {
        card: found.card,
        text: found.text,
        model: found.model,
        dialect: found.dialect,
        way: found.way,
        http: Http::new(options.limits)?,
        limits: options.limits,
        attempts: options.attempts,
        replicas: Replicas::new(targets),
        working: AtomicUsize::new(0),
        requests: AtomicUsize::new(0),
    };
    Ok(Remote { shared: Arc::new(shared) })
}

/// The key, which never shows itself in a log.
fn headers(options: &RemoteOptions) -> Result<axum::http::HeaderMap, RemoteError> {
    let mut headers = axum::http::HeaderMap::new();
    if let Some(name) = &options.key_env {
        let fault = |why| RemoteError::Key { name: name.clone(), role: options.role, why };
        let key = std::env::var(name).map_err(|_| fault("is not set"))?;
        let value = format!("Bearer {}", key.trim()).parse::<axum::http::HeaderValue>();
        let mut value = value.map_err(|_| fault("holds characters that no key has"))?;
        value.set_sensitive(true);
        headers.insert(axum::http::header::AUTHORIZATION, value);
    }
    Ok(headers)
}

#[async_trait]
impl Engine for Remote {
    fn card(&self) -> &Card {
        &self.shared.card
    }

    fn codec(&self) -> &TextCodec {
        &self.shared.text
    }

    fn activity(&self) -> Activity {
        Activity {
            slots: self.shared.replicas.open(),
            working: self.shared.working.load(Ordering::Relaxed),
            steps: self.shared.requests.load(Ordering::Relaxed),
            reused_tokens: 0,
        }
    }

    async fn open(&self, tokens: &[Token]) -> wsd_core::Result<Box<dyn Session>> {
        // Checked here and not left to the server: some of them end at such an id.
        let card = &self.shared.card;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= card.vocab) {
            return Err(Error::TokenRange { engine: card.name.clone(), token, limit: card.vocab });
        }
        Ok(Box::new(session::Remote::new(self.shared.clone(), tokens)))
    }
}
