// Determinants of square matrices by elimination.
//
// Computes   out[b] = det(x[b])
// Layouts    `work` holds a contiguous copy of every matrix (n, n) and is overwritten
// Launch     a block of 256 threads for each matrix
// dtypes     float, double
// Limits     n * n below 2^31
// Determinism  fixed order: the pivot is the first of the largest magnitudes in its column
// Source     Golub and Van Loan, "Matrix computations", section 3.4 (partial pivoting)
//
// instantiate: det<float>
// instantiate: det<double>

#include "common.cuh"

template <typename T>
__global__ void det(T* work, T* out, int n) {
  __shared__ int pivot;
  T* m = work + (long long)blockIdx.x * n * n;
  T product = T(1);  // thread 0's counts
  for (int k = 0; k < n; ++k) {
    if (threadIdx.x == 0) {
      int best = k;
      for (int row = k + 1; row < n; ++row) {
        const T candidate = m[row * n + k], champion = m[best * n + k];
        if ((candidate < T(0) ? -candidate : candidate) > (champion < T(0) ? -champion : champion)) {
          best = row;
        }
      }
      pivot = best;
      if (best != k) product = -product;
      product *= m[best * n + k];
    }
    __syncthreads();  // every thread needs the pivot row
    const int row = pivot;
    if (row != k) {
      for (int column = k + threadIdx.x; column < n; column += blockDim.x) {
        const T kept = m[k * n + column];
        m[k * n + column] = m[row * n + column];
        m[row * n + column] = kept;
      }
    }
    __syncthreads();  // rows have changed places before they are subtracted
    const T diagonal = m[k * n + k];
    if (diagonal == T(0)) break;  // the same for every thread: the product is 0
    const int width = n - k - 1;
    for (int e = threadIdx.x; e < width * width; e += blockDim.x) {
      const int i = k + 1 + e / width, j = k + 1 + e % width;
      m[i * n + j] -= m[i * n + k] / diagonal * m[k * n + j];
    }
    __syncthreads();  // the next pivot is looked for among these values
  }
  if (threadIdx.x == 0) out[blockIdx.x] = product;
}
