// A linear layer applied to a few rows, each weight read once whatever their number: the weights are the 16-row operand
// of the tensor cores' product and the rows its 8 columns, NB times. A block computes 16 outputs; its 8 warps take the
// fragments of these outputs in turn and add up in shared memory, always in the same order.
//
// The norm before a layer costs no launch. The kernel that produces its input writes `x = h * gain` and the sums of
// squares of h by tile; this kernel multiplies its outputs by the inverse root of their mean.

enum { OUT = 0, HEADS = 1, RESIDUAL = 2, GATE = 3 };
constexpr int ROWS = 32;   // most rows, the stride of sums

struct Linear {
  Matrix m;
  const float* bias;
  const num* x;            // (rows, m.inputs)
  const float* sums;       // (parts, ROWS) sums of squares of the input before its norm; null if it is normed
  float* out;              // OUT: (rows, stride)
  float* h;                // RESIDUAL: the residual stream (rows, stride)
  num* narrowed;           // RESIDUAL: h * gain (rows, stride_narrowed); GATE: (rows, stride_narrowed)
  const float* gain;
  float* sums_out;
  num* q;                  // HEADS: (rows, heads, HEAD_STRIDE)
  u8* cache;               // HEADS: the layer's pages
  const int *slot, *place, *table;
  const float2* angles;    // (rows, HEAD / 2)
  const int2* pairs;       // (HEAD / 2) the dimensions of a pair
  int rows, parts, first_tile, stride, stride_narrowed, table_stride;
  float inverse_width, epsilon, cap, factor;   // OUT: a soft cap and before it a factor, 0 for none
};

template <class W, int NB> __device__ __forceinline__ void multiply(float (*sum)[4], const Fragment<W>& f, const num* x, const Linear& a, int g, int t) {
  if constexpr (W::BITS == 32) {
  } else {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      u32 w[2][4];
      if constexpr (W::BITS == 16) {
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
          for (int i = 0; i < 4; i++) w[half][i] = f.low[(j * 2 + half) * 4 + i];
      } else {
        widen_numbers<W>(w[0], f, 0, j);
        widen_numbers<W>(w[1], f, 1, j);
      }
#pragma unroll
      for (int nb = 0; nb < NB; nb++) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (nb * 8 + g < a.rows) {
          const num* at = x + (size_t)nb * 8 * a.m.inputs + j * 32;
          if constexpr (W::RUN == 16) {
            const uint2 one = *(const uint2*)(at + column<W>(t, 0)), two = *(const uint2*)(at + column<W>(t, 4));
            v = make_uint4(one.x, one.y, two.x, two.y);
          } else {
            v = *(const uint4*)(at + t * 8);
          }
        }
        if constexpr (W::BITS == 16) {
          mma(sum[nb], w[0][0], w[1][0], w[0][1], w[1][1], v.x, v.y);
          mma(sum[nb], w[0][2], w[1][2], w[0][3], w[1][3], v.z, v.w);
        } else {
          // Products in units of a scale: one for all 32 columns or one for each half of the eight numbers.
          float part[2][4] = {}, total[2][4] = {};
          constexpr int SECOND = W::RUN == 16 ? 1 : 0;
          mma(part[0], w[0][0], w[1][0], w[0][1], w[1][1], v.x, v.y);
          mma(part[SECOND], w[0][2], w[1][2], w[0][3], w[1][3], v.z, v.w);
          if constexpr (W::MINIMUM) {
            constexpr u32 ONES = 0x3f803f80u;
            mma(total[0], ONES, ONES, ONES, ONES, v.x, v.y);
            mma(total[SECOND], ONES, ONES, ONES, ONES, v.z, v.w);
          }
#pragma unroll
          for (int run = 0; run <= SECOND; run++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
              const int index = j * (SECOND + 1) + run;
              const float scale = run_scale<W>(f.scale, half, index);
              sum[nb][half * 2] += scale * part[run][half * 2];
              sum[nb][half * 2 + 1] += scale * part[run][half * 2 + 1];
              if constexpr (W::MINIMUM) {
                const float minimum = run_scale<W>(f.minimum, half, index);
                sum[nb][half * 2] += minimum * total[run][half * 2];
                sum[nb][half * 2 + 1] += minimum * total[run][half * 2 + 1];
              }
            }
        }
      }
    }
  }
}

