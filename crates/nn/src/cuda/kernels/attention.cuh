// Attention over a paged cache.

struct Attention {
  const num* q;
  u8* cache;
  // Per row: its slot, the end of the positions that it sees without exception, its rotary position, and the place of
  // its tree in `bits`, -1 for a row of a chain: the tree's nodes, the row of its first node, and a bit for each node.
  const int *slot, *base, *position, *mask, *table;
  const u32* bits;
  int table_stride, splits, window, stride, rows, first;   // window 0: none; `first` is the first row of the launch
  float scale, cap;
  float* partial;                     // of the rows of this launch: (rows, heads, splits, HEAD)
  float2* weights;                    // (rows, heads, splits) maximum and sum
  u32* count;                         // (rows, groups) or (64 rows, heads), zero
  num* out;                           // (rows, stride)
  const float* sinks;                 // (heads) or null
};

// The weight of a head's sink, one more score of its softmax whose share is dropped; `most` is the largest other score.
__device__ __forceinline__ float sink_weight(const Attention& a, int head, float most) {
  return a.sinks ? exp2f(a.sinks[head] * 1.44269504f - most) : 0.f;
}

constexpr int power_at_least(int n) { return n <= 1 ? 1 : 2 * power_at_least((n + 1) / 2); }

// True if a row sees a cached position: one before `base`, or an ancestor in its tree, in its window.
__device__ __forceinline__ bool sees(const Attention& a, int place, int base, int first, int mask) {
  if (place < base) return place >= first;
  if (mask < 0) return false;
  const int node = place - base;
  return (a.bits[mask + 2 + (node >> 5)] >> (node & 31)) & 1 && a.position[a.bits[mask + 1] + node] >= first;
}

// One row and a group of query heads that share keys, over a part of the positions: grid (groups, splits, rows), 128
// threads. The last block of a row and group merges the splits, in their order.
__device__ void attend(const Attention& a) {
  constexpr int LANES = power_at_least(HEAD_STRIDE / 8), KEYS = 32 / LANES, G = GROUP, UNROLL = G > 4 ? 2 : 4;
  constexpr int GROUPS = HEADS_Q / G;
  __shared__ float out[4][G][HEAD_STRIDE], largest[4][G], total[4][G], weight[G][64];
  __shared__ u32 last;
  allow_next();
  await_previous();
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, sub = lane / LANES, d0 = (lane % LANES) * 8;
  const bool holds = d0 < HEAD_STRIDE;
  const int group = blockIdx.x, split = blockIdx.y, local = blockIdx.z, row = a.first + local;
  const int kv = group * G / (HEADS_Q / KV_HEADS), mask = a.mask[row], base = a.base[row];
  const int position = a.position[row];
  const int end = base + (mask < 0 ? 0 : (int)a.bits[mask]);
  const int first = a.window > 0 ? max(0, position + 1 - a.window) : 0, start = first & ~15;
  const int part = ((end - start + a.splits - 1) / a.splits + 15) & ~15, k0 = start + split * part, k1 = min(end, k0 + part);
  const int* table = a.table + (size_t)a.slot[row] * a.table_stride;
  float q[G][8], sum[G][8], m[G], l[G];
#pragma unroll
  for (int h = 0; h < G; h++) {
    m[h] = -1e30f;
    l[h] = 0;
    if (holds) load_eight<COMPUTE>(q[h], a.q + ((size_t)row * HEADS_Q + group * G + h) * HEAD_STRIDE + d0);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (!holds) q[h][i] = 0;
      q[h][i] *= a.scale;
      sum[h][i] = 0;
    }
  }
  for (int at = k0 + warp * KEYS * UNROLL; at < k1; at += 4 * KEYS * UNROLL) {
    float keys[UNROLL][8], values[UNROLL][8], s[UNROLL][G];
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const int key = min(at + u * KEYS + sub, k1 - 1), page = table[key >> 4];
      if (holds) {
        load_cached(keys[u], row_at(a.cache, page, 0, kv, key), d0);
        load_cached(values[u], row_at(a.cache, page, 1, kv, key), d0);
      } else {
#pragma unroll
        for (int i = 0; i < 8; i++) keys[u][i] = values[u][i] = 0;
      }
    }
