//! Products of tiles by Advanced Matrix Extensions.
//!
//! The intrinsics are not in stable Rust, so instructions are written out. Tiles 0 to 3 hold sums,
//! 4 and 5 tokens, 6 and 7 rows.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use super::tile::{PANELS, TILE_BYTES, TILE_TOKENS, Tile, TileSums};
use super::{Avx512, VECTOR_BYTES};

/// Bits of `cpuid` 7.0, register EDX: tiles, their products of bfloat16 and of bytes.
const TILE_UNITS: u32 = 1 << 24 | 1 << 22 | 1 << 25;
/// Request of `arch_prctl(2)` for a part of the processor's state, and the part that tiles are.
const REQUEST_PERMISSION: libc::c_long = 0x1023;
const TILE_DATA: libc::c_long = 18;
/// Distance in bytes at which rows are prefetched.
const AHEAD: usize = 8 << 10;

/// Witness of tiles with products of bfloat16 and bytes, and of what [`Avx512<true>`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amx(());

/// Shapes of tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row.
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Amx {
    /// Returns a witness if this processor has the instructions and the system lets this process use
    /// them.
    pub(super) fn detect() -> Option<Self> {
        let has_all = Avx512::<true>::detect().is_some() && __cpuid_count(7, 0).edx & TILE_UNITS == TILE_UNITS;
        (has_all && permitted()).then_some(Self(()))
    }

    /// Sets the shapes of this thread's tiles: sums are whole, and a token has `bytes` bytes.
    pub(super) fn configure(self, bytes: usize) {
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        shapes.bytes[..8].fill(TILE_BYTES as u16);
        shapes.rows[..8].fill(TILE_TOKENS as u8);
        shapes.bytes[4..6].fill(bytes as u16);
        shapes.rows[6..8].fill((bytes / 4) as u8);
        // SAFETY: the witness exists, so the processor has the instruction; it reads the 64 bytes of
        // a valid palette.
        unsafe {
            asm!(
                "ldtilecfg [{shapes}]", shapes = in(reg) &raw const shapes,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack, readonly),
            );
        }
    }

    /// Returns this thread's tiles to their initial state, which the system need not save.
    pub(super) fn release(self) {
        // SAFETY: the witness exists, so the processor has the instruction.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack, nomem),
            );
        }
    }

    /// Computes [`Prepared::dot_bf16`](super::Prepared::dot_bf16), whose conditions hold.
    pub(super) fn dot_bf16<const P: usize>(self, rows: &[Tile], panels: [&[Tile]; P], sums: &mut [TileSums<f32>; P]) {
        if rows.is_empty() {
            return;
        }
        let (four, four_sums) = (panels.as_chunks::<PANELS>(), sums.as_chunks_mut::<PANELS>());
        for (panels, sums) in four.0.iter().zip(four_sums.0) {
            self.four_panels(rows, panels, sums);
        }
        for (panel, sums) in four.1.iter().zip(four_sums.1) {
            self.one_panel(rows, panel, sums);
        }
    }

    /// Multiplies a panel. None of the slices is empty.
    fn one_panel(self, rows: &[Tile], panel: &[Tile], sums: &mut TileSums<f32>) {
        // SAFETY: the witness exists, so the processor has the instructions. Tiles are whole: each
        // of `rows.len()` steps reads 1024 bytes of the rows and of the panel, which is as long, and
        // the sums are 1024 bytes. Prefetching may name any address.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {stride}]",
                "2:",
                "tileloadd tmm6, [{rows} + {stride}]",
                "tileloadd tmm4, [{panel} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                ".rept 16", "prefetcht0 [{ahead}]", "add {ahead}, 64", ".endr",
                "add {rows}, 1024", "add {panel}, 1024", "dec {steps}", "jnz 2b",
                "tilestored [{sums} + {stride}], tmm0",
                rows = inout(reg) rows.as_ptr() => _, panel = inout(reg) panel.as_ptr() => _,
                ahead = inout(reg) rows.as_ptr().wrapping_byte_add(AHEAD) => _, steps = inout(reg) rows.len() => _,
                sums = in(reg) sums.as_mut_ptr(), stride = in(reg) TILE_BYTES,
                out("tmm0") _, out("tmm4") _, out("tmm6") _, options(nostack),
            );
        }
    }

    /// Multiplies four panels, so that rows are loaded once for all of them. None of the slices is
    /// empty.
    fn four_panels(self, rows: &[Tile], [a, b, c, d]: &[&[Tile]; PANELS], sums: &mut [TileSums<f32>; PANELS]) {
        // SAFETY: as in `one_panel`; the sums are four times 1024 bytes.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {stride}]", "tileloadd tmm1, [{sums} + {stride} + 1024]",
                "tileloadd tmm2, [{sums} + {stride} + 2048]", "tileloadd tmm3, [{sums} + {stride} + 3072]",
                "2:",
                "tileloadd tmm6, [{rows} + {stride}]",
                "tileloadd tmm4, [{a} + {stride}]", "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{b} + {stride}]", "tdpbf16ps tmm1, tmm5, tmm6",
                "tileloadd tmm4, [{c} + {stride}]", "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm5, [{d} + {stride}]", "tdpbf16ps tmm3, tmm5, tmm6",
                "add {rows}, 1024", "add {a}, 1024", "add {b}, 1024", "add {c}, 1024", "add {d}, 1024",
                "dec {steps}", "jnz 2b",
                "tilestored [{sums} + {stride}], tmm0", "tilestored [{sums} + {stride} + 1024], tmm1",
                "tilestored [{sums} + {stride} + 2048], tmm2", "tilestored [{sums} + {stride} + 3072], tmm3",
                rows = inout(reg) rows.as_ptr() => _, steps = inout(reg) rows.len() => _,
                a = inout(reg) a.as_ptr() => _, b = inout(reg) b.as_ptr() => _,
                c = inout(reg) c.as_ptr() => _, d = inout(reg) d.as_ptr() => _,
                sums = in(reg) sums.as_mut_ptr(), stride = in(reg) TILE_BYTES,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, options(nostack),
            );
        }
    }

    /// Computes [`Prepared::dot_bytes`](super::Prepared::dot_bytes), whose conditions hold.
    pub(super) fn dot_bytes(self, rows: &[[u8; VECTOR_BYTES]], tokens: &[u8], stride: usize, sums: &mut TileSums<i32>) {
        // SAFETY: the witness exists, so the processor has the instructions. The thread is prepared
        // for four bytes of a token per vector of `rows`, and sixteen tokens end within `tokens`.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {whole}]",
                "tileloadd tmm4, [{tokens} + {stride}]",
                "tileloadd tmm6, [{rows} + {whole}]",
                "tdpbsud tmm0, tmm4, tmm6",
                "tilestored [{sums} + {whole}], tmm0",
                sums = in(reg) sums.as_mut_ptr(), tokens = in(reg) tokens.as_ptr(), rows = in(reg) rows.as_ptr(),
                stride = in(reg) stride, whole = in(reg) TILE_BYTES,
                out("tmm0") _, out("tmm4") _, out("tmm6") _, options(nostack),
            );
        }
    }
}

/// Asks Linux for the permission to use tiles, which holds for all threads.
fn permitted() -> bool {
    // SAFETY: the call takes two numbers and changes no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}
