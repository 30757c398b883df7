//! Decoders of ggml blocks of 256 values, in groups of 16 or 32. The scale of a group is a small
//! integer times the scale of the block.

use super::small_blocks::half;

/// Decodes groups of 16. Block: `scales[16]` (scale low, minimum high half), `quants[64]` of two
/// bits, scale, minimum.
pub(super) fn q2_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<84>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (scales, quants) = (&block[..16], &block[16..80]);
        let (scale, minimum) = (half([block[80], block[81]]), half([block[82], block[83]]));
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let group_scale = scale * f32::from(scales[group] & 15);
            let group_minimum = minimum * f32::from(scales[group] >> 4);
            let (start, shift) = two_bits(group);
            for (quant, out) in quants[start..start + 16].iter().zip(out) {
                *out = group_scale * f32::from((quant >> shift) & 3) - group_minimum;
            }
        }
    }
}

/// Decodes groups of 16. Block: `third bits[32]` (set means no minus 4), `quants[64]` of two bits,
/// `scales[12]` of six bits, scale.
pub(super) fn q3_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (third, quants, scales) = (&block[..32], &block[32..96], &block[96..108]);
        let scale = half([block[108], block[109]]);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let low = (scales[group % 8] >> (4 * (group / 8))) & 15;
            let high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
            let group_scale = scale * f32::from((low | (high << 4)) as i8 - 32);
            let (start, shift) = two_bits(group);
            let third = &third[start % 32..start % 32 + 16];
            let bit = group / 2;
            for ((quant, third), out) in quants[start..start + 16].iter().zip(third).zip(out) {
                let quant = ((quant >> shift) & 3) | (((third >> bit) & 1) << 2);
                *out = group_scale * f32::from(quant as i8 - 4);
            }
        }
    }
}

/// Returns the start in `quants[64]` and the shift of the two-bit integers of a group of 16. 128
/// values share 32 bytes, 32 values per shift.
fn two_bits(group: usize) -> (usize, usize) {
    (group / 8 * 32 + group % 2 * 16, group % 8 / 2 * 2)
}

/// Unpacks the six-bit scale and minimum of one of eight groups from twelve bytes.
pub(crate) fn scale_and_minimum(packed: &[u8], group: usize) -> [u8; 2] {
    if group < 4 {
        [packed[group] & 63, packed[group + 4] & 63]
    } else {
        let both = packed[group + 4];
        [(both & 15) | ((packed[group - 4] >> 6) << 4), (both >> 4) | ((packed[group] >> 6) << 4)]
    }
}

/// Decodes groups of 32. Block: scale, minimum, `scales[12]`, `quants[128]` of four bits, two
/// groups per 32 bytes.
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<144>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (scale, minimum) = (half([block[0], block[1]]), half([block[2], block[3]]));
        let (scales, quants) = (&block[4..16], &block[16..]);
        for (pair, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let quants = &quants[pair * 32..pair * 32 + 32];
            let (low, high) = out.split_at_mut(32);
            for (half, out) in [low, high].into_iter().enumerate() {
                let [group_scale, group_minimum] = scale_and_minimum(scales, 2 * pair + half).map(f32::from);
                let (group_scale, group_minimum) = (scale * group_scale, minimum * group_minimum);
                for (quant, out) in quants.iter().zip(out) {
                    *out = group_scale * f32::from((quant >> (4 * half)) & 15) - group_minimum;
                }
            }
        }
    }
}

/// Decodes groups of 32 like [`q4_k`]. Block: `fifth bits[32]` before the quants; bit `group` of
/// byte `i` belongs to value `i` of the group.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<176>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (scale, minimum) = (half([block[0], block[1]]), half([block[2], block[3]]));
        let (scales, fifth, quants) = (&block[4..16], &block[16..48], &block[48..]);
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let [group_scale, group_minimum] = scale_and_minimum(scales, group).map(f32::from);
            let (group_scale, group_minimum) = (scale * group_scale, minimum * group_minimum);
            let quants = &quants[group / 2 * 32..group / 2 * 32 + 32];
            for ((quant, fifth), out) in quants.iter().zip(fifth).zip(out) {
                let quant = ((quant >> (4 * (group % 2))) & 15) | (((fifth >> group) & 1) << 4);
                *out = group_scale * f32::from(quant) - group_minimum;
            }
        }
    }
}

/// Decodes groups of 16. Block: `low[128]` of four bits, `high[64]` of two bits, sixteen signed
/// scales, scale; the integer 32 stands for zero.
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<210>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        let scale = half([block[208], block[209]]);
        for (run, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            // 128 values take 64 bytes of `low` and 32 of `high`, in four runs of 32.
            let (section, run) = (run / 4, run % 4);
            let low = &low[section * 64 + run % 2 * 32..][..32];
            let high = &high[section * 32..][..32];
            for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let group_scale = scale * f32::from(scales[section * 8 + run * 2 + group] as i8);
                let (low, high) = (&low[group * 16..][..16], &high[group * 16..][..16]);
                for ((low, high), out) in low.iter().zip(high).zip(out) {
                    let quant = ((low >> (run / 2 * 4)) & 15) | (((high >> (run * 2)) & 3) << 4);
                    *out = group_scale * f32::from(quant as i8 - 32);
                }
            }
        }
    }
}
