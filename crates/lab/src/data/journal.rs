//! An append-only file of answers that an interrupted run resumes.

use std::fs::TryLockError;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Stdout, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err::File;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wsd_core::{SAMPLING, TERMS, strategy_settings};

use super::Record;

/// Number of attempts to take the file lock.
const LOCK_TRIES: u32 = 20;
/// Pause between attempts.
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// The `wsd` object of a row whose answer was not made by a strategy, by which a journal knows the
/// settings of a row.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RowSettings<'a> {
    /// The settings.
    pub settings: &'a Map<String, Value>,
}

/// Answers to a list of records, in the order of the records.
#[derive(Debug)]
pub struct Journal {
    sink: Sink,
    settings: Map<String, Value>,
    done: usize,
    failed: usize,
}

/// Destination of the rows.
#[derive(Debug)]
enum Sink {
    File(File),
    Stdout(Stdout),
}

/// Reason for which a file cannot hold the answers.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another process has locked the file.
    #[error("{}: another process is writing it", .0.display())]
    Busy(PathBuf),
    /// A row of the file is not the answer to the record at its position.
    #[error(
        "{}:{line}: this row is not the answer to row {line} of the input\n  hint: name another output, or remove \
        this one to start over",
        .path.display()
    )]
    Foreign {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// A row of the file was answered with other settings.
    #[error(
        "{}:{line}: this row was answered with other settings: {differences}\n  hint: name another output, or take \
        the same settings",
        .path.display()
    )]
    Settings {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Settings that differ, each with both values.
        differences: String,
    },
    /// The file continues after the last answer.
    #[error(
        "{}:{line}: the input has {records} rows, but the file continues after their answers\n  hint: name another \
        output, or remove this one to start over",
        .path.display()
    )]
    Beyond {
        /// Path of the file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Number of rows in the input.
        records: usize,
    },
}

/// The fields that an answer adds to its record.
#[derive(Deserialize)]
struct Added {
    output: Option<String>,
    error: Option<String>,
    wsd: Option<RecordedSettings>,
}

/// The settings recorded in an answer.
#[derive(Deserialize)]
struct RecordedSettings {
    settings: Option<Map<String, Value>>,
}

/// Returns whether another process holds the lock, after taking it otherwise.
///
/// A child process inherits its parent's open files until it executes, so a lock can outlive its
/// owner for a moment; hence the retries. On a file system without locks the file counts as
/// unlocked.
fn is_locked_elsewhere(file: &std::fs::File) -> bool {
    let is_taken = |_| {
        let taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        if taken {
            std::thread::sleep(LOCK_WAIT);
        }
        taken
    };
    (0..LOCK_TRIES).all(is_taken)
}

/// Lists the settings that differ, each with both values; nothing where all are equal. A setting that a
/// row lacks and that has its default now is none: the program that wrote the row did not know it yet.
fn differences(before: &Map<String, Value>, now: &Map<String, Value>) -> String {
    let is_new = |key: &String| !before.contains_key(key) && !is_default(key, &now[key]);
    let keys = before.keys().chain(now.keys().filter(|key| is_new(key)));
    let shown = |value: Option<&Value>| value.map_or("unset".to_owned(), Value::to_string);
    let differing = keys.filter(|key| before.get(*key) != now.get(*key));
    let lines = differing.map(|key| format!("`{key}` {}, now {}", shown(before.get(key)), shown(now.get(key))));
    lines.collect::<Vec<_>>().join("; ")
}

/// Tells whether a setting of answers has a value by default.
fn is_default(name: &str, value: &Value) -> bool {
    let settings = strategy_settings().into_iter().chain(TERMS.iter().chain(SAMPLING).copied());
    let default = settings.filter(|setting| setting.name == name).find_map(|setting| setting.default.as_ref());
    default.is_some_and(|default| json!(default) == *value)
}

