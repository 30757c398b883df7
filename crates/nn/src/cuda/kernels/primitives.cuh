// Types and instructions. Everything after this file is plain C++, so that an emulator can replace this file.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long long u64;

__device__ __forceinline__ float bf16_to_float(u16 v) { return __uint_as_float((u32)v << 16); }
__device__ __forceinline__ float f16_to_float(u16 v) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v));
  return r;
}

__device__ __forceinline__ u16 float_to_bf16(float v) {
  u16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
  return r;
}
__device__ __forceinline__ u16 float_to_f16(float v) {
  u16 r;
  // Saturates: a number beyond the range of float16 is not infinite, and NaN stays what it is.
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v > 65504.f ? 65504.f : v < -65504.f ? -65504.f : v));
  return r;
}

// a - b of two pairs of bfloat16.
__device__ __forceinline__ u32 subtract_pairs(u32 a, u32 b) {
  u32 r;
#if ARCH >= 90
  asm("sub.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
#else
  // b * -1 + a, exact where the difference is.
  asm("fma.rn.bf16x2 %0, %2, %3, %1;" : "=r"(r) : "r"(a), "r"(b), "r"(0xbf80bf80u));
#endif
  return r;
}

// Programmatic dependent launch: a kernel may start before its predecessor has ended and waits for its results here.
__device__ __forceinline__ void allow_next() {
#if ARCH >= 90
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void await_previous() {
#if ARCH >= 90
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Streaming loads of weights, which are read once: they leave the first-level cache to the activations.
__device__ __forceinline__ void load_16(u32* r, const void* p) {
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "l"(p));
}
__device__ __forceinline__ void load_8(u32* r, const void* p) {
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "l"(p));
}
__device__ __forceinline__ void load_4(u32* r, const void* p) {
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(r[0]) : "l"(p));
}

// d(16x8) += a(16x16) b(16x8). Lane 4g+t holds of a: rows g, g+8, columns 2t, 2t+1 and 2t+8, 2t+9; of b: column g, the
// same rows; of d: rows g and g+8, columns 2t, 2t+1.
__device__ __forceinline__ void mma(float* d, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if COMPUTE == 1
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#elif COMPUTE == 2
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}

// Four 8x8 matrices of 16-bit values from shared memory, transposed.
__device__ __forceinline__ void load_transposed(u32* r, const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"((u32)__cvta_generic_to_shared(p)) : "memory");
}

// A kernel of which the host knows the size of its parameter, the threads of a block and the blocks of a processor.
#define ENTRY(kind, bytes, threads, blocks, name, call)                                                        \
  static_assert(sizeof(kind) == bytes, "the host has another layout");                                         \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ kind a) {          \
    call(a);                                                                                                    \
  }
