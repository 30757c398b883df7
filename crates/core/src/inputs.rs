//! Files from outside, opened in one place that knows kinds and sizes.
//!
//! A path may lead to a device that never ends, to a pipe that nobody writes to, or to the page that
//! a browser saved instead of the file. Each is refused before it is read, with the way out.

use std::fs::FileType;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use fs_err::File;

/// The text that Git LFS leaves in place of a large file.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// The beginnings of web pages, in lower case.
const PAGES: [&[u8]; 2] = [b"<!doctype html", b"<html"];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The bytes at the start of a file in which a page is looked for.
const START_BYTES: u64 = 512;
/// Names of the open descriptors of this process, by which a shell passes a pipe as in `<(...)`.
const DESCRIPTORS: [&str; 3] = ["/dev/fd/", "/dev/stdin", "/proc/self/fd/"];

/// A kind of file, by the most bytes that one may have.
///
/// ```
/// use wsd_core::Input;
///
/// let path = std::env::temp_dir().join(format!("wsd-input-{}", std::process::id()));
/// std::fs::write(&path, "threshold = 0.8")?;
/// assert_eq!(Input::SETTINGS.read_text(&path)?, "threshold = 0.8");
/// # std::fs::remove_file(&path)?;
/// assert!(Input::SETTINGS.read("/dev/zero".as_ref()).is_err());
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Input {
    max_bytes: u64,
}

impl Input {
    /// Settings, templates, lists of keys: files that people write.
    pub const SETTINGS: Self = Self { max_bytes: 4 << 20 };
    /// Descriptions of a model in JSON, its tokenizer among them; the largest published ones have 40
    /// MB.
    pub const DESCRIPTION: Self = Self { max_bytes: 256 << 20 };
    /// Rows of prompts, which are read whole.
    pub const PROMPTS: Self = Self { max_bytes: 1 << 30 };
    /// Rows of training data, which are read whole.
    pub const ROWS: Self = Self { max_bytes: 16 << 30 };
    /// Weights and training states, as long as the disk holds them.
    pub const WEIGHTS: Self = Self { max_bytes: u64::MAX };

    /// Opens a file.
    ///
    /// # Errors
    /// Those of the file system; a folder, a device, a socket, a named pipe, a Git LFS pointer or a
    /// web page; a file with more bytes than this kind may have. Each names the path.
    pub fn open(self, path: &Path) -> io::Result<File> {
        // Opening a pipe waits for its other end, so the kind is looked at before.
        let found = fs_err::metadata(path).map_err(|error| unopened(path, error))?;
        let is_stream = refuse_kind(path, found.file_type())?;
        let mut file = File::open(path).map_err(|error| unopened(path, error))?;
        let found = file.metadata()?;
        refuse_kind(path, found.file_type())?;
        if is_stream {
            return Ok(file);
        }
        if found.len() > self.max_bytes {
            return Err(self.too_long(path, &format!("{} bytes", found.len())));
        }
        let mut start = Vec::new();
        (&mut file).take(START_BYTES).read_to_end(&mut start)?;
        refuse_content(path, &start)?;
        file.rewind()?;
        Ok(file)
    }

    /// Reads a file whole.
    ///
    /// # Errors
    /// Those of [`Input::open`].
    pub fn read(self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A file that grows meanwhile, or has no length, ends here too.
        self.open(path)?.take(self.max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.max_bytes {
            return Err(self.too_long(path, "more"));
        }
        refuse_content(path, &bytes)?;
        Ok(bytes)
    }

    /// Reads a text file whole.
    ///
    /// # Errors
    /// Those of [`Input::open`]; bytes that are not UTF-8, by their offset.
    pub fn read_text(self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            refusal(path, &format!("must be UTF-8, got an invalid byte at offset {offset}"))
        })
    }

    fn too_long(self, path: &Path, found: &str) -> io::Error {
        refusal(path, &format!("must have at most {} bytes, got {found}", self.max_bytes))
    }
}

/// Refuses whatever is neither a regular file nor a stream that the shell has opened for this
/// process. Returns true for the latter.
fn refuse_kind(path: &Path, kind: FileType) -> io::Result<bool> {
    if kind.is_file() {
        return Ok(false);
    }
    let is_open = path.to_str().is_some_and(|path| DESCRIPTORS.iter().any(|prefix| path.starts_with(prefix)));
    match kind_name(kind) {
        "a folder" => Err(refusal(path, "must be a file, got a folder")),
        "a device" => Err(refusal(path, "must be a regular file, got a device")),
        _ if is_open => Ok(true),
        name => Err(refusal(
            path,
            &format!("must be a regular file, got {name}\n  hint: `/dev/stdin` names the pipe on standard input"),
        )),
    }
}