impl Journal {
    /// Opens or creates the file and counts the records answered in it. An incomplete last line is
    /// removed. A pipe or device is only written to, from the first record on. Rows recorded with
    /// other `settings` (at `wsd.settings`) are refused.
    ///
    /// # Errors
    /// [`JournalError`]; the file is left unchanged.
    pub fn open(path: &Path, records: &[Record], settings: Map<String, Value>) -> Result<Self, JournalError> {
        // A pipe is opened for writing only: a process that holds its read end too is not told when
        // the reader exits.
        let is_stream = fs_err::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let mut options = fs_err::OpenOptions::new();
        options.read(!is_stream).write(true).create(!is_stream).truncate(false);
        let mut file = options.open(path)?;
        let mut progress = Resumed::default();
        if !is_stream {
            if is_locked_elsewhere(file.file()) {
                return Err(JournalError::Busy(path.into()));
            }
            progress = Resumed::read(&mut file, path, records, &settings)?;
            file.set_len(progress.end)?;
            file.seek(SeekFrom::Start(progress.end))?;
        }
        Ok(Self { sink: Sink::File(file), settings, done: progress.done, failed: progress.failed })
    }

    /// Counts the records answered in a file, which may be missing and then is not created.
    ///
    /// # Errors
    /// Those of [`Journal::open`].
    pub fn check(path: &Path, records: &[Record], settings: &Map<String, Value>) -> Result<usize, JournalError> {
        if path.is_file() { Ok(Self::open(path, records, settings.clone())?.done) } else { Ok(0) }
    }

    /// A journal that writes to standard output, from the first record on.
    #[must_use]
    pub fn stdout(settings: Map<String, Value>) -> Self {
        Self { sink: Sink::Stdout(std::io::stdout()), settings, done: 0, failed: 0 }
    }

    /// Settings recorded in each answer.
    #[must_use]
    pub fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }

    /// Number of records that have a row; these are the first ones.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done
    }

    /// Number of rows that hold an error instead of an answer.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Appends a row as one line; `failed` marks a row that holds an error.
    ///
    /// # Errors
    /// I/O errors.
    pub fn append(&mut self, row: &str, failed: bool) -> std::io::Result<()> {
        let sink: &mut dyn Write = match &mut self.sink {
            Sink::File(file) => file,
            Sink::Stdout(stdout) => stdout,
        };
        sink.write_all(format!("{row}\n").as_bytes())?;
        sink.flush()?;
        self.done += 1;
        self.failed += usize::from(failed);
        Ok(())
    }

    /// Syncs the file to disk.
    ///
    /// # Errors
    /// I/O errors.
    pub fn close(self) -> std::io::Result<()> {
        match self.sink {
            Sink::File(file) if file.metadata()?.is_file() => file.sync_all(),
            _ => Ok(()),
        }
    }
}

/// The answers that a file already holds.
#[derive(Default)]
struct Resumed {
    done: usize,
    failed: usize,
    /// Length of the file up to the last complete row, in bytes.
    end: u64,
}

