//! A stand-in for a GPU: kernels compiled by the machine's C++ compiler, memory of the host.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a stand-in for tests may panic")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use libloading::{Library, Symbol};

use super::driver::{Device, Launch, Products};
use crate::error::{Error, Result};

const RUNTIME: &str = include_str!("kernels/emulator.h");
const ALIGNMENT: usize = 256;

/// An element of the queue, as it is recorded.
enum Work {
    Launch(usize, [u32; 3], u32, Vec<u8>),
    Products(Products),
}

#[derive(Default)]
struct State {
    /// Bytes at each address.
    memory: HashMap<u64, usize>,
    library: Option<&'static Library>,
    recording: Option<Vec<Work>>,
    graphs: Vec<Vec<Work>>,
}

/// The stand-in.
pub(super) struct Emulator {
    name: String,
    /// Bytes of its memory.
    total: usize,
    state: Mutex<State>,
}

impl Emulator {
    /// Returns a stand-in with so much memory, or a reason why there is none.
    pub(super) fn try_new(name: &str, total: usize) -> Result<Self, String> {
        let found = Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success());
        if found {
            Ok(Self { name: name.to_owned(), total, state: Mutex::default() })
        } else {
            Err("there is no C++ compiler".to_owned())
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn run(&self, work: &Work) {
        // A library has one set of threads.
        static RUNNING: Mutex<()> = Mutex::new(());
        let _running = RUNNING.lock().unwrap();
        let library = self.state().library.unwrap();
        // SAFETY: the signatures are those of `emulator.h`, and kernels are given memory of this stand-in.
        unsafe {
            match work {
                Work::Launch(kernel, [x, y, z], threads, args) => {
                    type Run = unsafe extern "C" fn(*const c_void, u32, u32, u32, u32, *const c_void);
                    let run: Symbol<'_, Run> = library.get(b"launch").unwrap();
                    // The parameter is aligned as its struct is.
                    let words: Vec<u64> = args.chunks(8).map(bytemuck::pod_read_unaligned).collect();
                    run(*kernel as *const c_void, *x, *y, *z, *threads, words.as_ptr().cast());
                }
                Work::Products(p) => {
                    type Run = unsafe extern "C" fn(*const u64, *const u64, f32);
                    let run: Symbol<'_, Run> = library.get(b"multiply").unwrap();
                    let operands = [p.a, p.b, p.out].map(|operand| {
                        let [stride, step] = [operand.stride, operand.step].map(|size| size as u64);
                        [operand.address, stride, step, u64::from(operand.is_transposed)]
                    });
                    let sizes = [p.rows, p.inner, p.columns, p.count, usize::from(p.adds)].map(|size| size as u64);
                    run(operands.as_flattened().as_ptr(), sizes.as_ptr(), p.scale);
                }
            }
        }
    }

    fn queue(&self, work: Work) {
        if let Some(recording) = &mut self.state().recording {
            recording.push(work);
            return;
        }
        self.run(&work);
    }
}

/// Compiles a source to a library, once.
fn build(source: &str) -> Result<PathBuf> {
    let (start, rest) = source.split_at(source.find("#ifndef EMULATED").unwrap_or(0));
    let source = format!("{start}\n{RUNTIME}\n{rest}");
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let folder = std::env::temp_dir().join("wsd-emulator");
    fs_err::create_dir_all(&folder)?;
    let path = folder.join(format!("{:016x}.so", hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    let own = tempfile::tempdir_in(&folder)?;
    let (text, made) = (own.path().join("kernels.cpp"), own.path().join("kernels.so"));
    fs_err::write(&text, source)?;
    // Contracted products would differ from the CPU's; each library has statics of its own.
    let options =
        ["-O1", "-std=c++17", "-w", "-shared", "-fPIC", "-fpermissive", "-fno-gnu-unique", "-ffp-contract=off", "-o"];
    let output = Command::new("c++").args(options).arg(&made).arg(&text).output()?;
    if !output.status.success() {
        return Err(Error::DeviceFailed { reason: String::from_utf8_lossy(&output.stderr).into_owned() });
    }
    fs_err::rename(&made, &path)?;
    Ok(path)
}

impl Device for Emulator {
    fn name(&self) -> &str {
        &self.name
    }

    fn arch(&self) -> u32 {
        80
    }

    fn memory(&self) -> Result<(usize, usize)> {
        Ok((self.total - self.state().memory.values().sum::<usize>(), self.total))
    }

    fn alloc(&self, bytes: usize) -> Result<Option<u64>> {
        if bytes > self.memory()?.0 {
            return Ok(None);
        }
        let layout = Layout::from_size_align(bytes, ALIGNMENT).unwrap();
        // SAFETY: the size is not zero, as the caller asks for 16 bytes at least.
        let address = unsafe { alloc_zeroed(layout) } as u64;
        self.state().memory.insert(address, bytes);
        Ok(Some(address))
    }

    fn free(&self, address: u64) {
        let bytes = self.state().memory.remove(&address).unwrap();
        // SAFETY: `alloc` made it with this layout.
        unsafe { dealloc(address as *mut u8, Layout::from_size_align(bytes, ALIGNMENT).unwrap()) }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the owner of the memory has checked the range.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the owner of the memory has checked the range.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: both owners have checked their ranges, which are apart.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn compile(&self, source: &str) -> Result<usize> {
        // SAFETY: the library only fills its table of kernels when it is loaded. It is never unloaded.
        let library = unsafe { Library::new(build(source)?) }.map_err(|error| failed(&error))?;
        self.state().library = Some(Box::leak(Box::new(library)));
        Ok(0)
    }

    fn unload(&self, _: usize) {}

    fn kernel(&self, _: usize, name: &str) -> Result<usize> {
        let text = CString::new(name).unwrap();
        let library = self.state().library.unwrap();
        // SAFETY: the signature is that of `emulator.h`.
        let kernel = unsafe {
            let find: Symbol<'_, unsafe extern "C" fn(*const c_char) -> *const c_void> = library.get(b"find").unwrap();
            find(text.as_ptr())
        };
        if kernel.is_null() { Err(failed(&format!("no kernel {name}"))) } else { Ok(kernel as usize) }
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.queue(Work::Launch(launch.kernel, launch.grid, launch.threads, launch.args.to_vec()));
        Ok(())
    }

    fn multiply(&self, products: &Products) -> Result<()> {
        self.queue(Work::Products(*products));
        Ok(())
    }

    fn record(&self, queue: &mut dyn FnMut() -> Result<()>) -> Result<usize> {
        self.state().recording = Some(Vec::new());
        let queued = queue();
        let recorded = self.state().recording.take().unwrap();
        queued?;
        let mut state = self.state();
        state.graphs.push(recorded);
        Ok(state.graphs.len() - 1)
    }

    fn replay(&self, graph: usize) -> Result<()> {
        let work = std::mem::take(&mut self.state().graphs[graph]);
        work.iter().for_each(|work| self.run(work));
        self.state().graphs[graph] = work;
        Ok(())
    }

    fn forget(&self, graph: usize) {
        self.state().graphs[graph].clear();
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::DeviceFailed { reason: error.to_string() }
}