#pragma unroll
    for (int u = 0; u < UNROLL; u++) {
      const int key = at + u * KEYS + sub;
      const bool seen = key < k1 && sees(a, key, base, first, mask);
#pragma unroll
      for (int h = 0; h < G; h++) {
        float d = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) d += q[h][i] * keys[u][i];
#pragma unroll
        for (int o = 1; o < LANES; o <<= 1) d += __shfl_xor_sync(~0u, d, o);
        if (a.cap > 0) d = a.cap * tanhf(d / a.cap);
        s[u][h] = seen ? d * 1.44269504f : -1e30f;
      }
    }
#pragma unroll
    for (int h = 0; h < G; h++) {
      float most = m[h];
#pragma unroll
      for (int u = 0; u < UNROLL; u++) most = fmaxf(most, s[u][h]);
      const float c = exp2f(m[h] - most);
      m[h] = most;
      l[h] *= c;
#pragma unroll
      for (int i = 0; i < 8; i++) sum[h][i] *= c;
#pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        s[u][h] = s[u][h] > -1e29f ? exp2f(s[u][h] - most) : 0.f;
        l[h] += s[u][h];
#pragma unroll
        for (int i = 0; i < 8; i++) sum[h][i] += s[u][h] * values[u][i];
      }
    }
  }
#pragma unroll
  for (int h = 0; h < G; h++) {
#pragma unroll
    for (int o = LANES; o < 32; o <<= 1) {
      const float most = fmaxf(m[h], __shfl_xor_sync(~0u, m[h], o)), c = exp2f(m[h] - most);
      m[h] = most;
      l[h] *= c;
      l[h] += __shfl_xor_sync(~0u, l[h], o);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        sum[h][i] *= c;
        sum[h][i] += __shfl_xor_sync(~0u, sum[h][i], o);
      }
    }
    if (sub == 0 && holds) {
#pragma unroll
      for (int i = 0; i < 8; i++) out[warp][h][d0 + i] = sum[h][i];
      if (d0 == 0) {
        largest[warp][h] = m[h];
        total[warp][h] = l[h];
      }
    }
  }
  __syncthreads();
  for (int i = tid; i < G * HEAD; i += 128) {
    const int h = i / HEAD, d = i % HEAD;
    float most = -1e30f, L = 0, O = 0;
    for (int w = 0; w < 4; w++) most = fmaxf(most, largest[w][h]);
    for (int w = 0; w < 4; w++) {
      const float c = exp2f(largest[w][h] - most);
      L += c * total[w][h];
      O += c * out[w][h][d];
    }
    const size_t at = (size_t)local * HEADS_Q + group * G + h;
    if (a.splits == 1) {
      L += sink_weight(a, group * G + h, most);
      a.out[(size_t)row * a.stride + (group * G + h) * HEAD + d] = narrow(O / L);
    } else {
      a.partial[(at * a.splits + split) * HEAD + d] = O;
      if (d == 0) a.weights[at * a.splits + split] = make_float2(most, L);
    }
  }
  if (a.splits == 1) return;
  __threadfence();
  __syncthreads();
  if (tid == 0) last = atomicAdd(a.count + local * GROUPS + group, 1u) == (u32)a.splits - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int h = warp; h < G; h += 4) {
    const size_t at = (size_t)local * HEADS_Q + group * G + h;
    float most = -1e30f, L = 0;
    float2 r[2];
    for (int i = 0; i < 2; i++) {
      r[i] = lane + 32 * i < a.splits ? __ldcg(a.weights + at * a.splits + lane + 32 * i) : make_float2(-1e30f, 0);
      most = fmaxf(most, r[i].x);
    }
    for (int o = 16; o; o >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
    for (int i = 0; i < 2; i++) L += exp2f(r[i].x - most) * r[i].y;
    for (int o = 16; o; o >>= 1) L += __shfl_xor_sync(~0u, L, o);
    L += sink_weight(a, group * G + h, most);
    for (int i = 0; i < 2; i++) weight[h][lane + 32 * i] = exp2f(r[i].x - most) / L;
  }
  if (tid == 0) a.count[local * GROUPS + group] = 0;
  __syncthreads();
  for (int i = tid; i < G * HEAD; i += 128) {
    const int h = i / HEAD, d = i % HEAD;
    const size_t at = (size_t)local * HEADS_Q + group * G + h;
    float O = 0;
#pragma unroll 8
    for (int s = 0; s < a.splits; s++) O += weight[h][s] * __ldcg(a.partial + (at * a.splits + s) * HEAD + d);
    a.out[(size_t)row * a.stride + (group * G + h) * HEAD + d] = narrow(O);
  }
}

