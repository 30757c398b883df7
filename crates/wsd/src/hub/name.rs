//! Names of models on the hub.

use std::path::{Path, PathBuf};

use super::error::HubError;

/// Revision used where none is named.
const DEFAULT_REVISION: &str = "main";
/// Most bytes in each half of `org/name`, the hub's own limit.
const NAME_LIMIT: usize = 96;

/// A parsed hub name: `org/name`, `org/name@revision`, `org/name:file.gguf` or
/// `org/name@revision:file.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubName {
    /// `org/name`.
    pub repository: String,
    /// A branch, a tag or a commit; `main` if none is named.
    pub revision: String,
    /// A GGUF file, as a path inside the repository; `None` means the safetensors model.
    pub file: Option<String>,
}

impl HubName {
    /// Parses a name.
    ///
    /// ```
    /// let name = wsd::hub::HubName::parse("org/name@v1:model.gguf").unwrap();
    /// assert_eq!((name.repository.as_str(), name.revision.as_str()), ("org/name", "v1"));
    /// ```
    ///
    /// # Errors
    /// [`HubError::Name`] with the rule that `name` breaks.
    pub fn parse(name: &str) -> Result<Self, HubError> {
        // A git revision cannot contain a colon, so the first one separates the file.
        let (model, file) = match name.split_once(':') {
            Some((model, file)) => (model, Some(file)),
            None => (name, None),
        };
        let (repository, revision) = model.split_once('@').unwrap_or((model, DEFAULT_REVISION));
        check_repository(repository)
            .and_then(|()| check_revision(revision))
            .and_then(|()| file.map_or(Ok(()), check_gguf))
            .map_err(|reason| HubError::Name { name: name.into(), reason })?;
        Ok(Self { repository: repository.into(), revision: revision.into(), file: file.map(Into::into) })
    }

    /// The path of the model or file inside the folder of its snapshot.
    pub(super) fn path_in(&self, snapshot: &Path) -> PathBuf {
        self.file.as_ref().map_or_else(|| snapshot.to_path_buf(), |file| snapshot.join(file))
    }
}

/// Checks `org/name` by the hub's rules, so that a mistyped path causes no request.
fn check_repository(repository: &str) -> Result<(), String> {
    let Some((organization, name)) = repository.split_once('/') else {
        return Err(format!("`{repository}` has no `/` between organization and name"));
    };
    for part in [organization, name] {
        if part.is_empty() || part.len() > NAME_LIMIT {
            return Err(format!(
                "organization and name must have 1 to {NAME_LIMIT} characters, got {} in `{part}`",
                part.len()
            ));
        }
        if let Some(odd) = part.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c))) {
            return Err(format!("`{odd}` in `{part}` is not one of A-Z a-z 0-9 - _ ."));
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return Err(format!("`{part}` begins or ends with `-` or `.`"));
        }
        if part.contains("--") || part.contains("..") {
            return Err(format!("`{part}` holds `--` or `..`"));
        }
    }
    if name.ends_with(".git") { Err(format!("`{name}` ends with `.git`")) } else { Ok(()) }
}

/// Checks that a revision has only characters that git and every file system allow, since it
/// becomes a path below `refs`.
fn check_revision(revision: &str) -> Result<(), String> {
    if let Some(odd) = revision.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_./+".contains(*c))) {
        return Err(format!("`{odd}` in revision `{revision}` is not one of A-Z a-z 0-9 - _ . / +"));
    }
    check_inside(revision).map_err(|reason| format!("revision `{revision}` {reason}"))
}

fn check_gguf(file: &str) -> Result<(), String> {
    check_inside(file).map_err(|reason| format!("file `{file}` {reason}"))?;
    if file.to_ascii_lowercase().ends_with(".gguf") {
        Ok(())
    } else {
        Err(format!("`{file}` after the colon does not end with .gguf"))
    }
}

/// Checks that a relative path with `/` stays inside the folder that it is joined to, on every
/// operating system. The error continues a sentence whose subject is the path.
pub(super) fn check_inside(path: &str) -> Result<(), String> {
    if path.contains(|c: char| c.is_control() || c == '\\' || c == ':') {
        return Err("holds a control character, `\\` or `:`".into());
    }
    match path.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("") => Err("is empty or absolute, or holds `//`".into()),
        Some(part) => Err(format!("holds `{part}` as a folder")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(name: &str) -> String {
        match HubName::parse(name) {
            Err(HubError::Name { reason, .. }) => reason,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn all_forms_are_parsed() {
        let parsed = |name: &str| {
            let name = HubName::parse(name).unwrap();
            (name.repository, name.revision, name.file)
        };
        let expected = |repository: &str, revision: &str, file: Option<&str>| {
            (repository.to_owned(), revision.to_owned(), file.map(str::to_owned))
        };
        assert_eq!(parsed("Qwen/Qwen2.5-0.5B"), expected("Qwen/Qwen2.5-0.5B", "main", None));
        assert_eq!(parsed("a/b@refs/pr/1"), expected("a/b", "refs/pr/1", None));
        assert_eq!(parsed("a/b:Q4/m-Q4_K.gguf"), expected("a/b", "main", Some("Q4/m-Q4_K.gguf")));
        assert_eq!(parsed("a/b@v1.0:x@y.GGUF"), expected("a/b", "v1.0", Some("x@y.GGUF")));
    }

    #[test]
    fn each_rule_has_its_message() {
        for (name, part) in [
            ("gpt2", "no `/`"),
            ("a/b/c", "`/` in `b/c`"),
            ("./model", "begins or ends"),
            ("/models/x", "1 to 96"),
            ("a/b c", "` ` in `b c`"),
            ("a/b--c", "`--`"),
            ("a/b..c", "`..`"),
            ("a/b.git", ".git"),
            ("a/b@", "revision `` is empty"),
            ("a/b@../x", "holds `..`"),
            ("a/b@/x", "absolute"),
            ("a/b@x~1", "`~` in revision"),
            ("a/b:model.bin", "does not end with .gguf"),
            ("a/b:../m.gguf", "holds `..`"),
            ("a/b:/m.gguf", "absolute"),
            ("a/b:c:\\m.gguf", "control character"),
            ("C:\\models\\m.gguf", "no `/`"),
            ("café/b", "`é`"),
        ] {
            let reason = reason(name);
            assert!(reason.contains(part), "{name}: {reason}");
        }
    }
}
