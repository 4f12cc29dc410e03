// Normalisation with statistics of channels or planes.
//
// batch_norm     out = (x - mean[c]) * scale[c] / sqrt(var[c] + epsilon) + bias[c]
// instance_norm  the same with mean and (biased) variance of each plane (n, c) of x itself
// lrn            out = x / (k + alpha / size * sum of x^2 over `size` channels about c) ^ beta
// Layouts        x and out C-contiguous (n, c, area); statistics C-contiguous (c)
// Launch         batch_norm, lrn: 1-D grid-stride loop, one element for each thread and turn;
//                instance_norm: a block of 256 threads for each plane and turn, two passes
// dtypes         float16 (computed in float32), float32, float64
// Limits         none beyond 64-bit sizes
// Determinism    fixed order of every sum: equal bits in every run
// Source         Ioffe and Szegedy, "Batch normalization", 2015, section 3.1; Ulyanov et al.,
//                "Instance normalization", 2016; Krizhevsky et al., "ImageNet classification with
//                deep convolutional neural networks", 2012, section 3.3
//
// instantiate: batch_norm<__half>
// instantiate: batch_norm<float>
// instantiate: batch_norm<double>
// instantiate: instance_norm<__half>
// instantiate: instance_norm<float>
// instantiate: instance_norm<double>
// instantiate: lrn<__half>
// instantiate: lrn<float>
// instantiate: lrn<double>

#include "common.cuh"

#define THREADS 256

struct NormLayout {
  long long planes, channels, area;
  double epsilon;
  double alpha, beta, k;  // of lrn; alpha is already divided by size
  int before, after;      // channels of lrn's window on either side
};

__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float power(float x, float y) { return powf(x, y); }
__device__ __forceinline__ double power(double x, double y) { return pow(x, y); }

template <typename T>
__global__ void batch_norm(const T* x, const T* scale, const T* bias, const T* mean, const T* var,
                           T* out, NormLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  const long long size = layout.planes * layout.area;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long c = i / layout.area % layout.channels;
    const Acc factor = widen<T>(scale[c]) / square_root(widen<T>(var[c]) + (Acc)layout.epsilon);
    out[i] = narrow<T>((widen<T>(x[i]) - widen<T>(mean[c])) * factor + widen<T>(bias[c]));
  }
}

// Sum over a block; every thread gets it. `partial` holds one number for each thread.
template <typename Acc>
__device__ Acc block_sum(Acc value, Acc* partial) {
  __syncthreads();  // WAR: the last sum may still be read
  partial[threadIdx.x] = value;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  return partial[0];
}

template <typename T>
__global__ void instance_norm(const T* x, const T* scale, const T* bias, T* out,
                              NormLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  __shared__ Acc partial[THREADS];
  for (long long plane = blockIdx.x; plane < layout.planes; plane += gridDim.x) {
    const T* source = x + plane * layout.area;
    Acc sum = (Acc)0;
    for (long long i = threadIdx.x; i < layout.area; i += THREADS) sum += widen<T>(source[i]);
    const Acc mean = block_sum(sum, partial) / (Acc)layout.area;
    sum = (Acc)0;
    for (long long i = threadIdx.x; i < layout.area; i += THREADS) {
      const Acc centred = widen<T>(source[i]) - mean;
      sum += centred * centred;
    }
    const Acc var = block_sum(sum, partial) / (Acc)layout.area;
    const long long c = plane % layout.channels;
    const Acc factor = widen<T>(scale[c]) / square_root(var + (Acc)layout.epsilon);
    const Acc shift = widen<T>(bias[c]);
    for (long long i = threadIdx.x; i < layout.area; i += THREADS)
      out[plane * layout.area + i] = narrow<T>((widen<T>(source[i]) - mean) * factor + shift);
  }
}

template <typename T>
__global__ void lrn(const T* x, T* out, NormLayout layout) {
  typedef typename Accumulator<T>::type Acc;
  const long long size = layout.planes * layout.area;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
    const long long c = i / layout.area % layout.channels;
    const long long first = c < layout.before ? -c : -layout.before;
    const long long room = layout.channels - 1 - c;
    const long long last = room < layout.after ? room : layout.after;
    Acc sum = (Acc)0;
    for (long long at = first; at <= last; ++at) {
      const Acc value = widen<T>(x[i + at * layout.area]);
      sum += value * value;
    }
    out[i] = narrow<T>(widen<T>(x[i]) /
                       power((Acc)layout.k + (Acc)layout.alpha * sum, (Acc)layout.beta));
  }
}
