//! Memory, kernels, recorded steps and matrix products of a device.
//!
//! [`Device`] is the interface of a device in plain numbers; [`nvidia`] implements it. The types of
//! this module give these numbers owners.

mod nvidia;

use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::{AnyBitPattern, NoUninit};

use crate::error::{Error, Result};

/// The operations of a device. Addresses and handles are numbers that only the device itself
/// interprets. Work is done in the order of the calls, later than the calls; [`Device::read`] waits
/// for it.
pub(super) trait Device: Send + Sync {
    /// The name for people.
    fn name(&self) -> &str;
    /// The compute capability: 90 for 9.0.
    fn arch(&self) -> u32;
    /// Returns free and total bytes of memory.
    fn memory(&self) -> Result<(usize, usize)>;
    /// Allocates zeros; `None` without enough memory.
    fn alloc(&self, bytes: usize) -> Result<Option<u64>>;
    fn free(&self, address: u64);
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()>;
    /// Copies device memory.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    /// Makes kernels of source text, by way of a cache on disk.
    fn compile(&self, source: &str) -> Result<usize>;
    fn unload(&self, module: usize);
    fn kernel(&self, module: usize, name: &str) -> Result<usize>;
    fn launch(&self, launch: &Launch<'_>) -> Result<()>;
    /// Computes products of a shape.
    fn multiply(&self, products: &Products) -> Result<()>;
    /// Records the launches and products of `queue`, which are not done.
    fn record(&self, queue: &mut dyn FnMut() -> Result<()>) -> Result<usize>;
    fn replay(&self, graph: usize) -> Result<()>;
    fn forget(&self, graph: usize);
}

/// A kernel to be run.
pub(super) struct Launch<'a> {
    pub(super) kernel: usize,
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    /// The kernel may start before its predecessor has ended, for which it waits itself.
    pub(super) overlaps: bool,
    /// Its parameter.
    pub(super) args: &'a [u8],
}

/// A product of a matrix `w`, `(outputs, inputs)`, with the rows of `x`, `(rows, inputs)`, to
/// floats.
pub(super) struct Product {
    pub(super) w: u64,
    pub(super) x: u64,
    pub(super) out: u64,
    pub(super) outputs: usize,
    pub(super) rows: usize,
    pub(super) inputs: usize,
    /// Floats from a row of `out` to the next.
    pub(super) stride: usize,
    /// The type of `w` and `x`: F32, BF16 or F16.
    pub(super) format: crate::format::Format,
}

/// A matrix in memory, row after row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    pub(super) address: u64,
    /// Values from a row to the next.
    pub(super) stride: usize,
    /// Rows and columns are exchanged in the product.
    pub(super) is_transposed: bool,
    /// Values from the matrix of a product to that of the next.
    pub(super) step: usize,
}

/// Products of one shape: `out = scale * a b` in floats, or that added to `out`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Products {
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) out: Operand,
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) count: usize,
    pub(super) scale: f32,
    pub(super) adds: bool,
    /// The type of `a` and `b`: F32, BF16 or F16.
    pub(super) format: crate::format::Format,
}

/// A device, shared by all that is on it.
#[derive(Clone)]
pub(super) struct Gpu(Arc<dyn Device>);

impl Gpu {
    /// Opens the NVIDIA GPU with this number.
    ///
    /// # Errors
    /// [`Error::DeviceMissing`] with the reason.
    pub(super) fn open(number: usize) -> Result<Self> {
        Ok(Self(Arc::new(nvidia::Nvidia::open(number)?)))
    }

    /// The number of NVIDIA GPUs.
    pub(super) fn count() -> usize {
        nvidia::Nvidia::count()
    }

    #[cfg(any(test, feature = "stand-in"))]
    pub(super) fn new(device: impl Device + 'static) -> Self {
        Self(Arc::new(device))
    }

    pub(super) fn name(&self) -> &str {
        self.0.name()
    }

    pub(super) fn arch(&self) -> u32 {
        self.0.arch()
    }

    /// Returns free and total bytes of memory.
    pub(super) fn memory(&self) -> Result<(usize, usize)> {
        self.0.memory()
    }

    /// Allocates zeros.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] with the numbers.
    pub(super) fn alloc(&self, bytes: usize) -> Result<Buffer> {
        match self.0.alloc(bytes.max(16))? {
            Some(address) => Ok(Buffer { gpu: self.clone(), address, bytes }),
            None => {
                let (free, _) = self.memory()?;
                Err(Error::DeviceMemory { device: self.name().to_owned(), bytes, free })
            }
        }
    }

