// Regions of interest of an image, each sampled to the same size by bilinear interpolation.
//
// Computes   out[r, c, i, j] = mean over the samples of bin (i, j) of region r, or the maximum over
//            the weighted corners of all of them (MAX)
// Layouts    x (n, c, h, w) with any strides; regions (r, 4) as x1, y1, x2, y2 and the image of each,
//            C-contiguous; out C-contiguous
// Launch     1-D grid-stride loop, one output for each thread and turn, 256 threads
// dtypes     float, double, __half (computed in float)
// Limits     extents below 2^31
// Determinism  one thread adds in a fixed order
// Source     K. He and others, "Mask R-CNN", 2017, section 3
//
// instantiate: roi_align<float, false>
// instantiate: roi_align<float, true>
// instantiate: roi_align<double, false>
// instantiate: roi_align<__half, true>

#include "elementwise.cuh"

struct Regions {
  long long size;  // outputs
  long long channels;
  long long stride[4];
  double scale, offset;
  int height, width, out_height, out_width;
  int samples;  // along each axis of a bin; 0: as many as it has pixels
  int images;
};

// One sample: the two pixels on an axis and the weight of the second; false outside the image.
template <typename C>
__device__ bool corners(C at, int extent, int* low, int* high, C* part) {
  if (!(at >= C(-1) && at <= C(extent))) return false;
  at = at < C(0) ? C(0) : at;
  *low = (int)at;
  if (*low >= extent - 1) {
    *low = *high = extent - 1;
    *part = C(0);
  } else {
    *high = *low + 1;
    *part = at - C(*low);
  }
  return true;
}

template <typename T, bool MAX>
__global__ void roi_align(const T* x, const T* regions, const long long* images, T* out,
                          Regions p) {
  typedef typename Compute<T>::type C;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < p.size; e += step) {
    const int j = e % p.out_width, i = e / p.out_width % p.out_height;
    const long long c = e / p.out_width / p.out_height % p.channels;
    const long long r = e / p.out_width / p.out_height / p.channels;
    const C scale = C(p.scale), offset = C(p.offset);
    const C left = load(regions[4 * r]) * scale - offset;
    const C top = load(regions[4 * r + 1]) * scale - offset;
    C width = load(regions[4 * r + 2]) * scale - offset - left;
    C height = load(regions[4 * r + 3]) * scale - offset - top;
    if (p.offset == 0) {  // a region is at least a pixel large
      width = width < C(1) ? C(1) : width;
      height = height < C(1) ? C(1) : height;
    }
    const C bin_height = height / C(p.out_height), bin_width = width / C(p.out_width);
    const int rows = p.samples ? p.samples : (int)ceil(bin_height);
    const int columns = p.samples ? p.samples : (int)ceil(bin_width);
    const long long image = images[r];
    C total = C(0);
    bool has = false;
    if (image >= 0 && image < p.images) {
      const T* plane = x + image * p.stride[0] + c * p.stride[1];
      for (int a = 0; a < rows; ++a) {
        const C y = top + C(i) * bin_height + (C(a) + C(0.5)) * bin_height / C(rows);
        for (int b = 0; b < columns; ++b) {
          const C z = left + C(j) * bin_width + (C(b) + C(0.5)) * bin_width / C(columns);
          int y0 = 0, y1 = 0, z0 = 0, z1 = 0;
          C v = C(0), w = C(0);
          const bool inside =
              corners(y, p.height, &y0, &y1, &v) && corners(z, p.width, &z0, &z1, &w);
          C four[4] = {C(0), C(0), C(0), C(0)};
          if (inside) {
            four[0] = (C(1) - v) * (C(1) - w) * load(plane[y0 * p.stride[2] + z0 * p.stride[3]]);
            four[1] = (C(1) - v) * w * load(plane[y0 * p.stride[2] + z1 * p.stride[3]]);
            four[2] = v * (C(1) - w) * load(plane[y1 * p.stride[2] + z0 * p.stride[3]]);
            four[3] = v * w * load(plane[y1 * p.stride[2] + z1 * p.stride[3]]);
          }
          for (int corner = 0; corner < 4; ++corner) {
            if (!MAX) {
              total += four[corner];
            } else if (!has || four[corner] > total) {
              total = four[corner];
              has = true;
            }
          }
        }
      }
    }
    const long long count = (long long)rows * columns;
    out[e] = Convert<T>::from(MAX || count == 0 ? total : total / C(count));
  }
}
