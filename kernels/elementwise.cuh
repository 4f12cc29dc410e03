// What elementwise kernels share: the type to compute in, conversions, and layouts by value.
#pragma once

#include "common.cuh"

#define MAX_AXES 8
#define MAX_OPERANDS 3

// Shape of the output and strides, in elements, of each input. A stride is 0 where the input is
// broadcast. The host merges axes that are one run in all of them.
struct Layout {
  long long size;  // elements of the output
  int ndim;
  int narrow;  // 1: every index fits 32 bits, and divides faster
  long long shape[MAX_AXES];
  long long stride[MAX_OPERANDS][MAX_AXES];
};

// The type in which a dtype is computed: float16 in float32, small integers as C promotes them.
template <typename T>
struct Compute {
  typedef T type;
};
template <>
struct Compute<__half> {
  typedef float type;
};
template <>
struct Compute<bool> {
  typedef int type;
};
template <>
struct Compute<signed char> {
  typedef int type;
};
template <>
struct Compute<short> {
  typedef int type;
};
template <>
struct Compute<unsigned char> {
  typedef unsigned int type;
};
template <>
struct Compute<unsigned short> {
  typedef unsigned int type;
};

template <typename T>
__device__ __forceinline__ typename Compute<T>::type load(T value) {
  return (typename Compute<T>::type)value;
}
template <>
__device__ __forceinline__ float load<__half>(__half value) {
  return __half2float(value);
}

template <typename Out>
struct Convert {
  template <typename C>
  __device__ static Out from(C value) {
    return (Out)value;
  }
};
template <>
struct Convert<bool> {
  template <typename C>
  __device__ static bool from(C value) {
    return value != C(0);
  }
};
template <>
struct Convert<__half> {
  template <typename C>
  __device__ static __half from(C value) {
    return __float2half_rn((float)value);
  }
  __device__ static __half from(double value) { return __double2half(value); }
};

// Several elements that move in one memory transaction.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T item[N];
};

template <typename T, int N>
__device__ __forceinline__ bool is_aligned(const T* pointer) {
  return (unsigned long long)pointer % sizeof(Pack<T, N>) == 0;
}

// Offsets, in elements, of output element `index` in the first `N` operands.
template <int N, typename Index>
__device__ __forceinline__ void locate_as(const Layout& layout, Index rest, long long* offset) {
#pragma unroll
  for (int k = 0; k < N; ++k) offset[k] = 0;
  for (int axis = layout.ndim - 1; axis >= 0; --axis) {
    const Index extent = (Index)layout.shape[axis];
    const Index up = axis ? rest / extent : 0;
    const long long at = (long long)(rest - up * extent);
    rest = up;
#pragma unroll
    for (int k = 0; k < N; ++k) offset[k] += at * layout.stride[k][axis];
  }
}

template <int N>
__device__ __forceinline__ void locate(const Layout& layout, long long index, long long* offset) {
  if (layout.narrow) {
    locate_as<N, unsigned int>(layout, (unsigned int)index, offset);
  } else {
    locate_as<N, unsigned long long>(layout, (unsigned long long)index, offset);
  }
}
