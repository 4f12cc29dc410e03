// Softmax along one axis, or its logarithm.
//
// Computes   out[o, r] = exp(x[o, r] - top) / sum over r of exp(x[o, r] - top), top = max over r;
//            or x[o, r] - top - log(sum)
// Layouts    `kept` and `reduced` lay out the rows and the elements of one, with the strides of x
//            first and of out second; any strides
// Launch     a block of 32 to 256 threads (a power of two) for each row; x is read twice, the second
//            time mostly from cache
// dtypes     float, double, __half (computed in float)
// Limits     at most 8 merged axes on each side. The output may be the input of the same layout
// Determinism  each thread adds in a fixed order, then a tree of fixed shape
// Source     Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3
//
// instantiate: softmax<float, false>
// instantiate: softmax<double, false>
// instantiate: softmax<__half, false>
// instantiate: softmax<float, true>
// instantiate: softmax<double, true>
// instantiate: softmax<__half, true>

#include "reduce.cuh"

template <typename T, bool LOG>
__global__ void softmax(const T* x, T* out, Layout kept, Layout reduced) {
  typedef typename Compute<T>::type C;
  __shared__ Exponentials<C> shared_total;
  long long row[2], at[2];
  locate<2>(kept, blockIdx.x, row);
  Exponentials<C> total{C(0), C(0)};
  bool has = false;
  for (long long r = threadIdx.x; r < reduced.size; r += blockDim.x) {
    locate<2>(reduced, r, at);
    const Exponentials<C> value{load(x[row[0] + at[0]]), C(1)};
    total = has ? Join::combine(total, value) : value;
    has = true;
  }
  total = tree<Join>(total, has, threadIdx.x, blockDim.x, 1, 0);
  if (threadIdx.x == 0) shared_total = total;
  __syncthreads();  // every thread needs what thread 0 has combined
  const C top = shared_total.top;
  // An infinite top has no finite neighbours to be compared with: NaN for the whole row, as in NumPy.
  const C sum = shared_total.sum + (top - top), log_sum = log(sum);
  for (long long r = threadIdx.x; r < reduced.size; r += blockDim.x) {
    locate<2>(reduced, r, at);
    const C shifted = load(x[row[0] + at[0]]) - top;
    out[row[1] + at[1]] = Convert<T>::from(LOG ? shifted - log_sum : exp(shifted) / sum);
  }
}
