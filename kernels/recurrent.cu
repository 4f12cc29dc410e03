// One step of an LSTM, GRU or plain RNN layer: all directions, sequences and units in one launch.
//
// Computes   s_g = R_g f for the gates g of each unit, then the gates, the state h' and the cell c':
//   Lstm       i = F(x_i + s_i + p_i c)   f = F(x_f + s_f + p_f c), or 1 - i   g = G(x_c + s_c)
//              c' = f c + i g             o = F(x_o + s_o + p_o c')            h' = o H(c')
//   GruAfter   z = F(x_z + s_z)   r = F(x_r + s_r)   n = G(x_n + r (s_n + b_n))
//              h' = n + z (h - n)
//   GruGates   z and r as above; keeps z and r h, which GruHidden multiplies with R_n
//   GruHidden  n = G(x_n + s_n)           h' = n + z (h - n)
//   Rnn        h' = F(x + s)
//              x_g are the products of an input with W, made before, plus the biases; what goes into
//              F and G is clipped. A sequence that has ended keeps its state and gives zeros
// Layouts    pre (directions, steps, batch, gates * hidden) and all that is written: C-contiguous,
//            y (steps, directions, batch, hidden); the others have any strides.
//                         f      state   cell        new_state   new_cell
//              Lstm       h      h       c           h'          c'
//              GruGates   h      h       -           r h         z
//              GruHidden  r h    h       z           h'          -
//              GruAfter, Rnn: as Lstm without a cell
// Launch     recurrent_step makes the products too: blocks of 32 x 4 threads, a warp for each unit,
//            TILE sequences at a time; grid (units / 4, sequences / TILE, directions). `f` is read by
//            all blocks, so that new_state must be other memory. recurrent_gates has the products
//            in `products` (directions, batch, gates of this phase * hidden): 256 threads, a thread
//            for each unit of a sequence; grid (any, directions). new_state may be `state`
// dtypes     float16 (computed in float32, rounded when stored), float32, float64
// Determinism  a lane adds every 32nd product in order, then a tree of fixed shape
// Source     the products of all inputs beforehand, and one kernel for what is between two products:
//            Appleyard, Kocisky, Blunsom, "Optimizing performance of recurrent neural networks on
//            GPUs", 2016, sections 3.1.3 and 3.2.1
//
// instantiate: recurrent_step<float, Lstm, 1>
// instantiate: recurrent_step<float, Lstm, 4>
// instantiate: recurrent_step<float, GruAfter, 1>
// instantiate: recurrent_step<float, GruAfter, 4>
// instantiate: recurrent_step<float, GruGates, 1>
// instantiate: recurrent_step<float, GruGates, 4>
// instantiate: recurrent_step<float, GruHidden, 1>
// instantiate: recurrent_step<float, GruHidden, 4>
// instantiate: recurrent_step<float, Rnn, 1>
// instantiate: recurrent_step<float, Rnn, 4>
// instantiate: recurrent_step<__half, Lstm, 1>
// instantiate: recurrent_step<__half, GruAfter, 4>
// instantiate: recurrent_step<__half, GruGates, 4>
// instantiate: recurrent_step<__half, GruHidden, 1>
// instantiate: recurrent_step<__half, Rnn, 4>
// instantiate: recurrent_step<double, Lstm, 4>
// instantiate: recurrent_step<double, GruAfter, 1>
// instantiate: recurrent_step<double, GruGates, 1>
// instantiate: recurrent_step<double, GruHidden, 4>
// instantiate: recurrent_step<double, Rnn, 1>
// instantiate: recurrent_gates<float, Lstm>
// instantiate: recurrent_gates<float, GruAfter>
// instantiate: recurrent_gates<float, GruGates>
// instantiate: recurrent_gates<float, GruHidden>
// instantiate: recurrent_gates<float, Rnn>
// instantiate: recurrent_gates<__half, Lstm>
// instantiate: recurrent_gates<__half, GruGates>
// instantiate: recurrent_gates<__half, GruHidden>
// instantiate: recurrent_gates<double, Lstm>
// instantiate: recurrent_gates<double, GruAfter>
// instantiate: recurrent_gates<double, Rnn>

#include "elementwise_functions.cuh"

#define WARP 32
#define ALL_LANES 0xffffffffu

struct RecurrentStep {
  long long steps, batch, hidden, gates;  // gates of the whole cell
  long long index;                        // of this step, in the order of each direction
  // Strides in elements.
  long long weight[3];  // direction, row, column
  long long bias[2], peephole[2];
  long long factor[3], state[3], cell[3];  // direction, sequence, unit
  long long length;
  double clip;  // infinite: none
  double alpha[2][3], beta[2][3];
  int function[2][3];  // of each direction: F, G, H
  int backward;        // the first direction begins at the end; the second one always does
  int length_bytes;    // of an element of `lengths`, negative when it has a sign; 0: there are none
  int has_peephole, couple_gates;
};