// The same in float32 without tensor cores. Each lane has all rows of its columns; `gather` brings them to the places
// that the tensor cores' product has them in.
struct Floats { float sum[2][8]; };
template <class W> __device__ __forceinline__ void multiply_floats(Floats& s, const Fragment<W>& f, const float* x, const Linear& a) {
#pragma unroll
  for (int row = 0; row < 8; row++) {
    if (row >= a.rows) continue;
    const float* at = x + (size_t)row * a.m.inputs;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const float v = at[j * 32 + i];
        s.sum[0][row] += __uint_as_float(f.low[(j * 2) * 8 + i]) * v;
        s.sum[1][row] += __uint_as_float(f.low[(j * 2 + 1) * 8 + i]) * v;
      }
  }
}
__device__ __forceinline__ void gather(float* d, Floats& s, int t) {
#pragma unroll
  for (int half = 0; half < 2; half++)
#pragma unroll
    for (int row = 0; row < 8; row++) {
      float v = s.sum[half][row];
      v += __shfl_xor_sync(~0u, v, 1);
      v += __shfl_xor_sync(~0u, v, 2);
      if (row >> 1 == t) d[half * 2 + (row & 1)] = v;
    }
}

__device__ __forceinline__ float activate(float x) {
#if ACTIVATION == 0
  return x / (1.f + expf(-x));
#elif ACTIVATION == 3
  const float c = x > 7.f ? 7.f : x;
  return c / (1.f + expf(-1.702f * c));
#elif ACTIVATION == 1
  return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
#else
  return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
#endif
}

__device__ __forceinline__ float gated(float gate, float up) {
#if ACTIVATION == 3
  up = (up > 7.f ? 7.f : up < -7.f ? -7.f : up) + 1.f;
#endif
  return activate(gate) * up;
}

