//! NVIDIA's run-time compiler, and the cache of what it made.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use cudarc::nvrtc::{result as nvrtc, sys};

use crate::error::{Error, Result};

/// Returns the machine code that was made of a source before.
pub(super) fn cached(source: &str, arch: u32) -> Option<Vec<u8>> {
    fs_err::read(cache_file(source, arch)?).ok()
}

/// Compiles to machine code of an architecture, and keeps it for the next start.
///
/// # Errors
/// [`Error::DeviceFailed`] with the compiler's messages.
pub(super) fn compile(source: &str, arch: u32) -> Result<Vec<u8>> {
    let text = CString::new(source).map_err(failed)?;
    let program = nvrtc::create_program(&text, Some(c"wsd.cu")).map_err(failed)?;
    let options = [format!("--gpu-architecture=sm_{arch}"), "-std=c++17".to_owned(), "-default-device".to_owned()];
    // SAFETY: the program is alive until the end of the block, and buffers have the sizes that the library tells.
    let code = unsafe {
        let compiled = nvrtc::compile_program(program, &options);
        let code = match compiled {
            Ok(()) => {
                let mut bytes = 0;
                let size = sys::nvrtcGetCUBINSize(program, &raw mut bytes).result();
                let mut code = vec![0u8; bytes];
                let got = size.and_then(|()| sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()).result());
                got.map(|()| code).map_err(failed)
            }
            Err(_) => {
                let log = nvrtc::get_program_log(program).unwrap_or_default();
                let log: Vec<u8> = log.into_iter().map(|c| c as u8).take_while(|c| *c != 0).collect();
                Err(failed(String::from_utf8_lossy(&log)))
            }
        };
        let _ = nvrtc::destroy_program(program);
        code
    }?;
    if let Some(path) = cache_file(source, arch) {
        // Without a cache the next start compiles again, which is no reason to fail.
        let _ = path.parent().map(fs_err::create_dir_all);
        let _ = wsd_core::files::write_whole(&path, &code);
    }
    Ok(code)
}

/// The file of a compiled source: in the user's cache, under a name that depends on all of the
/// source.
fn cache_file(source: &str, arch: u32) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library writes two integers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().ok()?;
    let mut hasher = DefaultHasher::new();
    (source, arch, major, minor).hash(&mut hasher);
    Some(folder.join("wsd").join("cuda").join(format!("sm{arch}-{:016x}.cubin", hasher.finish())))
}

fn failed(error: impl Display) -> Error {
    Error::DeviceFailed { reason: format!("its kernels do not compile: {error}") }
}
