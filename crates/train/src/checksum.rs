//! Files with their SHA-256 beside them, so that no changed bit is taken for data.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wsd_core::Input;
use wsd_core::files::write_whole;

use crate::error::{Error, Result};

/// Returns the path of the sum of a file.
pub(crate) fn path_of_sum(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

/// Writes a file whole, its sum first: a file without its sum is never there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(&path_of_sum(path), line(path, bytes).as_bytes())?;
    Ok(write_whole(path, bytes)?)
}

/// Reads a file and compares it with its sum.
///
/// # Errors
/// Those of the file system; another sum, or none.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = Input::WEIGHTS.read(path)?;
    let sum = match Input::SETTINGS.read(&path_of_sum(path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::malformed(path, "checksum", "its .sha256 file is missing"));
        }
        sum => sum?,
    };
    if sum != line(path, &bytes).as_bytes() {
        return Err(Error::malformed(path, "checksum", "its SHA-256 differs from the one beside it"));
    }
    Ok(bytes)
}

/// Returns the content of a sum, as `sha256sum -c` reads it.
fn line(path: &Path, bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}  {}\n", path.file_name().unwrap_or_default().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bit_of_the_file_or_its_sum_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.bin");
        write(&path, b"abc").unwrap();
        let sum = fs_err::read_to_string(path_of_sum(&path)).unwrap();
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  state.bin\n");
        assert_eq!(read(&path).unwrap(), b"abc");
        for changed in [path.clone(), path_of_sum(&path)] {
            let whole = fs_err::read(&changed).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut damaged = whole.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                fs_err::write(&changed, damaged).unwrap();
                assert!(read(&path).unwrap_err().to_string().contains("its SHA-256 differs"));
            }
            fs_err::write(&changed, whole).unwrap();
        }
        fs_err::remove_file(path_of_sum(&path)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("its .sha256 file is missing"));
    }
}
