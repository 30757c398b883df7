//! Lists of values in the memory of a device.

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::{AnyBitPattern, NoUninit};

use crate::cuda::driver::{Buffer, Gpu};
use crate::error::{Error, Result};
use crate::format::Format;

/// A value in the memory of a device.
pub trait Element {
    /// The bytes of a value where operands of products have this format.
    fn bytes(compute: Format) -> usize;
}

/// An operand of products: a number of the format that products are computed in.
pub struct Operand;

impl Element for Operand {
    fn bytes(compute: Format) -> usize {
        compute.block_bytes()
    }
}

impl<T: NoUninit> Element for T {
    fn bytes(_: Format) -> usize {
        size_of::<T>()
    }
}

/// A list in the memory of a device, which grows where more room is asked for.
pub struct Array<T> {
    buffer: Option<Buffer>,
    /// The bytes of a value.
    bytes: usize,
    values: PhantomData<T>,
}

impl<T> Default for Array<T> {
    fn default() -> Self {
        Self { buffer: None, bytes: 0, values: PhantomData }
    }
}

impl<T: Element> Array<T> {
    /// Makes room for `len` values, which keep old values only if there was room already.
    pub(super) fn reserve(&mut self, gpu: &Gpu, compute: Format, len: usize) -> Result<()> {
        self.bytes = T::bytes(compute);
        if self.len() < len {
            // The old memory goes first, as there may be no room for both.
            self.buffer = None;
            self.buffer = Some(gpu.alloc(len * self.bytes)?);
        }
        Ok(())
    }

    /// The number of values that there is room for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.bytes() / self.bytes)
    }

    /// True without room.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values.
    #[must_use]
    pub fn view(&self) -> View<'_, T> {
        View { buffer: self.buffer.as_ref(), bytes: self.bytes, start: 0, len: self.len(), values: PhantomData }
    }
}

/// A part of an [`Array`].
pub struct View<'a, T> {
    buffer: Option<&'a Buffer>,
    /// The bytes of a value.
    bytes: usize,
    start: usize,
    len: usize,
    values: PhantomData<T>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for View<'_, T> {}

impl<T> Default for View<'_, T> {
    fn default() -> Self {
        Self { buffer: None, bytes: 0, start: 0, len: 0, values: PhantomData }
    }
}

impl<T> View<'_, T> {
    /// The values of a range, which is cut to those that are there.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        let [start, end] = [range.start, range.end].map(|at| at.min(self.len));
        Self { start: self.start + start, len: end.saturating_sub(start), ..self }
    }

    /// The values from an index on.
    #[must_use]
    pub fn skip(self, start: usize) -> Self {
        self.part(start..usize::MAX)
    }

    /// The number of values.
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// True without values.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The address for kernels that read or write `len` values.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] for fewer values.
    pub(super) fn address(self, len: usize) -> Result<u64> {
        if len > self.len {
            return Err(Error::DeviceFailed { reason: format!("{len} values asked of a list of {}", self.len) });
        }
        Ok(self.buffer.map_or(0, |buffer| buffer.at(self.start * self.bytes)))
    }

    /// Writes values of the same size.
    pub(super) fn write<V: NoUninit>(self, values: &[V]) -> Result<()> {
        self.address(values.len())?;
        self.buffer.map_or(Ok(()), |buffer| buffer.write(self.start * self.bytes, values))
    }
}

impl<T: AnyBitPattern + NoUninit> View<'_, T> {
    /// Reads as many values as `to` has, after all queued work.
    ///
    /// # Errors
    /// Those of the device; fewer values.
    pub fn read(self, to: &mut [T]) -> Result<()> {
        self.address(to.len())?;
        self.buffer.map_or(Ok(()), |buffer| buffer.read(self.start * self.bytes, to))
    }
}
