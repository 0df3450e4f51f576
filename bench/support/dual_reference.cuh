// SPDX-License-Identifier: Apache-2.0
// dual_reference.cuh: how wrong Mamba-2's operator is on a GPU, against double precision: a warp
// for each channel of each head, softplus and bias and D on, one group.
//
// What is allowed, in units of eps of float: Δ may be off by e = 6 + |p|, with p what goes into the
// softplus; a decay exp(z) by |z| (e + 2) + 3, a drive by e + 3, a sum by one for each of its
// additions. On the units that multiply matrices numbers are rounded once more, to `unit` of their
// size: between x and a state twice, as what is added to it and as what is multiplied by C, and
// mixed over time once; three times are allowed, since others keep states of chunks in 16 bits.
#pragma once

#include "support/dual_arrays.cuh"
#include "support/selective_check.cuh"

namespace ssm::bench {
namespace detail {

inline constexpr int warp = 32, quad = static_cast<int>(dual_shape::states) / warp;
inline constexpr double roundings = 3;  ///< of what is multiplied as matrices

__device__ inline double from_warp(double value, int lane) {
  return __shfl_sync(all_lanes, value, lane);
}
__device__ inline bounded sum_of_warp(bounded v) {
  for (int mask = warp / 2; mask > 0; mask /= 2) {
    v.value += __shfl_xor_sync(all_lanes, v.value, mask);
    v.size += __shfl_xor_sync(all_lanes, v.size, mask);
    v.weighted += __shfl_xor_sync(all_lanes, v.weighted, mask);
  }
  return v;
}

/// Inputs of one step of one channel; the lanes of a warp have those of 32 steps.
struct dual_token {
  double x = 0, step = 0, step_error = 0, decay = 0, decay_error = 0, slope = 0;
};

template <class T>
struct dual_channel {
  state_space_dual_inputs<T, memory::device> in;
  index_t b, head, p;
  int lane;
  bool is_there;
  double eigenvalue, D;

  __device__ explicit dual_channel(state_space_dual_inputs<T, memory::device> const& inputs)
      : in{inputs} {
    index_t const row = (static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x) / warp;
    index_t const heads = in.x.extent(2), channels = in.x.extent(3);
    lane = static_cast<int>(threadIdx.x) % warp;
    is_there = row < in.x.extent(0) * heads * channels;
    b = is_there ? row / channels / heads : 0;
    head = row / channels % heads;
    p = row % channels;
    eigenvalue = static_cast<double>(in.eigenvalue(head));
    D = static_cast<double>(in.D(head, p));
  }
  __device__ index_t length() const { return in.x.extent(1); }
  __device__ int state(int i) const { return quad * lane + i; }
  __device__ static double number(T stored) { return static_cast<double>(to_number(stored)); }
  __device__ double B(index_t t, int i) const { return number(in.B(b, t, 0, state(i))); }
  __device__ double C(index_t t, int i) const { return number(in.C(b, t, 0, state(i))); }

  __device__ dual_token load(index_t t) const {
    if (t >= length()) return {};
    double const q = number(in.step_size(b, t, head)) + static_cast<double>(in.step_bias(head));
    double const step = softplus(q), error = 6 + fabs(q), z = step * eigenvalue;
    return {number(in.x(b, t, head, p)),
            step,
            error,
            exp(z),
            fabs(z) * (error + 2) + 3,
            softplus_slope(q)};
  }
  /// States after step t, of which lane j has the token.
  __device__ void next(bounded (&h)[quad], dual_token const& tokens, int j, index_t t) const {
    double const decay = from_warp(tokens.decay, j), decay_error = from_warp(tokens.decay_error, j);
    double const drive = from_warp(tokens.step * tokens.x, j);
    double const error = from_warp(tokens.step_error, j) + 3;
    for (int i = 0; i < quad; ++i) {
      double const term = drive * B(t, i);
      h[i] = times(h[i], decay, decay_error);
      add(h[i], {term, fabs(term), error * fabs(term)});
      h[i].weighted += h[i].size;
    }
  }
};

/// A sum that was formed by products of matrices of numbers rounded to `unit`.
template <class T>
__device__ bounded as_matrices(bounded v, double unit) {
  v.weighted += roundings * unit / carried_eps<T> * v.size;
  return v;
}

template <class T>
__global__ void compare_dual_kernel(state_space_dual_inputs<T, memory::device> in,
                                    tensor_view<float const, 4, memory::device> initial,
                                    tensor_view<T const, 4, memory::device> y,
                                    tensor_view<float const, 4, memory::device> final_state,
                                    double unit, tally* all) {
  dual_channel<T> const me(in);
  if (!me.is_there) return;
  thread_tally mine, mine_final;
  bounded h[quad];
  for (int i = 0; i < quad && initial.data_handle() != nullptr; ++i) {
    double const first = static_cast<double>(initial(me.b, me.head, me.p, me.state(i)));
    h[i] = {first, fabs(first), 0};
  }
  for (index_t t0 = 0; t0 < me.length(); t0 += warp) {
    dual_token const tokens = me.load(t0 + me.lane);
    bounded sum;
    for (int j = 0; j < warp && t0 + j < me.length(); ++j) {
      me.next(h, tokens, j, t0 + j);
      bounded dot;
      for (int i = 0; i < quad; ++i) add(dot, times(h[i], me.C(t0 + j, i), 1));
      dot = sum_of_warp(dot);
      if (j == me.lane) sum = dot;
    }
    if (t0 + me.lane >= me.length()) continue;
    double const skip = me.D * tokens.x;
    sum = as_matrices<T>(sum, unit);
    add(sum, {skip, fabs(skip), fabs(skip)});
    sum.weighted += (dual_shape::states + 2) * sum.size;
    mine.compare(y(me.b, t0 + me.lane, me.head, me.p), sum);
  }
  mine.add_to(all, true);
  for (int i = 0; i < quad; ++i) {
    mine_final.compare(final_state(me.b, me.head, me.p, me.state(i)), as_matrices<T>(h[i], unit));
  }
  mine_final.add_to(all + 1, true);
}

}  // namespace detail

/// All of y and of the final state. `unit`: what numbers that are multiplied as matrices may be
/// rounded by; `initial` may be empty: zeros.
template <class T>
std::vector<finding> check_dual(gpu::stream const& stream,
                                state_space_dual_inputs<T, memory::device> const& in,
                                tensor_view<float const, 4, memory::device> initial,
                                tensor_view<T const, 4, memory::device> y,
                                tensor_view<float const, 4, memory::device> final_state,
                                double unit) {
  auto tallies = detail::zeros<tally>(stream, 2);
  index_t const rows = in.x.extent(0) * in.x.extent(2) * in.x.extent(3);
  detail::compare_dual_kernel<T><<<detail::blocks_of(rows * detail::warp), 128, 0, stream.get()>>>(
      in, initial, y, final_state, unit, tallies.view().data_handle());
  return detail::findings(stream, tallies, {"y", "final state"});
}

}  // namespace ssm::bench
