//! Parameters of the kernels of training, laid out as in their source.

use crate::cuda::args::arguments;
use crate::cuda::driver::Arguments;

/// Rows of `width` floats: `parts` of them side by side in each of `count` rows of a matrix, which
/// begin `stride` floats apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::NoUninit)]
pub(super) struct RowsArgs {
    pub(super) count: i32,
    pub(super) stride: i32,
    pub(super) parts: i32,
    pub(super) width: i32,
}

arguments! {
    /// Zeros.
    FillArgs = "Fill", threads 256, overlaps false { x: u64, count: u64 }
    /// Sums of two lists.
    CombineArgs = "Combine", threads 256, overlaps false {
        a: u64, b: u64, out: u64, count: u64, scale: f32, padding: u32,
    }
    /// Biases.
    ShiftArgs = "Shift", threads 256, overlaps false { x: u64, bias: u64, count: u64, width: i32, padding: u32 }
    /// Floats to operands of products.
    NarrowAllArgs = "NarrowAll", threads 256, overlaps false { x: u64, out: u64, count: u64 }
    /// Rows of a table.
    LookupArgs = "Lookup", threads 256, overlaps false { table: u64, token: u64, out: u64, width: i32, scale: f32 }
    /// Rows that change places.
    MoveArgs = "Move", threads 256, overlaps false {
        from: u64, to: u64, source: u64, target: u64, width: i32, adds: i32,
    }
    /// Sums of rows by place.
    GatherSumsArgs = "Gather", threads 256, overlaps false {
        x: u64, row: u64, first: u64, place: u64, to: u64, width: i32, scale: f32,
    }
    /// Means and deviations of rows.
    MomentsArgs = "Moments", threads 256, overlaps false {
        x: u64, out: u64, rows: RowsArgs, epsilon: f32, is_centered: i32,
    }
    /// Norms.
    NormsArgs = "Norms", threads 256, overlaps false {
        x: u64, weight: u64, bias: u64, out: u64, rows: RowsArgs, offset: f32, epsilon: f32, is_centered: i32,
        padding: u32,
    }
    /// Norms backward.
    NormsBackArgs = "NormsBack", threads 256, overlaps false {
        x: u64, y: u64, weight: u64, moments: u64, to: u64, rows: RowsArgs, offset: f32, is_centered: i32, adds: i32,
        padding: u32,
    }
    /// Sums of columns.
    ColumnsArgs = "Columns", threads 256, overlaps false {
        y: u64, x: u64, moments: u64, to: u64, rows: RowsArgs, part: i32, adds: i32,
    }
    /// Rotary embeddings.
    RotateArgs = "Rotate", threads 256, overlaps false {
        x: u64, angles: u64, place: u64, stride: i32, heads: i32, size: i32, pairs: i32, interleaved: i32, back: i32,
    }
    /// Probabilities of attention.
    SoftmaxArgs = "Softmax", threads 256, overlaps false {
        scores: u64, out: u64, queries: i32, keys: i32, first: i32, first_key: i32, window: i32, cap: f32,
    }
    /// Probabilities backward.
    SoftmaxBackArgs = "SoftmaxBack", threads 256, overlaps false {
        scores: u64, y: u64, p: u64, out: u64, keys: i32, cap: f32,
    }
    /// Gates, forward and backward.
    GatesArgs = "Gates", threads 256, overlaps false {
        gates: u64, y: u64, out: u64, count: u64, width: i32, activation: i32, is_gated: i32, padding: u32,
    }
    /// Log-probabilities.
    LogprobsArgs = "Logprobs", threads 256, overlaps false {
        logits: u64, target: u64, logprob: u64, log_sum: u64, width: i32, is_rows: i32, cap: f32, padding: u32,
    }
    /// Log-probabilities backward.
    LogprobsBackArgs = "LogprobsBack", threads 256, overlaps false {
        logits: u64, log_sum: u64, given: u64, target: u64, out: u64, width: i32, is_rows: i32, cap: f32, padding: u32,
    }
}
