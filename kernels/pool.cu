// Pooling over windows of up to three spatial axes.
//
// max_pool       out[n, c, o] = max over taps k of x[n, c, stride*o + dilation*k - begin]
// max_pool_places  the same, and where the (first) maximum was: its position in all of x, in C order
// average_pool   the sum of the same elements, divided by the number of taps inside the input, or,
//                where padding counts, inside the padded input
// Layouts        x (n, c, d, h, w) with any strides, missing axes have extent 1; out C-contiguous.
//                Positions outside the input are left out; NaN wins every maximum
// Launch         1-D grid-stride loop, one output for each thread and turn, 256 threads
// dtypes         maxima: all numbers; means: float16 (accumulated in float32), float32, float64
// Limits         extents below 2^31
// Determinism    one thread for each output, taps in a fixed order
// Source         meaning as in ONNX (MaxPool, AveragePool)
//
// instantiate: max_pool<__half>
// instantiate: max_pool<float>
// instantiate: max_pool<double>
// instantiate: max_pool<signed char>
// instantiate: max_pool<short>
// instantiate: max_pool<int>
// instantiate: max_pool<long long>
// instantiate: max_pool<unsigned char>
// instantiate: max_pool<unsigned short>
// instantiate: max_pool<unsigned int>
// instantiate: max_pool<unsigned long long>
// instantiate: max_pool_places<__half>
// instantiate: max_pool_places<float>
// instantiate: max_pool_places<double>
// instantiate: max_pool_places<signed char>
// instantiate: max_pool_places<long long>
// instantiate: average_pool<__half>
// instantiate: average_pool<float>
// instantiate: average_pool<double>

#include "common.cuh"

struct PoolLayout {
  long long size;  // outputs
  long long channels, x_n, x_c;
  long long x_stride[3];
  double lowest;  // result where a window sees nothing
  int extent[3], kernel[3], out[3], stride[3], dilation[3], begin[3], end[3];
  int count_padding;
  int pad;
};

// Compared in the type itself: 64-bit integers do not fit into any float.
template <typename T>
__device__ __forceinline__ bool larger(T a, T b) {
  return a > b || a != a;
}
template <>
__device__ __forceinline__ bool larger<__half>(__half a, __half b) {
  const float left = __half2float(a), right = __half2float(b);
  return left > right || left != left;
}

template <typename T>
__device__ __forceinline__ bool is_nan(T a) {
  return a != a;
}
template <>
__device__ __forceinline__ bool is_nan<__half>(__half a) {
  return __half2float(a) != __half2float(a);
}

template <typename T>
__device__ __forceinline__ T from_double(double value) {
  return (T)value;
}
template <>
__device__ __forceinline__ __half from_double<__half>(double value) {
  return __float2half_rn((float)value);
}

#define FOR_EACH(i, count)                                                           \
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (count); \
       i += (long long)gridDim.x * blockDim.x)

// Output i: offset of its plane, and the input coordinate of tap 0 on each axis.
__device__ __forceinline__ long long locate(long long i, const PoolLayout& layout, int origin[3]) {
  for (int axis = 2; axis >= 0; --axis) {
    const int index = (int)(i % layout.out[axis]);
    i /= layout.out[axis];
    origin[axis] = index * layout.stride[axis] - layout.begin[axis];
  }
  return i / layout.channels * layout.x_n + i % layout.channels * layout.x_c;
}

// Call visit(element, its position in the plane, in C order) for each tap inside the input.
template <typename T, typename Visit>
__device__ __forceinline__ void for_each_tap(const T* plane, const int origin[3],
                                             const PoolLayout& layout, Visit visit) {
  for (int a = 0; a < layout.kernel[0]; ++a) {
    const int d = origin[0] + a * layout.dilation[0];
    if (d < 0 || d >= layout.extent[0]) continue;
    for (int b = 0; b < layout.kernel[1]; ++b) {
      const int h = origin[1] + b * layout.dilation[1];
      if (h < 0 || h >= layout.extent[1]) continue;
      for (int c = 0; c < layout.kernel[2]; ++c) {
        const int w = origin[2] + c * layout.dilation[2];
        if (w < 0 || w >= layout.extent[2]) continue;
        visit(plane[d * layout.x_stride[0] + h * layout.x_stride[1] + w * layout.x_stride[2]],
              ((long long)d * layout.extent[1] + h) * layout.extent[2] + w);
      }
    }
  }
}

template <typename T>
__global__ void max_pool(const T* x, T* out, PoolLayout layout) {
  FOR_EACH(i, layout.size) {
    int origin[3];
    const T* plane = x + locate(i, layout, origin);
    T best = from_double<T>(layout.lowest);
    for_each_tap(plane, origin, layout, [&](T value, long long) {
      if (larger(value, best)) best = value;
    });
    out[i] = best;
  }
}

template <typename T>
__global__ void max_pool_places(const T* x, T* out, long long* places, PoolLayout layout) {
  const long long outputs = (long long)layout.out[0] * layout.out[1] * layout.out[2];
  const long long inputs = (long long)layout.extent[0] * layout.extent[1] * layout.extent[2];
  FOR_EACH(i, layout.size) {
    int origin[3];
    const T* plane = x + locate(i, layout, origin);
    T best = from_double<T>(layout.lowest);
    long long where = -1;
    for_each_tap(plane, origin, layout, [&](T value, long long place) {
      if (where >= 0 && (is_nan(best) || !larger(value, best))) return;
      best = value;
      where = place;
    });
    out[i] = best;
    places[i] = where < 0 ? 0 : i / outputs * inputs + where;
  }
}

__device__ __forceinline__ int taps_inside(int origin, int axis, const PoolLayout& layout) {
  int count = 0;
  const int low = layout.count_padding ? -layout.begin[axis] : 0;
  const int high = layout.extent[axis] + (layout.count_padding ? layout.end[axis] : 0);
  for (int k = 0; k < layout.kernel[axis]; ++k) {
    const int at = origin + k * layout.dilation[axis];
    count += at >= low && at < high;
  }
  return count > 0 ? count : 1;
}

template <typename T>
__global__ void average_pool(const T* x, T* out, PoolLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  FOR_EACH(i, layout.size) {
    int origin[3];
    const T* plane = x + locate(i, layout, origin);
    Acc sum = (Acc)0;
    for_each_tap(plane, origin, layout, [&](T value, long long) { sum += widen<T>(value); });
    const int count = taps_inside(origin[0], 0, layout) * taps_inside(origin[1], 1, layout) *
                      taps_inside(origin[2], 2, layout);
    out[i] = narrow<T>(sum / (Acc)count);
  }
}
