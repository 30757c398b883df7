// Passes over activations in training, forward and backward, in floats. Blocks have 256 threads. Sums have one order, so
// results are reproducible.

// Rows of a matrix, or parts of them that lie side by side: `count` rows, `stride` floats apart, of `parts` rows each.
struct Rows { int count, stride, parts, width; };
__device__ __forceinline__ size_t row_at(const Rows& r, int row) {
  return (size_t)(row / r.parts) * r.stride + (size_t)(row % r.parts) * r.width;
}
// Entries of a list, four for a thread of a block.
#define EACH(i, count) \
  for (u64 i = (u64)blockIdx.x * 1024 + threadIdx.x, end_##i = min((u64)(count), (u64)(blockIdx.x + 1) * 1024); i < end_##i; i += 256)

struct Fill { float* x; u64 count; };
// Zeros.
__device__ void fill(const Fill& a) {
  EACH(i, a.count) a.x[i] = 0;
}

struct Combine { const float *a, *b; float* out; u64 count; float scale; int padding; };
// out = a + scale * b, without `a` where that is null.
__device__ void combine(const Combine& a) {
  EACH(i, a.count) a.out[i] = (a.a ? a.a[i] : 0.f) + a.scale * a.b[i];
}

struct Shift { float* x; const float* bias; u64 count; int width, padding; };
// Adds a vector to every row.
__device__ void shift(const Shift& a) {
  EACH(i, a.count) a.x[i] += a.bias[i % a.width];
}

struct NarrowAll { const float* x; num* out; u64 count; };
// Floats as operands of products.
__device__ void narrow_all(const NarrowAll& a) {
  EACH(i, a.count) a.out[i] = narrow(a.x[i]);
}

struct Lookup { const num* table; const int* token; float* out; int width; float scale; };
// Rows of the embedding.
__device__ void lookup(const Lookup& a) {
  const size_t from = (size_t)a.token[blockIdx.x] * a.width, to = (size_t)blockIdx.x * a.width;
  for (int k = threadIdx.x; k < a.width; k += 256) a.out[to + k] = widen(a.table[from + k]) * a.scale;
}

struct Move { const float* from; float* to; const int *source, *target; int width, adds; };
// Copies rows, or adds them: row `source[i]` to row `target[i]`; null for row i itself.
__device__ void move_rows(const Move& a) {
  const size_t from = (size_t)(a.source ? a.source[blockIdx.x] : blockIdx.x) * a.width;
  const size_t to = (size_t)(a.target ? a.target[blockIdx.x] : blockIdx.x) * a.width;
  for (int k = threadIdx.x; k < a.width; k += 256) a.to[to + k] = (a.adds ? a.to[to + k] : 0.f) + a.from[from + k];
}

struct Gather { const float* x; const int *row, *first, *place; float* to; int width; float scale; };
// Adds to row `place[i]` the sum of the rows `row[first[i]..first[i + 1]]`, in their order.
__device__ void gather_sums(const Gather& a) {
  const int first = a.first[blockIdx.x], end = a.first[blockIdx.x + 1];
  float* to = a.to + (size_t)a.place[blockIdx.x] * a.width;
  for (int k = threadIdx.x; k < a.width; k += 256) {
    float s = 0;
    for (int i = first; i < end; i++) s += a.x[(size_t)a.row[i] * a.width + k];
    to[k] += a.scale * s;
  }
}

struct Moments { const float* x; float2* out; Rows rows; float epsilon; int is_centered; };
// What a norm subtracts from a row, 0 if it is not centered, and its factor on the rest.
__device__ __forceinline__ float2 moments_of(const float* x, int width, float epsilon, int is_centered) {
  float s = 0, mean = 0;
  if (is_centered) {
    for (int k = threadIdx.x; k < width; k += 256) s += x[k];
    mean = block_sum(s) / width;
    s = 0;
  }
  for (int k = threadIdx.x; k < width; k += 256) s += (x[k] - mean) * (x[k] - mean);
  return make_float2(mean, 1.f / sqrtf(block_sum(s) / width + epsilon));
}
__device__ void moments(const Moments& a) {
  const float2 m = moments_of(a.x + row_at(a.rows, blockIdx.x), a.rows.width, a.epsilon, a.is_centered);
  if (threadIdx.x == 0) a.out[blockIdx.x] = m;
}

struct Norms {
  const float *x, *weight, *bias;
  float* out;
  Rows rows;
  float offset, epsilon;
  int is_centered, padding;
};
__device__ void norm_rows(const Norms& a) {
  const size_t at = row_at(a.rows, blockIdx.x);
  const float2 m = moments_of(a.x + at, a.rows.width, a.epsilon, a.is_centered);
  for (int k = threadIdx.x; k < a.rows.width; k += 256)
    a.out[at + k] = (a.x[at + k] - m.x) * m.y * (a.weight[k] + a.offset) + (a.bias ? a.bias[k] : 0.f);
}

struct NormsBack { const float *x, *y, *weight; const float2* moments; float* to; Rows rows; float offset; int is_centered, adds, padding; };
// From the gradient `y` of a norm's output to that of its input `x`.
__device__ void norm_rows_backward(const NormsBack& a) {
  const size_t at = row_at(a.rows, blockIdx.x);
  const float2 m = a.moments[blockIdx.x];
  float pull = 0, shift = 0;
  for (int k = threadIdx.x; k < a.rows.width; k += 256) {
    const float g = a.y[at + k] * (a.weight[k] + a.offset);
    pull += g * (a.x[at + k] - m.x);
    shift += g;
  }
  pull = block_sum(pull) * m.y * m.y * m.y / a.rows.width;
  shift = a.is_centered ? block_sum(shift) * m.y / a.rows.width : 0.f;
  for (int k = threadIdx.x; k < a.rows.width; k += 256) {
    const float g = a.y[at + k] * (a.weight[k] + a.offset) * m.y - (a.x[at + k] - m.x) * pull - shift;
    a.to[at + k] = (a.adds ? a.to[at + k] : 0.f) + g;
  }
}

struct Columns { const float *y, *x; const float2* moments; float* to; Rows rows; int part, adds; };
// Sums of columns, of `y` times the normed `x` where there is one: grid (width / 32 rounded up, parts of `part` rows), each
// part to a row of its own.
__device__ void sum_columns(const Columns& a) {
  __shared__ float sums[256];
  const int k = blockIdx.x * 32 + (threadIdx.x & 31), group = threadIdx.x >> 5;
  const int first = blockIdx.y * a.part, end = min(a.rows.count * a.rows.parts, first + a.part);
  float s = 0;
  for (int row = first + group; row < end && k < a.rows.width; row += 8) {
    const size_t at = row_at(a.rows, row) + k;
    s += a.y[at] * (a.x ? (a.x[at] - a.moments[row].x) * a.moments[row].y : 1.f);
  }
  sums[threadIdx.x] = s;
  __syncthreads();
  if (group || k >= a.rows.width) return;
  for (int other = 1; other < 8; other++) s += sums[other * 32 + threadIdx.x];
  float* to = a.to + (size_t)blockIdx.y * a.rows.width + k;
  *to = (a.adds ? *to : 0.f) + s;
}

struct Rotate { float* x; const float2* angles; const int* place; int stride, heads, size, pairs, interleaved, back; };
// Turns the pairs of all heads of a row by the angles of its place, or back.
__device__ void rotate_rows(const Rotate& a) {
  float* row = a.x + (size_t)blockIdx.x * a.stride;
  const float2* angles = a.angles + (size_t)a.place[blockIdx.x] * a.pairs;
  for (int i = threadIdx.x; i < a.heads * a.pairs; i += 256) {
    const int pair = i % a.pairs;
    float* x = row + (size_t)(i / a.pairs) * a.size + (a.interleaved ? 2 * pair : pair);
    float* y = x + (a.interleaved ? 1 : a.pairs);
    const float c = angles[pair].x, s = a.back ? -angles[pair].y : angles[pair].y, x0 = *x, y0 = *y;
    *x = x0 * c - y0 * s;
    *y = y0 * c + x0 * s;
  }
}

struct Softmax { const float* scores; num* out; int queries, keys, first, first_key, window; float cap; };
__device__ __forceinline__ float capped(float score, float cap) { return cap > 0 ? cap * tanhf(score / cap) : score; }
// Causal probabilities: grid (queries, products). Query 0 stands at position `first` of its sequence and key 0 at
// `first_key`; a query sees `window` keys up to itself.
__device__ void softmax_rows(const Softmax& a) {
  const size_t at = ((size_t)blockIdx.y * a.queries + blockIdx.x) * a.keys;
  const int own = a.first + blockIdx.x, begin = max(0, own + 1 - a.window) - a.first_key, end = own + 1 - a.first_key;
  float most = -1e30f, sum = 0;
  for (int k = begin + threadIdx.x; k < end; k += 256) most = fmaxf(most, capped(a.scores[at + k], a.cap));
  most = block_most(most);
  for (int k = begin + threadIdx.x; k < end; k += 256) sum += expf(capped(a.scores[at + k], a.cap) - most);
  sum = block_sum(sum);
  for (int k = threadIdx.x; k < a.keys; k += 256)
    a.out[at + k] = narrow(k < begin || k >= end ? 0.f : expf(capped(a.scores[at + k], a.cap) - most) / sum);
}

struct SoftmaxBack { const float *scores, *y; const num* p; num* out; int keys; float cap; };
// From the gradient `y` of probabilities `p` to that of scores: grid (queries of all products).
__device__ void softmax_rows_backward(const SoftmaxBack& a) {
  const size_t at = (size_t)blockIdx.x * a.keys;
  float mean = 0;
  for (int k = threadIdx.x; k < a.keys; k += 256) mean += widen(a.p[at + k]) * a.y[at + k];
  mean = block_sum(mean);
  for (int k = threadIdx.x; k < a.keys; k += 256) {
    const float c = a.cap > 0 ? tanhf(a.scores[at + k] / a.cap) : 0.f;
    a.out[at + k] = narrow(widen(a.p[at + k]) * (a.y[at + k] - mean) * (1.f - c * c));
  }
}

struct Gates { const float *gates, *y; float* out; u64 count; int width, activation, is_gated, padding; };
// An activation and its derivative.
__device__ __forceinline__ float2 slope(int activation, float x) {
  if (activation == 0 || activation == 3) {
    const float steep = activation == 3 ? 1.702f : 1.f, c = activation == 3 && x > 7.f ? 7.f : x;
    const float s = 1.f / (1.f + expf(-steep * c));
    return make_float2(c * s, c < x ? 0.f : s * (1.f + steep * c * (1.f - s)));
  }
  if (activation == 1) {
    const float s = 1.f / (1.f + expf(-1.595769122f * (x + 0.044715f * x * x * x)));
    return make_float2(x * s, s + x * s * (1.f - s) * 1.595769122f * (1.f + 0.134145f * x * x));
  }
  const float phi = 0.5f * (1.f + erff(x * 0.70710678f));
  return make_float2(x * phi, phi + x * expf(-0.5f * x * x) * 0.39894228f);
}
// The other branch and its derivative.
__device__ __forceinline__ float2 branch(int activation, float x) {
  if (activation != 3) return make_float2(x, 1);
  const float c = x > 7.f ? 7.f : x < -7.f ? -7.f : x;
  return make_float2(c + 1.f, c == x);
}
// activation(gate) * up of rows of `width` gates and as many ups; without gates activation(x).
__device__ void gate_rows(const Gates& a) {
  EACH(i, a.count) {
    const u64 at = a.is_gated ? i / a.width * 2 * a.width + i % a.width : i;
    const float v = slope(a.activation, a.gates[at]).x;
    a.out[i] = a.is_gated ? v * branch(a.activation, a.gates[at + a.width]).x : v;
  }
}
// The gradients of gates and ups, given that of the output, `y`.
__device__ void gate_rows_backward(const Gates& a) {
  EACH(i, a.count) {
    const u64 at = a.is_gated ? i / a.width * 2 * a.width + i % a.width : i;
    const float2 gate = slope(a.activation, a.gates[at]);
    const float2 up = a.is_gated ? branch(a.activation, a.gates[at + a.width]) : make_float2(1, 0);
    a.out[at] = a.y[i] * up.x * gate.y;
    if (a.is_gated) a.out[at + a.width] = a.y[i] * gate.x * up.y;
  }
}

struct Logprobs { float* logits; const int* target; float *logprob, *log_sum; int width, is_rows; float cap; int padding; };
// Log-probabilities of targets; `is_rows` leaves those of all tokens in the place of the logits, which else are capped.
__device__ void logprob_rows(const Logprobs& a) {
  float* x = a.logits + (size_t)blockIdx.x * a.width;
  float most = -1e30f, sum = 0;
  for (int k = threadIdx.x; k < a.width; k += 256) {
    x[k] = capped(x[k], a.cap);
    most = fmaxf(most, x[k]);
  }
  most = block_most(most);
  for (int k = threadIdx.x; k < a.width; k += 256) sum += expf(x[k] - most);
  const float log_sum = most + logf(block_sum(sum));
  if (threadIdx.x == 0) a.log_sum[blockIdx.x] = log_sum;
  for (int k = threadIdx.x; k < a.width; k += 256) {
    if (k == a.target[blockIdx.x]) a.logprob[blockIdx.x] = x[k] - log_sum;
    if (a.is_rows) x[k] -= log_sum;
  }
}

struct LogprobsBack {
  const float *logits, *log_sum, *given;
  const int* target;
  num* out;
  int width, is_rows;
  float cap;
  int padding;
};
// From the gradient `given` of the targets' log-probabilities, or of all, to that of the logits.
__device__ void logprob_rows_backward(const LogprobsBack& a) {
  const size_t at = (size_t)blockIdx.x * a.width;
  const float log_sum = a.log_sum[blockIdx.x];
  float total = 0;
  if (a.is_rows) {
    for (int k = threadIdx.x; k < a.width; k += 256) total += a.given[at + k];
    total = block_sum(total);
  } else {
    total = a.given[blockIdx.x];
  }
  for (int k = threadIdx.x; k < a.width; k += 256) {
    const float logit = a.logits[at + k] + (a.is_rows ? log_sum : 0.f), c = a.cap > 0 ? logit / a.cap : 0.f;
    const float given = a.is_rows ? a.given[at + k] : k == a.target[blockIdx.x] ? total : 0.f;
    a.out[at + k] = narrow((given - expf(logit - log_sum) * total) * (1.f - c * c));
  }
}
