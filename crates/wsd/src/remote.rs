//! Models on other machines, behind each engine that has a dialect here.
//!
//! A remote session is a token list that is sent whole with each request; the server's prefix cache
//! makes that cheap. So an edit costs nothing here either, and a request can be repeated, to the
//! same server or to a replica, with the same token ids.
//!
//! [`open`] probes the servers with real requests and refuses one that cannot do what it must.

mod address;
mod attempts;
mod dialect;
mod error;
mod fault;
mod http;
mod options;
mod probe;
mod replicas;
mod session;
mod shared;
mod sse;
mod tokenizer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderValue, header};
use wsd_core::{Activity, Card, Engine, Scope, Session, Setting, TextCodec, Token};

pub use address::Address;
pub(crate) use dialect::{schemes, teacher_forced};
pub use error::RemoteError;
pub use http::TimeLimits;
pub use options::RemoteOptions;

use http::{Http, Target};
use replicas::Replicas;
use shared::Shared;

use crate::hub::Progress;

/// A model on other machines.
#[derive(Debug)]
pub struct Remote {
    shared: Arc<Shared>,
}

/// Reads bytes as a reply, and as a stream of events, of every kind of engine, and returns the faults
/// in words. For fuzzing.
#[doc(hidden)]
#[must_use]
pub fn read_any_reply(bytes: &[u8]) -> String {
    let mut events = sse::EventParser::default().push(bytes).unwrap_or_default();
    events.push(bytes.to_vec());
    let replies = events.iter().filter_map(|event| serde_json::from_slice(event).ok());
    replies.flat_map(|reply| dialect::read_everywhere(&reply)).collect()
}

/// Probes the servers of a model and makes an engine of them. The findings are noted to `progress`.
///
/// # Errors
/// [`RemoteError`] names the server, the step that failed, and the reason.
pub fn open(options: &RemoteOptions, progress: &mut dyn Progress) -> Result<Remote, RemoteError> {
    let headers = headers(options)?;
    let target = |address: &Address| Target { root: address.root.clone(), headers: headers.clone() };
    let targets: Vec<_> = options.addresses.iter().map(target).collect();
    let probed = probe::on_own_thread(options, &targets)?;
    probed.notes.iter().for_each(|note| progress.note(note));
    let shared = Shared {
        card: probed.card,
        codec: probed.codec,
        model: probed.model,
        dialect: probed.dialect,
        scoring: probed.scoring,
        http: Http::open(options.limits)?,
        limits: options.limits,
        attempts: options.attempts,
        replicas: Replicas::new(targets),
        working: AtomicUsize::new(0),
        requests: AtomicUsize::new(0),
    };
    Ok(Remote { shared: Arc::new(shared) })
}

/// The headers of every request: the key, marked so that no log prints it.
fn headers(options: &RemoteOptions) -> Result<HeaderMap, RemoteError> {
    let mut headers = HeaderMap::new();
    if let Some(name) = &options.key_env {
        let fault = |why| RemoteError::Key { name: name.clone(), seat: options.seat, why };
        let key = std::env::var(name).map_err(|_| fault("is not set"))?;
        let value = format!("Bearer {}", key.trim()).parse::<HeaderValue>();
        let mut value = value.map_err(|_| fault("holds characters that no HTTP header may have"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

#[async_trait]
impl Engine for Remote {
    fn card(&self) -> &Card {
        &self.shared.card
    }

    fn codec(&self) -> &TextCodec {
        &self.shared.codec
    }

    fn activity(&self) -> Activity {
        Activity {
            slots: self.shared.replicas.sessions(),
            working: self.shared.working.load(Ordering::Relaxed),
            steps: self.shared.requests.load(Ordering::Relaxed),
            reused_tokens: 0,
        }
    }

    fn ignored_sampling(&self) -> &[&'static Setting] {
        self.shared.dialect.facts().ignored_sampling
    }

    async fn open(&self, tokens: &[Token]) -> wsd_core::Result<Box<dyn Session>> {
        self.open_in(Scope::default(), tokens).await
    }

    async fn open_in(&self, scope: Scope, tokens: &[Token]) -> wsd_core::Result<Box<dyn Session>> {
        // Checked here and not by the server: an id outside the vocabulary makes some servers exit.
        self.shared.card.check(tokens)?;
        Ok(Box::new(session::Remote::new(self.shared.clone(), scope.cache, tokens)))
    }
}
