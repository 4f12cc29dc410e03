// The functions that elementwise.cu applies, one struct for each, named like the operator.
//
// Of one number (with two parameters p and q) and of two; C is the type that `Compute` gives.
#pragma once

#include "elementwise.cuh"

// Signed overflow is undefined in C++ and wraps around in NumPy: integers go through their
// unsigned type.
template <typename C>
struct Wrap {
  typedef C type;
};
template <>
struct Wrap<int> {
  typedef unsigned int type;
};
template <>
struct Wrap<long long> {
  typedef unsigned long long type;
};

template <typename C>
struct IsFloat {
  static const bool value = false;
};
template <>
struct IsFloat<float> {
  static const bool value = true;
};
template <>
struct IsFloat<double> {
  static const bool value = true;
};

template <typename C>
__device__ __forceinline__ typename Wrap<C>::type wrap(C x) {
  return (typename Wrap<C>::type)x;
}

// All comparisons below are written so that NaN passes through.
template <typename C>
__device__ __forceinline__ C negate(C x) {
  if constexpr (IsFloat<C>::value) {
    return -x;
  } else {
    return (C)(wrap(C(0)) - wrap(x));
  }
}
template <typename C>
__device__ __forceinline__ C clamp(C x, C low, C high) {
  const C raised = x < low ? low : x;
  return raised > high ? high : raised;
}
template <typename C>
__device__ __forceinline__ bool is_infinite(C x) {
  return x == x && x - x != C(0);
}
template <typename C>
__device__ __forceinline__ C softplus(C x) {
  return (x < C(0) ? C(0) : x) + log1p(exp(x < C(0) ? x : -x));
}

#define UNARY(NAME, EXPRESSION)                                   \
  struct NAME {                                                   \
    template <typename C>                                         \
    __device__ __forceinline__ static auto apply(C x, C p, C q) { \
      return EXPRESSION;                                          \
    }                                                             \
  };

UNARY(Same, x)
UNARY(Neg, negate(x))
UNARY(Abs, x == C(0) ? C(0) : (x < C(0) ? negate(x) : x))
UNARY(Square, C(wrap(x) * wrap(x)))
UNARY(Sign, x > C(0) ? C(1) : (x < C(0) ? C(-1) : (x == C(0) ? C(0) : x)))
UNARY(Exp, exp(x))
UNARY(Expm1, expm1(x))
UNARY(Log, log(x))
UNARY(Log1p, log1p(x))
UNARY(Sqrt, sqrt(x))
UNARY(Rsqrt, C(1) / sqrt(x))
UNARY(Reciprocal, C(1) / x)
UNARY(Floor, floor(x))
UNARY(Ceil, ceil(x))
UNARY(Round, rint(x))
UNARY(Sin, sin(x))
UNARY(Cos, cos(x))
UNARY(Tan, tan(x))
UNARY(Asin, asin(x))
UNARY(Acos, acos(x))
UNARY(Atan, atan(x))
UNARY(Sinh, sinh(x))
UNARY(Cosh, cosh(x))
UNARY(Tanh, tanh(x))
UNARY(Asinh, asinh(x))
UNARY(Acosh, acosh(x))
UNARY(Atanh, atanh(x))
UNARY(Erf, erf(x))
UNARY(IsNan, x != x)
UNARY(IsInf, is_infinite(x) && (x > C(0) ? p : q) != C(0))
UNARY(Not, x == C(0))
UNARY(BitwiseNot, C(~x))

UNARY(Relu, x < C(0) ? C(0) : x)
UNARY(LeakyRelu, x < C(0) ? x * p : x)
UNARY(ThresholdedRelu, x <= p ? C(0) : x)
UNARY(Sigmoid, C(1) / (C(1) + exp(-x)))
UNARY(Silu, x / (C(1) + exp(-p * x)))
UNARY(Gelu, C(0.5) * x * (C(1) + erf(x * C(0.70710678118654752440))))
UNARY(GeluTanh,
      C(0.5) * x * (C(1) + tanh(C(0.79788456080286535588) * (x + C(0.044715) * x * x * x))))
