//! A stand-in for a GPU: kernels compiled by the machine's C++ compiler, memory of the host.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a stand-in for tests may panic")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char, c_void};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

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
    kernels: Option<&'static Kernels>,
    recording: Option<Vec<Work>>,
    graphs: Vec<Vec<Work>>,
}

/// The kernels of a source. They are never unloaded.
struct Kernels {
    library: Library,
    /// Held while kernels run: a library has one set of threads.
    running: Mutex<()>,
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
        static FOUND: LazyLock<bool> =
            LazyLock::new(|| Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success()));
        if *FOUND {
            Ok(Self { name: name.to_owned(), total, state: Mutex::default() })
        } else {
            Err("there is no C++ compiler".to_owned())
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn run(&self, work: &Work) {
        let Kernels { library, running } = self.state().kernels.unwrap();
        let _running = running.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Options of the compiler. Contracted products would differ from the CPU's; each library has statics
/// of its own; jumps between the stacks of threads are meant.
const OPTIONS: [&str; 9] = [
    "-O1",
    "-std=c++17",
    "-w",
    "-shared",
    "-fPIC",
    "-fpermissive",
    "-fno-gnu-unique",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
];

/// Returns the kernels of a source, which is compiled once.
fn kernels(source: &str) -> Result<&'static Kernels> {
    type Loaded = OnceLock<Result<Kernels, String>>;
    static ALL: Mutex<BTreeMap<u64, &'static Loaded>> = Mutex::new(BTreeMap::new());
    let (start, rest) = source.split_at(source.find("#ifndef EMULATED").unwrap_or(0));
    let source = format!("{start}\n{RUNTIME}\n{rest}");
    let mut hasher = DefaultHasher::new();
    (OPTIONS, &source).hash(&mut hasher);
    let key = hasher.finish();
    let loaded =
        *ALL.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(|| Box::leak(Box::default()));
    let loaded = loaded.get_or_init(|| {
        let path = build(&source, key).map_err(|error| error.to_string())?;
        // SAFETY: the library only fills its table of kernels when it is loaded.
        let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
        Ok(Kernels { library, running: Mutex::new(()) })
    });
    loaded.as_ref().map_err(|reason| failed(reason))
}

/// Compiles a source to a library, which other processes find by its key.
fn build(source: &str, key: u64) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join("wsd-emulator");
    fs_err::create_dir_all(&folder)?;
    let path = folder.join(format!("{key:016x}.so"));
    if path.exists() {
        return Ok(path);
    }
    let own = tempfile::tempdir_in(&folder)?;
    let (text, made) = (own.path().join("kernels.cpp"), own.path().join("kernels.so"));
    fs_err::write(&text, source)?;
    let output = Command::new("c++").args(OPTIONS).arg("-o").arg(&made).arg(&text).output()?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
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
        self.state().kernels = Some(kernels(source)?);
        Ok(0)
    }

    fn unload(&self, _: usize) {}

    fn kernel(&self, _: usize, name: &str) -> Result<usize> {
        let text = CString::new(name).unwrap();
        let library = &self.state().kernels.unwrap().library;
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
