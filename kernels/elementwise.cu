// Elementwise functions of one and of two arrays.
//
// Computes   y[i] = f(x[i]; p, q)   and   y[i] = f(a[i], b[i]); the functions stand in
//            elementwise_functions.cuh
// Layouts    `unary`, `binary`: contiguous arrays of n elements; of `binary`, a (one = 1) or b
//            (one = 2) may be a single element. `unary_strided`, `binary_strided`: any strides and
//            broadcasting of the inputs; the output is contiguous
// Launch     1-D grid-stride loop, 256 threads; the contiguous kernels move up to 16 bytes at a
//            time where the addresses allow it
// dtypes     all; float16 is computed in float32, integers wrap around as NumPy's do
// Limits     at most 8 axes after merging. The output may be an input of the same layout
// Determinism  each element is computed once, by one thread
// Source     elementary functions are CUDA's own
//
// instantiate: unary<float, float, Same>
// instantiate: unary<float, float, Neg>
// instantiate: unary<float, float, Abs>
// instantiate: unary<float, float, Square>
// instantiate: unary<float, float, Sign>
// instantiate: unary<float, float, Exp>
// instantiate: unary<float, float, Expm1>
// instantiate: unary<float, float, Log>
// instantiate: unary<float, float, Log1p>
// instantiate: unary<float, float, Sqrt>
// instantiate: unary<float, float, Rsqrt>
// instantiate: unary<float, float, Reciprocal>
// instantiate: unary<float, float, Floor>
// instantiate: unary<float, float, Ceil>
// instantiate: unary<float, float, Round>
// instantiate: unary<float, float, Sin>
// instantiate: unary<float, float, Cos>
// instantiate: unary<float, float, Tan>
// instantiate: unary<float, float, Asin>
// instantiate: unary<float, float, Acos>
// instantiate: unary<float, float, Atan>
// instantiate: unary<float, float, Sinh>
// instantiate: unary<float, float, Cosh>
// instantiate: unary<float, float, Tanh>
// instantiate: unary<float, float, Asinh>
// instantiate: unary<float, float, Acosh>
// instantiate: unary<float, float, Atanh>
// instantiate: unary<float, float, Erf>
// instantiate: unary<float, bool, IsNan>
// instantiate: unary<float, bool, IsInf>
// instantiate: unary<bool, bool, Not>
// instantiate: unary<int, int, BitwiseNot>
// instantiate: unary<float, float, Relu>
// instantiate: unary<float, float, LeakyRelu>
// instantiate: unary<float, float, ThresholdedRelu>
// instantiate: unary<float, float, Sigmoid>
// instantiate: unary<float, float, Silu>
// instantiate: unary<float, float, Gelu>
// instantiate: unary<float, float, GeluTanh>
// instantiate: unary<float, float, Elu>
// instantiate: unary<float, float, Celu>
// instantiate: unary<float, float, Selu>
// instantiate: unary<float, float, Softplus>
// instantiate: unary<float, float, Softsign>
// instantiate: unary<float, float, HardSigmoid>
// instantiate: unary<float, float, HardSwish>
// instantiate: unary<float, float, Mish>
// instantiate: unary<float, float, Clip>
// instantiate: binary<float, float, Add>
// instantiate: binary<float, float, Sub>
// instantiate: binary<float, float, Mul>
// instantiate: binary<float, float, Div>
// instantiate: binary<float, float, FloorDiv>
// instantiate: binary<float, float, Mod>
// instantiate: binary<float, float, Fmod>
// instantiate: binary<float, float, Pow>
// instantiate: binary<float, float, Maximum>
// instantiate: binary<float, float, Minimum>
// instantiate: binary<float, float, Atan2>
// instantiate: binary<float, bool, Equal>
// instantiate: binary<float, bool, NotEqual>
// instantiate: binary<float, bool, Less>
// instantiate: binary<float, bool, LessEqual>
// instantiate: binary<float, bool, Greater>
// instantiate: binary<float, bool, GreaterEqual>
// instantiate: binary<bool, bool, And>
// instantiate: binary<bool, bool, Or>
// instantiate: binary<bool, bool, Xor>
// instantiate: binary<int, int, BitwiseAnd>
// instantiate: binary<int, int, BitwiseOr>
// instantiate: binary<int, int, BitwiseXor>
// instantiate: binary<int, int, ShiftLeft>
// instantiate: binary<int, int, ShiftRight>
// instantiate: binary<float, float, PRelu>
// instantiate: unary<double, double, Exp>
// instantiate: unary<double, double, Gelu>
// instantiate: unary<double, double, GeluTanh>
// instantiate: unary<double, double, Clip>
// instantiate: unary<double, double, HardSigmoid>
// instantiate: unary<double, double, Mish>
// instantiate: unary<double, double, Sign>
// instantiate: binary<double, double, Add>
// instantiate: binary<double, double, Div>
// instantiate: binary<double, double, Mod>
// instantiate: binary<double, double, Pow>
// instantiate: binary<double, double, Maximum>
// instantiate: binary<double, double, PRelu>
// instantiate: unary<__half, __half, Exp>
// instantiate: unary<__half, __half, Gelu>
// instantiate: unary<__half, __half, GeluTanh>
// instantiate: unary<__half, __half, Clip>
// instantiate: unary<__half, __half, HardSigmoid>
// instantiate: unary<__half, __half, Mish>
// instantiate: unary<__half, __half, Sign>
// instantiate: binary<__half, __half, Add>
// instantiate: binary<__half, __half, Div>
// instantiate: binary<__half, __half, Mod>
// instantiate: binary<__half, __half, Pow>
// instantiate: binary<__half, __half, Maximum>
// instantiate: binary<__half, __half, PRelu>
// instantiate: unary<signed char, signed char, Neg>
// instantiate: unary<signed char, signed char, Abs>
// instantiate: binary<signed char, signed char, Div>
// instantiate: binary<signed char, signed char, Pow>
// instantiate: unary<unsigned short, unsigned short, Abs>
// instantiate: binary<unsigned short, unsigned short, Div>
// instantiate: binary<unsigned short, unsigned short, Pow>
// instantiate: unary<int, int, Neg>
// instantiate: unary<int, int, Abs>
// instantiate: unary<int, int, Sign>
// instantiate: unary<int, int, Relu>
// instantiate: unary<int, int, Clip>
// instantiate: unary<int, int, Square>
// instantiate: binary<int, int, Add>
// instantiate: binary<int, int, Div>
// instantiate: binary<int, int, FloorDiv>
// instantiate: binary<int, int, Mod>
// instantiate: binary<int, int, Fmod>
// instantiate: binary<int, int, Pow>
// instantiate: binary<int, int, Maximum>
// instantiate: binary<int, bool, Less>
// instantiate: unary<long long, long long, Neg>
// instantiate: unary<long long, long long, Abs>
// instantiate: unary<long long, long long, Sign>
// instantiate: unary<long long, long long, Relu>
// instantiate: unary<long long, long long, Clip>
// instantiate: unary<long long, long long, Square>
// instantiate: binary<long long, long long, Add>
// instantiate: binary<long long, long long, Div>
// instantiate: binary<long long, long long, FloorDiv>
// instantiate: binary<long long, long long, Mod>
// instantiate: binary<long long, long long, Fmod>
// instantiate: binary<long long, long long, Pow>
// instantiate: binary<long long, long long, ShiftLeft>
// instantiate: binary<long long, long long, ShiftRight>
// instantiate: binary<long long, long long, Maximum>
// instantiate: binary<long long, bool, Less>
// instantiate: unary<unsigned long long, unsigned long long, Abs>
// instantiate: binary<unsigned long long, unsigned long long, Div>
// instantiate: binary<unsigned long long, unsigned long long, Pow>
// instantiate: unary<bool, signed char, Same>
// instantiate: unary<bool, int, Same>
// instantiate: unary<bool, unsigned long long, Same>
// instantiate: unary<bool, __half, Same>
// instantiate: unary<bool, float, Same>
// instantiate: unary<bool, double, Same>
// instantiate: unary<signed char, __half, Same>
// instantiate: unary<signed char, float, Same>
// instantiate: unary<int, bool, Same>
// instantiate: unary<int, signed char, Same>
// instantiate: unary<int, unsigned long long, Same>
// instantiate: unary<int, __half, Same>
// instantiate: unary<int, float, Same>
// instantiate: unary<int, double, Same>
// instantiate: unary<unsigned long long, __half, Same>
// instantiate: unary<unsigned long long, float, Same>
// instantiate: unary<__half, float, Same>
// instantiate: unary<float, bool, Same>
// instantiate: unary<float, signed char, Same>
// instantiate: unary<float, int, Same>
// instantiate: unary<float, unsigned long long, Same>
// instantiate: unary<float, __half, Same>
// instantiate: unary<float, double, Same>
// instantiate: unary<double, __half, Same>
// instantiate: unary<double, float, Same>
// instantiate: unary<unsigned char, float, Decode<4, 3, 7, 127, 256, 127>>
// instantiate: unary<unsigned char, float, Decode<5, 2, 15, 124, 124, 126>>
// instantiate: unary<unsigned char, float, Decode<5, 2, 16, 128, 256, 128>>
// instantiate: unary<unsigned char, float, Decode<2, 1, 1, 8, 7, 8>>
// instantiate: unary<unsigned char, float, DecodeExponent>
// instantiate: unary<unsigned short, float, DecodeUpper>
// instantiate: unary<float, unsigned char, Encode<4, 3, 7, 127, 126, 127>>
// instantiate: unary<float, unsigned char, Encode<5, 2, 15, 124, 124, 126>>
// instantiate: unary<float, unsigned char, Encode<4, 3, 8, 128, 128, 128>>
// instantiate: unary<float, unsigned char, Encode<2, 1, 1, 8, 7, 8>>
// instantiate: unary<double, unsigned char, Encode<4, 3, 7, 127, 127, 127>>
// instantiate: unary<__half, unsigned char, Encode<4, 3, 7, 127, 126, 127>>
// instantiate: unary<float, unsigned char, EncodeExponent<0, true>>
// instantiate: unary<float, unsigned char, EncodeExponent<1, false>>
// instantiate: unary<double, unsigned char, EncodeExponent<-1, true>>
// instantiate: unary<float, unsigned short, EncodeUpper>
// instantiate: unary<__half, unsigned short, EncodeUpper>
// instantiate: unary<unsigned char, unsigned char, Same>
// instantiate: unary<unsigned short, unsigned short, Same>
// instantiate: unary<unsigned int, unsigned int, Same>
// instantiate: unary<unsigned long long, unsigned long long, Same>
// instantiate: binary<signed char, signed char, ShiftLeft>
// instantiate: binary<signed char, signed char, ShiftRight>
// instantiate: binary<signed char, signed char, Mod>
// instantiate: binary<unsigned char, unsigned char, ShiftRight>
// instantiate: binary<unsigned long long, unsigned long long, ShiftLeft>
// instantiate: binary<unsigned long long, unsigned long long, Mod>
// instantiate: binary<unsigned long long, unsigned long long, Fmod>
// instantiate: binary<unsigned long long, unsigned long long, BitwiseXor>
// instantiate: binary<__half, __half, Fmod>
// instantiate: binary<double, double, Fmod>
// instantiate: unary_strided<float, float, Relu>
// instantiate: binary_strided<float, float, Mul>
// instantiate: unary_strided<__half, __half, Relu>
// instantiate: binary_strided<__half, __half, Mul>
// instantiate: unary_strided<long long, long long, Relu>
// instantiate: binary_strided<long long, long long, Mul>
// instantiate: binary_strided<float, bool, Less>
// instantiate: unary_strided<float, unsigned char, Encode<4, 3, 7, 127, 126, 127>>
// instantiate: unary_strided<unsigned char, float, Decode<5, 2, 15, 124, 124, 126>>
// instantiate: binary_strided<int, int, ShiftLeft>
// instantiate: binary_strided<double, double, Mod>

