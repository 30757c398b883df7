//! Arithmetic of training on an NVIDIA GPU: products of matrices, and passes over rows, forward and
//! backward.
//!
//! Sums are floats; operands of products are bfloat16, or floats too. The order of every sum is
//! fixed, so that results on one GPU are reproducible. Operations are queued and done later than the
//! calls; [`View::read`] waits for them.

mod args;
mod array;
mod lists;
mod logprobs;
mod norms;
mod products;
mod program;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytemuck::NoUninit;
use rayon::prelude::*;

use super::driver::{Arguments, Gpu, Kernel};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::kernels::dense::Precision;
pub use array::{Array, Element, Operand, View};
pub use lists::Places;
pub use logprobs::Logits;
pub use norms::{Norm, NormGradients, Rows};
pub use products::{Matrix, Output};
use program::Kernels;
pub use rows::{Gates, Heads, Scores};

/// Values that are converted to operands at once.
const CONVERTED: usize = 1 << 24;

/// A GPU that computes for training; clones are handles of one.
#[derive(Clone)]
pub struct Arithmetic {
    gpu: Gpu,
    compute: Format,
    kernels: Arc<Kernels>,
    scratch: Arc<norms::Scratch>,
}

impl Arithmetic {
    /// Opens the NVIDIA GPU with this number, for products of factors of this precision.
    ///
    /// # Errors
    /// [`Error::DeviceMissing`] with the reason; [`Error::DeviceFailed`].
    pub fn open(number: usize, precision: Precision) -> Result<Self> {
        Self::on(Gpu::open(number)?, precision)
    }

    /// A stand-in for a GPU, which needs a C++ compiler, or the reason why there is none.
    ///
    /// # Errors
    /// A sentence.
    #[cfg(any(test, feature = "stand-in"))]
    pub fn stand_in(precision: Precision) -> Result<Self, String> {
        let gpu = Gpu::new(super::emulator::Emulator::try_new("a stand-in", 1 << 30)?);
        Self::on(gpu, precision).map_err(|error| error.to_string())
    }

    fn on(gpu: Gpu, precision: Precision) -> Result<Self> {
        let compute = match precision {
            Precision::F32 => Format::F32,
            Precision::Bf16 => Format::BF16,
        };
        let kernels = Arc::new(Kernels::load(&gpu, compute)?);
        Ok(Self { gpu, compute, kernels, scratch: Arc::default() })
    }

    /// The product's name of the GPU.
    #[must_use]
    pub fn name(&self) -> &str {
        self.gpu.name()
    }

    /// The format of operands.
    #[must_use]
    pub fn compute(&self) -> Format {
        self.compute
    }

    /// Refuses work that needs more memory than is free.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] with both numbers.
    pub fn require(&self, bytes: usize) -> Result<()> {
        let (free, _) = self.gpu.memory()?;
        if bytes <= free { Ok(()) } else { Err(Error::DeviceMemory { device: self.name().to_owned(), bytes, free }) }
    }

    /// Makes room for `len` values, which then are any numbers, and gives them.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`].
    pub fn sized<'a, T: Element>(&self, array: &'a mut Array<T>, len: usize) -> Result<View<'a, T>> {
        array.reserve(&self.gpu, self.compute, len)?;
        Ok(array.view().part(0..len))
    }

    /// Replaces a list.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`].
    pub fn upload<'a, T: Element + NoUninit>(&self, array: &'a mut Array<T>, values: &[T]) -> Result<View<'a, T>> {
        let view = self.sized(array, values.len())?;
        view.write(values)?;
        Ok(view)
    }

    /// Writes values over the first ones of a list.
    ///
    /// # Errors
    /// Those of the device; a shorter list.
    pub fn write<T: NoUninit>(&self, to: View<'_, T>, values: &[T]) -> Result<()> {
        to.write(values)
    }

    /// Writes values as operands.
    ///
    /// # Errors
    /// Those of the device; a shorter list.
    pub fn write_operands(&self, to: View<'_, Operand>, values: &[f32]) -> Result<()> {
        if self.compute == Format::F32 {
            return to.write(values);
        }
        for (index, values) in values.chunks(CONVERTED).enumerate() {
            let operands: Vec<u16> = values.par_iter().map(|value| half::bf16::from_f32(*value).to_bits()).collect();
            to.skip(index * CONVERTED).write(&operands)?;
        }
        Ok(())
    }

    fn launch<A: Arguments>(&self, kernel: Kernel<A>, grid: [usize; 2], args: &A) -> Result<()> {
        if grid.contains(&0) { Ok(()) } else { self.gpu.launch(kernel, [grid[0], grid[1], 1], args) }
    }

    /// Queues a kernel over the entries of a list.
    fn launch_over<A: Arguments>(&self, kernel: Kernel<A>, count: usize, args: &A) -> Result<()> {
        self.launch(kernel, [count.div_ceil(1024), 1], args)
    }
}

/// The address of values that may be left out.
fn address_or_null<T>(view: Option<View<'_, T>>, len: usize) -> Result<u64> {
    view.map_or(Ok(0), |view| view.address(len))
}
