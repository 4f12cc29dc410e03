// Resampling to other extents: nearest, linear and cubic, in any of the axes.
//
// resize_nearest      out[o] = x[rounded source of o on every resized axis]
// resize_interpolate  out[o] = sum over taps k of AXES axes of the product of weight(source - k) * x[k]
// resize_axis         the same sum over one axis, with any number of taps (antialiasing)
// Layouts    x with any strides, of at most MAX_AXES runs of axes; out C-contiguous, as planes (the
//            axes before the first resized one) of `size` elements each
// Launch     blocks of 256 threads, grid-stride loops over the places of a plane in x and over planes
//            in y; what a place reads is found once for all planes of its thread. resize_axis: blocks
//            of 32 places x 8 planes, which share the weights of their places
// dtypes     nearest: by element size; sums: all numbers, in double where a float does not hold them,
//            else in float
// Limits     sources are computed in double; extents below 2^53
// Determinism  one thread adds in a fixed order. Sources and the choice of the nearest one are the
//            CPU's, bit for bit
// Source     coordinate systems: ONNX operator Resize; weights: R. Keys, "Cubic convolution
//            interpolation for digital image processing", 1981
//
// instantiate: resize_nearest<unsigned char>
// instantiate: resize_nearest<unsigned short>
// instantiate: resize_nearest<unsigned int>
// instantiate: resize_nearest<unsigned long long>
// instantiate: resize_interpolate<float, 1, 2>
// instantiate: resize_interpolate<float, 2, 2>
// instantiate: resize_interpolate<float, 3, 2>
// instantiate: resize_interpolate<float, 1, 4>
// instantiate: resize_interpolate<float, 2, 4>
// instantiate: resize_interpolate<float, 3, 4>
// instantiate: resize_interpolate<__half, 2, 2>
// instantiate: resize_interpolate<double, 2, 4>
// instantiate: resize_interpolate<unsigned char, 2, 2>
// instantiate: resize_interpolate<signed char, 2, 4>
// instantiate: resize_interpolate<long long, 2, 2>
// instantiate: resize_axis<float, float>
// instantiate: resize_axis<double, double>
// instantiate: resize_axis<__half, float>
// instantiate: resize_axis<float, __half>
// instantiate: resize_axis<unsigned char, unsigned char>
// instantiate: resize_axis<float, unsigned char>
// instantiate: resize_axis<int, double>

#include "elementwise.cuh"

#define LANES 32
#define ROWS 8
#define CHUNK 64

// A run of axes. Output index o reads x at source(o) where it is resized, else at o.
struct Run {
  long long extent, pitch;   // of the output, and its step within a plane
  long long length, stride;  // of x, in elements
  double before, factor[2], divisor, after[2];
  double stretch;  // of the filter's argument, below 1 where antialiasing widens it
  int taps;
  int resized;  // the source counts; in resize_axis only the first run is summed
};

struct Resample {
  long long size, planes, plane_stride;
  unsigned long long outside;  // bits of the result outside x
  double cubic_a, low, high;   // integer results are held between low and high
  int ndim, n_resized;         // the resized runs come first
  int rounding, cubic, exclude_outside, normalise, crops;
  int narrow;  // 1: a place fits 32 bits, and divides faster
  Run run[MAX_AXES];
};

// The type of sums: small integers and float16 in float.
template <typename T>
struct Work {
  typedef double type;
};
template <>
struct Work<float> {
  typedef float type;
};
template <>
struct Work<__half> {
  typedef float type;
};
template <>
struct Work<signed char> {
  typedef float type;
};
template <>
struct Work<unsigned char> {
  typedef float type;
};
template <>
struct Work<short> {
  typedef float type;
};
template <>
struct Work<unsigned short> {
  typedef float type;
};

// Index on a run of the element at `place` of a plane.
__device__ __forceinline__ long long index_on(const Run& run, long long place, int narrow) {
  if (narrow) {
    return (unsigned int)place / (unsigned int)run.pitch % (unsigned int)run.extent;
  }
  return place / run.pitch % run.extent;
}

