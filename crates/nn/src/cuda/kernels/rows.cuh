// Passes over rows of activations: one block of 256 threads a row, unless said otherwise.

struct Angles { const int *position, *is_long; const float* frequencies; float2* out; int rows, ropes; const float* factors; };
// Cosines and sines: grid (ropes, rows). Frequencies are (ropes, 2, HEAD / 2), those of short and of long sequences; a
// negative one marks dimensions that do not rotate. Angles are products in single precision, as in the reference.
__device__ void angles(const Angles& a) {
  allow_next();
  await_previous();
  const int rope = blockIdx.x, row = blockIdx.y;
  for (int p = threadIdx.x; p < HEAD / 2; p += blockDim.x) {
    const float frequency = a.frequencies[(rope * 2 + a.is_long[row]) * (HEAD / 2) + p];
    const double angle = (double)((float)a.position[row] * frequency);
    const float factor = a.factors[rope];
    a.out[((size_t)rope * a.rows + row) * (HEAD / 2) + p] = frequency < 0
        ? make_float2(1, 0) : make_float2((float)cos(angle) * factor, (float)sin(angle) * factor);
  }
}

struct Embed {
  Matrix m;
  const int* token;
  float* h;
  const float* positions;  // (positions, width) to be added, or null
  const int* position;
  float scale;
  int width;
};
template <class W> __device__ void embed(const Embed& a) {
  allow_next();
  await_previous();
  const int row = blockIdx.x, token = a.token[row];
  for (int k = threadIdx.x; k < a.width; k += 256) {
    const float v = value<W>(a.m, token, k);
    const float scaled = a.scale == 1.f ? v : v * a.scale;
    a.h[(size_t)row * a.width + k] = scaled + (a.positions ? a.positions[(size_t)a.position[row] * a.width + k] : 0.f);
  }
}

struct Norm {
  float* h;            // (rows, width) the residual stream
  const float* added;  // (rows, width) to be added to it, or null
  const float* bias;   // (width) of `added`, or null
  const float* post;   // the weight of a norm of `added`, or null
  const float* post_shift;  // (width) the bias of that norm, or null
  const float* weight; // the weight of the norm of the sum, or null
  const float* shift;  // (width) the bias of that norm, or null
  num* out;            // (rows, stride) the normed sum
  float* wide;         // (rows, width) the same, or null
  const int* pick;     // rows to read, or null for all
  int width, stride;
  float epsilon;
  float scale;         // the factor on what is added
  int is_centered;     // norms subtract the mean first
  const int* place;    // (rows, EXPERTS_USED) rows of `added`, of which each row adds a weighted sum; null for its own
  const float* share;  // their weights
};
// What a norm subtracts and multiplies by: the mean, 0 if it is not centered, and the inverse deviation of `values`.
template <class F> __device__ __forceinline__ float2 moments(const Norm& a, F values) {
  float s = 0, mean = 0;
  if (a.is_centered) {
    for (int k = threadIdx.x; k < a.width; k += 256) s += values(k);
    mean = block_sum(s) / a.width;
    s = 0;
  }
  for (int k = threadIdx.x; k < a.width; k += 256) s += (values(k) - mean) * (values(k) - mean);
  return make_float2(mean, rsqrtf(block_sum(s) / a.width + a.epsilon));
}
__device__ void norm(const Norm& a) {
  allow_next();
  await_previous();
  const int from = a.pick ? a.pick[blockIdx.x] : blockIdx.x;
  float* h = a.h + (size_t)from * a.width;
  if (a.added) {
    auto added = [&](int k) {
#if EXPERTS
      if (a.place) {
        float s = 0;
        for (int c = from * EXPERTS_USED; c < (from + 1) * EXPERTS_USED; c++) s += a.share[c] * a.added[(size_t)a.place[c] * a.width + k];
        return s;
      }
#endif
      return a.added[(size_t)from * a.width + k] + (a.bias ? a.bias[k] : 0.f);
    };
    float2 m = make_float2(0, 1);
    if (a.post) m = moments(a, added);
    for (int k = threadIdx.x; k < a.width; k += 256) {
      const float v = added(k);
      h[k] += a.scale * (a.post ? (v - m.x) * m.y * a.post[k] + (a.post_shift ? a.post_shift[k] : 0.f) : v);
    }
  }
  float2 m = make_float2(0, 1);
  if (a.weight) m = moments(a, [&](int k) { return h[k]; });
  for (int k = threadIdx.x; k < a.width; k += 256) {
    const float v = a.weight ? (h[k] - m.x) * m.y * a.weight[k] + (a.shift ? a.shift[k] : 0.f) : h[k];
    if (a.wide) a.wide[(size_t)blockIdx.x * a.width + k] = v;
    if (a.out) a.out[(size_t)blockIdx.x * a.stride + k] = narrow(v);
  }
}

