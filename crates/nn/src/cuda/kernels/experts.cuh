// Mixtures of experts: which experts a row passes, and linear layers of which every row has matrices of its own.
//
// A choice is a row and one of its EXPERTS_USED experts. Choices are arranged by expert; up to `most` neighbors of one
// expert are a group, which reads the expert's matrix once. Everything is decided on the device, and a launch has as many
// groups as there may be, so that a recorded step serves any choice.

#if EXPERTS
struct Group { int expert, first, count, padding; };

struct Route {
  const float *ratings, *bias;   // (rows, EXPERTS) outputs of the router; (EXPERTS) its bias to be added, or null
  int* place;                    // (rows, EXPERTS_USED) where a choice is arranged; of a row by ascending expert
  float* share;                  // the factor on its expert's output
  Group* groups;                 // (group_count), the last ones empty
  u32* count;                    // zero
  int rows, most, group_count;
};

__device__ __forceinline__ bool precedes(float v, int i, float w, int j) { return v > w || (v == w && i < j); }

// The choices of one row, by a warp: the largest ratings, of equal ones the first.
__device__ __forceinline__ void choose_experts(const Route& a, int row, int lane, int* experts, float* ratings) {
  auto rating = [&](int e) { return a.ratings[(size_t)row * EXPERTS + e] + (a.bias ? a.bias[e] : 0.f); };
  float most = 0, total = 0, before = __uint_as_float(0x7f800000u);
  int expert_before = -1;
  for (int c = 0; c < EXPERTS_USED; c++) {
    float best = __uint_as_float(0xff800000u);
    int expert = EXPERTS;
    for (int e = lane; e < EXPERTS; e += 32) {
      const float v = rating(e);
      if (precedes(before, expert_before, v, e) && precedes(v, e, best, expert)) best = v, expert = e;
    }
    for (int o = 16; o; o >>= 1) {
      const float v = __shfl_xor_sync(~0u, best, o);
      const int e = __shfl_xor_sync(~0u, expert, o);
      if (precedes(v, e, best, expert)) best = v, expert = e;
    }
    // Ratings that are no numbers have no order.
    if (expert == EXPERTS) expert = c, best = rating(c);
    if (c == 0) most = best;
    if (EXPERTS_NORMALIZED) total += expf(best - most);
    if (lane == 0) experts[c] = expert, ratings[c] = best;
    before = best;
    expert_before = expert;
  }
  if (!EXPERTS_NORMALIZED) {
    for (int e = lane; e < EXPERTS; e += 32) total += expf(rating(e) - most);
    for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(~0u, total, o);
  }
  if (lane == 0)
    for (int c = 0; c < EXPERTS_USED; c++) ratings[c] = expf(ratings[c] - most) / total;
}

// Arranges all choices by expert: one block.
__device__ __forceinline__ void arrange(const Route& a) {
  __shared__ u32 size[EXPERTS], next[EXPERTS];
  __shared__ int2 sums[256];
  __shared__ int groups;
  constexpr int OWN = (EXPERTS + 255) / 256;   // experts of a thread
  const int tid = threadIdx.x, choices = a.rows * EXPERTS_USED, first = min(tid * OWN, EXPERTS), end = min(first + OWN, EXPERTS);
  for (int e = tid; e < EXPERTS; e += 256) size[e] = 0;
  __syncthreads();
  for (int c = tid; c < choices; c += 256) atomicAdd(size + __ldcg(a.place + c), 1u);
  __syncthreads();
  int2 own = {0, 0};
  for (int e = first; e < end; e++) own.x += size[e], own.y += (size[e] + a.most - 1) / a.most;
  sums[tid] = own;
  __syncthreads();
  int2 at = {0, 0};
  for (int t = 0; t < tid; t++) at.x += sums[t].x, at.y += sums[t].y;
  for (int e = first; e < end; e++) {
    const int count = size[e];
    for (int from = 0; from < count; from += a.most) {
      const Group group = {e, at.x + from, min(a.most, count - from), 0};
      a.groups[at.y++] = group;
    }
    next[e] = at.x;
    at.x += count;
  }
  if (tid == 255) groups = at.y;
  __syncthreads();
  const Group none = {0, 0, 0, 0};
  for (int g = groups + tid; g < a.group_count; g += 256) a.groups[g] = none;
  // The order of an expert's choices is left to chance: it changes no result.
  for (int c = tid; c < choices; c += 256) a.place[c] = atomicAdd(next + __ldcg(a.place + c), 1u);
}

// Chooses the experts of rows: a warp a row, grid (rows / 8 rounded up). The last block arranges the choices.
__device__ void route(const Route& a) {
  __shared__ int experts[8][EXPERTS_USED];
  __shared__ float shares[8][EXPERTS_USED];
  __shared__ u32 last;
  allow_next();
  await_previous();
  const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, row = blockIdx.x * 8 + warp;
  if (row < a.rows) choose_experts(a, row, lane, experts[warp], shares[warp]);
  __syncthreads();
  for (int c = lane; row < a.rows && c < EXPERTS_USED; c += 32) {
    int rank = 0;
    for (int other = 0; other < EXPERTS_USED; other++) {
      const int one = experts[warp][other], two = experts[warp][c];
      rank += one < two || (one == two && other < c);
    }
    const size_t to = (size_t)row * EXPERTS_USED + rank;
    a.place[to] = experts[warp][c];
    a.share[to] = shares[warp][c];
  }
  __threadfence();
  __syncthreads();
  if (tid == 0) last = atomicAdd(a.count, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (tid == 0) *a.count = 0;
  arrange(a);
}

struct Gather { const num* x; num* out; const int* place; int width, stride; };
// Brings the row of each choice to the choice's place: grid (EXPERTS_USED, rows).
__device__ void gather_rows(const Gather& a) {
  const num* from = a.x + (size_t)blockIdx.y * a.stride;
  num* to = a.out + (size_t)a.place[blockIdx.y * EXPERTS_USED + blockIdx.x] * a.stride;
  for (int k = threadIdx.x; k < a.width; k += 256) to[k] = from[k];
}

struct Experts {
  Linear linear;        // of one expert; its matrix and bias are those of the first, and the others' follow
  const Group* groups;
  int stored;           // rows of an expert's matrix as they are stored, a whole number of tiles
  int is_shared;        // all choices have the first row as their input
};
// A linear layer of which each group has its expert's matrix: grid (tiles, groups).
template <class W, int EPILOGUE, int NB> __device__ void linear_of_experts(const Experts& a) {
  allow_next();
  await_previous();
  const Group group = a.groups[blockIdx.y];
  if (group.count == 0) return;
  Linear own = a.linear;
  own.m = skip_tiles<W>(own.m, (size_t)group.expert * (a.stored >> 4));
  own.rows = group.count;
  if (own.bias) own.bias += (size_t)group.expert * a.stored;
  if (!a.is_shared) own.x += (size_t)group.first * own.m.inputs;
  if (EPILOGUE == OUT) own.out += (size_t)group.first * own.stride;
  if (EPILOGUE == GATE) own.narrowed += (size_t)group.first * own.stride_narrowed;
  linear<W, EPILOGUE, NB>(own);
}
#endif
