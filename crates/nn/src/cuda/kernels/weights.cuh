// Matrices. A warp reads them in fragments: 16 rows (outputs) of 128 columns (inputs).
//
// A format is a struct of constants, written by the host from its table of formats:
//   BITS        32 and 16 for plain numbers, row after row; else the bits of a number of a block format: 4, 5, 6 or 8
//   RUN         columns that share a scale: 16 or 32
//   OFFSET      a value is scale * (number - OFFSET) + minimum
//   TABLE       the number is an index into sixteen signed bytes, T0 to T3
//   MINIMUM     runs have a minimum
//   WIDE_SCALE  scales are bfloat16, not float16
//
// Block formats are laid out in fragments, fragment after fragment along a row of fragments:
//   low   of 4, 5 and 6 bits: [half][lane][4 words] of eight 4-bit numbers; of 8 bits: [half * 2 + word / 2][lane][4 words]
//   high  of 5 bits: [half][lane] words; of 6 bits: [half][lane][2 words]
//   scale, minimum: [row][run] 16-bit floats
// `half` is 0 for rows 0 to 7 and 1 for rows 8 to 15. Lane 4g+t holds row g of each half and, of each 32 columns, the
// eight that `column` names.

template <class W> struct Fragment {
  static constexpr int LOW = W::BITS == 32 ? 64 : W::BITS == 16 ? 32 : W::BITS == 8 ? 16 : 8;
  static constexpr int HIGH = W::BITS == 6 ? 4 : W::BITS == 5 ? 2 : 1;
  static constexpr int SCALES = W::RUN == 16 ? 8 : 4;
  u32 low[LOW], high[HIGH], scale[SCALES], minimum[SCALES];
};

struct Matrix {
  const u8 *low, *high;
  const u16 *scale, *minimum;
  int outputs, inputs;   // inputs are padded to a multiple of 128
};

// The column, within 32, of number i of lane t: two runs of 16 alternate, so that each half of the eight has one scale.
template <class W> __device__ __forceinline__ int column(int t, int i) {
  return W::RUN == 16 ? (i >> 2) * 16 + t * 4 + (i & 3) : t * 8 + i;
}

template <class W> __device__ __forceinline__ void load_fragment(Fragment<W>& f, const Matrix& m, int tile, int chunk, int lane) {
  const int g = lane >> 2, t = lane & 3;
  if constexpr (W::BITS >= 16) {
    constexpr int BYTES = W::BITS / 8, WORDS = BYTES * 2;
    const u8* row = m.low + ((size_t)(tile * 16 + g) * m.inputs + chunk * 128 + t * 8) * BYTES;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int half = 0; half < 2; half++)
#pragma unroll
        for (int v = 0; v < WORDS; v += 4)
          load_16(f.low + (j * 2 + half) * WORDS + v, row + (size_t)half * 8 * m.inputs * BYTES + j * 32 * BYTES + v * 4);
  } else {
    const size_t at = (size_t)tile * (m.inputs >> 7) + chunk;
    constexpr int PARTS = W::BITS == 8 ? 4 : 2, RUNS = 128 / W::RUN;
#pragma unroll
    for (int part = 0; part < PARTS; part++) load_16(f.low + part * 4, m.low + (at * PARTS + part) * 512 + lane * 16);
    if constexpr (W::BITS == 6) {
      load_8(f.high, m.high + at * 512 + lane * 8);
      load_8(f.high + 2, m.high + at * 512 + 256 + lane * 8);
    } else if constexpr (W::BITS == 5) {
      load_4(f.high, m.high + at * 256 + lane * 4);
      load_4(f.high + 1, m.high + at * 256 + 128 + lane * 4);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const size_t row = (at * 16 + half * 8 + g) * RUNS;
      if constexpr (RUNS == 8) {
        load_16(f.scale + half * 4, m.scale + row);
        if constexpr (W::MINIMUM) load_16(f.minimum + half * 4, m.minimum + row);
      } else {
        load_8(f.scale + half * 2, m.scale + row);
        if constexpr (W::MINIMUM) load_8(f.minimum + half * 2, m.minimum + row);
      }
    }
  }
}

