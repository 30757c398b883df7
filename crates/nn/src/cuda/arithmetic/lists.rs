//! Passes over lists, and rows that change places.

use super::args::{CombineArgs, FillArgs, GatherSumsArgs, LookupArgs, MoveArgs, NarrowAllArgs, ShiftArgs};
use super::{Arithmetic, Operand, View, address_or_null};
use crate::error::Result;

/// Rows in the order of the places that they are added to.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// The rows, those of one place together.
    pub rows: View<'a, i32>,
    /// The index of the first row of each place, and the number of all rows.
    pub first: View<'a, i32>,
    /// The places.
    pub places: View<'a, i32>,
}

impl Arithmetic {
    /// Sets a list to zeros.
    ///
    /// # Errors
    /// Those of the device, as of all operations.
    pub fn zero(&self, x: View<'_, f32>) -> Result<()> {
        let args = FillArgs { x: x.address(x.len())?, count: x.len() as u64 };
        self.launch_over(self.kernels.fill, x.len(), &args)
    }

    /// Sets `out = scale * b`, or with `a` `out = a + scale * b`; `out` may be one of them.
    ///
    /// # Errors
    /// Those of the device; lists of other lengths.
    pub fn combine(&self, a: Option<View<'_, f32>>, scale: f32, b: View<'_, f32>, out: View<'_, f32>) -> Result<()> {
        let len = out.len();
        let (a, b, out) = (address_or_null(a, len)?, b.address(len)?, out.address(len)?);
        let args = CombineArgs { a, b, out, count: len as u64, scale, padding: 0 };
        self.launch_over(self.kernels.combine, len, &args)
    }

    /// Adds a vector to every row.
    ///
    /// # Errors
    /// Those of the device.
    pub fn add_bias(&self, x: View<'_, f32>, bias: View<'_, f32>) -> Result<()> {
        let (count, width) = (x.len() as u64, bias.len() as i32);
        let args = ShiftArgs { x: x.address(x.len())?, bias: bias.address(bias.len())?, count, width, padding: 0 };
        self.launch_over(self.kernels.shift, x.len(), &args)
    }

    /// Sets operands to floats.
    ///
    /// # Errors
    /// Those of the device; lists of other lengths.
    pub fn narrow(&self, x: View<'_, f32>, out: View<'_, Operand>) -> Result<()> {
        let len = x.len();
        let args = NarrowAllArgs { x: x.address(len)?, out: out.address(len)?, count: len as u64 };
        self.launch_over(self.kernels.narrow_all, len, &args)
    }

    /// Sets the rows of `out` to rows of a table times `scale`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn lookup(
        &self,
        table: View<'_, Operand>,
        tokens: View<'_, i32>,
        scale: f32,
        out: View<'_, f32>,
    ) -> Result<()> {
        let rows = tokens.len();
        let width = out.len() / rows.max(1);
        let (table, token, out) = (table.address(0)?, tokens.address(rows)?, out.address(rows * width)?);
        let args = LookupArgs { table, token, out, width: width as i32, scale };
        self.launch(self.kernels.lookup, [rows, 1], &args)
    }

    /// Sets the rows of `to` to the rows of `from` with these numbers.
    ///
    /// # Errors
    /// Those of the device.
    pub fn take_rows(&self, from: View<'_, f32>, rows: View<'_, i32>, to: View<'_, f32>) -> Result<()> {
        let count = rows.len();
        let args = MoveArgs { source: rows.address(count)?, ..self.moved(from, to, to.len() / count.max(1))? };
        self.launch(self.kernels.move_rows, [count, 1], &args)
    }

    /// Adds the rows of `from` with these numbers to the rows of `to`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn add_rows(&self, from: View<'_, f32>, rows: View<'_, i32>, to: View<'_, f32>) -> Result<()> {
        let count = rows.len();
        let args = MoveArgs { source: rows.address(count)?, adds: 1, ..self.moved(from, to, to.len() / count.max(1))? };
        self.launch(self.kernels.move_rows, [count, 1], &args)
    }

    /// Sets the rows of `to` with these numbers, no two of them the same, to the rows of `from`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn put_rows(&self, from: View<'_, f32>, rows: View<'_, i32>, to: View<'_, f32>) -> Result<()> {
        let count = rows.len();
        let args = MoveArgs { target: rows.address(count)?, ..self.moved(from, to, from.len() / count.max(1))? };
        self.launch(self.kernels.move_rows, [count, 1], &args)
    }

    fn moved(&self, from: View<'_, f32>, to: View<'_, f32>, width: usize) -> Result<MoveArgs> {
        let (from, to) = (from.address(0)?, to.address(0)?);
        Ok(MoveArgs { from, to, width: width as i32, ..MoveArgs::default() })
    }

    /// Adds rows of `width` floats, times `scale`, to the rows of `to` at their places.
    ///
    /// # Errors
    /// Those of the device.
    pub fn add_at(
        &self,
        x: View<'_, f32>,
        places: &Places<'_>,
        (width, scale): (usize, f32),
        to: View<'_, f32>,
    ) -> Result<()> {
        let Places { rows, first, places } = *places;
        let args = GatherSumsArgs {
            x: x.address(rows.len() * width)?,
            row: rows.address(rows.len())?,
            first: first.address(places.len() + 1)?,
            place: places.address(places.len())?,
            to: to.address(0)?,
            width: width as i32,
            scale,
        };
        self.launch(self.kernels.gather_sums, [places.len(), 1], &args)
    }
}
