// Elements picked by index, and elements put by index.
//
// gather            out[o, i, r] = x[o, index[i], r]
// gather_elements   out[p] = x[p with p[axis] replaced by index[p]]
// gather_nd         out[b, i, r] = x[b, index[b, i, 0], ..., index[b, i, k-1], r]
// one_hot           out[o, j, r] = on where index[o, r] is j (or j - depth), else off
// scatter_elements  out[p with p[axis] replaced by index[p]] = reduce(itself, updates[p])
// scatter_nd        out[index[i, 0], ..., index[i, k-1], r] = reduce(itself, updates[i, r])
// Layouts           all arrays C-contiguous but x of gather_elements, which may have any strides;
//                   out of the scatters starts as a copy of the data
// Launch            1-D grid-stride loop, 256 threads: an output for each thread and turn; scatters:
//                   a line along the axis, or a position r, for each thread and turn
// dtypes            elements by size where nothing is computed, else float16 (in float32), float32,
//                   float64 and integers; indices int32 and int64, negative ones count from the end
// Limits            8 axes. A kernel cannot raise: a picked index out of range gives 0, a put one
//                   is left out
// Determinism       updates of one element are applied by one thread in order; no atomics
// Source            meaning as in ONNX (Gather, GatherElements, GatherND, OneHot, Scatter*)
//
// instantiate: gather<unsigned char, int>
// instantiate: gather<unsigned short, long long>
// instantiate: gather<unsigned int, int>
// instantiate: gather<unsigned int, long long>
// instantiate: gather<unsigned long long, long long>
// instantiate: gather_elements<unsigned int, int>
// instantiate: gather_elements<unsigned int, long long>
// instantiate: gather_nd<unsigned int, int>
// instantiate: gather_nd<unsigned int, long long>
// instantiate: one_hot<unsigned int, int>
// instantiate: one_hot<unsigned char, long long>
// instantiate: scatter_elements<unsigned int, long long, Put>
// instantiate: scatter_elements<__half, int, Add>
// instantiate: scatter_elements<float, long long, Mul>
// instantiate: scatter_elements<double, long long, Max>
// instantiate: scatter_elements<long long, long long, Min>
// instantiate: scatter_nd<unsigned int, long long, Put>
// instantiate: scatter_nd<__half, long long, Add>
// instantiate: scatter_nd<float, int, Max>

#include "common.cuh"

#define MAX_AXES 8

#define FOR_EACH(i, count)                                                                \
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (count);       \
       i += (long long)gridDim.x * blockDim.x)

struct IndexLayout {
  long long outer, extent, count, inner;  // x is (outer, extent, inner), out (outer, count, inner)
  long long shape[MAX_AXES];              // of the indices, or extents that the indices count
  long long stride[MAX_AXES];             // of x (out for scatters) in elements
  unsigned long long on, off;
  int ndim, axis;
};

// Position for an index in [-extent, extent); -1 where it is out of range.
template <typename I>
__device__ __forceinline__ long long place_of(I index, long long extent) {
  const long long place = index < 0 ? (long long)index + extent : (long long)index;
  return place < extent ? place : -1;
}

template <typename T, typename I>
__global__ void gather(const T* x, const I* index, T* out, IndexLayout layout) {
  FOR_EACH(i, layout.outer * layout.count * layout.inner) {
    const long long r = i % layout.inner, rest = i / layout.inner;
    const long long place = place_of(index[rest % layout.count], layout.extent);
    out[i] = place < 0 ? (T)0
                       : x[(rest / layout.count * layout.extent + place) * layout.inner + r];
  }
}

template <typename T, typename I>
__global__ void gather_elements(const T* x, const I* index, T* out, IndexLayout layout) {
  FOR_EACH(i, layout.count) {
    long long rest = i, from = 0;
    const long long place = place_of(index[i], layout.extent);
    for (int axis = layout.ndim - 1; axis >= 0; --axis) {
      const long long at = rest % layout.shape[axis];
      rest /= layout.shape[axis];
      from += (axis == layout.axis ? place : at) * layout.stride[axis];
    }
    out[i] = place < 0 ? (T)0 : x[from];
  }
}

