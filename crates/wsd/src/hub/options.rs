//! Options of the hub: address, cache, access token, retries.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// An access token, hidden in debug output.
///
/// ```
/// let token = wsd::hub::AccessToken::from_text(" hf_secret\n").unwrap();
/// assert_eq!(format!("{token:?}"), "AccessToken(hidden)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// Trims white space; `None` if nothing is left.
    pub fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AccessToken(hidden)")
    }
}

/// Address, cache and limits for models on the hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The cache: the folder with `models--org--name`.
    pub cache: PathBuf,
    /// The hub's address, without a trailing slash.
    pub endpoint: String,
    /// Access token, sent to `endpoint` and to no other host.
    pub token: Option<AccessToken>,
    /// Use only the cache and send no request.
    pub offline: bool,
    /// Consecutive failures without a new byte after which a request is given up, from 1.
    pub attempts: u32,
    /// Back-off after the first failure; it doubles with each further one.
    pub first_wait: Duration,
    /// Longest back-off. A server that requests a longer one is given up.
    pub longest_wait: Duration,
    /// Timeout for a connection, and for each part of a reply.
    pub timeout: Duration,
}

impl HubOptions {
    /// Reads the environment variables of `huggingface_hub`, with its defaults: `HF_HUB_CACHE` (or
    /// `HUGGINGFACE_HUB_CACHE`), `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`,
    /// `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first =
            |names: &[&str]| names.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()));
        let home = first(&["HOME", "USERPROFILE"]).map(PathBuf::from).or_else(std::env::home_dir).unwrap_or_default();
        let folder = |names: &[&str]| {
            first(names).map(|value| match value.strip_prefix("~/") {
                Some(rest) => home.join(rest),
                None => PathBuf::from(value),
            })
        };
        let hub_home = folder(&["HF_HOME"])
            .unwrap_or_else(|| folder(&["XDG_CACHE_HOME"]).unwrap_or_else(|| home.join(".cache")).join("huggingface"));
        let token_path = folder(&["HF_TOKEN_PATH"]).unwrap_or_else(|| hub_home.join("token"));
        let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
            .or_else(|| wsd_core::Input::SETTINGS.read_text(&token_path).ok());
        let endpoint = first(&["HF_ENDPOINT"]).unwrap_or_else(|| "https://huggingface.co".into());
        let offline = first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]).is_some_and(|value| is_true(&value));
        Self {
            cache: folder(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).unwrap_or_else(|| hub_home.join("hub")),
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            token: token.as_deref().and_then(AccessToken::from_text),
            offline,
            attempts: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            timeout: Duration::from_secs(30),
        }
    }
}

/// True for the values that `huggingface_hub` reads as true.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cache_is_found_as_huggingface_hub_finds_it() {
        let cache = |variables: &[(&str, &str)]| options(variables).cache;
        assert_eq!(cache(&[("HOME", "/u")]), PathBuf::from("/u/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]), PathBuf::from("/x/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "~/h")]), PathBuf::from("/u/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), PathBuf::from("/old"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).token, AccessToken::from_text("hf_file"));
        assert_eq!(options(&[("HF_HOME", home), ("HF_TOKEN", " hf_var ")]).token, AccessToken::from_text("hf_var"));
        let path = folder.path().join("other");
        fs_err::write(&path, "hf_other").unwrap();
        let given = options(&[("HF_HOME", home), ("HF_TOKEN_PATH", path.to_str().unwrap())]);
        assert_eq!(given.token, AccessToken::from_text("hf_other"));
        assert!(!format!("{given:?}").contains("hf_other"));
        assert_eq!(options(&[("HF_HOME", "/nowhere")]).token, None);
    }

    #[test]
    fn endpoint_and_offline() {
        let given = options(&[("HF_ENDPOINT", "https://mirror.example/"), ("HF_HUB_OFFLINE", "1")]);
        assert_eq!((given.endpoint.as_str(), given.offline), ("https://mirror.example", true));
        let given = options(&[("HF_HUB_OFFLINE", "0")]);
        assert_eq!((given.endpoint.as_str(), given.offline), ("https://huggingface.co", false));
    }
}
