// Convolution over up to three spatial axes, grouped, dilated, padded with zeros.
//
// Computes   out[n, g*M + m, o] = bias[g*M + m] + sum_{c, k} w[g*M + m, c, k]
//                                 * x[n, g*C + c, stride*o + dilation*k - begin]
// Layouts    x (n, groups*C, d, h, w) with any strides; w (groups*M, C, kd, kh, kw), bias and out
//            C-contiguous; missing spatial axes have extent 1
// Launch     conv_tiled: an implicit matrix product. 16 x 16 threads make a tile of 64 output
//            channels x 64 positions (of all images), 4 x 4 for each thread; the columns of im2col
//            exist only in shared memory. grid (tiles of positions, tiles of channels, groups)
//            conv_direct: one output for each thread and turn of a 1-D grid-stride loop, 256
//            threads; for few channels in a group (depthwise), where tiles would be empty;
//            conv_transpose: likewise, each output gathers what reaches it. In its layout `out` are
//            the positions of x and `extent` those of the result (w is (groups*C, M, ...))
// dtypes     float16 (accumulated in float32), float32, float64
// Limits     tiled: M up to 4 million; extents below 2^31
// Determinism  each output is summed by one thread in order of c, k: equal bits in every run
// Source     implicit GEMM as in Chetlur et al., "cuDNN: efficient primitives for deep learning",
//            2014, section 3
//
// instantiate: conv_tiled<__half>
// instantiate: conv_tiled<float>
// instantiate: conv_tiled<double>
// instantiate: conv_direct<__half>
// instantiate: conv_direct<float>
// instantiate: conv_direct<double>
// instantiate: conv_transpose<__half>
// instantiate: conv_transpose<float>
// instantiate: conv_transpose<double>

#include "common.cuh"

#define TILE 64
#define DEPTH 16
#define SIDE 16
#define PER 4

struct ConvLayout {
  long long n, groups, c, m, positions;
  long long x_n, x_c;       // strides of images and channels
  long long x_stride[3];
  int extent[3], kernel[3], out[3], stride[3], dilation[3], begin[3];
  int has_bias;
  int pad;
};

// Position of an output in its image, as the input coordinate that tap 0 reads on each axis.
__device__ __forceinline__ void first_read(long long position, const ConvLayout& layout,
                                           int origin[3]) {
  for (int axis = 2; axis >= 0; --axis) {
    const int index = (int)(position % layout.out[axis]);
    position /= layout.out[axis];
    origin[axis] = index * layout.stride[axis] - layout.begin[axis];
  }
}

template <typename T>
__device__ __forceinline__ typename Accumulator<T>::type read_tap(const T* image, int tap,
                                                                  const int origin[3],
                                                                  const ConvLayout& layout) {
  long long offset = 0;
  for (int axis = 2; axis >= 0; --axis) {
    const int k = tap % layout.kernel[axis];
    tap /= layout.kernel[axis];
    const int at = origin[axis] + k * layout.dilation[axis];
    if (at < 0 || at >= layout.extent[axis]) return 0;
    offset += at * layout.x_stride[axis];
  }
  return widen<T>(image[offset]);
}