#include "elementwise_functions.cuh"

// Elements in one transaction of at most 16 bytes.
template <typename In, typename Out>
struct Width {
  static const int value = 16 / (int)(sizeof(In) > sizeof(Out) ? sizeof(In) : sizeof(Out));
};

template <typename In, typename Out, typename Op>
__global__ void unary(const In* x, Out* y, long long n, typename Compute<In>::type p,
                      typename Compute<In>::type q) {
  const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const long long step = (long long)gridDim.x * blockDim.x;
  constexpr int N = Width<In, Out>::value;
  const long long packs = is_aligned<In, N>(x) && is_aligned<Out, N>(y) ? n / N : 0;
  for (long long i = first; i < packs; i += step) {
    const Pack<In, N> in = ((const Pack<In, N>*)x)[i];
    Pack<Out, N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      out.item[j] = Convert<Out>::from(Op::apply(load(in.item[j]), p, q));
    }
    ((Pack<Out, N>*)y)[i] = out;
  }
  for (long long i = packs * N + first; i < n; i += step) {
    y[i] = Convert<Out>::from(Op::apply(load(x[i]), p, q));
  }
}

template <typename In, typename Out, typename Op>
__global__ void unary_strided(const In* x, Out* y, Layout layout, typename Compute<In>::type p,
                              typename Compute<In>::type q) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < layout.size; i += step) {
    long long at[1];
    locate<1>(layout, i, at);
    y[i] = Convert<Out>::from(Op::apply(load(x[at[0]]), p, q));
  }
}

