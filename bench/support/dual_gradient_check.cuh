// SPDX-License-Identifier: Apache-2.0
// dual_gradient_check.cuh: how wrong gradients of Mamba-2's operator are on a GPU, against double
// precision: a warp for each channel of each head, from a zero state.
//
// What is allowed is a part of Σ|terms|: k eps with k = states + channels of a head + length + 168,
// as the operator says, and for each of four factors of a term what it is rounded to for a product
// of matrices.
#pragma once

#include "support/dual_reference.cuh"

namespace ssm::bench {

/// Gradients that were found, G as those that are not sums over time are stored; contiguous.
template <class G>
struct found_dual_gradients {
  G const *x, *step_size, *B, *C;
  float const *eigenvalue, *D, *step_bias;
};

namespace detail {

inline constexpr index_t dual_block = 128;

/// A sum and the sum of the sizes of its terms.
struct sized {
  double value = 0, size = 0;

  __device__ void add(double term, double term_size) { value += term, size += term_size; }
  __device__ sized sum_of_warp() const {
    sized sum = *this;
    for (int mask = warp / 2; mask > 0; mask /= 2) {
      sum.value += __shfl_xor_sync(all_lanes, sum.value, mask);
      sum.size += __shfl_xor_sync(all_lanes, sum.size, mask);
    }
    return sum;
  }
  __device__ void add_to(sized* all) const {
    atomicAdd(&all->value, value);
    atomicAdd(&all->size, size);
  }
};

struct dual_gradient_sums {
  sized* step_size;              ///< (batch, time, head)
  sized *B, *C;                  ///< (batch, sample, state)
  sized *eigenvalue, *D;         ///< (head)
  sized *block_states, *states;  ///< (block, thread, quad), and of a block (step, thread, quad)
  sampled_steps steps;
};

template <class G>
__device__ void compare_sized(thread_tally& mine, G found, sized const& expected, double part) {
  mine.compare(found,
               bounded{expected.value, expected.size, part / carried_eps<G> * expected.size});
}

template <class T, class G>
__global__ void compare_dual_gradient_kernel(state_space_dual_inputs<T, memory::device> in,
                                             tensor_view<T const, 4, memory::device> y_cotangent,
                                             G const* found_x, dual_gradient_sums to, double part,
                                             tally* all) {
  dual_channel<T> const me(in);
  if (!me.is_there) return;
  index_t const thread = (static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x) * quad;
  index_t const threads = static_cast<index_t>(gridDim.x) * blockDim.x * quad;
  index_t const length = me.length(), heads = in.x.extent(2), channels = in.x.extent(3);
  index_t const samples = (length + to.steps.period - 1) / to.steps.period;
  sized h[quad];
  auto const next = [&](dual_token const& tokens, int j, index_t t) {
    double const decay = from_warp(tokens.decay, j), drive = from_warp(tokens.step * tokens.x, j);
    for (int i = 0; i < quad; ++i) {
      double const term = drive * me.B(t, i);
      h[i] = {decay * h[i].value + term, decay * h[i].size + fabs(term)};
    }
  };
  for (index_t t0 = 0; t0 < length; t0 += warp) {
    for (int i = 0; i < quad && t0 % dual_block == 0; ++i)
      to.block_states[t0 / dual_block * threads + thread + i] = h[i];
    dual_token const tokens = me.load(t0 + me.lane);
    for (int j = 0; j < warp && t0 + j < length; ++j) next(tokens, j, t0 + j);
  }

  thread_tally x_tally;
  sized g[quad], eigenvalue, D;
  for (index_t block = (length - 1) / dual_block; block >= 0; --block) {
    index_t const begin = block * dual_block;
    index_t const end = begin + dual_block < length ? begin + dual_block : length;
    auto const entering = to.block_states + block * threads + thread;
    for (int i = 0; i < quad; ++i) h[i] = entering[i];
    for (index_t t0 = begin; t0 < end; t0 += warp) {
      dual_token const tokens = me.load(t0 + me.lane);
      for (int j = 0; j < warp && t0 + j < end; ++j) {
        next(tokens, j, t0 + j);
        for (int i = 0; i < quad; ++i) to.states[(t0 + j - begin) * threads + thread + i] = h[i];
      }
    }
    for (index_t t0 = begin + (end - begin - 1) / warp * warp; t0 >= begin; t0 -= warp) {
      index_t const mine = t0 + me.lane;
      dual_token const tokens = me.load(mine);
      double const arrived = mine < length ? me.number(y_cotangent(me.b, mine, me.head, me.p)) : 0;
      sized x_gradient, step_gradient;
      for (int j = warp - 1; j >= 0; --j) {
        index_t const t = t0 + j;
        if (t >= end) continue;
        double const cotangent = from_warp(arrived, j), x = from_warp(tokens.x, j);
        double const step = from_warp(tokens.step, j), decay = from_warp(tokens.decay, j);
        auto const before = t == begin ? entering : to.states + (t - 1 - begin) * threads + thread;
        bool const is_sample = to.steps.has(t);
        sized for_x, for_step;
        for (int i = 0; i < quad; ++i) {
          double const B = me.B(t, i), from_y = me.C(t, i) * cotangent;
          g[i].add(from_y, fabs(from_y));
          sized const kept{decay * before[i].value, decay * before[i].size};
          double const crossed = g[i].value * kept.value, crossed_size = g[i].size * kept.size;
          eigenvalue.add(step * crossed, step * crossed_size);
          for_x.add(step * B * g[i].value, step * fabs(B) * g[i].size);
          for_step.add(me.eigenvalue * crossed + x * B * g[i].value,
                       fabs(me.eigenvalue) * crossed_size + fabs(x * B) * g[i].size);
          if (is_sample) {
            index_t const at =
                (me.b * samples + t / to.steps.period) * dual_shape::states + me.state(i);
            double const drive = step * x;
            sized{g[i].value * drive, g[i].size * fabs(drive)}.add_to(to.B + at);
            sized const after{kept.value + drive * B, kept.size + fabs(drive * B)};
            sized{after.value * cotangent, after.size * fabs(cotangent)}.add_to(to.C + at);
          }
          g[i] = {decay * g[i].value, decay * g[i].size};
        }
        for_x = for_x.sum_of_warp(), for_step = for_step.sum_of_warp();
        if (j == me.lane) x_gradient = for_x, step_gradient = for_step;
      }
      if (mine >= length) continue;
      double const skip = me.D * arrived;
      x_gradient.add(skip, fabs(skip));
      index_t const row = (me.b * length + mine) * heads + me.head;
      compare_sized(x_tally, found_x[row * channels + me.p], x_gradient, part);
      sized{step_gradient.value * tokens.slope, step_gradient.size * tokens.slope}.add_to(
          to.step_size + row);
      D.add(arrived * tokens.x, fabs(arrived * tokens.x));
    }
  }
  x_tally.add_to(all, true);
  eigenvalue.add_to(to.eigenvalue + me.head);
  D.add_to(to.D + me.head);
}

template <class W>
__global__ void compare_sized_kernel(W const* found, sized const* sums, index_t size, double part,
                                     tally* all) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  thread_tally mine;
  compare_sized(mine, found[i], sums[i], part);
  mine.add_to(all, true);
}

/// Of B or C (batch, time, state), at the sampled steps.
template <class G>
__global__ void compare_samples_kernel(G const* found, sized const* sums, sampled_steps steps,
                                       index_t batch, index_t length, double part, tally* all) {
  constexpr index_t states = dual_shape::states;
  index_t const samples = (length + steps.period - 1) / steps.period;
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  index_t const b = i / states / samples, t = steps.of(i / states % samples);
  if (b >= batch || t >= length) return;
  thread_tally mine;
  compare_sized(mine, found[(b * length + t) * states + i % states], sums[i], part);
  mine.add_to(all, true);
}

/// Sums of each head over all that comes before it.
template <class Sum>
__global__ void sum_of_heads_kernel(Sum const* from, index_t heads, index_t size, Sum* to) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) from[i].add_to(to + i % heads);
}

}  // namespace detail

