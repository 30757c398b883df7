//! What can go wrong on the way to a model's files.

use std::path::PathBuf;

/// Why a model could not be resolved. Each message names the model, file or address, and the next step where there is one.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Neither an existing path nor a well-formed hub name.
    #[error(
        "`{name}` is no model: no file or folder has this path, and it is not a hub name because {reason}\n  hint: give a \
         folder, a .gguf file, or org/name, org/name@revision, org/name:file.gguf"
    )]
    Name {
        /// What the user wrote.
        name: String,
        /// The rule it breaks.
        reason: String,
    },
    /// What can only be a path is none.
    #[error("{}: there is no such file or folder", .path.display())]
    NoPath {
        /// The path.
        path: PathBuf,
    },
    /// Not completely in the cache, and no request is allowed.
    #[error(
        "`{name}` cannot be loaded offline: missing {missing}; searched {searched} (no local file or folder has this name \
         either)\n  hint: run once without --offline and with HF_HUB_OFFLINE unset, or copy the model into a folder and name that"
    )]
    Offline {
        /// What the user wrote.
        name: String,
        /// The files, or the revision, that are not there.
        missing: String,
        /// The repository's folder in the cache.
        searched: PathBuf,
    },
    /// The address of the hub is not usable.
    #[error("HF_ENDPOINT must begin with http:// or https://, given: {endpoint}")]
    Endpoint {
        /// The address given.
        endpoint: String,
    },
    /// The hub wants to know who asks, or refuses the one who does (401, 403).
    #[error("access to `{repository}` is refused (HTTP {status}): {reason}\n  hint: {hint}")]
    Denied {
        /// The repository, `org/name`.
        repository: String,
        /// The status of the reply.
        status: u16,
        /// What the hub says.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// No such repository, revision or file.
    #[error("{what} is not on {endpoint} (no local file or folder has this name either)\n  hint: {hint}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The hub that was asked.
        endpoint: String,
        /// What to do, and what there is instead.
        hint: String,
    },
    /// The repository holds no weights, or not all that is needed to read them.
    #[error("`{repository}` cannot be used: {reason}\n  hint: {hint}")]
    Unusable {
        /// The repository, `org/name`.
        repository: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A reply or a file that breaks its own format.
    #[error("{origin} is malformed: {reason}")]
    Malformed {
        /// The address or the file.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server answers with an error that does not go away.
    #[error("{url} answers HTTP {status}{detail}")]
    Status {
        /// The address.
        url: String,
        /// The status of the last reply.
        status: u16,
        /// How long it asks to wait, if it does.
        detail: String,
    },
    /// No connection, or one that breaks or stalls.
    #[error(
        "{url} cannot be read: {source}\n  hint: check the network, HF_ENDPOINT, the proxy settings and this system's \
         certificates (SSL_CERT_FILE); a new start resumes"
    )]
    Connection {
        /// The address.
        url: String,
        /// The failure of the last attempt.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file ends too early or too late.
    #[error("{url} should have {expected} bytes, but {received} came")]
    Length {
        /// The address.
        url: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes received.
        received: u64,
    },
    /// The file's bytes are not those the hub announced. The download has been removed.
    #[error(
        "{url} is damaged: SHA-256 {expected} was announced, the bytes give {actual}\n  hint: try again; if it stays, the \
         server or a proxy alters the file"
    )]
    Checksum {
        /// The address.
        url: String,
        /// The digest announced, in hexadecimal.
        expected: String,
        /// The digest of what came, in hexadecimal.
        actual: String,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

impl HubError {
    /// Whether the other machine was reached and has nobody who answers there.
    pub(super) fn is_refused(&self) -> bool {
        let Self::Connection { source, .. } = self else { return false };
        let cause = source.downcast_ref::<ureq::Error>();
        matches!(cause, Some(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}
