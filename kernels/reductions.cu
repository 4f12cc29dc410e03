// Reductions over any axes: sums, products, extrema, norms, and the place of an extremum.
//
// Computes   out[o] = finish(combine over r of map(x[o, r])); the functions stand below
// Layouts    x has any strides: `kept` lays out the outputs, `reduced` the elements of one of them.
//            The output is contiguous
// Launch     reduce_rows: a block of 32 to 256 threads (a power of two) for each output and part.
//            reduce_columns: blocks of 32 x 8 threads, 32 neighbouring outputs each, so that loads
//            are coalesced where the outputs lie side by side. grid.y parts share the elements of
//            an output evenly and write part p of output o to out[o * parts + p]; a second launch
//            of reduce_rows combines them. log_sum_exp and arg: as reduce_rows, one part.
//            What has no elements is the identity, finished
// dtypes     all numbers; float16 is accumulated in float32, integers in their own type
// Limits     at most 8 merged axes on each side
// Determinism  each thread adds in a fixed order, then a tree of fixed shape: equal bits every time
// Source     tree reduction: Harris, "Optimizing Parallel Reduction in CUDA", 2007; log_sum_exp:
//            running maximum, Milakov and Gimelshein, 2018, section 3
//
// instantiate: reduce_rows<float, float, Same, Sum, Same>
// instantiate: reduce_rows<float, float, Same, Sum, Mean>
// instantiate: reduce_rows<float, float, Same, Product, Same>
// instantiate: reduce_rows<float, float, Same, Largest, Same>
// instantiate: reduce_rows<float, float, Same, Smallest, Same>
// instantiate: reduce_rows<float, float, Abs, Sum, Same>
// instantiate: reduce_rows<float, float, Square, Sum, Sqrt>
// instantiate: reduce_rows<float, float, Same, Sum, Log>
// instantiate: reduce_rows<double, double, Square, Sum, Sqrt>
// instantiate: reduce_rows<__half, __half, Same, Sum, Mean>
// instantiate: reduce_rows<__half, float, Same, Sum, Same>
// instantiate: reduce_rows<float, __half, Same, Sum, Mean>
// instantiate: reduce_rows<signed char, signed char, Same, Sum, Same>
// instantiate: reduce_rows<int, int, Same, Product, Same>
// instantiate: reduce_rows<long long, long long, Abs, Sum, Same>
// instantiate: reduce_rows<unsigned long long, unsigned long long, Same, Largest, Same>
// instantiate: reduce_rows<double, double, Same, Sum, Mean>
// instantiate: reduce_rows<__half, __half, Same, Largest, Same>
// instantiate: reduce_rows<int, int, Same, Largest, Same>
// instantiate: reduce_rows<unsigned char, unsigned char, Same, Largest, Same>
// instantiate: reduce_columns<float, float, Same, Sum, Same>
// instantiate: reduce_columns<float, float, Same, Largest, Same>
// instantiate: reduce_columns<__half, __half, Square, Sum, Sqrt>
// instantiate: reduce_columns<double, double, Same, Sum, Mean>
// instantiate: reduce_columns<int, int, Same, Smallest, Same>
// instantiate: log_sum_exp<float>
// instantiate: log_sum_exp<double>
// instantiate: log_sum_exp<__half>
// instantiate: arg<float, true>
// instantiate: arg<float, false>
// instantiate: arg<double, true>
// instantiate: arg<__half, false>
// instantiate: arg<int, true>
// instantiate: arg<unsigned char, false>

#include "elementwise_functions.cuh"
#include "reduce.cuh"

// `none` is the result for no elements; extrema always have some.
struct Sum {
  static const int none = 0;
  template <typename C>
  __device__ __forceinline__ static C combine(C a, C b) {
    return Add::apply(a, b);
  }
};
struct Product {
  static const int none = 1;
  template <typename C>
  __device__ __forceinline__ static C combine(C a, C b) {
    return Mul::apply(a, b);
  }
};
struct Largest {
  static const int none = 0;
  template <typename C>
  __device__ __forceinline__ static C combine(C a, C b) {
    return Maximum::apply(a, b);
  }
};
struct Smallest {
  static const int none = 0;
  template <typename C>
  __device__ __forceinline__ static C combine(C a, C b) {
    return Minimum::apply(a, b);
  }
};
// Finishing functions take the number of elements as their parameter.
UNARY(Mean, x / p)