struct Heads {
  const float* in;                 // (rows, stride) queries, keys, values; each head in the order of `order`
  const float *bias, *query_norm, *key_norm;
  const int* order;                // (HEAD) the place of a dimension within its head in `in`
  num* q;
  u8* cache;
  const int *slot, *place, *table;
  const float2* angles;
  const int2* pairs;
  int stride, table_stride, is_full_norm;
  float epsilon;
  int is_centered;   // norms subtract the mean first
};
// Norms of queries and keys, rotation, and storing: a warp a head.
__device__ void place_heads(const Heads& a) {
  allow_next();
  await_previous();
  constexpr int ALL = HEADS_Q + 2 * KV_HEADS;
  __shared__ float placed[8][HEAD];
  const int row = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  auto read = [&](int head, int d) {
    const int at = head * HEAD + a.order[d];
    return a.in[(size_t)row * a.stride + at] + (a.bias ? a.bias[at] : 0.f);
  };
  float full[2] = {1, 1}, full_mean[2] = {0, 0};
  if (a.is_full_norm) {
    for (int which = 0; which < 2; which++) {
      const int first = which ? HEADS_Q : 0, count = which ? KV_HEADS : HEADS_Q;
      float s = 0, mean = 0;
      if (a.is_centered) {
        for (int i = threadIdx.x; i < count * HEAD; i += 256) s += read(first + i / HEAD, i % HEAD);
        mean = block_sum(s) / (count * HEAD);
        s = 0;
      }
      for (int i = threadIdx.x; i < count * HEAD; i += 256) {
        const float v = read(first + i / HEAD, i % HEAD) - mean;
        s += v * v;
      }
      full_mean[which] = mean;
      full[which] = rsqrtf(block_sum(s) / (count * HEAD) + a.epsilon);
    }
  }
  for (int head = warp; head < ALL; head += 8) {
    const bool is_key = head >= HEADS_Q && head < HEADS_Q + KV_HEADS, is_value = head >= HEADS_Q + KV_HEADS;
    const float* weight = is_value ? nullptr : is_key ? a.key_norm : a.query_norm;
    const int within = is_key ? head - HEADS_Q : is_value ? head - HEADS_Q - KV_HEADS : head;
    float r = full[is_key], mean = full_mean[is_key];
    if (weight && !a.is_full_norm) {
      float s = 0;
      if (a.is_centered) {
        for (int d = lane; d < HEAD; d += 32) s += read(head, d);
        for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
        mean = s / HEAD;
        s = 0;
      }
      for (int d = lane; d < HEAD; d += 32) {
        const float v = read(head, d) - mean;
        s += v * v;
      }
      for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
      r = rsqrtf(s / HEAD + a.epsilon);
    }
    for (int p = lane; p < HEAD / 2; p += 32) {
      const int2 to = a.pairs[p];
      float x = read(head, to.x), y = read(head, to.y);
      if (weight) {
        const int base = a.is_full_norm ? within * HEAD : 0;
        x = (x - mean) * r * weight[base + to.x];
        y = (y - mean) * r * weight[base + to.y];
      }
      if (!is_value) {
        const float2 angle = a.angles[(size_t)row * (HEAD / 2) + p];
        const float x0 = x;
        x = x0 * angle.x - y * angle.y;
        y = y * angle.x + x0 * angle.y;
      }
      placed[warp][to.x] = x;
      placed[warp][to.y] = y;
    }
    __syncwarp();
    if (is_key || is_value) {
      const int place = a.place[row], page = a.table[(size_t)a.slot[row] * a.table_stride + (place >> 4)];
      store_row(row_at(a.cache, page, is_value, within, place), [&](int d) { return placed[warp][d]; });
    } else {
      num* o = a.q + ((size_t)row * HEADS_Q + within) * HEAD_STRIDE;
      for (int d = lane; d < HEAD; d += 32) o[d] = narrow(placed[warp][d]);
    }
    __syncwarp();
  }
}

struct Gate { const float *in, *bias; num* out; int width, stride_in, stride; };
// activation(gate) * up of a product whose rows alternate by eights, or activation(up) without a gate: grid (width / 256
// rounded up, rows).
__device__ void gate(const Gate& a) {
  const int j = blockIdx.x * 256 + threadIdx.x;
  if (j >= a.width) return;
  const float* in = a.in + (size_t)blockIdx.y * a.stride_in;
#if GATED
  const int at = (j >> 3) * 16 + (j & 7);
  const float x = in[at] + (a.bias ? a.bias[at] : 0.f), y = in[at + 8] + (a.bias ? a.bias[at + 8] : 0.f);
  a.out[(size_t)blockIdx.y * a.stride + j] = narrow(gated(x, y));
#else
  a.out[(size_t)blockIdx.y * a.stride + j] = narrow(activate(in[j] + (a.bias ? a.bias[j] : 0.f)));
#endif
}

