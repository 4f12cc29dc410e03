// Sampling of images at positions that another array gives.
//
// Computes   out[n, c, o] = sum over taps k of every axis of weight(position[n, o] - k) * x[n, c, k]
// Layouts    x (n, c, *space) and grid (n, *points, N) with any strides; out C-contiguous. A grid
//            gives the last axis of the image first
// Launch     blocks of 256 threads, grid-stride loops over positions in x and over channels in y: what
//            a position reads is found once for all channels of its thread
// dtypes     float, double, __half (computed in float), also of the grid, independently
// Limits     N up to 6 axes; positions are held within 1e9 pixels, NaN is far outside
// Determinism  one thread adds in a fixed order. Positions are the CPU's, bit for bit
// Source     M. Jaderberg and others, "Spatial transformer networks", 2015; R. Keys, "Cubic
//            convolution interpolation for digital image processing", 1981, with a = -0.75
//
// instantiate: grid_sample<float, float, 1, 2>
// instantiate: grid_sample<float, float, 2, 1>
// instantiate: grid_sample<float, float, 2, 2>
// instantiate: grid_sample<float, float, 2, 4>
// instantiate: grid_sample<float, float, 3, 1>
// instantiate: grid_sample<float, float, 3, 2>
// instantiate: grid_sample<float, float, 3, 4>
// instantiate: grid_sample<float, double, 2, 2>
// instantiate: grid_sample<__half, __half, 2, 2>
// instantiate: grid_sample<double, double, 2, 4>
// instantiate: grid_sample<double, float, 3, 1>

#include "elementwise.cuh"

#define MOST_SPACE 6
#define FAR 1e9

struct Sampling {
  long long images, channels, points;
  long long image_stride, channel_stride;  // strides in elements
  long long grid_image_stride, grid_last_stride;
  long long extent[MOST_SPACE], stride[MOST_SPACE];      // of x
  long long out[MOST_SPACE], grid_stride[MOST_SPACE];    // of the positions
  int padding;  // 0: zeros, 1: border, 2: reflection
  int align_corners;
};

// A fused product and sum would round once where the CPU rounds twice.
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }

// Position in pixels for one in [-1, 1].
template <typename P>
__device__ __forceinline__ P pixels(P at, long long extent, int align_corners) {
  const P place = align_corners ? times(at + P(1), P(extent - 1) / P(2))
                                : (times(at + P(1), P(extent)) - P(1)) / P(2);
  return place >= P(-FAR) ? (place <= P(FAR) ? place : P(FAR)) : P(-FAR);  // NaN is not >= either
}

// The element that stands at an integer place; false where it is a zero.
__device__ __forceinline__ bool fold(long long* place, long long extent, const Sampling& p) {
  const long long at = *place;
  if (at >= 0 && at < extent) return true;
  if (p.padding == 0) {
    *place = 0;
    return false;
  }
  if (p.padding == 1) {
    *place = at < 0 ? 0 : extent - 1;
    return true;
  }
  // Mirrors at the centres of the outermost pixels, or at their outer edges.
  const long long edge = p.align_corners ? 0 : 1, last = extent - 1;
  const long long period = 2 * (last + edge);
  long long away = period ? at % period : 0;
  if (away < 0) away += period;
  *place = away <= last ? away : period - edge - away;
  return true;
}

template <typename P, int TAPS>
__device__ __forceinline__ void weigh(P d, P weight[TAPS]) {
  if (TAPS == 1) weight[0] = P(1);
  if (TAPS == 2) {
    weight[0] = P(1) - d;
    weight[TAPS - 1] = d;
  }
  if (TAPS == 4) {
    const P a = P(-0.75);
#pragma unroll
    for (int k = 0; k < TAPS; ++k) {
      const P x = k == 0 ? d + P(1) : k == 1 ? d : k == 2 ? P(1) - d : P(2) - d;
      weight[k] = k == 1 || k == 2 ? ((a + P(2)) * x - (a + P(3))) * x * x + P(1)
                                   : ((a * x - P(5) * a) * x + P(8) * a) * x - P(4) * a;
    }
  }
}

// Taps of all axes for one position.
template <typename C, int N, int TAPS>
struct Taps {
  long long offset[N][TAPS];
  C weight[N][TAPS];
  bool inside[N][TAPS];
};

// Sum over the taps of axis AXIS and of those after it.
template <int AXIS, typename T, typename C, int N, int TAPS>
__device__ __forceinline__ C mix(const T* x, const Taps<C, N, TAPS>& taps) {
  if constexpr (AXIS == N) {
    return (C)load(*x);
  } else {
    C total = C(0);
#pragma unroll
    for (int k = 0; k < TAPS; ++k) {
      if (taps.inside[AXIS][k]) {
        total += taps.weight[AXIS][k] * mix<AXIS + 1>(x + taps.offset[AXIS][k], taps);
      }
    }
    return total;
  }
}

template <typename T, typename G, int N, int TAPS>
__global__ void grid_sample(const T* x, const G* grid, T* out, Sampling p) {
  typedef typename Compute<T>::type C;
  typedef typename Compute<G>::type P;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < p.images * p.points;
       e += step) {
    const long long image = e / p.points, point = e % p.points;
    const G* position = grid + image * p.grid_image_stride;
    long long rest = point;
    for (int axis = N - 1; axis >= 0; --axis) {
      position += rest % p.out[axis] * p.grid_stride[axis];
      rest /= p.out[axis];
    }
    Taps<C, N, TAPS> taps;
#pragma unroll
    for (int axis = 0; axis < N; ++axis) {
      const P at = pixels<P>(load(position[(N - 1 - axis) * p.grid_last_stride]), p.extent[axis],
                             p.align_corners);
      const P first = TAPS == 1 ? rint(at) : floor(at);
      P weight[TAPS];
      weigh<P, TAPS>(at - first, weight);
#pragma unroll
      for (int k = 0; k < TAPS; ++k) {
        long long place = (long long)first + k - (TAPS == 4);
        taps.inside[axis][k] = fold(&place, p.extent[axis], p);
        taps.offset[axis][k] = place * p.stride[axis];
        taps.weight[axis][k] = C(weight[k]);
      }
    }
    const T* plane = x + image * p.image_stride;
    for (long long c = (long long)blockIdx.y * blockDim.y + threadIdx.y; c < p.channels;
         c += (long long)gridDim.y * blockDim.y) {
      out[(image * p.channels + c) * p.points + point] =
          Convert<T>::from(mix<0>(plane + c * p.channel_stride, taps));
    }
  }
}
