//! Addresses of remote models: `vllm+http://host:8000/model`.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::Scheme;

use super::dialect::{self, DIALECTS, Dialect};
use super::error::RemoteError;

/// One server's address, as written and parsed.
///
/// ```
/// use wsd::remote::Address;
/// let replicas = Address::parse_list("vllm+http://gpu-1:8000/model, vllm+http://gpu-2:8000/model")?;
/// assert_eq!(replicas.len(), 2);
/// assert!(Address::parse_list("vllm+http://user:password@gpu-1").is_err());
/// # Ok::<(), wsd::remote::RemoteError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Address {
    text: String,
    /// The engine's dialect; `None` leaves it to the probe.
    pub(super) dialect: Option<&'static dyn Dialect>,
    /// Scheme and host, followed by the path before `/v1/` if there is one.
    pub(super) root: String,
    /// The model's name on the server; `None` means its only one.
    pub(super) model: Option<String>,
}

impl Address {
    /// True for a model name that is an address or a list of them.
    #[must_use]
    pub fn is_one(name: &str) -> bool {
        name.contains("http://") || name.contains("https://")
    }

    /// Parses a comma-separated list of addresses: replicas of one model.
    ///
    /// # Errors
    /// [`RemoteError::Address`] for the first entry that is not an address.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, RemoteError> {
        list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::parse).collect()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let fault = |why: String| RemoteError::Address { address: without_password(text), why };
        let (dialect, url) = match text.split_once('+') {
            Some((name, url)) if url.starts_with("http") && !name.contains('/') => {
                let found = DIALECTS.iter().find(|dialect| dialect.facts().scheme == name);
                (
                    Some(*found.ok_or_else(|| {
                        fault(format!(
                            "there is no engine `{name}`; the known ones are {}",
                            dialect::schemes().join(", ")
                        ))
                    })?),
                    url,
                )
            }
            _ => (None, text),
        };
        let uri: Uri = url.parse().map_err(|error| fault(format!("{error}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(fault("it must be http:// or https:// and a host".into()));
        };
        if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
            return Err(fault(format!("`{scheme}` is neither http nor https")));
        }
        if authority.as_str().contains('@') {
            return Err(fault("a key does not belong here; name the environment variable that holds it".into()));
        }
        if uri.query().is_some() {
            return Err(fault("it has a query".into()));
        }
        // The part before `/v1/` is the prefix of a proxy, the part after it the model.
        let path = uri.path().trim_end_matches('/');
        let (before, model) = match path.split_once("/v1/").or_else(|| path.strip_suffix("/v1").map(|path| (path, "")))
        {
            Some(parts) => parts,
            None => ("", path.trim_start_matches('/')),
        };
        let model = (!model.is_empty()).then(|| model.to_owned());
        Ok(Self { text: text.to_owned(), dialect, root: format!("{scheme}://{authority}{before}"), model })
    }
}

/// The address with any user and password cut out, so that it can be shown.
fn without_password(text: &str) -> String {
    match (text.find("://"), text.find('@')) {
        (Some(start), Some(end)) if start + 3 < end => format!("{}…{}", &text[..start + 3], &text[end..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> (Option<&'static str>, String, Option<String>) {
        let address: Address = text.parse().unwrap();
        (address.dialect.map(|dialect| dialect.facts().scheme), address.root, address.model)
    }

    #[test]
    fn engine_host_and_model() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            parts("vllm+http://gpu:8000/meta-llama/Llama-3.1-70B"),
            (Some("vllm"), "http://gpu:8000".into(), some("meta-llama/Llama-3.1-70B"))
        );
        assert_eq!(parts("llama-server+http://[::1]:80"), (Some("llama-server"), "http://[::1]:80".into(), None));
        assert_eq!(
            parts("openai+https://api.example/proxy/v1/small"),
            (Some("openai"), "https://api.example/proxy".into(), some("small"))
        );
        assert_eq!(parts("https://api.example/v1/"), (None, "https://api.example".into(), None));
        assert_eq!(Address::parse_list("http://a/m, sglang+http://b/m,").unwrap().len(), 2);
    }

    #[test]
    fn errors_name_the_fault_and_no_password() {
        let error = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert!(error("tgi+http://a").contains(&dialect::schemes().join(", ")));
        let text = error("vllm+http://me:secret@host/m");
        assert!(text.contains("environment") && !text.contains("secret"), "{text}");
        assert!(error("vllm+http://").contains("vllm+http://"));
        assert!(error("http://a/m?key=1").contains("query"));
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in "(vllm\\+)?(http://)?[\\PC]{0,40}") {
            let _ = text.parse::<Address>();
        }
    }
}