/// All gradients, but those of B and C at about 256 steps.
template <class T, class G>
std::vector<finding> check_dual_gradients(gpu::stream const& stream,
                                          state_space_dual_inputs<T, memory::device> const& in,
                                          tensor_view<T const, 4, memory::device> y_cotangent,
                                          found_dual_gradients<G> const& found, double unit) {
  using detail::sized, detail::zeros, detail::blocks_of;
  index_t const batch = in.x.extent(0), length = in.x.extent(1), heads = in.x.extent(2);
  index_t const rows = batch * heads * in.x.extent(3), tokens = batch * length * heads;
  unsigned const blocks = blocks_of(rows * detail::warp);
  index_t const threads = index_t{blocks} * 128 * detail::quad;
  detail::sampled_steps const steps{std::max<index_t>(1, length / 256)};
  index_t const samples = batch * ((length + steps.period - 1) / steps.period) * dual_shape::states;
  auto step_size = zeros<sized>(stream, tokens), step_bias = zeros<sized>(stream, heads);
  auto B = zeros<sized>(stream, samples), C = zeros<sized>(stream, samples);
  auto eigenvalue = zeros<sized>(stream, heads), D = zeros<sized>(stream, heads);
  index_t const block = detail::dual_block;
  gpu::tensor<sized, 1> block_states(stream, {(length + block - 1) / block * threads});
  gpu::tensor<sized, 1> states(stream, {std::min(block, length) * threads});
  auto tallies = zeros<tally>(stream, 7);
  auto const at = [](auto& tensor) { return tensor.view().data_handle(); };
  tally* const all = at(tallies);
  double const k = static_cast<double>(dual_shape::states + dual_shape::head_dim + length + 168);
  double const part = k * static_cast<double>(std::numeric_limits<float>::epsilon()) + 4 * unit;

  detail::compare_dual_gradient_kernel<T, G><<<blocks, 128, 0, stream.get()>>>(
      in, y_cotangent, found.x,
      {at(step_size), at(B), at(C), at(eigenvalue), at(D), at(block_states), at(states), steps},
      part, all);
  detail::sum_of_heads_kernel<<<blocks_of(tokens), 128, 0, stream.get()>>>(at(step_size), heads,
                                                                           tokens, at(step_bias));
  auto const compare = [&](auto const* one, auto& sums, index_t size, int which) {
    detail::compare_sized_kernel<<<blocks_of(size), 128, 0, stream.get()>>>(one, at(sums), size,
                                                                            part, all + which);
  };
  auto const compare_samples = [&](G const* one, auto& sums, int which) {
    detail::compare_samples_kernel<<<blocks_of(samples), 128, 0, stream.get()>>>(
        one, at(sums), steps, batch, length, part, all + which);
  };
  compare(found.step_size, step_size, tokens, 1);
  compare_samples(found.B, B, 2);
  compare_samples(found.C, C, 3);
  compare(found.eigenvalue, eigenvalue, heads, 4);
  compare(found.D, D, heads, 5);
  compare(found.step_bias, step_bias, heads, 6);
  return detail::findings(stream, tallies,
                          {"x", "step_size", "B", "C", "eigenvalue", "D", "step_bias"});
}

}  // namespace ssm::bench
