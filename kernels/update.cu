// Step of gradient descent, in place.
//
// Computes   w[i] = w[i] - rate * (g[i] + decay * w[i])
// Layouts    contiguous arrays of n elements; rate: one element
// Launch     1-D grid-stride loop, 256 threads
// dtypes     float, double, __half (computed in float)
// Limits     none
// Determinism  each element is written once, by one thread
// Source     weight decay as an L2 penalty: Goodfellow, Bengio and Courville, 2016, section 7.1.1
//
// instantiate: sgd<float>
// instantiate: sgd<double>
// instantiate: sgd<__half>

#include "elementwise.cuh"

template <typename T>
__global__ void sgd(T* w, const T* g, const T* rate, long long n, typename Compute<T>::type decay) {
  const auto by = load(rate[0]);
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
    const auto before = load(w[i]);
    w[i] = Convert<T>::from(before - by * (load(g[i]) + decay * before));
  }
}