impl Resumed {
    /// Counts the complete rows.
    fn read(
        file: &mut File,
        path: &Path,
        records: &[Record],
        settings: &Map<String, Value>,
    ) -> Result<Self, JournalError> {
        let (mut reader, mut row, mut found) = (BufReader::new(file), Vec::new(), Self::default());
        loop {
            row.clear();
            let len = reader.read_until(b'\n', &mut row)?;
            let (line, path) = (found.done + 1, PathBuf::from(path));
            let is_whole = row.ends_with(b"\n");
            // After a power failure a file system may leave zeros at the end of the file.
            let written = row.iter().rposition(|&byte| byte != 0 || is_whole).map_or(&[][..], |last| &row[..=last]);
            let Some(record) = records.get(found.done) else {
                let beyond = JournalError::Beyond { path, line, records: records.len() };
                return if written.is_empty() { Ok(found) } else { Err(beyond) };
            };
            let opening = format!("{}, \"", record.opening());
            let is_answer = written.iter().zip(opening.as_bytes()).all(|(a, b)| a == b);
            let added = serde_json::from_slice::<Added>(&row).ok().filter(|_| is_whole);
            // Settings may change the input too, so they are compared first.
            let recorded = added.as_ref().and_then(|added| added.wsd.as_ref()?.settings.as_ref());
            let differences = recorded.map(|before| differences(before, settings)).unwrap_or_default();
            if !differences.is_empty() {
                return Err(JournalError::Settings { path, line, differences });
            }
            match added {
                _ if !is_answer => return Err(JournalError::Foreign { path, line }),
                _ if !is_whole => return Ok(found),
                Some(Added { output: Some(_), error: None, .. }) => {}
                Some(Added { output: None, error: Some(_), .. }) => found.failed += 1,
                _ => return Err(JournalError::Foreign { path, line }),
            }
            found.done += 1;
            found.end += len as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let mut journal = Journal::open(&path, &records, Map::new()).unwrap();
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
            assert!(
                matches!(Journal::open(&path, &records, Map::new()), Err(JournalError::Foreign { line: 1, .. })),
                "{content}"
            );
            assert_eq!(fs_err::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail() {
        let folder = tempfile::tempdir().unwrap();
        let (path, records) = (folder.path().join("out.jsonl"), records());
        let row = |i: usize| records[i].with(&json!({"output": ""})).unwrap() + "\n";
        let whole: String = (0..4).map(row).collect();
        for (content, kept) in [
            (format!("{whole}\0\0"), whole.len()),
            (row(0) + "\0\0\0", row(0).len()),
            (row(0) + &row(1)[..20] + "\0", row(0).len()),
        ] {
            fs_err::write(&path, &content).unwrap();
            Journal::open(&path, &records, Map::new()).unwrap();
            assert_eq!(fs_err::read_to_string(&path).unwrap(), whole[..kept], "{content:?}");
        }
        fs_err::write(&path, whole + "more").unwrap();
        let error = Journal::open(&path, &records, Map::new()).unwrap_err().to_string();
        assert!(error.contains("out.jsonl:5: the input has 4 rows, but the file continues after"), "{error}");
    }

    #[test]
    fn answers_of_other_settings_are_not_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, records) = (folder.path().join("out.jsonl"), records());
        let settings = |value: Value| value.as_object().unwrap().clone();
        let before = settings(json!({"threshold": 0.8, "stop": ["a"], "seed": 1}));
        let row = records[0].with(&json!({"output": "", "wsd": {"settings": before}})).unwrap() + "\n";
        fs_err::write(&path, &row).unwrap();
        assert_eq!(Journal::open(&path, &records, before).unwrap().done(), 1);
        // Of settings that an older program did not know, the default is right.
        let newer = settings(json!({
            "threshold": 0.8, "stop": ["a"], "seed": 1, "skip_repetitions": false, "top_n_sigma": 0.0,
        }));
        assert_eq!(Journal::open(&path, &records, newer.clone()).unwrap().done(), 1);
        let mut changed = newer;
        changed.insert("skip_repetitions".into(), json!(true));
        let error = Journal::open(&path, &records, changed).unwrap_err().to_string();
        assert!(error.contains(": `skip_repetitions` unset, now true\n"), "{error}");
        let now = settings(json!({"threshold": 0.5, "seed": 1, "prefill": "Sure"}));
        let error = Journal::open(&path, &records, now).unwrap_err().to_string();
        let want = ":1: this row was answered with other settings: `threshold` 0.8, now 0.5; `stop` [\"a\"], now \
        unset; \
                    `prefill` unset, now \"Sure\"\n  hint: name another output";
        assert!(error.contains(want), "{error}");
        assert_eq!(fs_err::read_to_string(&path).unwrap(), row);
    }

    #[test]
    fn one_writer_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let _first = Journal::open(&path, &records(), Map::new()).unwrap();
        assert!(matches!(Journal::open(&path, &records(), Map::new()), Err(JournalError::Busy(_))));
    }
}
