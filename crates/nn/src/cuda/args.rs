//! Parameters of the kernels, laid out as in their sources. Addresses are device addresses, sizes
//! are in elements.

use super::driver::Arguments;

/// A matrix: `Matrix` in `weights.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, bytemuck::NoUninit)]
pub(super) struct MatrixArgs {
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) scale: u64,
    pub(super) minimum: u64,
    pub(super) outputs: i32,
    pub(super) inputs: i32,
}

/// Defines the parameters of kernels, with the name of each struct in the source.
macro_rules! arguments {
    ($($(#[$doc:meta])* $rust:ident = $name:literal, threads $threads:literal, overlaps $overlaps:literal {
        $($field:ident: $kind:ty),* $(,)?
    })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, bytemuck::NoUninit)]
            pub(super) struct $rust {
                $(pub(super) $field: $kind,)*
            }

            impl Arguments for $rust {
                const NAME: &'static str = $name;
                const THREADS: u32 = $threads;
                const OVERLAPS: bool = $overlaps;
            }
        )*
    };
}

pub(super) use arguments;

arguments! {
    /// A linear layer on a few rows.
    LinearArgs = "Linear", threads 256, overlaps true {
        matrix: MatrixArgs, bias: u64, x: u64, sums: u64, out: u64, h: u64, narrowed: u64, gain: u64, sums_out: u64,
        q: u64, cache: u64, slot: u64, place: u64, table: u64, angles: u64, pairs: u64,
        rows: i32, parts: i32, first_tile: i32, stride: i32, stride_narrowed: i32, table_stride: i32,
        inverse_width: f32, epsilon: f32, cap: f32, factor: f32,
    }
    /// A linear layer of experts.
    ExpertsArgs = "Experts", threads 256, overlaps true {
        linear: LinearArgs, groups: u64, stored: i32, is_shared: i32,
    }
    /// The choice of experts.
    RouteArgs = "Route", threads 256, overlaps true {
        ratings: u64, bias: u64, place: u64, share: u64, groups: u64, count: u64, rows: i32, most: i32,
        group_count: i32, padding: u32,
    }
    /// The input of each choice of an expert.
    GatherArgs = "Gather", threads 256, overlaps false { x: u64, out: u64, place: u64, width: i32, stride: i32 }
    /// Rows of a matrix as plain numbers.
    WidenArgs = "Widen", threads 256, overlaps false { matrix: MatrixArgs, out: u64, first: i32, rows: i32 }
    /// Cosines and sines of rotations.
    AnglesArgs = "Angles", threads 64, overlaps true {
        position: u64, is_long: u64, frequencies: u64, out: u64, rows: i32, ropes: i32, factors: u64,
    }
    /// Rows of the embedding.
    EmbedArgs = "Embed", threads 256, overlaps true {
        matrix: MatrixArgs, token: u64, h: u64, positions: u64, position: u64, scale: f32, width: i32,
    }
    /// Sums with the residual stream, and norms.
    NormArgs = "Norm", threads 256, overlaps true {
        h: u64, added: u64, bias: u64, post: u64, post_shift: u64, weight: u64, shift: u64, out: u64, wide: u64,
        pick: u64,
        width: i32, stride: i32, epsilon: f32, scale: f32, is_centered: i32, padding: u32,
        place: u64, share: u64,
    }
    /// Norms and rotations of queries and keys, and storing.
    HeadsArgs = "Heads", threads 256, overlaps true {
        input: u64, bias: u64, query_norm: u64, key_norm: u64, order: u64, q: u64, cache: u64, slot: u64, place: u64,
        table: u64, angles: u64, pairs: u64, stride: i32, table_stride: i32, is_full_norm: i32, epsilon: f32,
        is_centered: i32, padding: u32,
    }
    /// The gated product.
    GateArgs = "Gate", threads 256, overlaps false {
        input: u64, bias: u64, out: u64, width: i32, stride_in: i32, stride: i32, padding: u32,
    }
    /// Floats to the type of activations.
    NarrowArgs = "Narrow", threads 256, overlaps false { input: u64, out: u64, width: i32, stride: i32 }
    /// Bias, factor and soft cap of a head.
    FinishArgs = "Finish", threads 256, overlaps false {
        x: u64, bias: u64, width: i32, cap: f32, factor: f32, padding: u32,
    }
    /// Copies in the cache.
    CopyArgs = "Copy", threads 256, overlaps false {
        cache: u64, layer_bytes: u64, moves: u64, count: i32, padding: u32,
    }
    /// Log-probabilities of asked tokens.
    ChooseArgs = "Choose", threads 256, overlaps true {
        logits: u64, ask: u64, heat: u64, partial: u64, count: u64, out: u64, sums: u64, width: i32, stride: i32,
        sums_stride: i32, padding: u32,
    }
    /// The most likely tokens.
    CandidatesArgs = "Candidates", threads 256, overlaps true {
        logits: u64, ask: u64, parts: u64, out: u64, count: u64, width: i32, stride: i32,
    }
    /// Attention.
    AttentionArgs = "Attention", threads 128, overlaps true {
        q: u64, cache: u64, slot: u64, base: u64, position: u64, mask: u64, table: u64, bits: u64,
        table_stride: i32, splits: i32, window: i32, stride: i32, rows: i32, first: i32, scale: f32, cap: f32,
        partial: u64, weights: u64, count: u64, out: u64, sinks: u64,
    }
}
