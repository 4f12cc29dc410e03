// Copy any strided array into any other strided array of the same shape.
//
// Computes   dst[i0, i1, ...] = src[i0, i1, ...]
// Layouts    any strides, also 0 and negative; the host merges axes that are one run in both, so
//            a contiguous copy arrives with one axis
// Launch     1-D grid-stride loop, 256 threads; one element for each thread and turn
// dtypes     by element size: 1, 2, 4 or 8 bytes, carried as unsigned integers
// Limits     at most 8 axes after merging; source and target must not overlap
// Determinism  each element of the target is written once, by one thread
// Source     no arithmetic; index decomposition by repeated division, innermost axis first
//
// instantiate: strided_copy<unsigned char>
// instantiate: strided_copy<unsigned short>
// instantiate: strided_copy<unsigned int>
// instantiate: strided_copy<unsigned long long>

#define MAX_AXES 8

struct CopyLayout {
  long long size;  // elements
  int ndim;
  int pad;
  long long shape[MAX_AXES];
  long long src[MAX_AXES];  // strides in elements
  long long dst[MAX_AXES];
};

template <typename T>
__global__ void strided_copy(const T* src, T* dst, CopyLayout layout) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < layout.size; i += step) {
    long long rest = i, from = 0, to = 0;
    for (int axis = layout.ndim - 1; axis > 0; --axis) {
      const long long index = rest % layout.shape[axis];
      rest /= layout.shape[axis];
      from += index * layout.src[axis];
      to += index * layout.dst[axis];
    }
    if (layout.ndim > 0) {
      from += rest * layout.src[0];
      to += rest * layout.dst[0];
    }
    dst[to] = src[from];
  }
}
