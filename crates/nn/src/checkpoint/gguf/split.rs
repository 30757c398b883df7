//! Models in several files, as `llama-gguf-split` writes them: `NAME-00001-of-00003.gguf`. The first
//! part has the metadata, each part its own tensors.

use std::path::{Path, PathBuf};

use super::container;
use super::metadata::Metadata;
use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::tensor::Tensor;
use crate::error::{Error, Result};

/// A model in several files.
#[derive(Debug)]
pub(super) struct Split {
    /// The number of the file at hand, from 1.
    number: usize,
    /// The parts, first to last.
    parts: Vec<PathBuf>,
}

impl Split {
    /// Finds the parts of the model that a file belongs to. Returns `None` for a whole model.
    pub(super) fn of(metadata: &Metadata<'_>, path: &Path) -> Result<Option<Self>> {
        let key = "split.count";
        let Some(count) = metadata.unsigned(key)?.filter(|count| *count > 1) else { return Ok(None) };
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let parts = gguf_parts(&file);
        let Some(place) = parts.iter().position(|part| *part == file).filter(|_| parts.len() as u64 == count) else {
            let reason = format!(
                "the file is one of {count} parts, whose names must end in -00001-of-{count:05}.gguf and so on, got \
                 {file:?}\n  hint: restore the names, or join the parts with `llama-gguf-split --merge`",
            );
            return Err(metadata.fault(key, reason));
        };
        let parts = parts.into_iter().map(|part| path.with_file_name(part)).collect();
        let split = Self { number: place + 1, parts };
        split.refuse_missing()?;
        Ok(Some(split))
    }

    fn refuse_missing(&self) -> Result<()> {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let missing: Vec<_> = self.parts.iter().filter(|path| !path.exists()).map(name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let folder = self.parts[0].parent().unwrap_or_else(|| Path::new("")).display().to_string();
        let hint = format!("the model has {} parts; fetch the missing ones into the same folder", self.parts.len());
        Err(Error::MissingFile { file: folder, missing: missing.join(", "), hint })
    }

    /// Returns the first part, unless it is the file at hand.
    pub(super) fn other_first(&self) -> Option<&Path> {
        (self.number != 1).then(|| self.parts[0].as_path())
    }

    /// Reads the tensors of all parts but the first.
    pub(super) fn others(&self) -> Result<Vec<Tensor>> {
        let mut tensors = Vec::new();
        for (number, path) in self.parts.iter().enumerate().skip(1) {
            let file = path.display().to_string();
            let bytes = Bytes::map(path)?;
            let part = container::parse(&file, &bytes)?;
            let metadata = Metadata::new(&file, part.metadata);
            let found = metadata.unsigned("split.no")?;
            if found != Some(number as u64) {
                let found = found.map_or_else(|| "none".to_owned(), |found| found.to_string());
                let reason = format!("must be {number} by the name of the file, got {found}");
                return Err(metadata.fault("split.no", reason));
            }
            tensors.extend(part.tensors);
        }
        Ok(tensors)
    }
}

/// Lists the files of a GGUF model of which `file` is one: `NAME-00001-of-00003.gguf` and so on, or
/// `file` alone.
///
/// ```
/// let parts = wsd_nn::gguf_parts("q8_0/m-00002-of-00002.gguf");
/// assert_eq!(parts, ["q8_0/m-00001-of-00002.gguf", "q8_0/m-00002-of-00002.gguf"]);
/// assert_eq!(wsd_nn::gguf_parts("m-1-of-2.gguf"), ["m-1-of-2.gguf"]);
/// ```
#[must_use]
pub fn gguf_parts(file: &str) -> Vec<String> {
    let parts = || {
        let (stem, ending) = file.split_at(file.rfind('.').unwrap_or(file.len()));
        let (name, _, count) = parts_of_name(stem)?;
        Some((1..=count).map(|number| format!("{name}-{number:05}-of-{count:05}{ending}")).collect())
    };
    parts().unwrap_or_else(|| vec![file.to_owned()])
}

/// Splits a name such as `NAME-00001-of-00003` into the name, the number and the count.
fn parts_of_name(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(number) || !digits(count) {
        return None;
    }
    let number = number.parse().ok().filter(|number| *number > 0)?;
    Some((name, number, count.parse().ok()?))
}

/// Returns the name of the model in a file: that of the file, without the number of a part.
pub(super) fn model_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    parts_of_name(&stem).map_or(&*stem, |(name, ..)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use crate::checkpoint::Checkpoint;
    use crate::checkpoint::gguf::tests::fixture;
    use crate::checkpoint::gguf::writer::{Announced, Entry, write};

    use super::*;

    /// Writes the checkpoint fixture `llama` as three files and returns their folder.
    fn in_parts() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole.gguf");
        Checkpoint::open(&fixture("llama")).unwrap().save_gguf(&whole, crate::Format::F32).unwrap();
        let bytes = Bytes::from(fs_err::read(&whole).unwrap());
        let container = container::parse("whole", &bytes).unwrap();
        for (number, tensors) in container.tensors.chunks(container.tensors.len().div_ceil(3)).enumerate() {
            let place = |tensor: &Tensor| Announced {
                name: tensor.name.clone(),
                format: tensor.format,
                shape: tensor.shape.clone(),
            };
            let announced: Vec<_> = tensors.iter().map(place).collect();
            let own = [("split.no", number as u32), ("split.count", 3)];
            let mut metadata: Vec<_> =
                own.iter().map(|(key, value)| ((*key).to_owned(), Entry::Unsigned(*value))).collect();
            if number == 0 {
                metadata.extend(container.metadata.iter().map(|(key, value)| ((*key).to_owned(), entry(*value))));
            }
            let path = folder.path().join(format!("m-{:05}-of-00003.gguf", number + 1));
            let mut out = fs_err::File::create(path).unwrap();
            write(&mut out, &metadata, &announced, |index| Ok::<_, std::io::Error>(tensors[index].bytes().to_vec()))
                .unwrap();
        }
        folder
    }

