//! Failures to find or fetch a model's files.

use std::path::PathBuf;

/// A model that could not be resolved. Each message names the model, file or address, and a next
/// step where there is one.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither an existing path nor a well-formed hub name.
    #[error(
        "`{name}` is not a model: no file or folder has this path, and it is not a hub name because {reason}\n  \
         hint: give a folder, a .gguf file, or org/name, org/name@revision, org/name:file.gguf"
    )]
    Name {
        /// The name given.
        name: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A name that can only be a path, and does not exist.
    #[error("{}: there is no such file or folder", .path.display())]
    NoPath {
        /// The path.
        path: PathBuf,
    },
    /// A model that is not completely in the cache, while offline.
    #[error(
        "`{name}` cannot be loaded offline: missing {missing}; searched {searched} (no local file or folder has this \
         name either)\n  hint: run once without --offline and with HF_HUB_OFFLINE unset, or copy the model into a \
         folder and name that"
    )]
    Offline {
        /// The name given.
        name: String,
        /// The missing files, or the missing revision.
        missing: String,
        /// The repository's folder in the cache.
        searched: PathBuf,
    },
    /// A hub address that is not http or https.
    #[error("HF_ENDPOINT must begin with http:// or https://, got {endpoint}")]
    Endpoint {
        /// The address given.
        endpoint: String,
    },
    /// Access refused: the token is missing or insufficient (status 401 or 403).
    #[error("access to `{repository}` is refused (HTTP {status}): {reason}\n  hint: {hint}")]
    Denied {
        /// The repository, `org/name`.
        repository: String,
        /// The status of the reply.
        status: u16,
        /// The hub's message.
        reason: String,
        /// The next step.
        hint: String,
    },
    /// A repository, revision or file that does not exist.
    #[error("{what} is not on {endpoint} (no local file or folder has this name either)\n  hint: {hint}")]
    NotFound {
        /// The thing requested.
        what: String,
        /// The hub's address.
        endpoint: String,
        /// The next step, or the files there are instead.
        hint: String,
    },
    /// A repository without weights, or without files needed to read them.
    #[error("`{repository}` cannot be used: {reason}\n  hint: {hint}")]
    Unusable {
        /// The repository, `org/name`.
        repository: String,
        /// The fault.
        reason: String,
        /// The next step.
        hint: String,
    },
    /// A reply or file that breaks its format.
    #[error("{origin} is malformed: {reason}")]
    Malformed {
        /// The address or the file.
        origin: String,
        /// The fault.
        reason: String,
    },
    /// An error status that persisted over all attempts.
    #[error("{url} answers HTTP {status}{detail}")]
    Status {
        /// The address.
        url: String,
        /// The status of the last reply.
        status: u16,
        /// The pause it requests, or its message; may be empty.
        detail: String,
    },
    /// A connection that cannot be made, breaks or stalls.
    #[error("{url} cannot be read: {source}\n  hint: {}", connection_hint(*.is_connect))]
    Connection {
        /// The address.
        url: String,
        /// The failure of the last attempt.
        source: std::io::Error,
        /// True if no connection was made.
        is_connect: bool,
    },
    /// A file that is shorter or longer than announced.
    #[error("{url} must have {expected} bytes, got {received}")]
    Length {
        /// The address.
        url: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes received.
        received: u64,
    },
    /// A file with another digest than announced. The download has been removed.
    #[error(
        "{url} is damaged: its SHA-256 must be {expected}, got {actual}\n  hint: try again; if it stays, the server or \
         a proxy alters the file"
    )]
    Checksum {
        /// The address.
        url: String,
        /// The digest announced, in hexadecimal.
        expected: String,
        /// The digest of the received bytes, in hexadecimal.
        actual: String,
    },
    /// A file or folder of the cache that cannot be read or written.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

/// The way out of a failed connection: another network, or another attempt.
fn connection_hint(is_connect: bool) -> &'static str {
    if is_connect {
        "check the network, HF_ENDPOINT, the proxy settings and this system's certificates (SSL_CERT_FILE); or name a \
         folder or a .gguf file of this machine"
    } else {
        "start again, which resumes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_hinted_at_only_where_there_is_no_connection() {
        let told = |is_connect| {
            let source = std::io::ErrorKind::ConnectionReset.into();
            HubError::Connection { url: "http://hub.example".into(), source, is_connect }.to_string()
        };
        assert!(told(true).contains("hint: check the network") && told(true).contains(".gguf"), "{}", told(true));
        assert!(told(false).ends_with("\n  hint: start again, which resumes"), "{}", told(false));
    }
}
