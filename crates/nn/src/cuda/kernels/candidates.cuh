// The most likely tokens of rows of logits, for a host that samples among them.

constexpr int CANDIDATES = 128;       // tokens of a row
constexpr int CANDIDATE_BLOCKS = 32;  // blocks of a row

struct Candidates {
  const float* logits;
  const int* ask;
  uint2* parts;   // (rows, CANDIDATE_BLOCKS, CANDIDATES)
  uint2* out;     // (rows, 1 + CANDIDATES): sums, and keys with their tokens
  u32* count;     // (rows), zero
  int width, stride;
};

// A number that grows with the value; 0 is that of no value.
__device__ __forceinline__ u32 key_of(float v) {
  const u32 bits = __float_as_uint(v);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Writes the CANDIDATES entries with the largest keys, in any order, and empty ones if there are fewer; `get` returns a
// key and its token. The least key is found byte by byte, by counting. Of its equals any are taken.
template <class F> __device__ __forceinline__ void select_largest(F get, int count, uint2* out) {
  __shared__ u32 bins[256], least, left, larger, equal;
  const int tid = threadIdx.x;
  const bool has_more = count > CANDIDATES;
  if (tid < CANDIDATES) out[tid] = make_uint2(0, ~0u);
  if (tid == 0) least = larger = equal = 0, left = CANDIDATES;
  __syncthreads();
  for (int shift = 24; has_more && shift >= 0; shift -= 8) {
    bins[tid] = 0;
    __syncthreads();
    const u32 before = least, wanted = left;
    for (int i = tid; i < count; i += 256) {
      const u32 key = get(i).x;
      if (shift == 24 || (key ^ before) >> (shift + 8) == 0) atomicAdd(bins + ((key >> shift) & 255), 1u);
    }
    __syncthreads();
    u32 above = 0;
    for (int b = 255; b > tid; b--) above += bins[b];
    if (above < wanted && above + bins[tid] >= wanted) {
      least = before | (u32)tid << shift;
      left = wanted - above;
    }
    __syncthreads();
  }
  for (int i = tid; i < count; i += 256) {
    const uint2 entry = get(i);
    if (entry.x > least) {
      out[atomicAdd(&larger, 1u)] = entry;
    } else if (has_more && entry.x == least) {
      const u32 at = atomicAdd(&equal, 1u);
      if (at < left) out[CANDIDATES - 1 - at] = entry;
    }
  }
}

// Grid (CANDIDATE_BLOCKS, rows), for rows whose question is -2. The last block of a row selects among the selections.
__device__ void find_candidates(const Candidates& a) {
  __shared__ u32 last;
  allow_next();
  await_previous();
  const int row = blockIdx.y, tid = threadIdx.x;
  if (a.ask[row] != -2) return;
  const float* x = a.logits + (size_t)row * a.stride;
  const int size = (a.width + CANDIDATE_BLOCKS - 1) / CANDIDATE_BLOCKS, first = min((int)blockIdx.x * size, a.width);
  uint2* parts = a.parts + (size_t)row * CANDIDATE_BLOCKS * CANDIDATES;
  auto logit = [&](int i) { return make_uint2(key_of(x[first + i]), first + i); };
  select_largest(logit, min(size, a.width - first), parts + blockIdx.x * CANDIDATES);
  __threadfence();
  __syncthreads();
  if (tid == 0) last = atomicAdd(a.count + row, 1u) == CANDIDATE_BLOCKS - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (tid == 0) a.count[row] = 0;
  auto part = [&](int i) { return __ldcg(parts + i); };
  select_largest(part, CANDIDATE_BLOCKS * CANDIDATES, a.out + (size_t)row * (1 + CANDIDATES) + 1);
}