UNARY(Elu, x < C(0) ? p * expm1(x) : x)
UNARY(Celu, x < C(0) ? p * expm1(x / p) : x)
UNARY(Selu, q * (x < C(0) ? p * expm1(x) : x))
UNARY(Softplus, softplus(x))
UNARY(Softsign, x / (C(1) + (x < C(0) ? -x : x)))
UNARY(HardSigmoid, clamp(p * x + q, C(0), C(1)))
UNARY(HardSwish, x * clamp(x / C(6) + C(0.5), C(0), C(1)))
UNARY(Mish, x * tanh(softplus(x)))
UNARY(Clip, clamp(x, p, q))

#define BINARY(NAME, EXPRESSION)                             \
  struct NAME {                                              \
    template <typename C>                                    \
    __device__ __forceinline__ static auto apply(C a, C b) { \
      return EXPRESSION;                                     \
    }                                                        \
  };

// Integers divide by zero to 0, as in NumPy; the lowest one by -1 wraps around.
template <typename C>
__device__ __forceinline__ C divide(C a, C b) {
  if constexpr (IsFloat<C>::value) {
    return a / b;
  } else {
    return b == C(0) ? C(0) : (b == C(-1) && C(-1) < C(1) ? negate(a) : C(a / b));
  }
}
// What is left of `a` after `divide`: the sign of a.
template <typename C>
__device__ __forceinline__ C remainder_of(C a, C b) {
  if constexpr (IsFloat<C>::value) {
    return fmod(a, b);
  } else {
    return b == C(0) || (b == C(-1) && C(-1) < C(1)) ? C(0) : C(a % b);
  }
}
// The sign of b; a zero of a float has it too.
template <typename C>
__device__ __forceinline__ C modulo(C a, C b) {
  const C left = remainder_of(a, b);
  if constexpr (IsFloat<C>::value) {
    if (left == C(0)) return copysign(C(0), b);
  }
  return left != C(0) && (left < C(0)) != (b < C(0)) ? left + b : left;
}
template <typename C>
__device__ __forceinline__ C floor_divide(C a, C b) {
  const C left = remainder_of(a, b);
  return divide(a, b) - (left != C(0) && (left < C(0)) != (b < C(0)) ? C(1) : C(0));
}
template <typename C>
__device__ __forceinline__ C power(C a, C b) {
  if constexpr (IsFloat<C>::value) {
    return pow(a, b);
  } else {
    auto base = wrap(a);
    auto result = wrap(C(1));
    for (C left = b < C(0) ? C(0) : b; left > C(0); left /= C(2)) {
      if (left % C(2) != C(0)) result *= base;
      base *= base;
    }
    return (C)result;
  }
}
// As in NumPy, a shift by the width or more leaves nothing but the sign.
template <typename C>
__device__ __forceinline__ bool is_wide(C bits) {
  return (unsigned long long)bits >= 8 * sizeof(C);
}

BINARY(Add, C(wrap(a) + wrap(b)))
BINARY(Sub, C(wrap(a) - wrap(b)))
BINARY(Mul, C(wrap(a) * wrap(b)))
BINARY(Div, divide(a, b))
BINARY(FloorDiv, floor_divide(a, b))
BINARY(Mod, modulo(a, b))
BINARY(Fmod, remainder_of(a, b))
BINARY(Pow, power(a, b))
BINARY(Maximum, a >= b || a != a ? a : b)
BINARY(Minimum, a <= b || a != a ? a : b)
BINARY(Atan2, atan2(a, b))
BINARY(Equal, a == b)
BINARY(NotEqual, a != b)
BINARY(Less, a < b)
BINARY(LessEqual, a <= b)
BINARY(Greater, a > b)
BINARY(GreaterEqual, a >= b)
BINARY(And, a != C(0) && b != C(0))
BINARY(Or, a != C(0) || b != C(0))
BINARY(Xor, (a != C(0)) != (b != C(0)))
BINARY(BitwiseAnd, C(a & b))
BINARY(BitwiseOr, C(a | b))
BINARY(BitwiseXor, C(a ^ b))
BINARY(ShiftLeft, is_wide(b) ? C(0) : C(wrap(a) << b))
BINARY(ShiftRight, is_wide(b) ? (a < C(0) ? C(-1) : C(0)) : C(a >> b))
BINARY(PRelu, a < C(0) ? a * b : a)