#if COMPUTE != 0 && HEAD % 16 == 0 && HEAD <= 128
__device__ __forceinline__ u32 narrow_pair(float low, float high) { return (u32)narrow(low) | (u32)narrow(high) << 16; }

// Eight cached numbers from `d` on, in the type of activations.
__device__ __forceinline__ uint4 load_narrowed(const CachedRow& row, int d) {
#if KV == COMPUTE
  return *(const uint4*)(row.numbers() + d);
#else
  float v[8];
  load_cached(v, row, d);
  return make_uint4(narrow_pair(v[0], v[1]), narrow_pair(v[2], v[3]), narrow_pair(v[4], v[5]), narrow_pair(v[6], v[7]));
#endif
}

// Many rows of one chain, whose positions follow one another, over a part of the positions: grid (rows / 64 rounded up,
// heads, splits), 128 threads. A warp has 16 rows; keys and values pass through shared memory, 64 at a time. The last
// block of 64 rows and a head merges the splits, in their order.
__device__ void attend_chain(const Attention& a) {
  constexpr int LD = HEAD + 8, NK = HEAD / 16;
  __shared__ __align__(16) u16 keys[64 * LD], values[64 * LD];
  __shared__ u32 last;
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3;
  const int head = blockIdx.y, kv = head / (HEADS_Q / KV_HEADS);
  const int p0 = a.position[a.first], q0 = ((int)gridDim.x - 1 - (int)blockIdx.x) * 64;   // the longest rows first
  const int r0 = q0 + warp * 16 + g, r1 = r0 + 8;
  const int* table = a.table + (size_t)a.slot[a.first] * a.table_stride;
  u32 q[NK][4];
  float o[HEAD / 8][4], m0 = -1e30f, m1 = -1e30f, l0 = 0, l1 = 0;
#pragma unroll
  for (int k = 0; k < NK; k++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int r = (e & 1) ? r1 : r0, d = k * 16 + 2 * t + (e >> 1) * 8;
      q[k][e] = r < a.rows ? *(const u32*)(a.q + ((size_t)(a.first + r) * HEADS_Q + head) * HEAD_STRIDE + d) : 0u;
    }
#pragma unroll
  for (int n = 0; n < HEAD / 8; n++) o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0;
  const int end = p0 + min(q0 + 64, a.rows);
  const int start = a.window > 0 ? max(0, p0 + q0 + 1 - a.window) & ~63 : 0;
  const int part = ((end - start + a.splits - 1) / a.splits + 63) & ~63, split = blockIdx.z;
  const int begin = start + split * part, stop = min(end, begin + part);
  for (int at = begin; at < stop; at += 64) {
    __syncthreads();
    for (int i = tid; i < 64 * (HEAD / 8); i += 128) {
      const int r = i / (HEAD / 8), d = (i % (HEAD / 8)) * 8, key = at + r;
      uint4 k = make_uint4(0, 0, 0, 0), v = k;
      if (key < end) {
        const int page = table[key >> 4];
        k = load_narrowed(row_at(a.cache, page, 0, kv, key), d);
        v = load_narrowed(row_at(a.cache, page, 1, kv, key), d);
      }
      *(uint4*)(keys + r * LD + d) = k;
      *(uint4*)(values + r * LD + d) = v;
    }
    __syncthreads();
    float s[8][4];
#pragma unroll
    for (int n = 0; n < 8; n++) {
      s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
      for (int k = 0; k < NK; k++) {
        const u16* p = keys + (n * 8 + g) * LD + k * 16 + 2 * t;
        mma(s[n], q[k][0], q[k][1], q[k][2], q[k][3], *(const u32*)p, *(const u32*)(p + 8));
      }
    }
    float x0 = m0, x1 = m1;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int key = at + n * 8 + 2 * t + (e & 1), position = p0 + (e < 2 ? r0 : r1);
        float d = s[n][e] * a.scale;
        if (a.cap > 0) d = a.cap * tanhf(d / a.cap);
        const bool seen = key <= position && (a.window == 0 || key > position - a.window);
        s[n][e] = seen ? d * 1.44269504f : -1e30f;
        if (e < 2) x0 = fmaxf(x0, s[n][e]);
        else x1 = fmaxf(x1, s[n][e]);
      }
#pragma unroll
    for (int f = 1; f < 4; f <<= 1) {
      x0 = fmaxf(x0, __shfl_xor_sync(~0u, x0, f));
      x1 = fmaxf(x1, __shfl_xor_sync(~0u, x1, f));
    }
    const float c0 = exp2f(m0 - x0), c1 = exp2f(m1 - x1);
    m0 = x0;
    m1 = x1;
    l0 *= c0;
    l1 *= c1;
#pragma unroll
    for (int n = 0; n < HEAD / 8; n++) {
      o[n][0] *= c0;
      o[n][1] *= c0;
      o[n][2] *= c1;
      o[n][3] *= c1;
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        // A row may see none of these keys; its maximum is then that of no key.
        s[n][e] = s[n][e] > -1e29f ? exp2f(s[n][e] - (e < 2 ? m0 : m1)) : 0.f;
        if (e < 2) l0 += s[n][e];
        else l1 += s[n][e];
      }
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const u32 a0 = narrow_pair(s[2 * k][0], s[2 * k][1]), a1 = narrow_pair(s[2 * k][2], s[2 * k][3]);
      const u32 a2 = narrow_pair(s[2 * k + 1][0], s[2 * k + 1][1]), a3 = narrow_pair(s[2 * k + 1][2], s[2 * k + 1][3]);
#pragma unroll
      for (int n = 0; n < HEAD / 8; n += 2) {
        u32 b[4];
        load_transposed(b, values + (k * 16 + ((lane >> 3) & 1) * 8 + (lane & 7)) * LD + n * 8 + (lane >> 4) * 8);
        mma(o[n], a0, a1, a2, a3, b[0], b[1]);
        mma(o[n + 1], a0, a1, a2, a3, b[2], b[3]);
      }
    }
  }