#[cfg(unix)]
fn kind_name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(not(unix))]
fn kind_name(kind: FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "a device" }
}

/// Refuses a file whose beginning shows that it stands in place of another.
fn refuse_content(path: &Path, start: &[u8]) -> io::Result<()> {
    if start.starts_with(LFS_POINTER) {
        let hint =
            "fetch the content: run `git lfs install` and `git lfs pull` in its folder, or download the file again";
        return Err(refusal(path, &format!("it is a Git LFS pointer, not the file itself\n  hint: {hint}")));
    }
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start).trim_ascii_start();
    let begins = |page: &[u8]| text.get(..page.len()).is_some_and(|text| text.eq_ignore_ascii_case(page));
    if PAGES.into_iter().any(begins) {
        let hint = "the download saved a page about the file; on the Hugging Face hub, take the link with `resolve`";
        return Err(refusal(path, &format!("it is an HTML page, not the file itself\n  hint: {hint}")));
    }
    Ok(())
}

/// The error of a file that cannot be opened, with the common reasons in plain words. Every error names the
/// path once.
fn unopened(path: &Path, error: io::Error) -> io::Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file",
        io::ErrorKind::PermissionDenied => "this user may not read it",
        io::ErrorKind::NotADirectory => "a part of the path is a file and no folder",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{}: {reason}", path.display()))
}

fn refusal(path: &Path, reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(path: &Path) -> String {
        Input::SETTINGS.read(path).unwrap_err().to_string()
    }

    #[test]
    fn what_stands_in_place_of_a_file_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        for (content, reason) in [
            ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
            ("\n<!DOCTYPE html>\n<html>", "an HTML page"),
            ("\u{feff}<HTML lang=en>", "an HTML page"),
        ] {
            fs_err::write(&path, content).unwrap();
            let fault = fault(&path);
            assert!(fault.starts_with(&format!("{}: it is {reason}", path.display())), "{fault}");
            assert!(fault.contains("\n  hint: "), "{fault}");
        }
        assert!(fault(folder.path()).ends_with("must be a file, got a folder"));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_told_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let [none, inside] = ["none", "a/b"].map(|name| folder.path().join(name));
        fs_err::write(folder.path().join("a"), "").unwrap();
        let error = Input::SETTINGS.read(&none).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("{}: there is no such file", none.display()));
        assert!(fault(&inside).starts_with(&format!("{}: ", inside.display())));
        let refused = unopened(&none, io::ErrorKind::PermissionDenied.into());
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(refused.to_string(), format!("{}: this user may not read it", none.display()));
        let late = unopened(&none, io::Error::other("none: too late"));
        assert_eq!(late.to_string(), "none: too late");
    }

    #[test]
    fn a_file_longer_than_its_kind_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse");
        fs_err::File::create(&path).unwrap().set_len(10 << 30).unwrap();
        assert!(fault(&path).ends_with("must have at most 4194304 bytes, got 10737418240 bytes"));
        assert!(Input::WEIGHTS.open(&path).is_ok());
        fs_err::write(&path, [0xff]).unwrap();
        let fault = Input::SETTINGS.read_text(&path).unwrap_err().to_string();
        assert!(fault.ends_with("must be UTF-8, got an invalid byte at offset 0"), "{fault}");
    }

    #[test]
    #[cfg(unix)]
    fn devices_and_pipes_are_refused_without_waiting() {
        assert!(fault(Path::new("/dev/zero")).ends_with("must be a regular file, got a device"));
        let folder = tempfile::tempdir().unwrap();
        let [pipe, link] = ["pipe", "link"].map(|name| folder.path().join(name));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: there is no mkfifo");
            return;
        }
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for path in [pipe, link] {
            assert!(fault(&path).contains("must be a regular file, got a named pipe\n  hint: "));
        }
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(fault(&socket).contains("got a socket"));
    }

    #[test]
    #[cfg(unix)]
    fn a_pipe_that_the_shell_has_opened_is_read() {
        use std::os::fd::AsRawFd as _;
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"x = 1").unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        if Path::new(&path).exists() {
            assert_eq!(Input::SETTINGS.read_text(path.as_ref()).unwrap(), "x = 1");
        }
    }
}
