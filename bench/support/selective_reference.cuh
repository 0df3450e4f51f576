// SPDX-License-Identifier: Apache-2.0
// selective_reference.cuh: how wrong Mamba's operator is on a GPU, against double precision: a
// thread for each state of each channel, all options on, one group, from a zero state.
//
// What is allowed, in units of eps of float: Δ may be off by e = 6 + |p|, with p what goes into the
// softplus; a decay exp(z) by |z| (e + 2) + 3, a drive by e + 3, a sum by one for each of its
// additions, the functions of the gate by 6; then what rounding to storage adds.
#pragma once

#include "ssm/numerics.hpp"
#include "support/linear_reference.cuh"
#include "support/selective_arrays.cuh"

namespace ssm::bench {
namespace detail {

inline constexpr int lanes = static_cast<int>(selective_shape::states);  ///< of a channel
inline constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline double from_lane(double value, int lane) {
  return __shfl_sync(all_lanes, value, lane, lanes);
}
__device__ inline bounded sum_of_states(bounded v) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    v.value += __shfl_xor_sync(all_lanes, v.value, mask);
    v.size += __shfl_xor_sync(all_lanes, v.size, mask);
    v.weighted += __shfl_xor_sync(all_lanes, v.weighted, mask);
  }
  return v;
}
/// Of what is multiplied by an exact factor; `error` is that of the product.
__device__ inline bounded times(bounded const& v, double factor, double error) {
  double const f = fabs(factor);
  return {v.value * factor, v.size * f, f * (v.weighted + error * v.size)};
}
__device__ inline void add(bounded& sum, bounded const& v) {
  sum.value += v.value;
  sum.size += v.size;
  sum.weighted += v.weighted;
}

/// Inputs of one step of one channel; the lanes of a channel have those of 16 steps.
struct token {
  double x = 0, step = 0, step_error = 0, slope = 0, gate = 0;
};

template <class T>
struct state_of_channel {
  selective_scan_inputs<T, memory::device> in;
  index_t b, c;
  int n;
  double eigenvalue, D;

  __device__ explicit state_of_channel(selective_scan_inputs<T, memory::device> const& inputs)
      : in{inputs} {
    index_t const i = (static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
    b = i / in.x.extent(2);
    c = i % in.x.extent(2);
    n = static_cast<int>(threadIdx.x) % lanes;
    eigenvalue = static_cast<double>(in.eigenvalue(c, n));
    D = static_cast<double>(in.D(c));
  }
  __device__ index_t length() const { return in.x.extent(1); }
  __device__ token load(index_t t) const {
    if (t >= length()) return {};
    double const p = number(in.step_size(b, t, c)) + static_cast<double>(in.step_bias(c));
    return {number(in.x(b, t, c)), softplus(p), 6 + fabs(p), softplus_slope(p),
            number(in.gate(b, t, c))};
  }
  __device__ static double number(T stored) { return static_cast<double>(to_number(stored)); }
  __device__ double B(index_t t) const { return number(in.B(b, t, 0, n)); }
  __device__ double C(index_t t) const { return number(in.C(b, t, 0, n)); }

  __device__ static double decay_error(double z, double step_error) {
    return fabs(z) * (step_error + 2) + 3;
  }
  /// The state after step t, of which lane j has the token.
  __device__ bounded next(bounded const& h, token const& tokens, int j, index_t t) const {
    double const step = from_lane(tokens.step, j), error = from_lane(tokens.step_error, j);
    double const z = step * eigenvalue, drive = step * B(t) * from_lane(tokens.x, j);
    bounded result = times(h, exp(z), decay_error(z, error));
    add(result, {drive, fabs(drive), (error + 3) * fabs(drive)});
    result.weighted += result.size;
    return result;
  }
  /// y before the gate, from Σ C h.
  __device__ bounded before_gate(bounded sum, token const& k) const {
    double const skip = D * k.x;
    add(sum, {skip, fabs(skip), fabs(skip)});
    sum.weighted += (lanes + 2) * sum.size;
    return sum;
  }
};

template <class T>
__global__ void compare_forward_kernel(selective_scan_inputs<T, memory::device> in,
                                       sequence_view<T const, memory::device> y,
                                       state_view<float const, memory::device> final_state,
                                       tally* all) {
  state_of_channel<T> const me(in);
  thread_tally mine, mine_final;
  bounded h;
  for (index_t t0 = 0; t0 < me.length(); t0 += lanes) {
    token const tokens = me.load(t0 + me.n);
    bounded sum;
#pragma unroll 4
    for (int j = 0; j < lanes; ++j) {
      if (t0 + j >= me.length()) break;
      h = me.next(h, tokens, j, t0 + j);
      bounded const dot = sum_of_states(times(h, me.C(t0 + j), 1));
      if (j == me.n) sum = dot;
    }
    if (t0 + me.n < me.length()) {
      mine.compare(y(me.b, t0 + me.n, me.c),
                   times(me.before_gate(sum, tokens), silu(tokens.gate), 6));
    }
  }
  mine.add_to(all, true);
  if (final_state.data_handle() == nullptr) return;
  mine_final.compare(final_state(me.b, me.c, me.n), h);
  mine_final.add_to(all + 1, true);
}

/// Sums over channels and over time, added up by all threads.
__device__ inline void add_to(bounded* sum, bounded const& v) {
  atomicAdd(&sum->value, v.value);
  atomicAdd(&sum->size, v.size);
  atomicAdd(&sum->weighted, v.weighted);
}

/// Of the gradients of B and C one step in each period is looked at.
struct sampled_steps {
  index_t period;

