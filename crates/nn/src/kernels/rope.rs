//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864).

/// Cosines and sines of one token's angles, one per pair of dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
    /// True if a pair is two adjacent dimensions, false if they are half the rotated part apart.
    pub interleaved: bool,
}

/// Rotates the first `2 * cos.len()` dimensions of every head of one token in place; a head has
/// `head_dim` dimensions.
pub fn rotate(heads: &mut [f32], head_dim: usize, rotation: Rotation<'_>) {
    let pairs = rotation.cos.len();
    for head in heads.chunks_exact_mut(head_dim) {
        let rotated = &mut head[..2 * pairs];
        if rotation.interleaved {
            for ((pair, cos), sin) in rotated.as_chunks_mut::<2>().0.iter_mut().zip(rotation.cos).zip(rotation.sin) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, b * cos + a * sin];
            }
        } else {
            let (first, second) = rotated.split_at_mut(pairs);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(rotation.cos).zip(rotation.sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_layouts_are_permutations_of_each_other() {
        let (cos, sin) = ([0.5, 0.8, 1.0], [0.3, -0.2, 0.0]);
        let mut halves = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let mut pairs = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 7.0, 8.0];
        rotate(&mut halves, 8, Rotation { cos: &cos, sin: &sin, interleaved: false });
        rotate(&mut pairs, 8, Rotation { cos: &cos, sin: &sin, interleaved: true });
        assert_eq!(halves, [pairs[0], pairs[2], pairs[4], pairs[1], pairs[3], pairs[5], 7.0, 8.0]);
        assert_eq!(halves[0], 1.0 * 0.5 - 4.0 * 0.3);
        assert_eq!(halves[3], 4.0 * 0.5 + 1.0 * 0.3);
    }
}
