//! The storage formats of tensors: plain floats, or blocks of small integers that share a scale.
//!
//! The block layouts are those of ggml
//! (<https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>).

pub(crate) mod blocks;
mod encode;
mod grids;
mod quantize;
mod quantize_k;

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use half::{f16, slice::HalfFloatSliceExt};

use blocks::BlockFormat;

/// The storage format of a tensor, spelled as ggml and safetensors spell it.
///
/// # Examples
/// ```
/// use wsd_nn::Format;
///
/// let format: Format = "q8_0".parse()?;
/// let bytes = format.quantize(&[0.5; 64])?;
/// assert_eq!(Some(bytes.len()), format.bytes_for(64));
/// let mut values = [0.0; 64];
/// format.dequantize(&bytes, &mut values);
/// assert!((values[0] - 0.5).abs() < 1e-3);
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
#[allow(non_camel_case_types, reason = "the names are those that files and users write")]
pub enum Format {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    MXFP4,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    TQ1_0,
    TQ2_0,
}

/// The names of floats in PyTorch, and ours.
const TORCH_NAMES: [(&str, &str); 5] =
    [("float32", "F32"), ("float", "F32"), ("float16", "F16"), ("half", "F16"), ("bfloat16", "BF16")];

/// One row of the table of formats.
struct Layout {
    format: Format,
    name: &'static str,
    /// The number of this type in a GGUF file.
    ggml_type: u32,
    block_values: usize,
    block_bytes: usize,
    /// Values can be encoded.
    is_writable: bool,
    /// The decoder of whole blocks.
    dequantize: fn(&[u8], &mut [f32]),
}

/// Something to do with a block format that is known only at run time.
pub(crate) trait BlockVisitor {
    type Out;
    /// Does it with a format.
    fn visit<F: BlockFormat>(self) -> Self::Out;
}

/// Defines the table of formats: plain numbers of some bytes and their decoder, then blocks, then
/// blocks of some bytes that are only decoded.
macro_rules! formats {
    (
        plain { $($plain:ident $plain_type:literal: $bytes:literal, $decode:path;)* }
        blocks { $($block:ident $block_type:literal;)* }
        read_only { $($grid:ident $grid_type:literal: $grid_bytes:literal, $grid_decode:path;)* }
    ) => {
        /// All formats, in the order of [`Format`].
        const LAYOUTS: &[Layout] = &[
            $(Layout {
                format: Format::$plain,
                name: stringify!($plain),
                ggml_type: $plain_type,
                block_values: 1,
                block_bytes: $bytes,
                is_writable: true,
                dequantize: $decode,
            },)*
            $(Layout {
                format: Format::$block,
                name: stringify!($block),
                ggml_type: $block_type,
                block_values: blocks::$block::SHAPE.values,
                block_bytes: blocks::$block::SHAPE.bytes,
                is_writable: true,
                dequantize: blocks::dequantize::<blocks::$block>,
            },)*
            $(Layout {
                format: Format::$grid,
                name: stringify!($grid),
                ggml_type: $grid_type,
                block_values: grids::VALUES,
                block_bytes: $grid_bytes,
                is_writable: false,
                dequantize: $grid_decode,
            },)*
        ];

        impl Format {
            /// Calls a visitor with the type of a block format. Returns `None` for plain numbers
            /// and for formats that are read only.
            #[inline(always)]
            pub(crate) fn visit_block<V: BlockVisitor>(self, visitor: V) -> Option<V::Out> {
                match self {
                    $(Self::$plain => None,)*
                    $(Self::$block => Some(visitor.visit::<blocks::$block>()),)*
                    $(Self::$grid => None,)*
                }
            }
        }
    };
}

formats! {
    plain {
        F32 0: 4, read_f32;
        F16 1: 2, read_f16;
        BF16 30: 2, read_bf16;
    }
    blocks {
        Q8_0 8;
        Q4_0 2;
        Q4_1 3;
        Q5_0 6;
        Q5_1 7;
        Q2_K 10;
        Q3_K 11;
        Q4_K 12;
        Q5_K 13;
        Q6_K 14;
        IQ4_NL 20;
        IQ4_XS 23;
        MXFP4 39;
    }
    read_only {
        IQ1_S 19: 50, grids::iq1_s;
        IQ1_M 29: 56, grids::iq1_m;
        IQ2_XXS 16: 66, grids::iq2_xxs;
        IQ2_XS 17: 74, grids::iq2_xs;
        IQ2_S 22: 82, grids::iq2_s;
        IQ3_XXS 18: 98, grids::iq3_xxs;
        IQ3_S 21: 110, grids::iq3_s;
        TQ1_0 34: 54, grids::tq1_0;
        TQ2_0 35: 66, grids::tq2_0;
    }
}

impl Format {
    /// Returns every format.
    pub fn all() -> impl Iterator<Item = Self> {
        LAYOUTS.iter().map(|layout| layout.format)
    }

    /// Returns every format that values can be encoded in.
    pub fn writable() -> impl Iterator<Item = Self> {
        Self::all().filter(|format| format.is_writable())
    }

    /// Returns true if values can be encoded; the other formats are only decoded.
    pub fn is_writable(self) -> bool {
        self.layout().is_writable
    }

    /// Finds a format by name (`"Q4_K"`, in either case); floats also by their names in PyTorch
    /// (`"bfloat16"`, `"half"`).
    pub fn parse(name: &str) -> Option<Self> {
        let name = TORCH_NAMES.iter().find(|(torch, _)| torch.eq_ignore_ascii_case(name)).map_or(name, |(_, own)| own);
        LAYOUTS.iter().find(|layout| layout.name.eq_ignore_ascii_case(name)).map(|layout| layout.format)
    }