  __device__ index_t of(index_t sample) const { return sample * period + sample * 7919 % period; }
  __device__ bool has(index_t t) const { return t == of(t / period); }
};

struct gradient_sums {
  bounded *B, *C;                       ///< (batch, sample, state)
  bounded *eigenvalue, *D, *step_bias;  ///< (channel, state), (channel), (channel)
  bounded* states;                      ///< those entering blocks (block, thread),
  bounded* block;                       ///< and those after each step of a block (step, thread)
  sampled_steps steps;
};
inline constexpr index_t reference_block = 512;

/// U: how gradients of x, step_size and gate are stored.
template <class U>
struct token_gradients {
  sequence_view<U const, memory::device> x, step_size, gate;
};

template <class T, class U>
__global__ void compare_gradient_kernel(selective_scan_inputs<T, memory::device> in,
                                        sequence_view<T const, memory::device> y_cotangent,
                                        token_gradients<U> found, gradient_sums to, tally* all) {
  state_of_channel<T> const me(in);
  index_t const thread = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  index_t const threads = static_cast<index_t>(gridDim.x) * blockDim.x, length = me.length();
  index_t const samples = (length + to.steps.period - 1) / to.steps.period;
  bounded h;
  for (index_t t0 = 0; t0 < length; t0 += lanes) {
    if (t0 % reference_block == 0) to.states[t0 / reference_block * threads + thread] = h;
    token const tokens = me.load(t0 + me.n);
    for (int j = 0; j < lanes && t0 + j < length; ++j) h = me.next(h, tokens, j, t0 + j);
  }

  thread_tally x_tally, step_tally, gate_tally;
  bounded g, eigenvalue_sum, D_sum, bias_sum;
  for (index_t block = (length - 1) / reference_block; block >= 0; --block) {
    index_t const begin = block * reference_block;
    index_t const end = begin + reference_block < length ? begin + reference_block : length;
    bounded const entering = h = to.states[block * threads + thread];
    for (index_t t0 = begin; t0 < end; t0 += lanes) {
      token const tokens = me.load(t0 + me.n);
      for (int j = 0; j < lanes && t0 + j < end; ++j) {
        h = me.next(h, tokens, j, t0 + j);
        to.block[(t0 + j - begin) * threads + thread] = h;
      }
    }
    for (index_t t0 = begin + (end - begin - 1) / lanes * lanes; t0 >= begin; t0 -= lanes) {
      token const tokens = me.load(t0 + me.n);
      bool const is_there = t0 + me.n < length;
      double const arrived = is_there ? me.number(y_cotangent(me.b, t0 + me.n, me.c)) : 0;
      double const behind_gate = arrived * silu(tokens.gate);
      bounded y, x_gradient, step_gradient;
      for (int j = lanes - 1; j >= 0; --j) {
        index_t const t = t0 + j;
        if (t >= end) continue;
        double const cotangent = from_lane(behind_gate, j), x = from_lane(tokens.x, j);
        double const step = from_lane(tokens.step, j), error = from_lane(tokens.step_error, j);
        double const B = me.B(t), C = me.C(t), z = step * me.eigenvalue, decay = exp(z);
        bounded const after = to.block[(t - begin) * threads + thread];
        bounded const before = t == begin ? entering : to.block[(t - 1 - begin) * threads + thread];

        double const from_y = C * cotangent;
        add(g, {from_y, fabs(from_y), 8 * fabs(from_y)});
        g.weighted += g.size;
        // decay · h before the step, or the state after it without its drive
        bounded const kept{decay * before.value, after.size,
                           after.weighted + decay * before.weighted};
        bounded product{kept.value * g.value, kept.size * g.size,
                        kept.size * g.weighted + g.size * kept.weighted + 4 * kept.size * g.size};
        add(eigenvalue_sum, times(product, step, error + 1));
        bounded for_step = times(product, me.eigenvalue, 1);
        add(for_step, times(g, x * B, 2));
        for_step = sum_of_states(for_step);
        bounded const for_x = sum_of_states(times(g, step * B, error + 3));
        bounded const dot = sum_of_states(times(after, C, 1));
        if (j == me.n) y = dot, x_gradient = for_x, step_gradient = for_step;
        if (to.steps.has(t)) {
          index_t const at = (me.b * samples + t / to.steps.period) * lanes + me.n;
          add_to(to.B + at, times(g, step * x, error + 3));
          add_to(to.C + at, times(after, cotangent, 8));
        }
        g = times(g, decay, me.decay_error(z, error));
      }
      if (!is_there) continue;
      double const skip = me.D * behind_gate, through = behind_gate * tokens.x;
      add(x_gradient, {skip, fabs(skip), 8 * fabs(skip)});
      x_gradient.weighted += (lanes + 1) * x_gradient.size;
      x_tally.compare(found.x(me.b, t0 + me.n, me.c), x_gradient);
      step_gradient.weighted += (lanes + 1) * step_gradient.size;
      step_gradient = times(step_gradient, tokens.slope, tokens.step_error + 2);
      step_tally.compare(found.step_size(me.b, t0 + me.n, me.c), step_gradient);
      y = me.before_gate(y, tokens);
      y.weighted += storage_rounding<T> / carried_eps<T> * fabs(y.value);  // it may be read again
      double const gate = tokens.gate, open = sigmoid(gate);
      bounded gate_gradient = times(y, arrived * silu_slope(gate), 0);
      gate_gradient.weighted += 6 * fabs(arrived) * open * (1 + fabs(gate) * (1 - open)) * y.size;
      gate_tally.compare(found.gate(me.b, t0 + me.n, me.c), gate_gradient);
      add(D_sum, {through, fabs(through), 8 * fabs(through)});
      add(bias_sum, step_gradient);
    }
  }
  x_tally.add_to(all, true);
  step_tally.add_to(all + 1, true);
  gate_tally.add_to(all + 2, true);
  add_to(to.eigenvalue + me.c * lanes + me.n, eigenvalue_sum);
  add_to(to.D + me.c, D_sum);
  add_to(to.step_bias + me.c, bias_sum);
}

}  // namespace detail
}  // namespace ssm::bench
