// Random numbers as a function of a seed, a counter and the place.
//
// random_uniform  out[i] = low + u(i) * span
// random_normal   out[i] = mean + scale * sqrt(-2 ln(1 - u(i))) * cos(2 pi u(n + i))
//                 u: the upper bits of SplitMix64 as a number in [0, 1), as many as the mantissa of
//                 the type has (random_normal: of the type computed in)
// Layouts    the counter is one number in device memory; the output is contiguous
// Launch     1-D grid-stride loop, 256 threads
// dtypes     float16 (computed in float32), float32, float64
// Limits     none
// Determinism  a pure function; random_uniform gives NumPy's bits: products are never fused
// Source     Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014; Box and
//            Muller, "A note on the generation of random normal deviates", 1958
//
// instantiate: random_uniform<__half>
// instantiate: random_uniform<float>
// instantiate: random_uniform<double>
// instantiate: random_normal<__half>
// instantiate: random_normal<float>
// instantiate: random_normal<double>

#include "elementwise.cuh"

template <typename T>
struct Mantissa;  // bits, the one before the point among them
template <>
struct Mantissa<__half> {
  static const int bits = 11;
};
template <>
struct Mantissa<float> {
  static const int bits = 24;
};
template <>
struct Mantissa<double> {
  static const int bits = 53;
};

// A compiler that fuses these into one operation would round once instead of twice.
__device__ __forceinline__ float line(float at, float slope, float x) {
  return __fadd_rn(at, __fmul_rn(slope, x));
}
__device__ __forceinline__ double line(double at, double slope, double x) {
  return __dadd_rn(at, __dmul_rn(slope, x));
}

__device__ __forceinline__ unsigned long long mixed(unsigned long long index,
                                                    unsigned long long start) {
  unsigned long long z = index * 0x9E3779B97F4A7C15ull + start;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// A number in [0, 1) of type C with `BITS` digits: exact.
template <typename C, int BITS>
__device__ __forceinline__ C unit(unsigned long long bits) {
  return (C)(bits >> (64 - BITS)) * (C(1) / C(1ull << BITS));
}

template <typename T>
__global__ void random_uniform(const unsigned long long* counter, T* out, long long n,
                               unsigned long long start, typename Compute<T>::type low,
                               typename Compute<T>::type span) {
  typedef typename Compute<T>::type C;
  const unsigned long long first = *counter * (unsigned long long)n;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    const C u = unit<C, Mantissa<T>::bits>(mixed(first + (unsigned long long)i, start));
    out[i] = Convert<T>::from(line(low, span, u));
  }
}

template <typename T>
__global__ void random_normal(const unsigned long long* counter, T* out, long long n,
                              unsigned long long start, typename Compute<T>::type mean,
                              typename Compute<T>::type scale) {
  typedef typename Compute<T>::type C;
  constexpr int BITS = Mantissa<C>::bits;
  const unsigned long long first = *counter * (unsigned long long)(2 * n);
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    const unsigned long long place = first + (unsigned long long)i;
    const C u = unit<C, BITS>(mixed(place, start));
    const C v = unit<C, BITS>(mixed(place + (unsigned long long)n, start));
    // 1 - u is never 0, so that the logarithm is finite.
    const C radius = sqrt(C(-2) * log(C(1) - u));
    out[i] = Convert<T>::from(line(mean, scale, radius * cos(C(6.283185307179586) * v)));
  }
}