// In the order of ACTIVATIONS in ops/cell_activations.py. Not inlined: five calls for each unit cost
// less than five copies of all of this.
template <typename C>
__device__ __noinline__ C activate(int function, C x, C a, C b) {
  switch (function) {
    case 0: return Sigmoid::apply(x, a, b);
    case 1: return Tanh::apply(x, a, b);
    case 2: return Relu::apply(x, a, b);
    case 3: return a * x + b;
    case 4: return LeakyRelu::apply(x, a, b);
    case 5: return ThresholdedRelu::apply(x, a, b);
    case 6: return a * Tanh::apply(b * x, a, b);
    case 7: return HardSigmoid::apply(x, a, b);
    case 8: return Elu::apply(x, a, b);
    case 9: return Softsign::apply(x, a, b);
    default: return Softplus::apply(x, a, b);
  }
}

template <typename T>
struct Operands {
  const T *pre, *bias, *peephole, *state, *cell;
  const unsigned char* lengths;
  T *y, *new_state, *new_cell;
};

// A unit of one sequence in one direction.
template <typename T>
struct Unit {
  typedef typename Accumulator<T>::type C;
  const RecurrentStep& step;
  const Operands<T>& in;
  const int direction;
  const long long sequence, unit;

  __device__ long long time() const {
    return direction || step.backward ? step.steps - 1 - step.index : step.index;
  }
  __device__ long long place() const {
    return (direction * step.batch + sequence) * step.hidden + unit;
  }
  __device__ C read(const T* array, const long long* stride) const {
    return widen(array[direction * stride[0] + sequence * stride[1] + unit * stride[2]]);
  }
  __device__ C state() const { return read(in.state, step.state); }
  __device__ C cell() const { return read(in.cell, step.cell); }
  __device__ C bias(long long gate) const {
    return widen(in.bias[direction * step.bias[0] + (gate * step.hidden + unit) * step.bias[1]]);
  }
  __device__ C peephole(int gate) const {
    return widen(
        in.peephole[direction * step.peephole[0] + (gate * step.hidden + unit) * step.peephole[1]]);
  }
  // The product of the input, with its bias.
  __device__ C input(int gate) const {
    const long long row = (direction * step.steps + time()) * step.batch + sequence;
    const C product = widen(in.pre[(row * step.gates + gate) * step.hidden + unit]);
    return product + bias(gate);
  }
  // The bias of the product with the state.
  __device__ C state_bias(int gate) const { return bias(step.gates + gate); }
  __device__ C activated(int which, C x, bool clipped) const {
    if (clipped) x = clamp(x, (C)-step.clip, (C)step.clip);
    return activate<C>(step.function[direction][which], x, (C)step.alpha[direction][which],
                       (C)step.beta[direction][which]);
  }
  __device__ bool ended() const {
    const unsigned char* at = in.lengths + sequence * step.length * abs(step.length_bytes);
    switch (step.length_bytes) {
      case 0: return false;
      case 1: return time() >= *at;
      case -1: return time() >= *(const signed char*)at;
      case 2: return time() >= *(const unsigned short*)at;
      case -2: return time() >= *(const short*)at;
      case 4: return time() >= *(const unsigned int*)at;
      case -4: return time() >= *(const int*)at;
      case 8: return (unsigned long long)time() >= *(const unsigned long long*)at;
      default: return time() >= *(const long long*)at;
    }
  }
  __device__ void finish(C new_state) const {
    const bool over = ended();
    const long long row = (time() * gridDim.z + direction) * step.batch + sequence;
    in.y[row * step.hidden + unit] = narrow<T>(over ? C(0) : new_state);
    in.new_state[place()] = narrow<T>(over ? state() : new_state);
  }
};

struct Lstm {
  static const int SUMS = 4;
  template <typename T, typename C>
  __device__ static void apply(const Unit<T>& u, const C* sum) {
    const C c = u.cell();
    C in = u.input(0) + u.state_bias(0) + sum[0], out = u.input(1) + u.state_bias(1) + sum[1];
    C forget = u.input(2) + u.state_bias(2) + sum[2];
    if (u.step.has_peephole) {
      in += u.peephole(0) * c;
      forget += u.peephole(2) * c;
    }
    in = u.activated(0, in, true);
    forget = u.step.couple_gates ? C(1) - in : u.activated(0, forget, true);
    const C fresh = u.activated(1, u.input(3) + u.state_bias(3) + sum[3], true);
    const C new_c = forget * c + in * fresh;
    if (u.step.has_peephole) out += u.peephole(1) * new_c;
    out = u.activated(0, out, true);
    u.finish(out * u.activated(2, new_c, false));
    u.in.new_cell[u.place()] = narrow<T>(u.ended() ? c : new_c);
  }
};

struct GruAfter {
  static const int SUMS = 3;
  template <typename T, typename C>
  __device__ static void apply(const Unit<T>& u, const C* sum) {
    const C h = u.state();
    const C update = u.activated(0, u.input(0) + u.state_bias(0) + sum[0], true);
    const C reset = u.activated(0, u.input(1) + u.state_bias(1) + sum[1], true);
    const C fresh = u.activated(1, u.input(2) + reset * (sum[2] + u.state_bias(2)), true);
    u.finish(fresh + update * (h - fresh));
  }
};

