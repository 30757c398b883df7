//! The server's own tokenizer, for models without tokenizer files on this machine: one short
//! request for each text to encode and each token list to decode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use wsd_core::{Error, Result, Token, Tokenizer, Vocabulary};

use super::dialect::{self, Dialect, Post};
use super::error::RemoteError;
use super::fault::Fault;
use super::http::{Target, TimeLimits};

/// Most decoded token lists kept.
const CACHED_TEXTS: usize = 8192;
/// Longest reply accepted.
const MAX_REPLY_BYTES: u64 = 64 << 20;
/// Tokenizers created so far.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A tokenizer that sends every text and token list to the server.
#[derive(Debug)]
pub(super) struct ServerTokenizer {
    agent: Agent,
    target: Target,
    dialect: &'static dyn Dialect,
    model: String,
    /// Empty, because the server does not list its tokens; so text crosses to other models as text.
    vocabulary: Vocabulary,
    /// Texts decoded so far, by tokens.
    decoded: Mutex<HashMap<Vec<Token>, String>>,
}

impl ServerTokenizer {
    pub(super) fn new(target: Target, dialect: &'static dyn Dialect, model: &str, limits: &TimeLimits) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(limits.connect))
            .timeout_global(Some(limits.first_byte))
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build()
            .into();
        // A unique name: no two servers' tokenizers are known to be equal.
        let decoder = format!("{} {}", target.root, COUNT.fetch_add(1, Ordering::Relaxed));
        let vocabulary = Vocabulary { pieces: Vec::new(), special: Vec::new(), decoder };
        Self { agent, target, dialect, model: model.to_owned(), vocabulary, decoded: Mutex::default() }
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
        let mut request = self.agent.post(format!("{}{}", self.target.root, post.path));
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        let request = request.header("content-type", "application/json");
        let call = || -> Result<Value, String> {
            let mut reply = request.send(post.body.to_string()).map_err(|error| error.to_string())?;
            let status = reply.status();
            let body =
                reply.body_mut().with_config().limit(MAX_REPLY_BYTES).read_to_vec().map_err(|e| e.to_string())?;
            if !status.is_success() {
                return Err(Fault::status(status.as_u16(), &body, None).to_string());
            }
            serde_json::from_slice(&body).map_err(|error| format!("its reply is not JSON ({error})"))
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
