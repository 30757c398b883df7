//! The nonlinearities of gated feed-forward parts.

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
}