template <typename In, typename Out, typename Op>
__global__ void binary(const In* a, const In* b, Out* y, long long n, int one) {
  const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const long long step = (long long)gridDim.x * blockDim.x;
  constexpr int N = Width<In, Out>::value;
  const bool a_ready = one == 1 || is_aligned<In, N>(a);
  const bool b_ready = one == 2 || is_aligned<In, N>(b);
  const long long packs = a_ready && b_ready && is_aligned<Out, N>(y) ? n / N : 0;
  for (long long i = first; i < packs; i += step) {
    Pack<In, N> left, right;
    if (one != 1) left = ((const Pack<In, N>*)a)[i];
    if (one != 2) right = ((const Pack<In, N>*)b)[i];
    Pack<Out, N> out;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const In u = one == 1 ? a[0] : left.item[j];
      const In v = one == 2 ? b[0] : right.item[j];
      out.item[j] = Convert<Out>::from(Op::apply(load(u), load(v)));
    }
    ((Pack<Out, N>*)y)[i] = out;
  }
  for (long long i = packs * N + first; i < n; i += step) {
    const In u = a[one == 1 ? 0 : i], v = b[one == 2 ? 0 : i];
    y[i] = Convert<Out>::from(Op::apply(load(u), load(v)));
  }
}

template <typename In, typename Out, typename Op>
__global__ void binary_strided(const In* a, const In* b, Out* y, Layout layout) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < layout.size; i += step) {
    long long at[2];
    locate<2>(layout, i, at);
    y[i] = Convert<Out>::from(Op::apply(load(a[at[0]]), load(b[at[1]])));
  }
}
