//! The server's own tokenizer, for models without tokenizer files on this machine: one short
//! request for each text to encode and each token list to decode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::timeout;
use wsd_core::{Error, Result, Token, Tokenizer, Vocabulary};

use super::dialect::{self, Dialect, Post};
use super::error::RemoteError;
use super::fault::Fault;
use super::http::{Http, Target, TimeLimits};
use crate::http::wait;

/// Most decoded token lists kept.
const CACHED_TEXTS: usize = 8192;
/// Tokenizers created so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A tokenizer that sends every text and token list to the server.
#[derive(Debug)]
pub(super) struct ServerTokenizer {
    /// A client of its own: its connections belong to the runtime on which texts are waited for.
    http: Http,
    /// Limit for a whole call.
    limit: Duration,
    target: Target,
    dialect: &'static dyn Dialect,
    model: String,
    /// Empty, because the server does not list its tokens; so text crosses to other models as text.
    vocabulary: Vocabulary,
    /// Texts decoded so far, by tokens.
    decoded: Mutex<HashMap<Vec<Token>, String>>,
}

impl ServerTokenizer {
    /// # Errors
    /// [`RemoteError::Tls`].
    pub(super) fn open(
        target: Target,
        dialect: &'static dyn Dialect,
        model: &str,
        limits: &TimeLimits,
    ) -> Result<Self, RemoteError> {
        let http = Http::open(*limits)?;
        // A unique name: no two servers' tokenizers are known to be equal.
        let decoder = format!("{} {}", target.root, COUNT.fetch_add(1, Ordering::Relaxed));
        let vocabulary = Vocabulary { pieces: Vec::new(), special: Vec::new(), decoder };
        let (limit, model) = (limits.first_byte, model.to_owned());
        Ok(Self { http, limit, target, dialect, model, vocabulary, decoded: Mutex::default() })
    }

    /// Encodes a text, with the beginning-of-text token where the model has one.
    pub(super) fn encode_whole(&self, text: &str) -> Result<Vec<Token>> {
        self.tokens(text, true)
    }

    fn tokens(&self, text: &str, begin: bool) -> Result<Vec<Token>> {
        let reply = self.post(self.dialect.tokenize(&self.model, text, begin))?;
        dialect::tokens(&reply).map_err(|why| self.fault(why))
    }

    fn post(&self, post: Option<Post>) -> Result<Value> {
        let post = post.ok_or_else(|| self.fault(RemoteError::NO_TOKENIZER.into()))?;
        let (http, target, limit) = (self.http.clone(), self.target.clone(), self.limit);
        let call = move || -> Result<Value, String> {
            let reply = wait(async move { timeout(limit, http.post(&target, post.path, &post.body)).await });
            let late = |_| Fault::Late { awaited: "the reply", limit };
            reply.map_err(|error| error.to_string())?.map_err(late).flatten().map_err(|fault| fault.to_string())
        };
        // The trait is not async, so the call blocks; `block_in_place` moves this thread's other
        // tasks elsewhere meanwhile, which only a multi-thread runtime can.
        let can_move = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        let reply = if can_move { tokio::task::block_in_place(call) } else { call() };
        reply.map_err(|why| self.fault(why))
    }

    fn fault(&self, message: String) -> Error {
        Error::Tokenizer { name: self.target.root.clone(), message }
    }
}

impl Tokenizer for ServerTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<Token>> {
        if text.is_empty() { Ok(Vec::new()) } else { self.tokens(text, false) }
    }

    fn decode(&self, tokens: &[Token]) -> Result<String> {
        if tokens.is_empty() {
            return Ok(String::new());
        }
        let known = |decoded: &HashMap<Vec<Token>, String>| decoded.get(tokens).cloned();
        if let Some(text) = known(&self.decoded.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(text);
        }
        let reply = self.post(self.dialect.detokenize(&self.model, tokens))?;
        let text = dialect::text(&reply).map_err(|why| self.fault(why))?;
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if decoded.len() >= CACHED_TEXTS {
            decoded.clear();
        }
        decoded.insert(tokens.to_vec(), text.clone());
        Ok(text)
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}