template <typename In, typename Out, typename Map, typename Combine, typename Finish>
__global__ void reduce_rows(const In* x, Out* out, Layout kept, Layout reduced, long long parts,
                            typename Compute<In>::type count) {
  typedef typename Compute<In>::type C;
  const long long row = blockIdx.x, part = blockIdx.y;
  const long long from = reduced.size * part / parts, to = reduced.size * (part + 1) / parts;
  const In* start = x + offset_in(kept, row);
  C total = C(Combine::none);
  bool has = false;
  for (long long r = from + threadIdx.x; r < to; r += blockDim.x) {
    const C value = Map::apply(load(start[offset_in(reduced, r)]), C(0), C(0));
    total = has ? Combine::combine(total, value) : value;
    has = true;
  }
  total = tree<Combine>(total, has, threadIdx.x, blockDim.x, 1, 0);
  if (threadIdx.x == 0) {
    out[row * parts + part] = Convert<Out>::from(Finish::apply(total, count, C(0)));
  }
}

template <typename In, typename Out, typename Map, typename Combine, typename Finish>
__global__ void reduce_columns(const In* x, Out* out, Layout kept, Layout reduced, long long parts,
                               typename Compute<In>::type count) {
  typedef typename Compute<In>::type C;
  const long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x, part = blockIdx.y;
  const long long from = reduced.size * part / parts, to = reduced.size * (part + 1) / parts;
  const bool inside = column < kept.size;
  C total = C(Combine::none);
  bool has = false;
  if (inside) {
    const In* start = x + offset_in(kept, column);
    for (long long r = from + threadIdx.y; r < to; r += blockDim.y) {
      const C value = Map::apply(load(start[offset_in(reduced, r)]), C(0), C(0));
      total = has ? Combine::combine(total, value) : value;
      has = true;
    }
  }
  total = tree<Combine>(total, has, threadIdx.y, blockDim.y, blockDim.x, threadIdx.x);
  if (inside && threadIdx.y == 0) {
    out[column * parts + part] = Convert<Out>::from(Finish::apply(total, count, C(0)));
  }
}

template <typename T>
__global__ void log_sum_exp(const T* x, T* out, Layout kept, Layout reduced) {
  typedef typename Compute<T>::type C;
  const T* start = x + offset_in(kept, blockIdx.x);
  Exponentials<C> total{C(0), C(0)};
  bool has = false;
  for (long long r = threadIdx.x; r < reduced.size; r += blockDim.x) {
    const Exponentials<C> value{load(start[offset_in(reduced, r)]), C(1)};
    total = has ? Join::combine(total, value) : value;
    has = true;
  }
  total = tree<Join>(total, has, threadIdx.x, blockDim.x, 1, 0);
  if (threadIdx.x == 0) out[blockIdx.x] = Convert<T>::from(total.top + log(total.sum));
}

template <typename C>
struct Place {
  C value;
  long long index;
};

// The larger (or smaller) of two; NaN before all; of equals the lower index, or the higher.
template <bool MAX, bool LAST>
struct Better {
  template <typename P>
  __device__ __forceinline__ static P combine(P a, P b) {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan ? a : b;
    if (a_nan || a.value == b.value) return (a.index < b.index) != LAST ? a : b;
    return (a.value > b.value) == MAX ? a : b;
  }
};

template <typename T, bool MAX>
__global__ void arg(const T* x, long long* out, Layout kept, Layout reduced, int last) {
  typedef Place<typename Compute<T>::type> P;
  const T* start = x + offset_in(kept, blockIdx.x);
  P best{typename Compute<T>::type(0), 0};
  bool has = false;
  for (long long r = threadIdx.x; r < reduced.size; r += blockDim.x) {
    const P here{load(start[offset_in(reduced, r)]), r};
    if (!has) {
      best = here;
    } else if (last) {
      best = Better<MAX, true>::combine(best, here);
    } else {
      best = Better<MAX, false>::combine(best, here);
    }
    has = true;
  }
  if (last) {
    best = tree<Better<MAX, true>>(best, has, threadIdx.x, blockDim.x, 1, 0);
  } else {
    best = tree<Better<MAX, false>>(best, has, threadIdx.x, blockDim.x, 1, 0);
  }
  if (threadIdx.x == 0) out[blockIdx.x] = best.index;
}