struct GruGates {
  static const int SUMS = 2;
  template <typename T, typename C>
  __device__ static void apply(const Unit<T>& u, const C* sum) {
    const C update = u.activated(0, u.input(0) + u.state_bias(0) + sum[0], true);
    const C reset = u.activated(0, u.input(1) + u.state_bias(1) + sum[1], true);
    u.in.new_cell[u.place()] = narrow<T>(update);
    u.in.new_state[u.place()] = narrow<T>(reset * u.state());
  }
};

struct GruHidden {
  static const int SUMS = 1;
  template <typename T, typename C>
  __device__ static void apply(const Unit<T>& u, const C* sum) {
    const C h = u.state();
    const C fresh = u.activated(1, u.input(2) + u.state_bias(2) + sum[0], true);
    u.finish(fresh + u.cell() * (h - fresh));
  }
};

struct Rnn {
  static const int SUMS = 1;
  template <typename T, typename C>
  __device__ static void apply(const Unit<T>& u, const C* sum) {
    u.finish(u.activated(0, u.input(0) + u.state_bias(0) + sum[0], true));
  }
};

template <typename T, typename Cell, int TILE>
__global__ void recurrent_step(const T* pre, const T* __restrict__ weights, const T* bias,
                               const T* peephole, const unsigned char* lengths,
                               const T* __restrict__ factor, const T* state, const T* cell, T* y,
                               T* new_state, T* new_cell, RecurrentStep step) {
  typedef typename Accumulator<T>::type C;
  const Operands<T> in{pre, bias, peephole, state, cell, lengths, y, new_state, new_cell};
  const long long unit = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  if (unit >= step.hidden) return;  // whole warps: the shuffles below need all lanes
  const int lane = threadIdx.x, direction = blockIdx.z;
  const T* rows = weights + direction * step.weight[0] + unit * step.weight[1];
  const long long next_gate = step.hidden * step.weight[1];

  for (long long first = (long long)blockIdx.y * TILE; first < step.batch;
       first += (long long)gridDim.y * TILE) {
    const T* vectors[TILE];
    C sum[TILE][Cell::SUMS];
#pragma unroll
    for (int n = 0; n < TILE; ++n) {
      // Behind the last sequence it is read again, and nothing stored: no branch in the loop.
      const long long sequence = first + n < step.batch ? first + n : step.batch - 1;
      vectors[n] = factor + direction * step.factor[0] + sequence * step.factor[1];
#pragma unroll
      for (int g = 0; g < Cell::SUMS; ++g) sum[n][g] = C(0);
    }
    // Unrolled for loads: many under way at a time hide the way to memory.
#pragma unroll 4
    for (long long k = lane; k < step.hidden; k += WARP) {
      C value[TILE];
#pragma unroll
      for (int n = 0; n < TILE; ++n) value[n] = widen(vectors[n][k * step.factor[2]]);
#pragma unroll
      for (int g = 0; g < Cell::SUMS; ++g) {
        const C weight = widen(rows[g * next_gate + k * step.weight[2]]);
#pragma unroll
        for (int n = 0; n < TILE; ++n) sum[n][g] += weight * value[n];
      }
    }
    C mine[Cell::SUMS];  // lane n finishes sequence n
#pragma unroll
    for (int n = 0; n < TILE; ++n) {
#pragma unroll
      for (int g = 0; g < Cell::SUMS; ++g) {
        C total = sum[n][g];
#pragma unroll
        for (int other = WARP / 2; other > 0; other /= 2) {
          total += __shfl_xor_sync(ALL_LANES, total, other);
        }
        if (n == 0 || n == lane) mine[g] = total;
      }
    }
    if (lane < TILE && first + lane < step.batch) {
      Cell::apply(Unit<T>{step, in, direction, first + lane, unit}, mine);
    }
  }
}

template <typename T, typename Cell>
__global__ void recurrent_gates(const T* pre, const T* products, const T* bias, const T* peephole,
                                const unsigned char* lengths, const T* state, const T* cell, T* y,
                                T* new_state, T* new_cell, RecurrentStep step) {
  typedef typename Accumulator<T>::type C;
  const Operands<T> in{pre, bias, peephole, state, cell, lengths, y, new_state, new_cell};
  const int direction = blockIdx.z;
  const long long size = step.batch * step.hidden;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size;
       i += (long long)gridDim.x * blockDim.x) {
    const long long sequence = i / step.hidden, unit = i - sequence * step.hidden;
    const long long row = (direction * step.batch + sequence) * Cell::SUMS;
    C sum[Cell::SUMS];
#pragma unroll
    for (int g = 0; g < Cell::SUMS; ++g) sum[g] = widen(products[(row + g) * step.hidden + unit]);
    Cell::apply(Unit<T>{step, in, direction, sequence, unit}, sum);
  }
}
