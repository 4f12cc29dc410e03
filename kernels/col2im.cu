// Blocks added into an image where they were taken from.
//
// Computes   out[n, c, i] = sum over taps k of x[n, c * taps + k, block], for the blocks and taps
//            with stride * block + dilation * k - begin = i on each of N axes
// Layouts    x (n, c * taps, blocks) with any strides; out C-contiguous
// Launch     1-D grid-stride loop, one output for each thread and turn, 256 threads
// dtypes     float, double, __half (summed in float)
// Limits     N up to 8 axes
// Determinism  one thread adds in the order of the taps, no atomics
// Source     meaning as in ONNX (Col2Im)
//
// instantiate: col2im<float, 1>
// instantiate: col2im<float, 2>
// instantiate: col2im<float, 3>
// instantiate: col2im<double, 2>
// instantiate: col2im<__half, 2>

#include "common.cuh"

#define MAX_AXES 8

struct Blocks {
  long long size;      // outputs
  long long channels;  // of the image
  long long image_stride, row_stride, block_stride;  // of x, in elements
  long long image[MAX_AXES], block[MAX_AXES], counts[MAX_AXES];
  long long stride[MAX_AXES], dilation[MAX_AXES], begin[MAX_AXES];
  long long narrow;  // 1: places and strides fit 32 bits, and divide faster
};

// Sum over the taps of axis AXIS and of those after it; `tap` and `block` count those before it.
template <int AXIS, int N, typename T>
__device__ __forceinline__ void add_taps(const T* x, const Blocks& p, const long long (&at)[N],
                                         long long tap, long long block,
                                         typename Accumulator<T>::type* total) {
  if constexpr (AXIS == N) {
    *total += widen<T>(x[tap * p.row_stride + block * p.block_stride]);
  } else {
    for (long long k = 0; k < p.block[AXIS]; ++k) {
      const long long start = at[AXIS] + p.begin[AXIS] - k * p.dilation[AXIS];
      if (start < 0) continue;
      const long long index = p.narrow ? (unsigned int)start / (unsigned int)p.stride[AXIS]
                                       : start / p.stride[AXIS];
      if (index * p.stride[AXIS] != start || index >= p.counts[AXIS]) continue;
      add_taps<AXIS + 1, N>(x, p, at, tap * p.block[AXIS] + k, block * p.counts[AXIS] + index,
                            total);
    }
  }
}

template <typename T, int N>
__global__ void col2im(const T* x, T* out, Blocks p) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < p.size; e += step) {
    long long at[N], rest = e, taps = 1;
#pragma unroll
    for (int axis = N - 1; axis >= 0; --axis) {
      at[axis] = rest % p.image[axis];
      rest /= p.image[axis];
      taps *= p.block[axis];
    }
    const T* rows = x + rest / p.channels * p.image_stride +
                    rest % p.channels * taps * p.row_stride;
    typename Accumulator<T>::type total = 0;
    add_taps<0, N>(rows, p, at, 0, 0, &total);
    out[e] = narrow<T>(total);
  }
}
