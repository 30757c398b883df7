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
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.into());
    }
    if ["./", "../", "/", "~"].iter().any(|start| name.starts_with(start)) {
        return Err(HubError::NoPath { path: path.into() });
    }
    let hub_name = HubName::parse(name)?;
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