// The same matrix without its first tiles of 16 rows.
template <class W> __device__ __forceinline__ Matrix skip_tiles(Matrix m, size_t tiles) {
  const size_t fragments = tiles * (m.inputs >> 7);
  constexpr int LOW = W::BITS >= 8 ? 256 * W::BITS : 1024, HIGH = W::BITS == 6 ? 512 : 256, SCALES = 16 * (128 / W::RUN);
  m.low += fragments * LOW;
  if constexpr (W::BITS < 16) m.scale += fragments * SCALES;
  if constexpr (W::BITS < 8 && W::BITS > 4) m.high += fragments * HIGH;
  if constexpr (W::MINIMUM) m.minimum += fragments * SCALES;
  return m;
}

template <class W> __device__ __forceinline__ float scale_value(u16 bits) {
  return W::WIDE_SCALE ? bf16_to_float(bits) : f16_to_float(bits);
}
template <class W> __device__ __forceinline__ float run_scale(const u32* words, int half, int run) {
  constexpr int RUNS = 128 / W::RUN;
  return scale_value<W>((u16)(words[half * (RUNS / 2) + run / 2] >> (16 * (run & 1))));
}

// Signed bytes 0 and 1 of `v` widened to a pair of bfloat16, exactly: (128 + low seven bits) - (128 + sign * 128).
__device__ __forceinline__ u32 widen_bytes(u32 v, u32 selector) {
  const u32 a = __byte_perm(v, 0x43434343u, selector);
  return subtract_pairs(a & 0xff7fff7fu, a & 0xff80ff80u);
}

// Columns 32j to 32j + 31 of one half of a fragment as pairs of bfloat16 in the order of `column`.
template <class W> __device__ __forceinline__ void widen_numbers(u32* pairs, const Fragment<W>& f, int half, int j) {
  if constexpr (W::BITS == 8) {
    const u32* words = f.low + (half * 2 + j / 2) * 4 + (j & 1) * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      pairs[2 * i] = widen_bytes(words[i], 0x4140);
      pairs[2 * i + 1] = widen_bytes(words[i], 0x4342);
    }
  } else if constexpr (W::TABLE) {
    const u32 v = f.low[half * 4 + j], sel = v & 0x77777777u;
    u32 bytes[2];
#pragma unroll
    for (int part = 0; part < 2; part++) {
      const u32 s = part ? sel >> 16 : sel & 0xffffu, upper = (part ? v >> 16 : v) & 0x8888u;
      const u32 small = __byte_perm(W::T0, W::T1, s), large = __byte_perm(W::T2, W::T3, s);
      // Bit 3 of each nibble, spread to a mask of its byte.
      const u32 bits = (upper & 0x8) << 4 | (upper & 0x80) << 8 | (upper & 0x800) << 12 | (upper & 0x8000) << 16;
      const u32 mask = (bits >> 7) * 0xffu;
      bytes[part] = (small & ~mask) | (large & mask);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) pairs[i] = widen_bytes(__byte_perm(bytes[0], bytes[1], (u32)(i | (i + 4) << 4)), 0x4140);
  } else {
    const u32 v = f.low[half * 4 + j];
    constexpr u32 ZERO = 0x43004300u + W::OFFSET * 0x00010001u;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      u32 number = (v >> (4 * i)) & 0x000f000fu;
      if constexpr (W::BITS == 6) number |= ((f.high[half * 2 + j / 2] >> ((j & 1) * 8 + 2 * i)) & 0x00030003u) << 4;
      if constexpr (W::BITS == 5) number |= ((f.high[half] >> (4 * j + i)) & 0x00010001u) << 4;
      // 128 + number has the number in its lowest mantissa bits.
      pairs[i] = subtract_pairs(number | 0x43004300u, ZERO);
    }
  }
}

