// The kernels on a CPU: what `primitives.cuh` has of NVIDIA's processors, written in plain C++. A block's threads are
// coroutines that run one after the other and change at barriers and exchanges, so results are exact and reproducible.
// Races between threads and the order of memory do not show.

#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>

#define EMULATED
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(x) __attribute__((aligned(x)))

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long long u64;

struct Dim { unsigned x = 1, y = 1, z = 1; };
struct int2 { int x, y; };
struct uint2 { u32 x, y; };
struct uint4 { u32 x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

template <class T, class F> T bits_as(F from) {
  static_assert(sizeof(T) == sizeof(F), "");
  T to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline float __uint_as_float(u32 v) { return bits_as<float>(v); }
inline u32 __float_as_uint(float v) { return bits_as<u32>(v); }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }

// Threads.
struct Thread {
  ucontext_t start;
  jmp_buf place;
  Dim index;
  int lane, warp;
  bool done;
  // The count of a barrier that the thread waits for to change.
  const int* awaited;
  int count;
  // Kept from block to block; made at the first.
  char* stack;
};
// What lanes exchange is written to one of two slots by turns: a slot is free again once all lanes have come to the
// next barrier.
struct Warp {
  int arrived, turn;
  u32 values[2][32][8];
  const void* pointers[2][32];
};
static Thread* current;
static jmp_buf scheduler;
static ucontext_t scheduler_start;
static Warp warps[32];
static Dim blockIdx, gridDim, blockDim;
static int arrived, turn, alive;
static void (*body)(const void*);
static const void* body_args;
static const int STACK_BYTES = 1 << 16;
#define threadIdx (current->index)

static void await(const int* count) {
  current->awaited = count;
  current->count = *count;
  if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}
static void warp_barrier() {
  Warp& w = warps[current->warp];
  if (++w.arrived == min(32, (int)blockDim.x - current->warp * 32)) {
    w.arrived = 0;
    w.turn++;
  } else {
    await(&w.turn);
  }
}
static void __syncthreads() {
  if (++arrived == alive) {
    arrived = 0;
    turn++;
  } else {
    await(&turn);
  }
}
// Runs the kernel for one block after another.
static void enter() {
  for (;;) {
    body(body_args);
    current->done = true;
    alive--;
    if (alive && arrived == alive) {
      arrived = 0;
      turn++;
    }
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
  }
}
static void run(Dim grid, int threads, void (*kernel)(const void*), const void* args) {
  static Thread pool[1024];
  gridDim = grid;
  blockDim.x = threads;
  body = kernel, body_args = args;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        blockIdx.x = x, blockIdx.y = y, blockIdx.z = z;
        arrived = turn = 0;
        alive = threads;
        for (Warp& w : warps) w.arrived = w.turn = 0;
        for (int i = 0; i < threads; i++) {
          Thread& t = pool[i];
          t.index.x = i, t.index.y = t.index.z = 0;
          t.lane = i % 32, t.warp = i / 32;
          t.done = false;
          t.awaited = nullptr;
        }
        for (int left = threads; left > 0;) {
          left = 0;
          for (int i = 0; i < threads; i++) {
            if (pool[i].done) continue;
            left++;
            current = &pool[i];
            if (current->awaited && *current->awaited == current->count) continue;
            if (_setjmp(scheduler) != 0) continue;
            if (current->stack) _longjmp(current->place, 1);
            current->stack = (char*)malloc(STACK_BYTES);
            getcontext(&current->start);
            current->start.uc_stack.ss_sp = current->stack;
            current->start.uc_stack.ss_size = STACK_BYTES;
            current->start.uc_link = nullptr;
            makecontext(&current->start, enter, 0);
            setcontext(&current->start);
          }
        }
      }
}

inline void __threadfence() {}
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __shfl_xor_sync(u32, T v, int other) {
  Warp& w = warps[current->warp];
  const int slot = w.turn & 1;
  memcpy(&w.values[slot][current->lane][0], &v, 4);
  warp_barrier();
  T r;
  memcpy(&r, &w.values[slot][current->lane ^ other][0], 4);
  return r;
}
inline void __syncwarp() { warp_barrier(); }
inline u32 atomicAdd(u32* p, u32 v) {
  const u32 old = *p;
  *p += v;
  return old;
}
inline u32 __byte_perm(u32 a, u32 b, u32 selector) {
  const u64 both = (u64)b << 32 | a;
  u32 r = 0;
  for (int i = 0; i < 4; i++) r |= (u32)((both >> (8 * ((selector >> (4 * i)) & 7))) & 255) << (8 * i);
  return r;
}

