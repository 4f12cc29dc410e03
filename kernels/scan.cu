// Running sums and products along an axis.
//
// Computes   out[k, i] = x[k, 0] + ... + x[k, i], or the product; without x[k, i] when `exclusive`
// Layouts    `kept` lays out the axes beside the scanned one, with the strides of x first and of out
//            second; any strides. Backwards: negative strides, from the last element on
// Launch     scan_rows: a block of 32 to 256 threads (a power of two) for each row and part, which
//            walks along tiles of 4 elements for each thread. scan_columns: blocks of threads side
//            by side on neighbouring rows, so that loads are coalesced where the rows lie side by
//            side; blockDim.y threads share what a row has. grid.y parts share a row evenly: then
//            totals[row * parts + part] must hold what each part comes to (reductions.cu)
// dtypes     all numbers; float16 is accumulated in float32, integers wrap
// Determinism  fixed order within a thread, then trees of fixed shape: equal bits every time
// Source     Merrill and Garland, "Single-pass parallel prefix scan with decoupled look-back", 2016,
//            section 3 (reduce-then-scan), whose totals here cost a launch and no wait among blocks
//
// instantiate: scan_rows<float, Plus>
// instantiate: scan_rows<float, Times>
// instantiate: scan_rows<double, Plus>
// instantiate: scan_rows<__half, Plus>
// instantiate: scan_rows<__half, Times>
// instantiate: scan_rows<signed char, Plus>
// instantiate: scan_rows<long long, Times>
// instantiate: scan_rows<unsigned short, Plus>
// instantiate: scan_columns<float, Plus>
// instantiate: scan_columns<float, Times>
// instantiate: scan_columns<double, Times>
// instantiate: scan_columns<__half, Plus>
// instantiate: scan_columns<int, Plus>
// instantiate: scan_columns<unsigned char, Times>

#include "reduce.cuh"

#define ITEMS 4
#define WARP 32
#define ALL_LANES 0xffffffffu
// Neighbouring threads read ITEMS elements apart: a gap after every 32 keeps them in other banks.
#define AT(i) ((i) + (i) / WARP)

struct Plus {
  template <typename C>
  __device__ __forceinline__ static C combine(C a, C b) {
    return a + b;
  }
  template <typename C>
  __device__ __forceinline__ static C neutral() {
    return C(0);
  }
};
struct Times {
  template <typename C>
  __device__ __forceinline__ static C combine(C a, C b) {
    return a * b;
  }
  template <typename C>
  __device__ __forceinline__ static C neutral() {
    return C(1);
  }
};

// The type of a part's total: as in reductions.cu.
template <typename T>
struct Total {
  typedef T type;
};
template <>
struct Total<__half> {
  typedef float type;
};

struct Scan {
  long long length, x_step, out_step, parts;
  int exclusive, pad;
};

template <typename T, typename Op>
__global__ void scan_rows(const T* x, const typename Total<T>::type* totals, T* out, Layout kept,
                          Scan scan) {
  typedef typename Accumulator<T>::type C;
  __shared__ C tile[AT(MAX_THREADS * ITEMS)];
  __shared__ C warps[MAX_THREADS / WARP];
  __shared__ C shared_carry;
  const int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
  const int n_warps = blockDim.x / WARP;
  const long long part = blockIdx.y;
  const long long from = scan.length * part / scan.parts;
  const long long to = scan.length * (part + 1) / scan.parts;
  long long row[2];
  locate<2>(kept, blockIdx.x, row);

  C carry = Op::template neutral<C>();
  if (part > 0) {
    for (long long p = thread; p < part; p += blockDim.x) {
      carry = Op::combine(carry, (C)widen(totals[blockIdx.x * scan.parts + p]));
    }
    carry = tree<Op>(carry, true, thread, blockDim.x, 1, 0);
    if (thread == 0) shared_carry = carry;
    __syncthreads();  // every thread needs what thread 0 has combined
    carry = shared_carry;
  }
  for (long long base = from; base < to; base += blockDim.x * ITEMS) {
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      const int slot = k * blockDim.x + thread;
      const long long i = base + slot;
      tile[AT(slot)] = i < to ? (C)widen(x[row[0] + i * scan.x_step]) : Op::template neutral<C>();
    }
    __syncthreads();  // each thread reads what others have loaded
    C mine[ITEMS], total = Op::template neutral<C>();
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      mine[k] = tile[AT(thread * ITEMS + k)];
      total = Op::combine(total, mine[k]);
    }
#pragma unroll
    for (int distance = 1; distance < WARP; distance *= 2) {
      const C left = __shfl_up_sync(ALL_LANES, total, distance);
      if (lane >= distance) total = Op::combine(left, total);
    }
    if (lane == WARP - 1) warps[warp] = total;
    const C left = __shfl_up_sync(ALL_LANES, total, 1);
    __syncthreads();  // the totals of the other warps must be there
    C before = carry;
    for (int w = 0; w < n_warps; ++w) {
      if (w == warp) before = carry;
      carry = Op::combine(carry, warps[w]);
    }
    if (lane > 0) before = Op::combine(before, left);
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      const C with_this = Op::combine(before, mine[k]);
      tile[AT(thread * ITEMS + k)] = scan.exclusive ? before : with_this;
      before = with_this;
    }
    __syncthreads();  // each thread stores what others have computed
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
      const int slot = k * blockDim.x + thread;
      if (base + slot < to) out[row[1] + (base + slot) * scan.out_step] = narrow<T>(tile[AT(slot)]);
    }
    __syncthreads();  // WAR: the next round overwrites tile and warps that slower threads still read
  }
}

template <typename T, typename Op>
__global__ void scan_columns(const T* x, const typename Total<T>::type* totals, T* out, Layout kept,
                             Scan scan) {
  typedef typename Accumulator<T>::type C;
  __shared__ C heads[MAX_THREADS];
  __shared__ C shares[MAX_THREADS];
  const long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x, part = blockIdx.y;
  const bool inside = column < kept.size;
  const long long from = scan.length * part / scan.parts;
  const long long size = scan.length * (part + 1) / scan.parts - from;
  const long long begin = from + size * threadIdx.y / blockDim.y;
  const long long end = from + size * (threadIdx.y + 1) / blockDim.y;
  long long at[2] = {0, 0};
  if (inside) locate<2>(kept, column, at);

  C before = Op::template neutral<C>();
  if (blockDim.y > 1) {  // what the parts before this one come to, and the shares within it
    C head = before, share = before;
    if (inside) {
      for (long long p = threadIdx.y; p < part; p += blockDim.y) {
        head = Op::combine(head, (C)widen(totals[column * scan.parts + p]));
      }
      for (long long i = begin; i < end; ++i) {
        share = Op::combine(share, (C)widen(x[at[0] + i * scan.x_step]));
      }
    }
    heads[threadIdx.y * blockDim.x + threadIdx.x] = head;
    shares[threadIdx.y * blockDim.x + threadIdx.x] = share;
    __syncthreads();  // the other threads of the column must have theirs
    for (int y = 0; y < blockDim.y; ++y) {
      before = Op::combine(before, heads[y * blockDim.x + threadIdx.x]);
    }
    for (int y = 0; y < threadIdx.y; ++y) {
      before = Op::combine(before, shares[y * blockDim.x + threadIdx.x]);
    }
  }
  if (!inside) return;
  for (long long i = begin; i < end; ++i) {
    const C with_this = Op::combine(before, (C)widen(x[at[0] + i * scan.x_step]));
    out[at[1] + i * scan.out_step] = narrow<T>(scan.exclusive ? before : with_this);
    before = with_this;
  }
}
