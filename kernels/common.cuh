// What several kernels share: the type in which a dtype is accumulated, and conversions to it.
//
// float16 is accumulated in float32; integers in 64 bits without sign, whose low bits are those of
// any narrower type that wraps around, as NumPy's do.
#pragma once

#include <cuda_fp16.h>

template <typename T>
struct Accumulator {
  typedef unsigned long long type;
};
template <>
struct Accumulator<float> {
  typedef float type;
};
template <>
struct Accumulator<double> {
  typedef double type;
};
template <>
struct Accumulator<__half> {
  typedef float type;
};

template <typename T>
__device__ __forceinline__ typename Accumulator<T>::type widen(T value) {
  return (typename Accumulator<T>::type)value;
}
template <>
__device__ __forceinline__ float widen<__half>(__half value) {
  return __half2float(value);
}

template <typename T>
__device__ __forceinline__ T narrow(typename Accumulator<T>::type value) {
  return (T)value;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