template <typename T>
__global__ void conv_tiled(const T* x, const T* w, const T* bias, T* out, ConvLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  __shared__ Acc w_tile[DEPTH][TILE + 1];
  __shared__ Acc x_tile[DEPTH][TILE + 1];
  const int thread = threadIdx.y * SIDE + threadIdx.x;
  const long long column0 = (long long)blockIdx.x * TILE, row0 = (long long)blockIdx.y * TILE;
  const long long columns = layout.n * layout.positions;
  const int taps = layout.kernel[0] * layout.kernel[1] * layout.kernel[2];
  const long long depth = layout.c * taps;

  // Each thread lays out one column of the tile, a quarter of its depth: its origin is fixed.
  const long long my_column = column0 + thread % TILE;
  const bool column_inside = my_column < columns;
  int origin[3] = {0, 0, 0};
  long long image = 0;
  if (column_inside) {
    image = my_column / layout.positions;
    first_read(my_column % layout.positions, layout, origin);
  }

  for (long long group = blockIdx.z; group < layout.groups; group += gridDim.z) {
    const T* source = x + image * layout.x_n + group * layout.c * layout.x_c;
    const T* weights = w + group * layout.m * depth;
    Acc sum[PER][PER];
    for (int i = 0; i < PER; ++i)
      for (int j = 0; j < PER; ++j) sum[i][j] = (Acc)0;

    for (long long k0 = 0; k0 < depth; k0 += DEPTH) {
      for (int item = thread; item < TILE * DEPTH; item += SIDE * SIDE) {
        const int k_w = item % DEPTH, row = item / DEPTH, k_x = item / TILE;
        const bool w_inside = row0 + row < layout.m && k0 + k_w < depth;
        w_tile[k_w][row] = w_inside ? widen<T>(weights[(row0 + row) * depth + k0 + k_w]) : (Acc)0;
        Acc value = (Acc)0;
        if (column_inside && k0 + k_x < depth) {
          const long long channel = (k0 + k_x) / taps;
          value = read_tap<T>(source + channel * layout.x_c, (int)((k0 + k_x) % taps), origin,
                              layout);
        }
        x_tile[k_x][thread % TILE] = value;
      }
      __syncthreads();
      for (int k = 0; k < DEPTH; ++k)
        for (int i = 0; i < PER; ++i)
          for (int j = 0; j < PER; ++j)
            sum[i][j] += w_tile[k][threadIdx.y + i * SIDE] * x_tile[k][threadIdx.x + j * SIDE];
      __syncthreads();  // WAR: the next round overwrites the tiles that slower threads still read
    }

    for (int j = 0; j < PER; ++j) {
      const long long column = column0 + threadIdx.x + j * SIDE;
      if (column >= columns) continue;
      const long long at = column / layout.positions, position = column % layout.positions;
      for (int i = 0; i < PER; ++i) {
        const long long row = row0 + threadIdx.y + i * SIDE;
        if (row >= layout.m) continue;
        const long long channel = group * layout.m + row;
        Acc value = sum[i][j];
        if (layout.has_bias) value += widen<T>(bias[channel]);
        out[(at * layout.groups * layout.m + channel) * layout.positions + position] =
            narrow<T>(value);
      }
    }
  }
}

template <typename T>
__global__ void conv_direct(const T* x, const T* w, const T* bias, T* out, ConvLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  const int taps = layout.kernel[0] * layout.kernel[1] * layout.kernel[2];
  const long long channels = layout.groups * layout.m;
  const long long size = layout.n * channels * layout.positions;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long channel = i / layout.positions % channels;
    const long long image = i / layout.positions / channels;
    const T* source = x + image * layout.x_n + channel / layout.m * layout.c * layout.x_c;
    const T* weights = w + channel * layout.c * taps;
    int origin[3];
    first_read(i % layout.positions, layout, origin);
    Acc sum = (Acc)0;
    for (long long c = 0; c < layout.c; ++c)
      for (int tap = 0; tap < taps; ++tap)
        sum += widen<T>(weights[c * taps + tap]) *
               read_tap<T>(source + c * layout.x_c, tap, origin, layout);
    if (layout.has_bias) sum += widen<T>(bias[channel]);
    out[i] = narrow<T>(sum);
  }
}

template <typename T>
__global__ void conv_transpose(const T* x, const T* w, const T* bias, T* out, ConvLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  const int taps = layout.kernel[0] * layout.kernel[1] * layout.kernel[2];
  const long long channels = layout.groups * layout.m;
  const long long area = (long long)layout.extent[0] * layout.extent[1] * layout.extent[2];
  const long long size = layout.n * channels * area;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long channel = i / area % channels, image = i / area / channels;
    const long long group = channel / layout.m;
    int at[3];
    long long rest = i % area;
    for (int axis = 2; axis >= 0; --axis) {
      at[axis] = (int)(rest % layout.extent[axis]) + layout.begin[axis];
      rest /= layout.extent[axis];
    }
    const T* source = x + image * layout.x_n + group * layout.c * layout.x_c;
    const T* weights = w + (group * layout.c * layout.m + channel % layout.m) * taps;
    Acc sum = (Acc)0;
    for (int tap = 0; tap < taps; ++tap) {
      long long offset = 0;
      bool reaches = true;
      int left = tap;
      for (int axis = 2; axis >= 0; --axis) {
        const int shift = at[axis] - left % layout.kernel[axis] * layout.dilation[axis];
        left /= layout.kernel[axis];
        const int from = shift / layout.stride[axis];
        reaches = reaches && shift >= 0 && shift % layout.stride[axis] == 0 &&
                  from < layout.out[axis];
        offset += from * layout.x_stride[axis];
      }
      if (!reaches) continue;
      for (long long c = 0; c < layout.c; ++c)
        sum += widen<T>(weights[c * layout.m * taps + tap]) *
               widen<T>(source[c * layout.x_c + offset]);
    }
    if (layout.has_bias) sum += widen<T>(bias[channel]);
    out[i] = narrow<T>(sum);
  }
}
