// Cached keys and values. KV is the type of their numbers: one of the plain types, or 3 for signed bytes with a float16
// scale for 32 of them.
//
// A layer is pages of 16 positions, [page][keys, values][head] runs of RUN_BYTES each: the numbers of the 16 positions,
// HEAD_STRIDE of them a position, and after them their scales.

#if KV == 0
typedef float cached;
#elif KV == 3
typedef signed char cached;
#else
typedef u16 cached;
#endif

constexpr int SCALES = KV == 3 ? (HEAD_STRIDE + 31) / 32 : 0;   // of a position
static_assert(RUN_BYTES == 16 * (HEAD_STRIDE * sizeof(cached) + SCALES * sizeof(u16)), "the host has another layout");

// The key or the value of a position and head.
struct CachedRow {
  u8* run;
  int position;   // in its page
  __device__ __forceinline__ cached* numbers() const { return (cached*)run + position * HEAD_STRIDE; }
  __device__ __forceinline__ u16* scales() const { return (u16*)((cached*)run + 16 * HEAD_STRIDE) + position * SCALES; }
};
__device__ __forceinline__ CachedRow row_at(u8* layer, int page, int is_value, int head, int position) {
  return {layer + (((size_t)page * 2 + is_value) * KV_HEADS + head) * RUN_BYTES, position & 15};
}

// Eight numbers from `d` on, a multiple of eight.
__device__ __forceinline__ void load_cached(float* v, const CachedRow& row, int d) {
#if KV == 3
  const uint2 a = *(const uint2*)(row.numbers() + d);
  const float scale = f16_to_float(row.scales()[d >> 5]);
#pragma unroll
  for (int i = 0; i < 8; i++) v[i] = scale * (float)(signed char)((i < 4 ? a.x : a.y) >> (8 * (i & 3)) & 255);
#else
  load_eight<KV>(v, row.numbers() + d);
#endif
}

#if KV == 0
__device__ __forceinline__ cached to_cached(float v) { return v; }
#elif KV != 3
__device__ __forceinline__ cached to_cached(float v) { return float_to_half<KV>(v); }
#endif

// Stores the numbers `at(d)` of a whole row, by all lanes of a warp.
template <class F> __device__ __forceinline__ void store_row(const CachedRow& row, F at) {
  const int lane = threadIdx.x & 31;
  for (int first = 0; first < HEAD; first += 32) {
    const int d = first + lane;
    const float v = d < HEAD ? at(d) : 0.f;
#if KV == 3
    float most = fabsf(v);
    for (int o = 16; o; o >>= 1) {
      const float other = __shfl_xor_sync(~0u, most, o);
      most = other > most || other != other ? other : most;   // NaN reaches the scale
    }
    const u16 scale = float_to_f16(most / 127.f);
    const float unit = f16_to_float(scale), inverse = unit == 0 ? 0.f : 1.f / unit;
    if (d < HEAD) row.numbers()[d] = (cached)fminf(fmaxf(rintf(v * inverse), -127.f), 127.f);
    if (lane == 0) row.scales()[first >> 5] = scale;
#else
    if (d < HEAD) row.numbers()[d] = to_cached(v);
#endif
  }
}

struct Copy { u8* cache; u64 layer_bytes; const int* moves; int count; };
// Copies whole pages, [from, to] pairs: grid (moves, layers).
__device__ void copy_pages(const Copy& a) {
  constexpr size_t PAGE_BYTES = (size_t)2 * KV_HEADS * RUN_BYTES;
  u8* layer = a.cache + blockIdx.y * a.layer_bytes;
  const uint4* from = (const uint4*)(layer + a.moves[2 * blockIdx.x] * PAGE_BYTES);
  uint4* to = (uint4*)(layer + a.moves[2 * blockIdx.x + 1] * PAGE_BYTES);
  for (size_t i = threadIdx.x; i < PAGE_BYTES / sizeof(uint4); i += 256) to[i] = from[i];
}
// Moves positions of a slot, in order: [page, position, page, position] quadruples, grid (2 * KV_HEADS, layers).
__device__ void move_positions(const Copy& a) {
  u8* layer = a.cache + blockIdx.y * a.layer_bytes;
  const int is_value = blockIdx.x / KV_HEADS, head = blockIdx.x % KV_HEADS;
  for (int m = 0; m < a.count; m++) {
    const int* move = a.moves + 4 * m;
    const CachedRow from = row_at(layer, move[0], is_value, head, move[1]), to = row_at(layer, move[2], is_value, head, move[3]);
    for (int d = threadIdx.x; d < HEAD_STRIDE; d += 256) to.numbers()[d] = from.numbers()[d];
    for (int s = threadIdx.x; s < SCALES; s += 256) to.scales()[s] = from.scales()[s];
  }
}