    fn entry(value: container::Value<'_>) -> Entry {
        match value {
            container::Value::Unsigned(value) => Entry::Unsigned(value as u32),
            container::Value::Signed(value) => Entry::Signed(value as i32),
            container::Value::Float(value) => Entry::Float(value as f32),
            container::Value::Bool(value) => Entry::Bool(value),
            container::Value::String(text) => Entry::Text(text.into()),
            container::Value::Array(array) => Entry::Array(array.values().map(entry).collect()),
        }
    }

    #[test]
    fn any_part_opens_the_whole_model() {
        let folder = in_parts();
        let whole = Checkpoint::open(&folder.path().join("whole.gguf")).unwrap();
        for part in ["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"] {
            let opened = Checkpoint::open(&folder.path().join(part)).unwrap();
            assert_eq!((opened.name.as_str(), &opened.config), ("m", &whole.config));
            assert!(opened.weights.names().eq(whole.weights.names()), "{part}");
            assert!(opened.weights.iter().map(Tensor::bytes).eq(whole.weights.iter().map(Tensor::bytes)), "{part}");
        }
    }

    #[test]
    fn missing_and_renamed_parts_are_named() {
        let folder = in_parts();
        let message = |part: &str| Checkpoint::open(&folder.path().join(part)).unwrap_err().to_string();
        fs_err::rename(folder.path().join("m-00002-of-00003.gguf"), folder.path().join("m.gguf")).unwrap();
        for part in ["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"] {
            let missing = message(part);
            assert!(missing.contains("missing m-00002-of-00003.gguf\n  hint: the model has 3 parts"), "{missing}");
        }
        let renamed = message("m.gguf");
        assert!(renamed.contains("key `split.count`: the file is one of 3 parts") && renamed.contains("hint: "));
        fs_err::copy(folder.path().join("m-00003-of-00003.gguf"), folder.path().join("m-00002-of-00003.gguf")).unwrap();
        let wrong = message("m-00001-of-00003.gguf");
        assert!(wrong.contains("m-00002-of-00003.gguf: key `split.no`: must be 1"), "{wrong}");
    }

    #[test]
    fn names_of_parts_have_five_digits() {
        assert_eq!(parts_of_name("a-of-b-00002-of-00010"), Some(("a-of-b", 2, 10)));
        assert_eq!(
            (parts_of_name("a-2-of-3"), parts_of_name("a-00000-of-00003"), parts_of_name("a")),
            (None, None, None)
        );
    }
}
