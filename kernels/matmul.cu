// Matrix product in tiles of shared memory: the fallback where cuBLAS is missing or lacks the dtype.
//
// Computes   out[b] = alpha * A[b] B[b] + beta * C      (m, k) x (k, n) -> (m, n) for each b
// Layouts    A, B, C: any strides in elements (0 repeats a matrix or a vector), up to 6 batch axes;
//            out: C-contiguous (batch, m, n)
// Launch     16 x 16 threads make a tile of 64 x 64, 4 x 4 elements for each thread;
//            grid (tiles of n, tiles of m, batch), looping where the batch exceeds the grid
// dtypes     float16 (accumulated in float32), float32, float64, integers (wrapping)
// Limits     grid.y of at most 65535 tiles: m up to 4 million rows
// Determinism  each element is summed by one thread in order of k: equal bits in every run
// Source     register tiling as in Volkov and Demmel, "Benchmarking GPUs to tune dense linear
//            algebra", SC 2008, section 5
//
// instantiate: matmul<__half>
// instantiate: matmul<float>
// instantiate: matmul<double>
// instantiate: matmul<signed char>
// instantiate: matmul<short>
// instantiate: matmul<int>
// instantiate: matmul<long long>
// instantiate: matmul<unsigned char>
// instantiate: matmul<unsigned short>
// instantiate: matmul<unsigned int>
// instantiate: matmul<unsigned long long>

#include "common.cuh"

#define MAX_BATCH_AXES 6
#define TILE 64
#define DEPTH 16
#define SIDE 16  // threads on each side of a block
#define PER 4    // TILE / SIDE

struct MatmulLayout {
  long long m, n, k, batch;
  long long batch_shape[MAX_BATCH_AXES];
  long long a_batch[MAX_BATCH_AXES];
  long long b_batch[MAX_BATCH_AXES];
  long long a_row, a_col, b_row, b_col, c_row, c_col;
  double alpha, beta;
  int batch_ndim;
  int has_c;
};

template <typename Acc>
__device__ __forceinline__ Acc factor(double value) {
  return (Acc)value;
}
template <>  // a negative double has no unsigned value: through the signed type it wraps
__device__ __forceinline__ unsigned long long factor<unsigned long long>(double value) {
  return (unsigned long long)(long long)value;
}

template <typename T>
__global__ void matmul(const T* a, const T* b, const T* c, T* out, MatmulLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  __shared__ Acc a_tile[DEPTH][TILE + 1];
  __shared__ Acc b_tile[DEPTH][TILE + 1];
  const int thread = threadIdx.y * SIDE + threadIdx.x;
  const long long row0 = (long long)blockIdx.y * TILE, col0 = (long long)blockIdx.x * TILE;

  for (long long batch = blockIdx.z; batch < layout.batch; batch += gridDim.z) {
    long long rest = batch, a_base = 0, b_base = 0;
    for (int axis = layout.batch_ndim - 1; axis >= 0; --axis) {
      const long long index = rest % layout.batch_shape[axis];
      rest /= layout.batch_shape[axis];
      a_base += index * layout.a_batch[axis];
      b_base += index * layout.b_batch[axis];
    }
    Acc sum[PER][PER];
    for (int i = 0; i < PER; ++i)
      for (int j = 0; j < PER; ++j) sum[i][j] = (Acc)0;

    for (long long k0 = 0; k0 < layout.k; k0 += DEPTH) {
      for (int item = thread; item < TILE * DEPTH; item += SIDE * SIDE) {
        const int k_a = item % DEPTH, row = item / DEPTH;
        const int k_b = item / TILE, col = item % TILE;
        const bool a_inside = row0 + row < layout.m && k0 + k_a < layout.k;
        const bool b_inside = col0 + col < layout.n && k0 + k_b < layout.k;
        a_tile[k_a][row] = a_inside ? widen<T>(a[a_base + (row0 + row) * layout.a_row +
                                                 (k0 + k_a) * layout.a_col])
                                    : (Acc)0;
        b_tile[k_b][col] = b_inside ? widen<T>(b[b_base + (k0 + k_b) * layout.b_row +
                                                 (col0 + col) * layout.b_col])
                                    : (Acc)0;
      }
      __syncthreads();
      for (int k = 0; k < DEPTH; ++k)
        for (int i = 0; i < PER; ++i)
          for (int j = 0; j < PER; ++j)
            sum[i][j] += a_tile[k][threadIdx.y + i * SIDE] * b_tile[k][threadIdx.x + j * SIDE];
      __syncthreads();  // WAR: the next round overwrites the tiles that slower threads still read
    }

    for (int i = 0; i < PER; ++i)
      for (int j = 0; j < PER; ++j) {
        const long long row = row0 + threadIdx.y + i * SIDE, col = col0 + threadIdx.x + j * SIDE;
        if (row >= layout.m || col >= layout.n) continue;
        Acc value = sum[i][j];
        if (layout.alpha != 1.0) value *= factor<Acc>(layout.alpha);
        if (layout.has_c)
          value += factor<Acc>(layout.beta) * widen<T>(c[row * layout.c_row + col * layout.c_col]);
        out[(batch * layout.m + row) * layout.n + col] = narrow<T>(value);
      }
  }
}
