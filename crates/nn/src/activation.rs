//! The nonlinearities of feed-forward parts.

/// The nonlinearity of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`, with the tanh approximation of the normal distribution function `Phi`
    /// (Hendrycks and Gimpel, arXiv 1606.08415).
    GeluTanh,
    /// `x * Phi(x)` by the error function.
    Gelu,
    /// `min(x, 7) * sigmoid(1.702 * min(x, 7))` of the gate, times the other branch clamped to -7
    /// and 7 plus 1 (gpt-oss, arXiv 2508.10925).
    ClampedSilu,
}

impl Activation {
    /// The bound of [`Activation::ClampedSilu`].
    pub(crate) const BOUND: f32 = 7.0;
    /// The factor within its sigmoid.
    pub(crate) const STEEPNESS: f32 = 1.702;
}