// Offset of the row that a tuple of ndim indices names; -1 where one is out of range.
template <typename I>
__device__ __forceinline__ long long row_of(const I* tuple, const IndexLayout& layout) {
  long long row = 0;
  for (int k = 0; k < layout.ndim; ++k) {
    const long long place = place_of(tuple[k], layout.shape[k]);
    if (place < 0) return -1;
    row += place * layout.stride[k];
  }
  return row;
}

template <typename T, typename I>
__global__ void gather_nd(const T* x, const I* index, T* out, IndexLayout layout) {
  FOR_EACH(i, layout.outer * layout.count * layout.inner) {
    const long long tuple = i / layout.inner, r = i % layout.inner;
    const long long row = row_of(index + tuple * layout.ndim, layout);
    out[i] = row < 0 ? (T)0 : x[tuple / layout.count * layout.extent + row + r];
  }
}

template <typename T, typename I>
__global__ void one_hot(const I* index, T* out, IndexLayout layout) {
  FOR_EACH(i, layout.outer * layout.extent * layout.inner) {
    const long long r = i % layout.inner, rest = i / layout.inner;
    const long long place =
        place_of(index[rest / layout.extent * layout.inner + r], layout.extent);
    out[i] = (T)(place == rest % layout.extent ? layout.on : layout.off);
  }
}

struct Put {
  template <typename T>
  static __device__ __forceinline__ T apply(T, T update) {
    return update;
  }
};
struct Add {
  template <typename T>
  static __device__ __forceinline__ T apply(T old, T update) {
    return old + update;
  }
};
struct Mul {
  template <typename T>
  static __device__ __forceinline__ T apply(T old, T update) {
    return old * update;
  }
};
struct Max {
  template <typename T>
  static __device__ __forceinline__ T apply(T old, T update) {
    return update > old || update != update ? update : old;
  }
};
struct Min {
  template <typename T>
  static __device__ __forceinline__ T apply(T old, T update) {
    return update < old || update != update ? update : old;
  }
};

template <typename T, typename OP>
__device__ __forceinline__ void update(T* target, T value) {
  *target = OP::apply(*target, value);
}
template <>
__device__ __forceinline__ void update<__half, Add>(__half* target, __half value) {
  *target = __float2half_rn(__half2float(*target) + __half2float(value));
}
template <>
__device__ __forceinline__ void update<__half, Mul>(__half* target, __half value) {
  *target = __float2half_rn(__half2float(*target) * __half2float(value));
}
template <>
__device__ __forceinline__ void update<__half, Max>(__half* target, __half value) {
  *target = __float2half_rn(Max::apply(__half2float(*target), __half2float(value)));
}
template <>
__device__ __forceinline__ void update<__half, Min>(__half* target, __half value) {
  *target = __float2half_rn(Min::apply(__half2float(*target), __half2float(value)));
}

// A line of the indices along the axis: only its own elements can meet in one output.
template <typename T, typename I, typename OP>
__global__ void scatter_elements(const I* index, const T* updates, T* out, IndexLayout layout) {
  FOR_EACH(line, layout.outer * layout.inner) {
    const long long first = line / layout.inner * layout.count * layout.inner + line % layout.inner;
    long long rest = first, base = 0;
    for (int axis = layout.ndim - 1; axis >= 0; --axis) {
      if (axis != layout.axis) base += rest % layout.shape[axis] * layout.stride[axis];
      rest /= layout.shape[axis];
    }
    for (long long j = 0; j < layout.count; ++j) {
      const long long from = first + j * layout.inner;
      const long long place = place_of(index[from], layout.extent);
      if (place >= 0) update<T, OP>(out + base + place * layout.stride[layout.axis], updates[from]);
    }
  }
}

template <typename T, typename I, typename OP>
__global__ void scatter_nd(const I* index, const T* updates, T* out, IndexLayout layout) {
  FOR_EACH(r, layout.inner) {
    for (long long i = 0; i < layout.count; ++i) {
      const long long row = row_of(index + i * layout.ndim, layout);
      if (row >= 0) update<T, OP>(out + row + r, updates[i * layout.inner + r]);
    }
  }
}
