// Discrete Fourier transform of short rows, by its definition.
//
// Computes   out[o, j, i] = scale * sum over n of x[o, n, i] * exp(sign * 2 pi i n j / length);
//            MIRRORED: x is the first half of the spectrum of real numbers, and out is those
// Layouts    x by strides: `kept` for the rows, then `step` along the axis and `part` from the real
//            to the imaginary part (0: real numbers only); out C-contiguous, `inner` behind the axis
// Launch     1-D grid-stride loop, one output for each thread and turn, 256 threads
// dtypes     float (angles and sums in double), double
// Limits     length * `count` terms below 2^63; at most 8 merged axes
// Determinism  one thread adds in a fixed order
// Source     definition of the transform; angles reduced exactly in integers
//
// instantiate: dft<float, false>
// instantiate: dft<float, true>
// instantiate: dft<double, false>
// instantiate: dft<double, true>

#include "reduce.cuh"

struct Transform {
  long long size;    // outputs, complex ones counted once
  long long rows, inner;
  long long given;   // terms that x has
  long long length;  // of the transform
  long long wanted;  // outputs of a row
  long long step, part;
  double scale, sign;
};

template <typename T, bool MIRRORED>
__global__ void dft(const T* x, T* out, Layout kept, Transform t) {
  const double turn = 6.283185307179586476925286766559;
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < t.size; e += stride) {
    const long long i = e % t.inner, j = e / t.inner % t.wanted, o = e / t.inner / t.wanted;
    const T* start = x + offset_in(kept, o * t.inner + i);
    double real = 0, imaginary = 0;
    for (long long n = 0; n < t.given; ++n) {
      const double angle = t.sign * turn * (double)(n * j % t.length) / (double)t.length;
      const double c = cos(angle), s = sin(angle);
      const double a = (double)start[n * t.step];
      const double b = t.part ? (double)start[n * t.step + t.part] : 0.0;
      if (MIRRORED) {
        const double twice = n == 0 || 2 * n == t.length ? 1.0 : 2.0;
        real += twice * (a * c - b * s);
      } else {
        real += a * c - b * s;
        imaginary += a * s + b * c;
      }
    }
    if (MIRRORED) {
      out[e] = (T)(t.scale * real);
    } else {
      out[2 * e] = (T)(t.scale * real);
      out[2 * e + 1] = (T)(t.scale * imaginary);
    }
  }
}