// In the CPU's order of roundings; no product meets a sum, so that none can be fused into it.
__device__ __forceinline__ double source(const Run& run, long long index) {
  return ((double)index + run.before) * run.factor[0] * run.factor[1] / run.divisor +
         run.after[0] + run.after[1];
}

__device__ __forceinline__ bool is_outside(double at, long long length) {
  return at < 0 || at > (double)(length - 1);
}

__device__ __forceinline__ long long clamp(long long at, long long length) {
  return at < 0 ? 0 : at >= length ? length - 1 : at;
}

__device__ __forceinline__ double rounded(double at, int rounding) {
  switch (rounding) {
    case 0: return ceil(at - 0.5);  // halves down
    case 1: return floor(at + 0.5);
    case 2: return floor(at);
    default: return ceil(at);
  }
}

// Weight of element `tap` of x for a source, before it is divided by the sum.
__device__ __forceinline__ double weight_of(const Resample& p, const Run& run, double at,
                                            double tap) {
  if (p.exclude_outside && is_outside(tap, run.length)) return 0;
  const double distance = fabs(__dmul_rn(at - tap, run.stretch));
  if (!p.cubic) return distance < 1 ? 1 - distance : 0;
  const double d = distance, a = p.cubic_a;
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0;
}

__device__ __forceinline__ double first_tap(const Run& run, double at) {
  return floor(at) - run.taps / 2 + 1;
}

template <typename T>
__device__ __forceinline__ T outside_value(const Resample& p) {
  return *reinterpret_cast<const T*>(&p.outside);
}

template <typename T>
struct Result {
  template <typename C>
  __device__ static T from(C value, const Resample& p) {
    // Integers are cut, not rounded, as a cast does.
    return (T)(value < C(p.low) ? C(p.low) : value > C(p.high) ? C(p.high) : value);
  }
};
template <>
struct Result<float> {
  template <typename C>
  __device__ static float from(C value, const Resample&) {
    return (float)value;
  }
};
template <>
struct Result<double> {
  __device__ static double from(double value, const Resample&) { return value; }
};
template <>
struct Result<__half> {
  __device__ static __half from(float value, const Resample&) { return __float2half_rn(value); }
};

#define FOR_EACH_PLACE(e, p)                                                              \
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < (p).size;      \
       e += (long long)gridDim.x * blockDim.x)
#define FOR_EACH_PLANE(plane, p)                                                          \
  for (long long plane = (long long)blockIdx.y * blockDim.y + threadIdx.y; plane < (p).planes; \
       plane += (long long)gridDim.y * blockDim.y)

template <typename T>
__global__ void resize_nearest(const T* x, T* out, Resample p) {
  FOR_EACH_PLACE(e, p) {
    long long offset = 0;
    bool outside = false;
    for (int i = 0; i < p.ndim; ++i) {
      const Run& run = p.run[i];
      long long index = index_on(run, e, p.narrow);
      if (run.resized) {
        const double at = source(run, index);
        outside |= is_outside(at, run.length);
        index = clamp((long long)rounded(at, p.rounding), run.length);
      }
      offset += index * run.stride;
    }
    outside = outside && p.crops;
    FOR_EACH_PLANE(plane, p) {
      out[plane * p.size + e] =
          outside ? outside_value<T>(p) : x[plane * p.plane_stride + offset];
    }
  }
}

// Sum over the taps of run AXIS and of those after it.
template <int AXIS, int AXES, int TAPS, typename T, typename C>
__device__ __forceinline__ C mix(const T* x, const long long (&offset)[AXES][TAPS],
                                 const C (&weight)[AXES][TAPS]) {
  if constexpr (AXIS == AXES) {
    return (C)load(*x);
  } else {
    C total = C(0);
#pragma unroll
    for (int k = 0; k < TAPS; ++k) {
      total += weight[AXIS][k] * mix<AXIS + 1>(x + offset[AXIS][k], offset, weight);
    }
    return total;
  }
}

