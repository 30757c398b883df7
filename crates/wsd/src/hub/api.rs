//! The hub's descriptions of revisions and files.

use std::collections::BTreeSet;

use super::cache::{etag_name, is_commit};
use super::error::HubError;
use super::http::{Client, Failure, Query, Reply, header};
use super::name::check_inside;
use super::progress::Progress;

/// Most bytes accepted in the description of a repository.
const DESCRIPTION_LIMIT: usize = 64 << 20;

/// A revision of a repository, resolved to a commit, with the files of that commit.
pub(super) struct Revision {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

/// The contents of a file, by identity and size.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    /// Identity of the contents: the SHA-256 of a large file, the git object of a small one.
    pub(super) etag: String,
    /// Size in bytes, if the hub reports it.
    pub(super) size: Option<u64>,
}

impl Blob {
    /// The SHA-256 digest in hexadecimal, if the etag is one.
    pub(super) fn sha256(&self) -> Option<&str> {
        (self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(self.etag.as_str())
    }
}

impl Client<'_> {
    /// Fetches the commit and the file list of the named revision.
    pub(super) fn revision(&self, progress: &mut dyn Progress) -> Result<Revision, HubError> {
        let (repository, revision) = (&self.name.repository, &self.name.revision);
        let url = format!("{}/api/models/{repository}/revision/{}", self.options.endpoint, encode(revision, false));
        let subject = format!("`{repository}` at revision `{revision}`");
        let text = self.retry(progress, |_| {
            let reply = self.send(Query { url: &url, subject: &subject, head: false, offset: 0 }, |_, _| false)?;
            let broken =
                |source| Failure::transient(HubError::Connection { url: url.clone(), source, is_connect: false });
            reply.into_body().read(DESCRIPTION_LIMIT).map_err(broken)
        })?;
        parse_revision(&text).map_err(|reason| HubError::Malformed { origin: url, reason })
    }

    /// The URL of a file at a commit.
    pub(super) fn file_url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.options.endpoint, self.name.repository, encode(file, true))
    }

    /// Fetches identity and size of the contents at `url`, but not the contents.
    pub(super) fn blob(&self, url: &str, subject: &str, progress: &mut dyn Progress) -> Result<Blob, HubError> {
        // The etag of a large file is in the redirect to its storage host, that of a small one in
        // the reply.
        let named = |headers: &axum::http::HeaderMap, elsewhere: bool| {
            headers.contains_key("x-linked-etag") || (elsewhere && headers.contains_key("etag"))
        };
        let reply = self.retry(progress, |_| self.send(Query { url, subject, head: true, offset: 0 }, named))?;
        blob_of(&reply).ok_or_else(|| HubError::Malformed {
            origin: url.into(),
            reason: "it has no etag that can name a file of the cache; is HF_ENDPOINT a hub?".into(),
        })
    }
}

fn blob_of(reply: &Reply) -> Option<Blob> {
    let headers = reply.headers();
    let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag")).and_then(etag_name)?;
    // The content length of a redirect is that of its own body.
    let length = if reply.status().is_redirection() { None } else { header(headers, "content-length") };
    let size = header(headers, "x-linked-size").or(length).and_then(|text| text.trim().parse().ok());
    Some(Blob { etag: etag.into(), size })
}

fn parse_revision(text: &[u8]) -> Result<Revision, String> {
    #[derive(serde::Deserialize)]
    struct Description {
        sha: String,
        siblings: Vec<Sibling>,
    }
    #[derive(serde::Deserialize)]
    struct Sibling {
        rfilename: String,
    }
    let description: Description = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !is_commit(&description.sha) {
        return Err(format!("`sha` must be a commit of 40 hexadecimal digits, got {}", description.sha));
    }
    // Names that would leave the snapshot's folder are dropped.
    let names = description.siblings.into_iter().map(|sibling| sibling.rfilename);
    let files = names.filter(|name| check_inside(name).is_ok()).collect();
    Ok(Revision { commit: description.sha, files })
}

/// Percent-encodes a text for a URL; slashes too, unless it is a path.
fn encode(text: &str, is_path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            b'/' if is_path => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_encoded() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü?#.gguf", true), "a%20b/%C3%BC%3F%23.gguf");
    }

    #[test]
    fn a_description_without_a_commit_is_refused() {
        assert!(
            parse_revision(br#"{"sha":"../..","siblings":[]}"#).is_err_and(|reason| reason.contains("40 hexadecimal"))
        );
        assert!(parse_revision(b"<html>").is_err());
        let text = br#"{"sha":"0123456789abcdef0123456789abcdef01234567","x":0,
            "siblings":[{"rfilename":"a","size":1},{"rfilename":"../b"}]}"#;
        assert_eq!(parse_revision(text).map(|revision| revision.files.len()), Ok(1));
    }
}
