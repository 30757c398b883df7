//! NVIDIA's libraries, found when they are needed: the driver, its run-time compiler and its matrix
//! products.

#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

/// A library, by the beginning of its file's name, and where it comes from.
struct Needed {
    name: &'static str,
    source: &'static str,
}

/// In the order of loading: each is loaded before those that need it.
const NEEDED: [Needed; 5] = [
    Needed { name: "libcuda.so.1", source: "NVIDIA's driver" },
    Needed { name: "libnvrtc-builtins.so", source: "pip install nvidia-cuda-nvrtc, or the CUDA toolkit" },
    Needed { name: "libnvrtc.so", source: "pip install nvidia-cuda-nvrtc, or the CUDA toolkit" },
    Needed { name: "libcublasLt.so", source: "pip install nvidia-cublas, or the CUDA toolkit" },
    Needed { name: "libcublas.so", source: "pip install nvidia-cublas, or the CUDA toolkit" },
];

/// The variable that names a folder to search first.
const FOLDER: &str = "WSD_CUDA_LIBRARIES";

/// Loads the libraries, once.
///
/// # Errors
/// A sentence that names the library and its source.
pub(super) fn load() -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(|| NEEDED.iter().try_for_each(load_one)).clone()
}

/// Tells whether there is a driver, and so perhaps a GPU that somebody expects to be used.
pub(super) fn has_driver() -> bool {
    load_one(&NEEDED[0]).is_ok()
}

/// Loads the compiler alone, which needs no GPU.
#[cfg(test)]
pub(super) fn load_compiler() -> Result<(), String> {
    NEEDED.iter().filter(|needed| needed.name.contains("nvrtc")).try_for_each(load_one)
}

fn load_one(needed: &Needed) -> Result<(), String> {
    let candidates = folders().into_iter().flat_map(|folder| files(&folder, needed.name));
    // Later binding by name finds a library that is loaded already, wherever it came from.
    let by_name = [PathBuf::from(needed.name)];
    let found = candidates.chain(by_name).find_map(|path| {
        // SAFETY: these libraries only register themselves when they are loaded.
        unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }.ok()
    });
    match found {
        Some(library) => {
            // Never unloaded: functions of it stay in use.
            std::mem::forget(library);
            Ok(())
        }
        None => {
            Err(format!("{} was not found (it comes with: {}; {FOLDER} names a folder)", needed.name, needed.source))
        }
    }
}

/// Files in `folder` whose names begin so, the latest version first.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_version_of(path, name)).collect();
    found.sort();
    found.reverse();
    found
}

fn is_version_of(path: &Path, name: &str) -> bool {
    let rest = path.file_name().and_then(|file| file.to_str()).and_then(|file| file.strip_prefix(name));
    rest.is_some_and(|rest| rest.chars().all(|c| c == '.' || c.is_ascii_digit()))
}

/// Folders that may hold the libraries: the named one, those of the system and of CUDA, and those
/// of Python packages.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os(FOLDER).into_iter().map(PathBuf::from).collect();
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        folders.extend(std::env::var_os(variable).map(|home| Path::new(&home).join("lib64")));
    }
    folders.extend(["/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/usr/local/cuda/lib64"].map(PathBuf::from));
    folders.extend(matching(Path::new("/usr/local"), "cuda-").into_iter().map(|home| home.join("lib64")));
    folders.extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"].map(PathBuf::from));
    for prefix in python_prefixes() {
        for python in matching(&prefix.join("lib"), "python3") {
            for packages in ["site-packages", "dist-packages"] {
                let nvidia = python.join(packages).join("nvidia");
                folders.extend(matching(&nvidia, "").into_iter().map(|package| package.join("lib")));
            }
        }
    }
    folders
}

/// Roots of Python installations: active environments, and those on the search path of programs.
fn python_prefixes() -> Vec<PathBuf> {
    let variables = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).filter_map(|folder| folder.parent().map(Path::to_path_buf));
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local"));
    let mut prefixes: Vec<_> = variables.chain(programs.collect::<Vec<_>>()).chain(home).collect();
    prefixes.dedup();
    prefixes
}

/// Folders in `parent` whose names begin so, the latest first.
fn matching(parent: &Path, start: &str) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(parent).into_iter().flatten().flatten();
    let begins = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(begins).collect();
    found.sort();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_library_are_told_from_other_libraries() {
        let is_version = |file: &str, name| is_version_of(&Path::new("/lib").join(file), name);
        assert!(is_version("libcublas.so", "libcublas.so") && is_version("libcublas.so.13.1.2", "libcublas.so"));
        assert!(!is_version("libcublasLt.so.13", "libcublas.so") && !is_version("libnvrtc.alt.so.13", "libnvrtc.so"));
    }
}