template <typename T, int AXES, int TAPS>
__global__ void resize_interpolate(const T* x, T* out, Resample p) {
  typedef typename Work<T>::type C;
  FOR_EACH_PLACE(e, p) {
    long long offset[AXES][TAPS], base = 0;
    C weight[AXES][TAPS];
    bool outside = false;
#pragma unroll
    for (int i = 0; i < AXES; ++i) {
      const Run& run = p.run[i];
      const double at = source(run, index_on(run, e, p.narrow)), first = first_tap(run, at);
      double raw[TAPS], sum = 0;
#pragma unroll
      for (int k = 0; k < TAPS; ++k) {
        raw[k] = weight_of(p, run, at, first + k);
        sum += raw[k];
      }
#pragma unroll
      for (int k = 0; k < TAPS; ++k) {
        weight[i][k] = C(p.normalise ? raw[k] / sum : raw[k]);
        offset[i][k] = clamp((long long)first + k, run.length) * run.stride;
      }
      outside |= is_outside(at, run.length);
    }
    for (int i = AXES; i < p.ndim; ++i) {
      base += index_on(p.run[i], e, p.narrow) * p.run[i].stride;
    }
    outside = outside && p.crops;
    FOR_EACH_PLANE(plane, p) {
      out[plane * p.size + e] =
          outside ? outside_value<T>(p)
                  : Result<T>::from(
                        mix<0>(x + plane * p.plane_stride + base, offset, weight), p);
    }
  }
}

template <typename T, typename Out>
__global__ void resize_axis(const T* x, Out* out, Resample p) {
  typedef typename Work<T>::type C;
  __shared__ C weight[CHUNK][LANES];
  __shared__ double partial[ROWS][LANES];
  const int lane = threadIdx.x, row = threadIdx.y;
  const Run& run = p.run[0];
  for (long long begin = (long long)blockIdx.x * LANES; begin < p.size;
       begin += (long long)gridDim.x * LANES) {
    const bool real = begin + lane < p.size;
    const long long e = real ? begin + lane : p.size - 1;
    const double at = source(run, index_on(run, e, p.narrow)), first = first_tap(run, at);
    bool outside = is_outside(at, run.length);
    long long base = 0;
    for (int i = 1; i < p.ndim; ++i) {
      const long long index = index_on(p.run[i], e, p.narrow);
      base += index * p.run[i].stride;
      if (i < p.n_resized) outside |= is_outside(source(p.run[i], index), p.run[i].length);
    }
    outside = outside && p.crops;
    double sum = 0;
    for (int k = row; k < run.taps; k += ROWS) sum += weight_of(p, run, at, first + k);
    partial[row][lane] = sum;
    __syncthreads();  // RAW: every row adds what the others summed
    sum = 0;
    for (int j = 0; j < ROWS; ++j) sum += partial[j][lane];
    const long long planes_at_once = (long long)gridDim.y * ROWS;
    for (long long top = (long long)blockIdx.y * ROWS; top < p.planes; top += planes_at_once) {
      const long long plane = top + row;
      const bool mine = real && plane < p.planes;
      C total = C(0);
      for (int chunk = 0; chunk < run.taps; chunk += CHUNK) {
        const int n = run.taps - chunk < CHUNK ? run.taps - chunk : CHUNK;
        if (run.taps > CHUNK || top == (long long)blockIdx.y * ROWS) {
          __syncthreads();  // WAR: the weights before these (and the sums) have been read
          for (int k = row; k < n; k += ROWS) {
            const double raw = weight_of(p, run, at, first + chunk + k);
            weight[k][lane] = C(p.normalise ? raw / sum : raw);
          }
          __syncthreads();  // RAW: rows share the weights
        }
        if (!mine) continue;
        const T* line = x + plane * p.plane_stride + base;
        for (int k = 0; k < n; ++k) {
          const long long tap = clamp((long long)first + chunk + k, run.length);
          total += weight[k][lane] * (C)load(line[tap * run.stride]);
        }
      }
      if (mine) {
        out[plane * p.size + e] =
            outside ? outside_value<Out>(p) : Result<Out>::from(total, p);
      }
    }
  }
}
