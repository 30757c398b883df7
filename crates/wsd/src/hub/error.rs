//! Failures to find or fetch a model's files.

use std::io::ErrorKind;
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
    /// A connection that is refused, breaks or stalls.
    #[error(
        "{url} cannot be read: {source}\n  hint: check the network, HF_ENDPOINT, the proxy settings and this system's \
         certificates (SSL_CERT_FILE), and start again, which resumes; or name a folder or a .gguf file of this machine"
    )]
    Connection {
        /// The address.
        url: String,
        /// The failure of the last attempt.
        source: std::io::Error,
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

impl HubError {
    /// True if no connection could be made: the address has no machine, there is no way to it, or it
    /// refuses.
    pub(super) fn is_unreachable(&self) -> bool {
        let Self::Connection { source, .. } = self else { return false };
        // The standard library has no kind for a host name without an address.
        matches!(
            source.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
        ) || source.to_string().starts_with("failed to lookup address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_not_there_is_unreachable() {
        let error = |source| HubError::Connection { url: "http://hub.example".into(), source };
        let lookup = "failed to lookup address information: Name or service not known";
        assert!(error(std::io::Error::other(lookup)).is_unreachable());
        assert!(error(ErrorKind::NetworkUnreachable.into()).is_unreachable());
        assert!(!error(ErrorKind::ConnectionReset.into()).is_unreachable());
    }
}
