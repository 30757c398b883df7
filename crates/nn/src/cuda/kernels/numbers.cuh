// Numbers in memory, by the number of their type: 0 float32, 1 bfloat16, 2 float16. COMPUTE is the type of activations
// and plain matrices, `num`.

template <int TYPE> __device__ __forceinline__ float half_to_float(u16 v) { return TYPE == 1 ? bf16_to_float(v) : f16_to_float(v); }
template <int TYPE> __device__ __forceinline__ u16 float_to_half(float v) { return TYPE == 1 ? float_to_bf16(v) : float_to_f16(v); }

#if COMPUTE == 0
typedef float num;
__device__ __forceinline__ float widen(num v) { return v; }
__device__ __forceinline__ num narrow(float v) { return v; }
#else
typedef u16 num;
__device__ __forceinline__ float widen(num v) { return half_to_float<COMPUTE>(v); }
__device__ __forceinline__ num narrow(float v) { return float_to_half<COMPUTE>(v); }
#endif

template <int TYPE> __device__ __forceinline__ void load_eight(float* v, const void* p) {
  if constexpr (TYPE == 0) {
    const float4 a = ((const float4*)p)[0], b = ((const float4*)p)[1];
    v[0] = a.x; v[1] = a.y; v[2] = a.z; v[3] = a.w; v[4] = b.x; v[5] = b.y; v[6] = b.z; v[7] = b.w;
  } else {
    const uint4 a = *(const uint4*)p;
    const u32 r[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      v[2 * i] = half_to_float<TYPE>((u16)(r[i] & 0xffff));
      v[2 * i + 1] = half_to_float<TYPE>((u16)(r[i] >> 16));
    }
  }
}
