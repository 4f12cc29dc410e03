// What kernels that reduce share: offsets in strided rows, a tree over the threads of a block, and
// running sums of exponentials.
#pragma once

#include "elementwise.cuh"

#define MAX_THREADS 256

// Offset of element `index` of one side.
__device__ __forceinline__ long long offset_in(const Layout& layout, long long index) {
  if (layout.ndim == 1) return index * layout.stride[0][0];
  long long at[1];
  locate<1>(layout, index, at);
  return at[0];
}

// Combine one value of each thread whose `has` is set; the result is thread 0's. `stride` threads
// lie between neighbours of one group of `count`, a power of two.
template <typename Combine, typename C>
__device__ C tree(C value, bool has, int lane, int count, int stride, int base) {
  __shared__ C values[MAX_THREADS];
  __shared__ bool present[MAX_THREADS];
  const int me = base + lane * stride;
  values[me] = value;
  present[me] = has;
  for (int half = count / 2; half > 0; half /= 2) {
    __syncthreads();  // the other thread's value must be there
    if (lane < half) {
      const int other = me + half * stride;
      if (present[other]) {
        values[me] = present[me] ? Combine::combine(values[me], values[other]) : values[other];
        present[me] = true;
      }
    }
  }
  __syncthreads();
  return values[me];
}

// exp(x - top) summed: two of them are joined at the larger top.
template <typename C>
struct Exponentials {
  C top, sum;
};

struct Join {
  template <typename E>
  __device__ __forceinline__ static E combine(E a, E b) {
    if (a.top != a.top || b.top != b.top) return a.top != a.top ? a : b;
    const E high = a.top >= b.top ? a : b, low = a.top >= b.top ? b : a;
    // Equal infinities: their difference would be NaN.
    const auto factor = high.top == low.top ? decltype(a.top)(1) : exp(low.top - high.top);
    return E{high.top, high.sum + low.sum * factor};
  }
};
