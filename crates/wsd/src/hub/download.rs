//! Downloads from the hub into the cache.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use sha2::{Digest, Sha256};

use super::api::Blob;
use super::cache::RepoCache;
use super::error::HubError;
use super::http::{Client, Failure, Query, Reply, header};
use super::progress::Progress;
use super::selection::Listing;

/// Bytes per read.
const BUFFER_BYTES: usize = 1 << 18;

/// Fetches the files of the client's model that the cache lacks, and records the revision once all
/// are there.
pub(super) fn snapshot(
    client: &Client<'_>,
    cache: &RepoCache,
    progress: &mut dyn Progress,
) -> Result<PathBuf, HubError> {
    let revision = client.revision(progress)?;
    let listing = Listing { repository: &client.name.repository, files: revision.files };
    let gguf = client.name.file.as_deref();
    if let Some(file) = gguf.filter(|file| !listing.files.contains(*file)) {
        return Err(no_such_gguf(client, file, &listing));
    }
    let fetch = Fetch { client, cache, commit: &revision.commit };
    for file in listing.first_files(gguf)? {
        fetch.file(&file, progress)?;
    }
    let folder = cache.snapshot(&revision.commit);
    for file in listing.shards(&folder, gguf)? {
        fetch.file(&file, progress)?;
    }
    cache.set_commit(&client.name.revision, &revision.commit)?;
    Ok(client.name.path_in(&folder))
}

fn no_such_gguf(client: &Client<'_>, file: &str, listing: &Listing<'_>) -> HubError {
    let names = listing.gguf_names();
    HubError::NotFound {
        what: format!("file `{file}` of `{}` at revision `{}`", client.name.repository, client.name.revision),
        endpoint: client.options.endpoint.clone(),
        hint: if names.is_empty() {
            "the repository holds no GGUF file; without `:file` its safetensors weights are used".into()
        } else {
            format!("its GGUF files are {}", names.join(", "))
        },
    }
}

/// The download of files of one commit.
struct Fetch<'a> {
    client: &'a Client<'a>,
    cache: &'a RepoCache,
    commit: &'a str,
}

impl Fetch<'_> {
    /// Fetches one file into the snapshot, unless it is there.
    fn file(&self, file: &str, progress: &mut dyn Progress) -> Result<(), HubError> {
        if self.cache.snapshot(self.commit).join(file).exists() {
            return Ok(());
        }
        let url = self.client.file_url(self.commit, file);
        let subject = format!("file `{file}` of `{}` at commit {}", self.client.name.repository, self.commit);
        let blob = self.client.blob(&url, &subject, progress)?;
        let _lock = self.cache.lock(&blob.etag, || {
            progress.note(&format!("{file}: waiting for another process that downloads it"));
        })?;
        let path = self.cache.blob(&blob.etag);
        if !path.exists() {
            fs::create_dir_all(self.cache.folder.join("blobs"))?;
            let partial = self.cache.blob(&format!("{}.incomplete", blob.etag));
            let query = Query { url: &url, subject: &subject, head: false, offset: 0 };
            let mut download = Download { client: self.client, query, blob: &blob, file, path: &partial, most: 0 };
            self.client.retry(progress, |progress| download.attempt(progress))?;
            match fs::rename(&partial, &path) {
                // Without locks, another process may have been faster.
                Err(_) if path.exists() => {}
                renamed => renamed?,
            }
        }
        self.cache.link(self.commit, file, &blob.etag)
    }
}

/// The download of one file into a partial file, over several attempts.
struct Download<'a> {
    client: &'a Client<'a>,
    query: Query<'a>,
    blob: &'a Blob,
    file: &'a str,
    path: &'a Path,
    /// Most bytes that any attempt has reached. An attempt progresses only if it gets further, also
    /// where the server cannot resume and each attempt restarts at 0.
    most: u64,
}

