// Normalisation of rows to mean 0 and variance 1, or to a mean square of 1.
//
// Computes   out[o, r] = (x[o, r] - mean) / sqrt(variance + epsilon) * scale[r] + bias[r], with mean
//            and variance over r; without CENTRE the mean is taken for 0, without BIAS no bias added
// Layouts    x: any strides, rows by `kept`, elements of a row by `reduced`; scale, bias: contiguous,
//            one row (without BIAS the pointer is not read); out: contiguous rows
// Launch     a block of 32 to 256 threads (a power of two) for each row; x is read three times (two
//            without CENTRE), mostly from cache
// dtypes     float, double, __half (computed in float)
// Limits     at most 8 merged axes on each side. The output may be x of the same layout
// Determinism  each thread adds in a fixed order, then a tree of fixed shape
// Source     Ba, Kiros and Hinton, 2016, section 3; Zhang and Sennrich, 2019, section 4. The variance
//            is summed around the mean (two passes), so that nothing cancels
//
// instantiate: normalise_rows<float, true, true>
// instantiate: normalise_rows<float, true, false>
// instantiate: normalise_rows<float, false, false>
// instantiate: normalise_rows<double, true, true>
// instantiate: normalise_rows<double, false, false>
// instantiate: normalise_rows<__half, true, true>
// instantiate: normalise_rows<__half, false, false>

#include "reduce.cuh"

struct Plus {
  template <typename C>
  __device__ __forceinline__ static C combine(C a, C b) {
    return a + b;
  }
};

// Sum over the threads of the block, known to all of them.
template <typename C>
__device__ C block_sum(C value) {
  __shared__ C result;
  value = tree<Plus>(value, true, threadIdx.x, blockDim.x, 1, 0);
  if (threadIdx.x == 0) result = value;
  __syncthreads();  // every thread needs the sum
  const C found = result;
  __syncthreads();  // the next sum must not overwrite it before all have read it
  return found;
}

template <typename T, bool CENTRE, bool BIAS>
__global__ void normalise_rows(const T* x, const T* scale, const T* bias, T* out, Layout kept,
                               Layout reduced, typename Compute<T>::type epsilon) {
  typedef typename Compute<T>::type C;
  const long long n = reduced.size;
  const T* row = x + offset_in(kept, blockIdx.x);
  C mean = C(0);
  if (CENTRE) {
    C sum = C(0);
    for (long long r = threadIdx.x; r < n; r += blockDim.x) sum += load(row[offset_in(reduced, r)]);
    mean = block_sum(sum) / C(n);
  }
  C squares = C(0);
  for (long long r = threadIdx.x; r < n; r += blockDim.x) {
    const C apart = load(row[offset_in(reduced, r)]) - mean;
    squares += apart * apart;
  }
  const C factor = C(1) / sqrt(block_sum(squares) / C(n) + epsilon);
  for (long long r = threadIdx.x; r < n; r += blockDim.x) {
    const C normal = (load(row[offset_in(reduced, r)]) - mean) * factor;
    const C scaled = normal * load(scale[r]);
    out[blockIdx.x * n + r] = Convert<T>::from(BIAS ? scaled + load(bias[r]) : scaled);
  }
}