template <class W, int EPILOGUE, int NB> __device__ void linear(const Linear& a) {
  constexpr int COLUMNS = 8 * NB;
  __shared__ float partial[8][NB * 128], squares[256];
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, t = lane & 3, tile = blockIdx.x;
  const int chunks = a.m.inputs >> 7;
  allow_next();
  Fragment<W> now, next;
  if (warp < chunks) load_fragment<W>(now, a.m, tile, warp, lane);
  await_previous();   // below: what earlier kernels wrote
  if (a.sums) {
    float s = 0;
    for (int p = tid / COLUMNS; p < a.parts; p += 256 / COLUMNS) s += a.sums[p * ROWS + tid % COLUMNS];
    squares[tid] = s;
  }
  float sum[NB][4] = {};
  Floats floats = {};
  for (int c = warp; c < chunks; c += 8) {
    if (c + 8 < chunks) load_fragment<W>(next, a.m, tile, c + 8, lane);
    if constexpr (W::BITS == 32) multiply_floats<W>(floats, now, (const float*)a.x + c * 128 + t * 8, a);
    else multiply<W, NB>(sum, now, a.x + (size_t)g * a.m.inputs + c * 128, a, g, t);
    now = next;
  }
  if constexpr (W::BITS == 32) gather(sum[0], floats, t);
#pragma unroll
  for (int nb = 0; nb < NB; nb++)
#pragma unroll
    for (int e = 0; e < 4; e++) partial[warp][nb * 128 + lane * 4 + e] = sum[nb][e];
  __syncthreads();

  // A thread has rows `e` and `e + 8` of the tile for one row of the input.
  const int e = tid / COLUMNS, row = tid % COLUMNS;
  const bool active = e < 8 && row < a.rows;
  const int n0 = (a.first_tile + tile) * 16 + e, n1 = n0 + 8;
  const int own0 = tile * 16 + e, own1 = own0 + 8;   // rows of this matrix
  float v0 = 0, v1 = 0;
  if (active) {
    const int at = (row >> 3) * 128 + (e * 4 + ((row & 7) >> 1)) * 4 + (row & 1);
#pragma unroll
    for (int w = 0; w < 8; w++) {
      v0 += partial[w][at];
      v1 += partial[w][at + 2];
    }
    if (a.sums) {
      float s = 0;
      for (int p = 0; p < 256 / COLUMNS; p++) s += squares[p * COLUMNS + row];
      const float r = rsqrtf(s * a.inverse_width + a.epsilon);
      v0 *= r;
      v1 *= r;
    }
    if (a.bias) {
      if (own0 < a.m.outputs) v0 += a.bias[own0];
      if (own1 < a.m.outputs) v1 += a.bias[own1];
    }
  }
  if constexpr (EPILOGUE == OUT) {
    if (active && a.factor != 0) {
      v0 *= a.factor;
      v1 *= a.factor;
    }
    if (active && a.cap > 0) {
      v0 = a.cap * tanhf(v0 / a.cap);
      v1 = a.cap * tanhf(v1 / a.cap);
    }
    if (active && own0 < a.m.outputs) a.out[(size_t)row * a.stride + n0] = v0;
    if (active && own1 < a.m.outputs) a.out[(size_t)row * a.stride + n1] = v1;
  }
  if constexpr (EPILOGUE == GATE) {
    const int at = (a.first_tile + tile) * 8 + e;
    if (active && own1 < a.m.outputs) a.narrowed[(size_t)row * a.stride_narrowed + at] = narrow(gated(v0, v1));
  }
#if KV != 3   // bytes are stored by whole rows
  if constexpr (EPILOGUE == HEADS) {
    constexpr int TILES = HEAD / 16 > 0 ? HEAD / 16 : 1;
    const int head = (a.first_tile + tile) / TILES, pair = (a.first_tile + tile) % TILES * 8 + e;
    if (active) {
      const bool is_key = head >= HEADS_Q && head < HEADS_Q + KV_HEADS, is_value = head >= HEADS_Q + KV_HEADS;
      int2 to = a.pairs[pair];
      if (!is_value) {
        const float2 angle = a.angles[(size_t)row * (HEAD / 2) + pair];
        const float x = v0, y = v1;
        v0 = x * angle.x - y * angle.y;
        v1 = y * angle.x + x * angle.y;
      }
      if (is_key || is_value) {
        const int place = a.place[row], page = a.table[(size_t)a.slot[row] * a.table_stride + (place >> 4)];
        cached* o = row_at(a.cache, page, is_value, head - HEADS_Q - (is_value ? KV_HEADS : 0), place).numbers();
        o[to.x] = to_cached(v0);
        o[to.y] = to_cached(v1);
      } else {
        num* o = a.q + ((size_t)row * HEADS_Q + head) * HEAD_STRIDE;
        o[to.x] = narrow(v0);
        o[to.y] = narrow(v1);
      }
    }
  }
#endif
  if constexpr (EPILOGUE == RESIDUAL) {
    float s = 0;
    if (active) {
      float* h = a.h + (size_t)row * a.stride;
      num* x = a.narrowed + (size_t)row * a.stride_narrowed;
      if (own0 < a.m.outputs) {
        v0 += h[n0];
        h[n0] = v0;
        x[n0] = narrow(v0 * a.gain[n0]);
        s += v0 * v0;
      }
      if (own1 < a.m.outputs) {
        v1 += h[n1];
        h[n1] = v1;
        x[n1] = narrow(v1 * a.gain[n1]);
        s += v1 * v1;
      }
    }
    __syncthreads();
    squares[tid] = s;
    __syncthreads();
    if (tid < COLUMNS) {
      s = 0;
      for (int i = 0; i < 8; i++) s += squares[i * COLUMNS + tid];
      a.sums_out[(a.first_tile + tile) * ROWS + tid] = s;
    }
  }
}