// Numbers.
inline float bf16_to_float(u16 v) { return __uint_as_float((u32)v << 16); }
inline u16 float_to_bf16(float f) {
  u32 u = bits_as<u32>(f);
  if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
  u += 0x7fff + ((u >> 16) & 1);
  return u >> 16;
}
inline float f16_to_float(u16 h) {
  const int e = (h >> 10) & 31, m = h & 1023;
  const float v = e == 0 ? ldexpf(m, -24) : e == 31 ? (m ? NAN : INFINITY) : ldexpf(1024 + m, e - 25);
  return h >> 15 ? -v : v;
}
inline u16 float_to_f16(float f) {
  if (f != f) return 0x7fff;
  const u16 sign = f < 0 ? 0x8000 : 0;
  f = min(fabsf(f), 65504.f);
  int e;
  frexpf(f, &e);
  // A unit of the last of eleven digits, no smaller than the smallest number.
  const int unit = max(e - 11, -24);
  const int digits = (int)nearbyintf(ldexpf(f, -unit));
  return f == 0 ? sign : (u16)(sign | (digits + ((unit + 24) << 10)));
}
inline u32 subtract_pairs(u32 a, u32 b) {
  auto part = [](u32 v, int i) { return bf16_to_float((u16)(i ? v >> 16 : v & 0xffff)); };
  return float_to_bf16(part(a, 0) - part(b, 0)) | (u32)float_to_bf16(part(a, 1) - part(b, 1)) << 16;
}
inline void allow_next() {}
inline void await_previous() {}
template <int BYTES> void load(u32* r, const void* p) {
  if ((uintptr_t)p % BYTES) abort();
  memcpy(r, p, BYTES);
}
inline void load_16(u32* r, const void* p) { load<16>(r, p); }
inline void load_8(u32* r, const void* p) { load<8>(r, p); }
inline void load_4(u32* r, const void* p) { load<4>(r, p); }
inline float half_of(u32 v, int i) {
#if COMPUTE == 2
  return f16_to_float((u16)(i ? v >> 16 : v & 0xffff));
#else
  return bf16_to_float((u16)(i ? v >> 16 : v & 0xffff));
#endif
}
#if COMPUTE == 0
inline float number_at(u64 p, size_t i) { return ((const float*)p)[i]; }
#else
inline float number_at(u64 p, size_t i) { return half_of(((const u16*)p)[i], 0); }
#endif
inline void mma(float* d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  Warp& w = warps[current->warp];
  const u32 own[6] = {a0, a1, a2, a3, b0, b1};
  u32(*const values)[8] = w.values[w.turn & 1];
  memcpy(values[current->lane], own, sizeof own);
  warp_barrier();
  const int g = current->lane >> 2, t = current->lane & 3;
  for (int e = 0; e < 4; e++) {
    const int row = g + (e >= 2 ? 8 : 0), column = 2 * t + (e & 1);
    float sum = d[e];
    for (int k = 0; k < 16; k++)
      sum += half_of(values[(row % 8) * 4 + (k % 8) / 2][(row >= 8) + 2 * (k >= 8)], k & 1) *
             half_of(values[column * 4 + (k % 8) / 2][4 + (k >= 8)], k & 1);
    d[e] = sum;
  }
}
inline void load_transposed(u32* r, const void* p) {
  Warp& w = warps[current->warp];
  const void** const pointers = w.pointers[w.turn & 1];
  pointers[current->lane] = p;
  warp_barrier();
  for (int m = 0; m < 4; m++) {
    u16 e[2];
    for (int i = 0; i < 2; i++) e[i] = ((const u16*)pointers[m * 8 + 2 * (current->lane % 4) + i])[current->lane / 4];
    r[m] = e[0] | (u32)e[1] << 16;
  }
}

// The host's side.
struct Entry {
  const char* name;
  void (*call)(const void*);
};
static Entry entries[256];
static int entry_count;
static bool add_entry(Entry entry) {
  if (entry_count == 256) abort();
  entries[entry_count++] = entry;
  return true;
}
#define ENTRY(kind, bytes, threads, blocks, name, call)                                  \
  static_assert(sizeof(kind) == bytes, "the host has another layout");                   \
  static void name(const void* args) { call(*(const kind*)args); }                       \
  static const bool known_##name = add_entry({#name, name});
extern "C" const void* find(const char* name) {
  for (int i = 0; i < entry_count; i++)
    if (!strcmp(entries[i].name, name)) return (const void*)entries[i].call;
  return nullptr;
}
extern "C" void launch(const void* kernel, u32 x, u32 y, u32 z, u32 threads, const void* args) {
  Dim grid;
  grid.x = x, grid.y = y, grid.z = z;
  run(grid, threads, (void (*)(const void*))kernel, args);
}
// Products of one shape. Operands: address, stride, step, is_transposed; sizes: rows, inner, columns, count, adds.
extern "C" void multiply(const u64* operands, const u64* sizes, float scale) {
  const u64 *a = operands, *b = operands + 4, *out = operands + 8;
  auto value = [](const u64* m, u64 product, u64 row, u64 column) {
    return number_at(m[0], product * m[2] + (m[3] ? column * m[1] + row : row * m[1] + column));
  };
  for (u64 product = 0; product < sizes[3]; product++)
    for (u64 r = 0; r < sizes[0]; r++)
      for (u64 c = 0; c < sizes[2]; c++) {
        float sum = 0, *to = (float*)out[0] + product * out[2] + r * out[1] + c;
        for (u64 k = 0; k < sizes[1]; k++) sum += value(a, product, r, k) * value(b, product, k, c);
        *to = (sizes[4] ? *to : 0.f) + scale * sum;
      }
}
