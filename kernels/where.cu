// Choose between two arrays element by element.
//
// Computes   out[i] = condition[i] ? a[i] : b[i]
// Layouts    `where`: contiguous arrays of n elements. `where_strided`: any strides and broadcasting
//            of the inputs; the output is contiguous
// Launch     1-D grid-stride loop, 256 threads
// dtypes     by element size: 1, 2, 4 or 8 bytes, carried as unsigned integers
// Limits     at most 8 axes after merging. The output may be a or b of the same layout
// Determinism  each element is written once, by one thread
// Source     no arithmetic
//
// instantiate: where<unsigned char>
// instantiate: where<unsigned short>
// instantiate: where<unsigned int>
// instantiate: where<unsigned long long>
// instantiate: where_strided<unsigned char>
// instantiate: where_strided<unsigned short>
// instantiate: where_strided<unsigned int>
// instantiate: where_strided<unsigned long long>

#include "elementwise.cuh"

template <typename T>
__global__ void where(const bool* condition, const T* a, const T* b, T* out, long long n) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    out[i] = condition[i] ? a[i] : b[i];
  }
}

template <typename T>
__global__ void where_strided(const bool* condition, const T* a, const T* b, T* out,
                              Layout layout) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < layout.size; i += step) {
    long long at[3];
    locate<3>(layout, i, at);
    out[i] = condition[at[0]] ? a[at[1]] : b[at[2]];
  }
}
