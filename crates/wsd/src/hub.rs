//! Resolution of model names, as given to `--base` or `--draft`, to files on this machine.
//!
//! A name is a local folder, a local GGUF file, or a model on the Hugging Face hub: `org/name`,
//! `org/name@revision`, `org/name:file.gguf`. Downloads go to the cache that `huggingface_hub` and
//! `transformers` share, in their layout, so a model that one of them has fetched is not fetched
//! again.

mod api;
mod cache;
mod download;
mod error;
mod http;
mod name;
mod options;
mod progress;
mod selection;

use std::path::{Path, PathBuf};

pub use error::HubError;
pub use name::HubName;
pub use options::{AccessToken, HubOptions};
pub use progress::{Bars, Lines, Progress, stderr_progress};

use cache::RepoCache;
use http::Client;

const TOKENIZER: &str = "tokenizer.json";

/// A name, by its kind.
enum Named {
    /// An existing file or folder.
    Path(PathBuf),
    /// A model on the hub.
    Hub(HubName),
}

impl Named {
    fn parse(name: &str) -> Result<Self, HubError> {
        let path = Path::new(name);
        if path.exists() {
            return Ok(Self::Path(path.into()));
        }
        if ["./", "../", "/", "~"].iter().any(|start| name.starts_with(start)) {
            return Err(HubError::NoPath { path: path.into() });
        }
        Ok(Self::Hub(HubName::parse(name)?))
    }
}

/// Checks that a name is a path that exists or a well-formed name of the hub.
///
/// # Errors
/// [`HubError::NoPath`], [`HubError::Name`].
pub fn check(name: &str) -> Result<(), HubError> {
    Named::parse(name).map(|_| ())
}

/// Returns the folder or GGUF file that `name` stands for, after downloading what is missing.
///
/// An existing path wins over a hub name. For a hub name the cache comes first: a complete snapshot
/// of the revision is used without a request, so a branch that has moved on the hub is followed
/// only when the cached snapshot is removed or a newer revision is named.
///
/// A download is a folder with `config.json`, `tokenizer.json` and safetensors weights, or one
/// `.gguf` file. The contents of an existing path are not checked here.
///
/// # Errors
/// [`HubError`] where the name is neither a path nor a hub name, the model is not cached and
/// `options.offline` is set, the hub refuses access, the connection fails permanently, a file
/// arrives damaged, or the repository has no weights in a known format.
pub fn resolve(name: &str, options: &HubOptions, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
    let hub_name = match Named::parse(name)? {
        Named::Path(path) => return Ok(path),
        Named::Hub(hub_name) => hub_name,
    };
    let cache = RepoCache::new(&options.cache, &hub_name.repository);
    let missing = match cache.commit(&hub_name.revision)? {
        Some(commit) => {
            let snapshot = cache.snapshot(&commit);
            let missing = selection::missing(&snapshot, hub_name.file.as_deref())?;
            if missing.is_empty() {
                return Ok(hub_name.path_in(&snapshot));
            }
            missing
        }
        None => vec![format!("revision `{}`", hub_name.revision)],
    };
    if options.offline {
        return Err(HubError::Offline { name: name.into(), missing: missing.join(", "), searched: cache.folder });
    }
    // A path that is misspelt can look like a name.
    if name == hub_name.repository {
        progress
            .note(&format!("there is no file or folder `{name}` here; looking for that name on {}", options.endpoint));
    }
    let client = Client::open(options, hub_name)?;
    download::snapshot(&client, &cache, progress)
}

/// Returns the local folder with the tokenizer of the model `name`: a path, or a snapshot in the
/// cache. Nothing is downloaded.
///
/// # Errors
/// [`HubError`] for a cache that cannot be read.
pub fn text_files(name: &str, options: &HubOptions) -> Result<Option<PathBuf>, HubError> {
    let path = Path::new(name);
    if path.is_file() || path.join(TOKENIZER).is_file() {
        return Ok(Some(path.into()));
    }
    let Ok(hub_name) = HubName::parse(name) else { return Ok(None) };
    let cache = RepoCache::new(&options.cache, &hub_name.repository);
    let snapshot = cache.commit(&hub_name.revision)?.map(|commit| cache.snapshot(&commit));
    Ok(snapshot.filter(|snapshot| snapshot.join(TOKENIZER).is_file()))
}