    /// Allocates a copy of `values`.
    pub(super) fn upload<T: NoUninit>(&self, values: &[T]) -> Result<Buffer> {
        let buffer = self.alloc(size_of_val(values))?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Compiles source text, or loads what was compiled of it before.
    pub(super) fn compile(&self, source: &str) -> Result<Module> {
        Ok(Module { gpu: self.clone(), module: self.0.compile(source)? })
    }

    /// Queues a kernel.
    pub(super) fn launch<A: Arguments>(&self, kernel: Kernel<A>, grid: [usize; 3], args: &A) -> Result<()> {
        let grid = grid.map(|size| size as u32);
        let (threads, overlaps) = (A::THREADS, A::OVERLAPS);
        self.0.launch(&Launch { kernel: kernel.function, grid, threads, overlaps, args: bytemuck::bytes_of(args) })
    }

    /// Queues a product.
    pub(super) fn product(&self, product: &Product) -> Result<()> {
        let Product { w, x, out, outputs, rows, inputs, stride, format } = *product;
        let dense = |address, stride| Operand { address, stride, is_transposed: false, step: 0 };
        self.multiply(&Products {
            a: dense(x, inputs),
            b: Operand { is_transposed: true, ..dense(w, inputs) },
            out: dense(out, stride),
            rows,
            inner: inputs,
            columns: outputs,
            count: 1,
            scale: 1.0,
            adds: false,
            format,
        })
    }

    /// Queues products of a shape.
    pub(super) fn multiply(&self, products: &Products) -> Result<()> {
        self.0.multiply(products)
    }

    /// Records what `queue` queues, to be queued again as a whole.
    pub(super) fn record(&self, mut queue: impl FnMut() -> Result<()>) -> Result<Graph> {
        Ok(Graph { gpu: self.clone(), graph: self.0.record(&mut queue)? })
    }
}

/// Memory of a device.
pub(super) struct Buffer {
    gpu: Gpu,
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// Returns the address of the byte at `offset`, for kernels.
    pub(super) fn at(&self, offset: usize) -> u64 {
        self.address + offset as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes values at a byte offset, after all queued work.
    pub(super) fn write<T: NoUninit>(&self, offset: usize, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.check(offset, bytes.len())?;
        self.gpu.0.write(self.at(offset), bytes)
    }

    /// Reads values from a byte offset, after all queued work, for which it waits also if there are
    /// none.
    pub(super) fn read<T: AnyBitPattern + NoUninit>(&self, offset: usize, values: &mut [T]) -> Result<()> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        self.check(offset, bytes.len())?;
        self.gpu.0.read(self.at(offset), bytes)
    }

    /// Copies the first bytes to a buffer that may be of another device, after all work that is queued
    /// on both. They pass through the host.
    pub(super) fn send(&self, to: &Self, bytes: usize) -> Result<()> {
        let mut passed = vec![0u8; bytes];
        self.read(0, &mut passed)?;
        to.write(0, &passed)
    }

    /// Copies all bytes of a buffer of the same size.
    pub(super) fn copy_from(&self, from: &Self) -> Result<()> {
        self.gpu.0.copy(from.address, self.address, from.bytes.min(self.bytes))
    }

    fn check(&self, offset: usize, bytes: usize) -> Result<()> {
        if offset.checked_add(bytes).is_some_and(|end| end <= self.bytes) {
            return Ok(());
        }
        let reason = format!("{bytes} bytes at {offset} are outside of a buffer of {} bytes", self.bytes);
        Err(Error::DeviceFailed { reason })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gpu.0.free(self.address);
    }
}

/// Compiled kernels.
pub(super) struct Module {
    gpu: Gpu,
    module: usize,
}

impl Module {
    /// Returns the kernel of this name, which takes `A`.
    pub(super) fn kernel<A: Arguments>(&self, name: &str) -> Result<Kernel<A>> {
        Ok(Kernel { function: self.gpu.0.kernel(self.module, name)?, args: PhantomData })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.gpu.0.unload(self.module);
    }
}

/// The parameter of a kernel, laid out as in its source.
pub(super) trait Arguments: NoUninit {
    /// The name of the struct in the source.
    const NAME: &'static str;
    /// Threads of a block.
    const THREADS: u32;
    /// The kernel waits for its predecessor itself.
    const OVERLAPS: bool;
}

/// A kernel that takes `A`.
pub(super) struct Kernel<A> {
    function: usize,
    args: PhantomData<fn(A)>,
}

impl<A> Clone for Kernel<A> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<A> Copy for Kernel<A> {}

/// Recorded work.
pub(super) struct Graph {
    gpu: Gpu,
    graph: usize,
}

impl Graph {
    /// Queues the recorded work.
    pub(super) fn replay(&self) -> Result<()> {
        self.gpu.0.replay(self.graph)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.gpu.0.forget(self.graph);
    }
}
