// The k largest or smallest elements of each row, in order, and where they were.
//
// Computes   values[o, j, i] = the j-th of x[o, :, i] in order, places[o, j, i] = its index; of equal
//            elements the lower index first; NaN counts as larger than everything
// Layouts    `kept` and `reduced` lay out the rows and the elements of one, with the strides of x;
//            outputs C-contiguous with `inner` elements behind the axis
// Launch     a block of 32 to 256 threads (a power of two) for each row; k passes over the row
// dtypes     all numbers
// Limits     at most 8 merged axes on each side
// Determinism  comparisons only: the same result in any order
// Source     selection by repeated maximum, with the last one found as the bound of the next pass
//
// instantiate: top_k<float, true>
// instantiate: top_k<float, false>
// instantiate: top_k<double, true>
// instantiate: top_k<__half, true>
// instantiate: top_k<long long, false>
// instantiate: top_k<unsigned char, true>

#include "reduce.cuh"

template <typename C>
struct Ranked {
  C value;
  long long index;
};

template <bool MAX>
struct First {
  // Whether a comes before b.
  template <typename R>
  __device__ __forceinline__ static bool before(R a, R b) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan == MAX;
    if (a_nan || a.value == b.value) return a.index < b.index;
    return (a.value > b.value) == MAX;
  }
  template <typename R>
  __device__ __forceinline__ static R combine(R a, R b) {
    return before(a, b) ? a : b;
  }
};

template <typename T, bool MAX>
__global__ void top_k(const T* x, T* values, long long* places, Layout kept, Layout reduced,
                      long long k, long long inner) {
  typedef Ranked<typename Compute<T>::type> R;
  __shared__ R shared_last;
  const long long row = blockIdx.x;
  const T* start = x + offset_in(kept, row);
  const long long to = row / inner * k * inner + row % inner;
  R last{typename Compute<T>::type(0), 0};
  for (long long j = 0; j < k; ++j) {
    R best = last;
    bool has = false;
    for (long long r = threadIdx.x; r < reduced.size; r += blockDim.x) {
      const R here{load(start[offset_in(reduced, r)]), r};
      if (j > 0 && !First<MAX>::before(last, here)) continue;  // found in an earlier pass
      if (!has || First<MAX>::before(here, best)) best = here;
      has = true;
    }
    best = tree<First<MAX>>(best, has, threadIdx.x, blockDim.x, 1, 0);
    if (threadIdx.x == 0) {
      values[to + j * inner] = start[offset_in(reduced, best.index)];
      places[to + j * inner] = best.index;
      shared_last = best;
    }
    __syncthreads();  // the next pass starts behind what thread 0 has found
    last = shared_last;
  }
}