struct Narrow { const float* in; num* out; int width, stride; };
__device__ void narrow_rows(const Narrow& a) {
  for (int k = threadIdx.x; k < a.width; k += 256) a.out[(size_t)blockIdx.x * a.stride + k] = narrow(a.in[(size_t)blockIdx.x * a.width + k]);
}

struct Finish { float* x; const float* bias; int width; float cap, factor; };
// Bias, factor and soft cap of a head's outputs: grid (width / 256 rounded up, rows).
__device__ void finish(const Finish& a) {
  const int k = blockIdx.x * 256 + threadIdx.x;
  if (k >= a.width) return;
  float* x = a.x + (size_t)blockIdx.y * a.width + k;
  float v = *x + (a.bias ? a.bias[k] : 0.f);
  if (a.factor != 0) v *= a.factor;
  *x = a.cap > 0 ? a.cap * tanhf(v / a.cap) : v;
}

struct Choose {
  const float* logits;
  const int* ask;         // (rows) a token; -1 and -2 for the most likely one
  const float* heat;      // (rows) inverse temperatures, of questions that are -2
  float4* partial;
  u32* count;
  float2* out;            // (rows) log-probability and token
  float2* sums;           // (rows, sums_stride): log of the sum of exponentials, and the heated sum; of questions that are -2
  int width, stride, sums_stride;
};
// The largest logit and its token, and sums of exp(logit - largest) and of exp((logit - largest) * heat).
struct Best { float most, sum, heated; int token; };
__device__ __forceinline__ void merge(Best& a, const Best& b, float heat) {
  const bool other = b.most > a.most || (b.most == a.most && b.token < a.token);
  const float m = fmaxf(a.most, b.most), own = a.most - m, its = b.most - m;
  a.sum = a.sum * expf(own) + b.sum * expf(its);
  if (heat != 0) a.heated = a.heated * expf(own * heat) + b.heated * expf(its * heat);
  a.most = m;
  if (other) a.token = b.token;
}
__device__ __forceinline__ void merge_lanes(Best& a, float heat) {
  for (int o = 16; o; o >>= 1) {
    const Best b = {__shfl_xor_sync(~0u, a.most, o), __shfl_xor_sync(~0u, a.sum, o), __shfl_xor_sync(~0u, a.heated, o),
                    __shfl_xor_sync(~0u, a.token, o)};
    merge(a, b, heat);
  }
}
// The log-probability of the asked token, or of the most likely one, and the token: grid (32, rows). The last block of a
// row merges the parts in their order.
__device__ void choose(const Choose& a) {
  __shared__ Best warps[8];
  __shared__ u32 last;
  allow_next();
  await_previous();
  const int row = blockIdx.y, tid = threadIdx.x, lane = tid & 31;
  const float* x = a.logits + (size_t)row * a.stride;
  const float heat = a.ask[row] == -2 ? a.heat[row] : 0.f;
  Best best = {-1e30f, 0, 0, 0x7fffffff};
  for (int i = blockIdx.x * 256 + tid; i < a.width; i += 256 * 32) merge(best, {x[i], 1.f, 1.f, i}, heat);
  merge_lanes(best, heat);
  if (lane == 0) warps[tid >> 5] = best;
  __syncthreads();
  if (tid == 0) {
    for (int w = 1; w < 8; w++) merge(best, warps[w], heat);
    float4 part;
    part.x = best.most, part.y = best.sum, part.z = __uint_as_float((u32)best.token), part.w = best.heated;
    a.partial[row * 32 + blockIdx.x] = part;
    __threadfence();
    last = atomicAdd(a.count + row, 1u) == 31u;
  }
  __syncthreads();
  if (!last || tid >= 32) return;
  __threadfence();
  const float4 part = __ldcg(a.partial + row * 32 + lane);
  best = {part.x, part.y, part.w, (int)__float_as_uint(part.z)};
  merge_lanes(best, heat);
  if (lane == 0) {
    const int token = a.ask[row] < 0 ? best.token : a.ask[row];
    a.out[row] = make_float2(x[token] - best.most - logf(best.sum), __uint_as_float((u32)token));
    if (a.ask[row] == -2) a.sums[(size_t)row * a.sums_stride] = make_float2(best.most + logf(best.sum), best.heated);
    a.count[row] = 0;
  }
}