    /// Finds a format by the number of its tensor type in a GGUF file.
    pub(crate) fn from_ggml_type(ggml_type: u32) -> Option<Self> {
        LAYOUTS.iter().find(|layout| layout.ggml_type == ggml_type).map(|layout| layout.format)
    }

    /// Returns the number of its tensor type in a GGUF file.
    pub(crate) fn ggml_type(self) -> u32 {
        self.layout().ggml_type
    }

    /// Returns all names, for messages.
    pub fn names() -> String {
        LAYOUTS.iter().map(|layout| layout.name).collect::<Vec<_>>().join(", ")
    }

    fn layout(self) -> &'static Layout {
        &LAYOUTS[self as usize]
    }

    /// Returns the name, as files spell it.
    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// Returns the number of values in a block. The length of a row is a multiple of it.
    pub fn block_values(self) -> usize {
        self.layout().block_values
    }

    /// Returns the size of a block in bytes.
    pub fn block_bytes(self) -> usize {
        self.layout().block_bytes
    }

    /// Returns the size of `values` values in bytes, or `None` if they are not a multiple of the
    /// block or the size overflows.
    pub fn bytes_for(self, values: usize) -> Option<usize> {
        let Layout { block_values, block_bytes, .. } = *self.layout();
        values.is_multiple_of(block_values).then(|| (values / block_values).checked_mul(block_bytes))?
    }

    /// Decodes whole blocks into `out`. If one is shorter, the rest of the other is ignored.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        debug_assert_eq!(self.bytes_for(out.len()), Some(bytes.len()), "{self}");
        (self.layout().dequantize)(bytes, out);
    }

    /// Encodes values, rounded to the nearest.
    ///
    /// # Errors
    /// [`crate::Error::Quantize`] if the number of values is not a multiple of the block, or if the
    /// format is read only.
    pub fn quantize(self, values: &[f32]) -> crate::Result<Vec<u8>> {
        quantize::quantize(self, values)
    }
}

impl FromStr for Format {
    type Err = crate::Error;

    fn from_str(name: &str) -> crate::Result<Self> {
        Self::parse(name).ok_or_else(|| crate::Error::UnknownFormat { name: name.to_owned(), known: Self::names() })
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn read_f32(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

fn read_bf16(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

fn read_f16(bytes: &[u8], out: &mut [f32]) {
    // `half` converts slices with the processor's instruction if there is one, but needs them aligned.
    let mut halves = [f16::ZERO; 64];
    for (bytes, out) in bytes.chunks(128).zip(out.chunks_mut(64)) {
        for (bytes, half) in bytes.as_chunks::<2>().0.iter().zip(&mut halves) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (row, layout) in LAYOUTS.iter().enumerate() {
            assert_eq!(layout.format as usize, row);
            assert_eq!(Format::parse(&layout.name.to_lowercase()), Some(layout.format));
            assert_eq!(Format::from_ggml_type(layout.ggml_type), Some(layout.format));
        }
    }

    #[test]
    fn names_of_pytorch_are_known() {
        let of = |name: &str| Format::parse(name);
        assert_eq!([of("float32"), of("float")], [Some(Format::F32); 2]);
        assert_eq!([of("float16"), of("half")], [Some(Format::F16); 2]);
        assert_eq!([of("bfloat16"), of("BFloat16"), of("double")], [Some(Format::BF16), Some(Format::BF16), None]);
    }

    #[test]
    fn bytes_are_counted_in_whole_blocks() {
        assert_eq!(Format::Q4_K.bytes_for(512), Some(288));
        assert_eq!(Format::Q4_K.bytes_for(100), None);
        assert_eq!(Format::F32.bytes_for(usize::MAX), None);
    }

    #[test]
    fn halves_are_read_at_any_length() {
        for length in [1, 63, 64, 65, 200] {
            let values: Vec<f32> = (0..length).map(|i| i as f32 * 0.5 - 7.0).collect();
            for format in [Format::F16, Format::BF16, Format::F32] {
                let mut out = vec![0.0; length];
                format.dequantize(&format.quantize(&values).unwrap(), &mut out);
                assert_eq!(out, values, "{format}");
            }
        }
    }

    #[test]
    fn blocks_read_as_the_reference_reads_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/quant_blocks.json");
        let Ok(golden) = fs_err::read(path) else {
            eprintln!("skipped: no {path}");
            return;
        };
        let golden: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&golden).unwrap();
        for (name, case) in &golden {
            let format = Format::parse(name).unwrap();
            let numbers = ["type_id", "block_values", "block_bytes"].map(|key| case[key].as_u64().unwrap() as usize);
            let layout = format.layout();
            assert_eq!(numbers, [layout.ggml_type as usize, layout.block_values, layout.block_bytes], "{name}");
            let hex = case["hex"].as_str().unwrap();
            let bytes: Vec<u8> =
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
            let values = case["values"].as_array().unwrap();
            let mut out = vec![0.0; values.len()];
            format.dequantize(&bytes, &mut out);
            for (place, (value, expected)) in out.iter().zip(values).enumerate() {
                let expected = expected.as_f64().unwrap() as f32;
                assert!(
                    (value - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
                    "{name} {place}: {value} for {expected}"
                );
            }
        }
    }
}
