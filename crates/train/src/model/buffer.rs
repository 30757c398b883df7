//! Buffers that are reused from pass to pass.

/// Resizes `buffer` to `len` floats, which keep old values.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// Resizes `buffer` to `len` zeros.
pub(super) fn zeroed(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.clear();
    buffer.resize(len, 0.0);
    buffer
}
