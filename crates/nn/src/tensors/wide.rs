//! The number format of everything except matrix products.

use candle_core::DType;

/// The type that norms, rotations and softmax are computed in, for matrices of any type.
pub(super) const WIDE: DType = DType::F32;
