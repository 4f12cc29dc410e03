// Join arrays along an axis, and put a border round an array.
//
// concat     rows of up to 8 contiguous pieces laid one after another:
//              out[r, base + offset[p] + j] = piece_p[r, j]      j < length[p]
//            where a row is everything from the joined axis inwards; more pieces, more launches
// pad        out[i0, i1, ...] = src[f0(i0 - begin0), f1(i1 - begin1), ...], where f is the identity
//            inside; outside it is nothing (constant: the value), the nearest element (edge), the
//            mirror image about the border element (reflect) or the index modulo the extent (wrap)
// Layouts    out C-contiguous; pieces of concat C-contiguous; src of pad with any strides
// Launch     1-D grid-stride loop over the output elements concerned, 256 threads
// dtypes     by element size: 1, 2, 4 or 8 bytes, carried as unsigned integers
// Limits     pad: 8 axes
// Determinism  each element of the target is written once, by one thread
// Source     numpy.pad for the meaning of the modes
//
// instantiate: concat<unsigned char>
// instantiate: concat<unsigned short>
// instantiate: concat<unsigned int>
// instantiate: concat<unsigned long long>
// instantiate: pad<unsigned char>
// instantiate: pad<unsigned short>
// instantiate: pad<unsigned int>
// instantiate: pad<unsigned long long>

#define PIECES 8
#define MAX_AXES 8

struct ConcatLayout {
  long long rows;
  long long out_row;  // elements from one row of the output to the next
  long long base;     // first element within a row that this launch writes
  long long offset[PIECES + 1];  // of each piece within what this launch writes; the last: total
};

template <typename T>
__global__ void concat(const T* p0, const T* p1, const T* p2, const T* p3, const T* p4,
                       const T* p5, const T* p6, const T* p7, T* out, ConcatLayout layout) {
  const T* pieces[PIECES] = {p0, p1, p2, p3, p4, p5, p6, p7};
  const long long total = layout.offset[PIECES];
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < layout.rows * total;
       i += step) {
    const long long row = i / total, place = i % total;
    int p = 0;
#pragma unroll
    for (int next = 1; next < PIECES; ++next) p += place >= layout.offset[next];
    const T* piece = pieces[0];
#pragma unroll
    for (int q = 1; q < PIECES; ++q) piece = p == q ? pieces[q] : piece;  // keeps them in registers
    const long long length = layout.offset[p + 1] - layout.offset[p];
    out[row * layout.out_row + layout.base + place] =
        piece[row * length + place - layout.offset[p]];
  }
}

struct PadLayout {
  long long size;  // elements of the output
  long long shape[MAX_AXES];    // of the output
  long long extent[MAX_AXES];   // of the source
  long long begin[MAX_AXES];    // border before the source
  long long stride[MAX_AXES];   // of the source, in elements
  unsigned long long value;     // bits of the constant
  int ndim;
  int mode;  // 0 constant, 1 edge, 2 reflect, 3 wrap
};

__device__ __forceinline__ long long inside(long long index, long long extent, int mode) {
  if (mode == 1) return index < 0 ? 0 : (index >= extent ? extent - 1 : index);
  const long long period = mode == 3 ? extent : (extent > 1 ? 2 * (extent - 1) : 1);
  index %= period;
  if (index < 0) index += period;
  return mode == 2 && index >= extent ? period - index : index;
}

template <typename T>
__global__ void pad(const T* src, T* out, PadLayout layout) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < layout.size; i += step) {
    long long rest = i, from = 0;
    bool border = false;
    for (int axis = layout.ndim - 1; axis >= 0; --axis) {
      long long index = rest % layout.shape[axis] - layout.begin[axis];
      rest /= layout.shape[axis];
      if (index < 0 || index >= layout.extent[axis]) {
        border = true;
        if (layout.mode != 0) index = inside(index, layout.extent[axis], layout.mode);
      }
      from += index * layout.stride[axis];
    }
    out[i] = border && layout.mode == 0 ? (T)layout.value : src[from];
  }
}