impl Download<'_> {
    fn attempt(&mut self, progress: &mut dyn Progress) -> Result<(), Failure> {
        let mut partial = Partial::open(self.path, self.blob)?;
        let resumed = partial.length > 0;
        self.most = self.most.max(partial.length);
        progress.start(self.file, self.blob.size);
        progress.advance(partial.length);
        if !resumed || self.blob.size != Some(partial.length) {
            let received = self.receive(&mut partial, progress);
            let progressed = partial.length > self.most;
            self.most = self.most.max(partial.length);
            received.map_err(|failure| match failure {
                Failure::Transient { error, wait, .. } => Failure::Transient { error, wait, progressed },
                permanent => permanent,
            })?;
        }
        partial.file.sync_all()?;
        self.check(partial, resumed)?;
        progress.finish();
        Ok(())
    }

    /// Requests the bytes that `partial` lacks and appends them.
    fn receive(&self, partial: &mut Partial, progress: &mut dyn Progress) -> Result<(), Failure> {
        let reply = self.client.send(Query { offset: partial.length, ..self.query }, |_, _| false)?;
        if !continues(&reply, partial.length) {
            partial.restart()?;
            progress.start(self.file, self.blob.size);
            let status = reply.status().as_u16();
            if status != 200 {
                let detail = " for a range that the file on the hub should have".into();
                return Err(Failure::transient(HubError::Status { url: self.query.url.into(), status, detail }));
            }
        }
        let mut body = reply.into_body();
        loop {
            let url = self.query.url;
            let broken =
                |source| Failure::transient(HubError::Connection { url: url.into(), source, is_connect: false });
            let part = body.next().map_err(broken)?;
            let ended = part.is_none();
            let part = part.unwrap_or_default();
            partial.append(&part)?;
            progress.advance(part.len() as u64);
            let expected = self.blob.size.unwrap_or(partial.length);
            if partial.length > expected || (ended && partial.length < expected) {
                let received = partial.length;
                if received > expected {
                    partial.restart()?;
                }
                return Err(Failure::transient(HubError::Length { url: self.query.url.into(), expected, received }));
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Compares the digest with the announced one. A mismatch in a resumed download is transient:
    /// the earlier part may have been wrong.
    fn check(&self, partial: Partial, resumed: bool) -> Result<(), Failure> {
        let (Some(expected), Some(digest)) = (self.blob.sha256(), partial.digest) else { return Ok(()) };
        let actual: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if actual.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        fs::remove_file(self.path)?;
        let error = HubError::Checksum { url: self.query.url.into(), expected: expected.into(), actual };
        Err(if resumed { Failure::transient(error) } else { Failure::Permanent(error) })
    }
}

/// True if the body of the reply starts at byte `offset` of the file.
fn continues(reply: &Reply, offset: u64) -> bool {
    match reply.status().as_u16() {
        206 => {
            header(reply.headers(), "content-range").is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
        }
        status => status == 200 && offset == 0,
    }
}

/// An incomplete file, with the digest of its contents so far.
struct Partial {
    file: fs::File,
    /// Computed only if there is a digest to compare with.
    digest: Option<Sha256>,
    length: u64,
}

impl Partial {
    /// Opens the partial file of an earlier download, or an empty one.
    fn open(path: &Path, blob: &Blob) -> std::io::Result<Self> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let digest = blob.sha256().map(|_| Sha256::new());
        let length = file.metadata()?.len();
        let mut partial = Self { file, digest, length };
        if blob.size.is_some_and(|size| size < length) {
            partial.restart()?;
        }
        if let Some(digest) = &mut partial.digest {
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let read = partial.file.read(&mut buffer)?;
                if read == 0 {
                    break;
                }
                digest.update(&buffer[..read]);
            }
        }
        partial.file.seek(SeekFrom::End(0))?;
        Ok(partial)
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.digest = self.digest.take().map(|_| Sha256::new());
        self.length = 0;
        Ok(())
    }
}
