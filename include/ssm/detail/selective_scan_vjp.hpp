// SPDX-License-Identifier: Apache-2.0
// selective_scan_vjp.hpp: the fast gradient of Mamba's operator: who works on what, and the sums.
#pragma once

#include <algorithm>

#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/selective_scan_vjp_kernel.hpp"
#include "ssm/detail/sum_into.hpp"
#include "ssm/execution.hpp"

namespace ssm::detail {

/// A gradient as the kernel adds to it: the caller's view, or where that sums along an axis a
/// tensor that is summed into it at the end.
template <class real>
struct unshared_gradient {
  sequence_view<real> wanted;
  tensor<real, 3> own;

  explicit unshared_gradient(sequence_view<real> const& view) : wanted{view} {
    if (view.data_handle() == nullptr) return;
    for (int axis = 0; axis < 3; ++axis) {
      if (view.stride(axis) == 0 && view.extent(axis) > 1) own = tensor<real, 3>(view.extents());
    }
  }
  sequence_view<real> view() { return own.size() > 0 ? own.view() : wanted; }
  void finish(int threads) {
    if (own.size() == 0) return;
    sum_into(threads, {0, wanted.extent(1), 1}, wanted.broadcast(3, 1),
             [&](index_t b, index_t t, index_t c, index_t) { return own(b, t, c); });
  }
};

/// Blocks that channels are shared out in at least; sums over them follow, whatever the threads.
inline constexpr index_t vjp_least_blocks = 6;

/// Steps between two sums of what blocks of channels give to B and C: as many as keep the partial
/// sums smaller than one input.
inline index_t vjp_span(scan_shape const& s, channel_partition const& partition) {
  index_t const fitting = s.length * partition.block / (2 * std::max<index_t>(1, s.states));
  index_t const blocks = std::clamp<index_t>(fitting / selective_scan_block, 1, 32);
  return blocks * selective_scan_block;
}

template <class T>
void fast_selective_scan_vjp(parallel policy, selective_scan_inputs<T> const& in,
                             sequence_view<T const> y_cotangent,
                             state_view<accumulator_t<T>> carry_cotangent,
                             selective_scan_gradients<T> const& to,
                             trajectory_view<accumulator_t<T> const> checkpoints) {
  using real = accumulator_t<T>;
  scan_shape const s = checked_shape(in);
  channel_partition const partition(s, in.B.extent(2), vjp_least_blocks);
  index_t const span = vjp_span(s, partition), jobs = partition.count(s.batch);

  unshared_gradient<real> x(to.x), step_size(to.step_size),
      gate(in.gate.data_handle() == nullptr ? sequence_view<real>{} : to.gate);
  sequence_gradients<real> const sequences{x.view(), step_size.view(), gate.view()};
  index_t const padded = (s.states + 7) / 8 * 8;  // enough for every kernel
  tensor<real, 3> to_B({jobs, std::min(span, s.length), padded}), to_C(to_B.extents());
  tensor<real, 3> to_eigenvalue({s.batch, s.channels, s.states});
  tensor<real, 2> to_bias({s.batch, s.channels}), to_D(to_bias), to_factor(to_bias);

  // A span of time after another, the last one first; within it blocks of channels in any order.
  for (index_t begin = (s.length - 1) / span * span; begin >= 0; begin -= span) {
    index_t const end = std::min(begin + span, s.length);
    parallel_for(policy.threads, jobs, [&](index_t first_job, index_t last_job) {
      dispatch(
          policy.instructions, [&](auto width) __attribute__((always_inline)) {
            constexpr int lanes = decltype(width)::template lanes<real>;
            using forward = selective_scan_kernel<T, lanes>;
            using kernel = selective_scan_vjp_kernel<T, lanes>;
            index_t const row = (partition.block + lanes - 1) / lanes * lanes;
            index_t const states = forward::padded_states(s.states);
            selective_scan_workspace<real> w(kernel::tile, kernel::packs_at_once, lanes, row,
                                             states, states);
            auto g = kernel::workspace(row, w.states);
            w.step = g.step, w.slope = g.slope;
            for (index_t job = first_job; job < last_job; ++job) {
              forward const f{in, w, partition(job)};
              kernel const k{f, g, y_cotangent, sequences};
              index_t const b = f.block.b, first = f.block.first;
              std::fill_n(g.memory.data(), g.memory.size(), real(0));
              std::fill_n(w.h, row * w.states, real(0));
              f.load_channels();
              f.load_eigenvalues();
              f.for_each_state([&](index_t c, index_t n, real& h) {
                (&h - w.h)[g.cotangent] = carry_cotangent(b, c, n);
              });
              k.run(begin, end, checkpoints,
                    {to_B.view().select(0, job), to_C.view().select(0, job)});
              f.for_each_state([&](index_t c, index_t n, real& h) {
                carry_cotangent(b, c, n) = (&h - w.h)[g.cotangent];
                to_eigenvalue(b, c, n) += (&h - w.h)[g.to_eigenvalue];
              });
              for (index_t i = 0; i < f.block.count; ++i) {
                to_bias(b, first + i) += g.to_bias[i];
                to_D(b, first + i) += g.to_D[i];
                to_factor(b, first + i) += g.to_factor[i];
              }
            }
          });
    });
    auto const over_blocks = [&](tensor<real, 3> const& part) {
      return [&](index_t b, index_t i, index_t group, index_t n) {
        index_t const first = (b * partition.groups + group) * partition.blocks_per_group;
        real sum(0);
        for (index_t k = 0; k < partition.blocks_per_group; ++k) sum += part(first + k, i, n);
        return sum;
      };
    };
    sum_into(policy.threads, {begin, end - begin, 1}, to.B, over_blocks(to_B));
    sum_into(policy.threads, {begin, end - begin, 1}, to.C, over_blocks(to_C));
  }
  x.finish(policy.threads);
  step_size.finish(policy.threads);
  gate.finish(policy.threads);

  real const ln2 = number_format<real>::ln2_high + number_format<real>::ln2_low;
  for (index_t c = 0; c < s.channels; ++c) {
    for (index_t b = 0; b < s.batch; ++b) {
      if (to.step_bias.data_handle() != nullptr) to.step_bias(c) += to_bias(b, c);
      if (to.D.data_handle() != nullptr) to.D(c) += to_D(b, c);
      if (to.scaling.step.data_handle() != nullptr) to.scaling.step(c) += to_factor(b, c);
    }
    for (index_t n = 0; n < s.states; ++n) {
      real arriving(0);  // the kernel's Δ is in units of log 2
      for (index_t b = 0; b < s.batch; ++b) arriving += to_eigenvalue(b, c, n) * ln2;
      real const to_A = in.scaling.pull_back(c, n, in.eigenvalue(c, n), arriving, to.scaling);
      if (to.eigenvalue.data_handle() != nullptr) to.eigenvalue(c, n) += to_A;
    }
  }
}

}  // namespace ssm::detail
