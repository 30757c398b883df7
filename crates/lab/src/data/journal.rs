//! A file of answers that grows row by row and is taken up again after an interruption.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use fs_err::File;
use serde::Deserialize;

use super::Record;

/// The answers to some records, in their order.
#[derive(Debug)]
pub struct Journal {
    file: File,
    done: usize,
    failed: usize,
}

/// Why a file cannot take the answers.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another process holds the file.
    #[error("{}: another process is writing it", .0.display())]
    Busy(PathBuf),
    /// A row in the file is not the answer to the record of its place.
    #[error(
        "{}:{line}: this row is not the answer to row {line} of the input\n  hint: name another output, or remove this one to start anew",
        .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
}

/// What tells a complete row from a foreign one.
#[derive(Deserialize)]
struct Tail {
    output: Option<String>,
    error: Option<String>,
}

impl Journal {
    /// Open or make the file and find out how many records are answered in it. A torn last line is cut off. What is no
    /// regular file, such as a pipe, is only written to, from the first record on.
    ///
    /// # Errors
    /// [`JournalError`]; the file is left as it was.
    pub fn open(path: &Path, records: &[Record]) -> Result<Self, JournalError> {
        // A pipe is only written to: with an end of its own to read from, it would never learn that the reader has gone.
        let is_stream = fs_err::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let mut options = fs_err::OpenOptions::new();
        options.read(!is_stream).write(true).create(!is_stream).truncate(false);
        let mut journal = Self { file: options.open(path)?, done: 0, failed: 0 };
        if is_stream {
            return Ok(journal);
        }
        match journal.file.file().try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::Busy(path.into())),
            // A file system without locks.
            Err(std::fs::TryLockError::Error(_)) => {}
        }
        let end = journal.take_up(path, records)?;
        journal.file.set_len(end)?;
        journal.file.seek(SeekFrom::Start(end))?;
        Ok(journal)
    }

    /// Count the rows that are there; the length of the file up to the last whole one.
    fn take_up(&mut self, path: &Path, records: &[Record]) -> Result<u64, JournalError> {
        let (mut reader, mut row, mut end) = (BufReader::new(&mut self.file), Vec::new(), 0);
        loop {
            row.clear();
            let len = reader.read_until(b'\n', &mut row)?;
            let foreign = || JournalError::Foreign { path: path.into(), line: self.done + 1 };
            let opening = records.get(self.done).map_or(String::new(), |record| format!("{}, \"", record.opening()));
            let same = row.iter().zip(opening.as_bytes()).all(|(a, b)| a == b);
            match serde_json::from_slice::<Tail>(&row).ok().filter(|_| row.ends_with(b"\n")) {
                None if same && !row.ends_with(b"\n") && (row.is_empty() || !opening.is_empty()) => return Ok(end),
                Some(Tail { output: Some(_), error: None }) if same && !opening.is_empty() => {}
                Some(Tail { output: None, error: Some(_) }) if same && !opening.is_empty() => self.failed += 1,
                _ => return Err(foreign()),
            }
            self.done += 1;
            end += len as u64;
        }
    }

    /// Records that have a row, from the first on.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// How many of the rows hold an error instead of an answer.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Write the next row, as one line; `failed` says that it holds an error.
    ///
    /// # Errors
    /// Those of writing.
    pub fn append(&mut self, row: &str, failed: bool) -> std::io::Result<()> {
        self.file.write_all(format!("{row}\n").as_bytes())?;
        self.file.flush()?;
        self.done += 1;
        self.failed += usize::from(failed);
        Ok(())
    }

    /// See that all rows are on the disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn close(self) -> std::io::Result<()> {
        if self.file.metadata()?.is_file() { self.file.sync_all() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn records() -> Vec<Record> {
        (0..4).map(|i| Record::parse(&format!(r#"{{"id": {i}, "prompt": "p"}}"#)).unwrap()).collect()
    }

    #[test]
    fn wherever_it_is_cut_the_whole_rows_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, records) = (folder.path().join("out.jsonl"), records());
        let answer = |i: usize| match i {
            1 => records[i].with(&json!({"error": "too long"})).unwrap(),
            _ => records[i].with(&json!({"output": "é\n", "wsd": {}})).unwrap(),
        };
        let whole: String = (0..4).map(|i| answer(i) + "\n").collect();
        for cut in 0..=whole.len() {
            fs_err::write(&path, &whole.as_bytes()[..cut]).unwrap();
            let mut journal = Journal::open(&path, &records).unwrap();
            assert_eq!(journal.done(), whole.as_bytes()[..cut].iter().filter(|&&byte| byte == b'\n').count());
            for i in journal.done()..4 {
                journal.append(&answer(i), i == 1).unwrap();
            }
            assert_eq!((journal.done(), journal.failed()), (4, 1));
            journal.close().unwrap();
            assert_eq!(fs_err::read_to_string(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn rows_of_another_input_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (path, records) = (folder.path().join("out.jsonl"), records());
        for content in [
            "{\"id\": 9, \"prompt\": \"p\", \"output\":\"\"}\n",
            "notes\n",
            "notes",
            "{\"id\": 0, \"prompt\": \"p\"}\n",
        ] {
            fs_err::write(&path, content).unwrap();
            assert!(matches!(Journal::open(&path, &records), Err(JournalError::Foreign { line: 1, .. })), "{content}");
            assert_eq!(fs_err::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let _first = Journal::open(&path, &records()).unwrap();
        assert!(matches!(Journal::open(&path, &records()), Err(JournalError::Busy(_))));
    }
}