#pragma unroll
  for (int f = 1; f < 4; f <<= 1) {
    l0 += __shfl_xor_sync(~0u, l0, f);
    l1 += __shfl_xor_sync(~0u, l1, f);
  }
  if (a.splits == 1) {
    l0 += sink_weight(a, head, m0);
    l1 += sink_weight(a, head, m1);
#pragma unroll
    for (int n = 0; n < HEAD / 8; n++) {
      num* to = a.out + (size_t)(a.first + r0) * a.stride + head * HEAD + n * 8 + 2 * t;
      if (r0 < a.rows) *(u32*)to = narrow_pair(o[n][0] / l0, o[n][1] / l0);
      if (r1 < a.rows) *(u32*)(to + (size_t)8 * a.stride) = narrow_pair(o[n][2] / l1, o[n][3] / l1);
    }
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int r = half ? r1 : r0;
    if (r >= a.rows) continue;
    const size_t place = ((size_t)r * HEADS_Q + head) * a.splits + split;
    float* to = a.partial + place * HEAD + 2 * t;
#pragma unroll
    for (int n = 0; n < HEAD / 8; n++) *(float2*)(to + n * 8) = make_float2(o[n][2 * half], o[n][2 * half + 1]);
    if (t == 0) a.weights[place] = half ? make_float2(m1, l1) : make_float2(m0, l0);
  }
  __threadfence();
  __syncthreads();
  u32* count = a.count + (q0 >> 6) * HEADS_Q + head;
  if (tid == 0) last = atomicAdd(count, 1u) == (u32)a.splits - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (tid == 0) *count = 0;
  for (int i = tid; i < min(64, a.rows - q0) * HEAD; i += 128) {
    const int r = q0 + i / HEAD, d = i % HEAD;
    const size_t place = ((size_t)r * HEADS_Q + head) * a.splits;
    float most = -1e30f, L = 0, O = 0;
    for (int s = 0; s < a.splits; s++) most = fmaxf(most, __ldcg(a.weights + place + s).x);
    for (int s = 0; s < a.splits; s++) {
      const float2 w = __ldcg(a.weights + place + s);
      const float c = exp2f(w.x - most);
      L += c * w.y;
      O += c * __ldcg(a.partial + (place + s) * HEAD + d);
    }
    L += sink_weight(a, head, most);
    a.out[(size_t)(a.first + r) * a.stride + head * HEAD + d] = narrow(O / L);
  }
}
#endif