// One value of a matrix.
template <class W> __device__ __forceinline__ float value(const Matrix& m, int row, int k) {
  if constexpr (W::BITS == 32) {
    return ((const float*)m.low)[(size_t)row * m.inputs + k];
  } else if constexpr (W::BITS == 16) {
    return widen(((const num*)m.low)[(size_t)row * m.inputs + k]);
  } else {
    constexpr int RUNS = 128 / W::RUN;
    const int r = row & 15, half = r >> 3, j = (k & 127) >> 5, c = k & 31;
    const int t = W::RUN == 16 ? (c & 15) >> 2 : c >> 3, i = W::RUN == 16 ? (c & 3) + 4 * (c >> 4) : c & 7;
    const int lane = (r & 7) * 4 + t;
    const size_t at = (size_t)(row >> 4) * (m.inputs >> 7) + (k >> 7), run = (at * 16 + r) * RUNS + (k & 127) / W::RUN;
    float code;
    if constexpr (W::BITS == 8) {
      code = (float)(signed char)m.low[(at * 4 + half * 2 + j / 2) * 512 + lane * 16 + (j & 1) * 8 + i];
    } else {
      const int nibble = (i >> 1) + (i & 1) * 4;
      const u32 word = ((const u32*)(m.low + (at * 2 + half) * 512))[lane * 4 + j];
      int number = (word >> (4 * nibble)) & 15;
      if constexpr (W::BITS == 6) {
        const u32 high = ((const u32*)(m.high + at * 512 + half * 256))[lane * 2 + j / 2];
        number |= ((high >> ((i & 1) * 16 + (j & 1) * 8 + (i >> 1) * 2)) & 3) << 4;
      }
      if constexpr (W::BITS == 5) {
        const u32 high = ((const u32*)(m.high + at * 256 + half * 128))[lane];
        number |= ((high >> ((i & 1) * 16 + 4 * j + (i >> 1))) & 1) << 4;
      }
      if constexpr (W::TABLE) {
        const u32 table = number < 4 ? W::T0 : number < 8 ? W::T1 : number < 12 ? W::T2 : W::T3;
        code = (float)(signed char)(table >> (8 * (number & 3)));
      } else {
        code = (float)(number - W::OFFSET);
      }
    }
    const float scaled = scale_value<W>(m.scale[run]) * code;
    if constexpr (W::MINIMUM) return scaled + scale_value<W>(m.minimum[run]);
    return scaled;
  }
}

struct Widen { Matrix m; num* out; int first, rows; };
// Rows from `first` on, a whole number of tiles, as plain numbers (rows, inputs): a warp a fragment, grid (fragments of a
// tile / 8 rounded up, tiles).
template <class W> __device__ void widen_rows(const Widen& a) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, chunk = blockIdx.x * 8 + (threadIdx.x >> 5);
  if (chunk >= a.m.inputs >> 7) return;
  if constexpr (W::BITS < 16) {
    Fragment<W> f;
    load_fragment<W>(f, a.m, (a.first >> 4) + blockIdx.y, chunk, lane);
    constexpr int SECOND = W::RUN == 16 ? 1 : 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = blockIdx.y * 16 + half * 8 + g;
      if (row >= a.rows) continue;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        u32 pairs[4];
        widen_numbers<W>(pairs, f, half, j);
        u32 words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int run = j * (SECOND + 1) + (SECOND ? i >> 1 : 0);
          const float scale = run_scale<W>(f.scale, half, run);
          float minimum = 0;
          if constexpr (W::MINIMUM) minimum = run_scale<W>(f.minimum, half, run);
          const float low = scale * bf16_to_float((u16)(pairs[i] & 0xffff)) + minimum;
          const float high = scale * bf16_to_float((u16)(pairs[i] >> 16)) + minimum;
          words[i] = (u32)narrow(low) | (u32)narrow(high) << 16;
        }
        num* out = a.out + (size_t)row * a.m.inputs + chunk * 128 + j * 32;
        if constexpr (W::RUN == 16) {
          *(uint2*)(out + column<W>(t, 0)) = make_uint2(words[0], words[1]);
          *(uint2*)(out + column<W>(t, 4)) = make_uint2(words[2], words[3]);
        } else {
          *(uint4*)(out + t * 8) = make_uint4(words[0], words[1], words[2], words[3]);
        }
      }
    }
  }
}
