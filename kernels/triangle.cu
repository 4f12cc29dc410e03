// Keep the upper or the lower triangle of matrices.
//
// Computes   out[..., i, j] = x[..., i, j] where j - i >= k (upper) or j - i <= k (lower), else 0
// Layouts    x has any strides; the output is contiguous
// Launch     1-D grid-stride loop, 256 threads
// dtypes     by element size: 1, 2, 4 or 8 bytes, carried as unsigned integers
// Limits     at most 8 axes after merging. The output may be x of the same layout
// Determinism  each element is written once, by one thread
// Source     no arithmetic
//
// instantiate: triangle<unsigned char>
// instantiate: triangle<unsigned short>
// instantiate: triangle<unsigned int>
// instantiate: triangle<unsigned long long>

#include "elementwise.cuh"

// How far element `index` lies above the main diagonal.
template <typename Index>
__device__ __forceinline__ long long above(Index index, Index rows, Index columns) {
  const Index line = index / columns;
  return (long long)(index - line * columns) - (long long)(line % rows);
}

template <typename T>
__global__ void triangle(const T* x, T* out, Layout layout, long long rows, long long columns,
                         long long k, int upper) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < layout.size; i += step) {
    const long long distance =
        layout.narrow ? above((unsigned int)i, (unsigned int)rows, (unsigned int)columns)
                      : above((unsigned long long)i, (unsigned long long)rows,
                              (unsigned long long)columns);
    T value = 0;  // what is dropped is not read
    if (upper ? distance >= k : distance <= k) {
      long long at[1];
      locate<1>(layout, i, at);
      value = x[at[0]];
    }
    out[i] = value;
  }
}