// Narrow floats as codes: a sign, EXPONENT bits and MANTISSA bits. The codes below FINITE are finite
// magnitudes, INFINITE is that of infinity (256 where there is none) and NAN_CODE that of NaN.

template <int EXPONENT, int MANTISSA, int BIAS, int FINITE, int INFINITE, int NAN_CODE>
struct Decode {
  template <typename C>
  __device__ __forceinline__ static float apply(C code, C, C) {
    const unsigned int sign = 1u << (EXPONENT + MANTISSA);
    const unsigned int size = (unsigned int)code & (sign - 1), negative = (unsigned int)code & sign;
    unsigned int bits = 0x7fc00000u;  // NaN
    if (size < FINITE && (NAN_CODE != sign || sign == 8 || !negative || size)) {
      // A subnormal is a multiple of the smallest one.
      const float smallest = __uint_as_float((unsigned int)(128 - BIAS - MANTISSA) << 23);
      bits = size >> MANTISSA ? (size << (23 - MANTISSA)) + ((127u - BIAS) << 23)
                              : __float_as_uint((float)size * smallest);
      bits |= negative ? 0x80000000u : 0;
    } else if (size == INFINITE) {
      bits = negative ? 0xff800000u : 0x7f800000u;
    }
    return __uint_as_float(bits);
  }
};

// BEYOND is the code of what is too large.
template <int EXPONENT, int MANTISSA, int BIAS, int FINITE, int BEYOND, int NAN_CODE>
struct Encode {
  template <typename C>
  __device__ __forceinline__ static unsigned int apply(C value, C, C) {
    const unsigned int sign = 1u << (EXPONENT + MANTISSA);
    const unsigned int all = __float_as_uint((float)value), bits = all & 0x7fffffffu;
    if (bits > 0x7f800000u) return NAN_CODE;
    unsigned int code;
    if (bits < (128u - BIAS) << 23) {
      const float per_unit = __uint_as_float((unsigned int)(126 + BIAS + MANTISSA) << 23);
      code = (unsigned int)rintf(__uint_as_float(bits) * per_unit);
    } else {
      const unsigned int moved = bits - ((127u - BIAS) << 23), shift = 23 - MANTISSA;
      code = (moved + (1u << (shift - 1)) - 1 + ((moved >> shift) & 1)) >> shift;
    }
    if (code >= FINITE) code = BEYOND;
    // Where -0 is NaN, zero has no sign.
    const bool has_sign = NAN_CODE != sign || sign == 8 || code;
    return all >> 31 && has_sign ? code | sign : code;
  }
};

// bfloat16: the upper half of a float32.
UNARY(DecodeUpper, __uint_as_float((unsigned int)x << 16))
struct EncodeUpper {
  template <typename C>
  __device__ __forceinline__ static unsigned int apply(C value, C, C) {
    const unsigned int bits = __float_as_uint((float)value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  }
};

// float8_e8m0fnu: an exponent alone.
struct DecodeExponent {
  template <typename C>
  __device__ __forceinline__ static float apply(C code, C, C) {
    const unsigned int bits = (unsigned int)code << 23;
    return __uint_as_float(code == 0 ? 0x00400000u : code == 255 ? 0x7fc00000u : bits);
  }
};
// ROUNDING 0 is to the nearest, 1 up, -1 down; SATURATE stops at the largest exponent.
template <int ROUNDING, bool SATURATE>
struct EncodeExponent {
  template <typename C>
  __device__ __forceinline__ static unsigned int apply(C value, C, C) {
    const unsigned int bits = __float_as_uint((float)value);
    const unsigned int code = (bits >> 23) & 0xff, mantissa = bits & 0x7fffff, half = 0x400000;
    bool up = ROUNDING > 0 && mantissa > 0;
    if (ROUNDING == 0) up = mantissa > half || (mantissa == half && code > 0);
    return code == 0xff || (SATURATE && code == 0xfe) || !up ? code : code + 1;
  }
};
