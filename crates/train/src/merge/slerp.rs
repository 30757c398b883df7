//! Interpolation on the sphere between the base and one expert (Shoemake 1985).

use super::MergeMethod;

/// The sine of an angle below which the sphere is flat.
const FLAT: f64 = 1e-4;

/// The point at `t` on the great circle from the base to the expert, tensor by tensor.
pub(super) static SLERP: MergeMethod = MergeMethod {
    name: "slerp",
    about: "the point at `t` on the arc from the base to one expert",
    experts: Some(1),
    is_mean: false,
    merge: |input| slerp(input.base, &input.experts[0], f64::from(input.options.t)),
};

fn slerp(from: &[f32], to: &[f32], t: f64) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norms = (dot(from, from) * dot(to, to)).sqrt();
    let angle = (dot(from, to) / norms).clamp(-1.0, 1.0).acos();
    let [from_share, to_share] = if norms == 0.0 || angle.sin() < FLAT {
        [1.0 - t, t]
    } else {
        [1.0 - t, t].map(|share| (share * angle).sin() / angle.sin())
    };
    let mix = |(from, to): (&f32, &f32)| (from_share * f64::from(*from) + to_share * f64::from(*to)) as f32;
    from.iter().zip(to).map(mix).collect()
}
