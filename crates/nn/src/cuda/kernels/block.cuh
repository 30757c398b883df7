// Values of a block of 256 threads taken together; every order is fixed.

template <class F> __device__ __forceinline__ float block_fold(float v, F fold) {
  __shared__ float warps[8];
  for (int o = 16; o; o >>= 1) v = fold(v, __shfl_xor_sync(~0u, v, o));
  __syncthreads();
  if ((threadIdx.x & 31) == 0) warps[threadIdx.x >> 5] = v;
  __syncthreads();
  float s = warps[0];
  for (int w = 1; w < 8; w++) s = fold(s, warps[w]);
  return s;
}
__device__ __forceinline__ float block_sum(float v) {
  return block_fold(v, [](float a, float b) { return a + b; });
}
__device__ __forceinline__ float block_most(float v) {
  return block_fold(v, [](float a, float b) { return fmaxf(a, b); });
}
