//! Reading files to learn from, JSON or JSON lines.

use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::{Lesson, LessonError};

/// A file's lessons and what could not be read.
#[derive(Debug, Default)]
pub struct Lessons {
    /// Line number and lesson of each row that could be read.
    pub read: Vec<(usize, Lesson)>,
    /// Line number of each row that could not, and why.
    pub refused: Vec<(usize, LessonError)>,
}

/// Why a file as a whole cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LessonsError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It begins as a JSON list and is none.
    #[error("{}: {source}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// All rows of a file: a JSON list of objects, or an object in each line.
///
/// # Errors
/// [`LessonsError`]; rows that cannot be read are no error of the file.
pub fn read_lessons(path: &Path) -> Result<Lessons, LessonsError> {
    let bytes = fs_err::read(path)?;
    // Some editors begin a file with this mark.
    let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&bytes);
    if bytes.trim_ascii_start().starts_with(b"[") {
        let rows = list(bytes).map_err(|source| LessonsError::Json { path: path.into(), source })?;
        return Ok(sort(rows.into_iter().map(|(line, row)| (line, Lesson::parse(row)))));
    }
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    Ok(sort(lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(index, line)| {
        let text = std::str::from_utf8(line).map_err(|error| LessonError::Utf8(error.valid_up_to()));
        (index + 1, text.and_then(Lesson::parse))
    })))
}

/// The rows of a list, each with the line it begins in.
fn list(bytes: &[u8]) -> Result<Vec<(usize, &str)>, serde_json::Error> {
    let rows: Vec<&RawValue> = serde_json::from_slice(bytes)?;
    let (mut line, mut seen) = (1, 0);
    let mut place = |row: &RawValue| {
        let at = row.get().as_ptr().addr() - bytes.as_ptr().addr();
        line += bytes[seen..at].iter().filter(|&&byte| byte == b'\n').count();
        seen = at;
        line
    };
    Ok(rows.into_iter().map(|row| (place(row), row.get())).collect())
}

fn sort(rows: impl Iterator<Item = (usize, Result<Lesson, LessonError>)>) -> Lessons {
    let mut lessons = Lessons::default();
    for (line, row) in rows {
        match row {
            Ok(lesson) => lessons.read.push((line, lesson)),
            Err(fault) => lessons.refused.push((line, fault)),
        }
    }
    lessons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_lists_are_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        for (text, lines) in [
            (&b"{\"text\": \"a\"}\r\n\n{}\n\xff\n{\"text\": \"b\"}"[..], [1, 5, 3, 4]),
            (&b"\n[{\"text\": \"a\"},\n {}, 7,\n\n{\"text\":\n \"b\"}]\n"[..], [2, 5, 3, 3]),
        ] {
            fs_err::write(&path, text).unwrap();
            let lessons = read_lessons(&path).unwrap();
            let read: Vec<_> = lessons.read.iter().map(|(line, _)| *line).collect();
            let refused: Vec<_> = lessons.refused.iter().map(|(line, _)| *line).collect();
            assert_eq!([read[0], read[1], refused[0], refused[1]], lines);
            assert_eq!((read.len(), refused.len()), (2, 2));
        }
        fs_err::write(&path, "[{}").unwrap();
        assert!(matches!(read_lessons(&path), Err(LessonsError::Json { .. })));
    }
}
