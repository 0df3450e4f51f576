// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp.hpp: the gradient of Mamba-2's operator, shared out to threads.
#pragma once

#include <algorithm>

#include "ssm/detail/state_space_dual_reference_vjp.hpp"
#include "ssm/detail/state_space_dual_step.hpp"
#include "ssm/detail/state_space_dual_vjp_part.hpp"

namespace ssm::detail {

/// The heads of a group in parts, for each of which one thread adds up the gradients of B and C:
/// enough parts for 8 threads, whatever their number, so that sums do not depend on it.
struct ssd_vjp_partition {
  ssd_extents extents;
  index_t parts;

  explicit ssd_vjp_partition(ssd_extents const& e) : extents{e} {
    constexpr index_t wanted = 8;
    index_t const rows = std::max<index_t>(1, e.batch * e.groups);
    parts = std::clamp<index_t>((wanted + rows - 1) / rows, 1,
                                std::max<index_t>(1, e.heads_per_group()));
  }
  index_t count() const { return extents.batch * extents.groups * parts; }
  index_t first_head(index_t group, index_t part) const {
    index_t const heads = extents.heads_per_group();
    return group * heads + part * heads / parts;
  }
};

/// A view's elements, or a tensor's that are added to them in the end, where a view sums.
template <class A, int Rank>
struct gradient_target {
  tensor<A, Rank> sums;
  tensor_view<A, Rank> view{};

  explicit gradient_target(tensor_view<A, Rank> const& wanted) : view{wanted} {
    if (wanted.data_handle() == nullptr) return;
    for (int axis = 0; axis < Rank; ++axis) {
      if (wanted.stride(axis) != 0 || wanted.extent(axis) <= 1) continue;
      sums = tensor<A, Rank>(wanted.extents());
      view = sums.view();
    }
  }
  void finish(tensor_view<A, Rank> const& wanted) const {
    if (sums.size() == 0) return;
    sum_into(1, time_window{0, wanted.extent(1), 1}, wanted,
             [&](index_t b, index_t t, index_t h, index_t p) { return sums(b, t, h, p); });
  }
};

/// to(b, first + i, g, n) += Σ_k parts(k, b, i, g, n) for i < count.
template <class A>
void add_parts(parallel policy, int threads, tensor<A, 5> const& parts, index_t first,
               index_t count, trajectory_view<A> const& to) {
  if (to.data_handle() == nullptr) return;
  index_t const groups = to.extent(2), states = to.extent(3);
  bool sums = false;
  for (int axis = 0; axis < 4; ++axis) sums = sums || (to.stride(axis) == 0 && to.extent(axis) > 1);
  parallel_for(sums ? 1 : threads, to.extent(0) * count, [&](index_t begin, index_t end) {
    dispatch(
        policy.instructions, [&](auto width) __attribute__((always_inline)) {
          constexpr int lanes = decltype(width)::template lanes<A>;
          aligned_buffer<A> total(states);
          for (index_t i = begin * groups; i < end * groups; ++i) {
            index_t const g = i % groups, t = i / groups % count, b = i / groups / count;
            std::fill_n(+total, states, A(0));
            for (index_t k = 0; k < parts.extent(0); ++k)
              add_row<lanes, A>(&parts(k, b, g, t, 0), states, total, 1);
            add_row<lanes, A>(total, states, &to(b, first + t, g, 0), to.stride(3));
          }
        });
  });
}

template <class T>
void state_space_dual_vjp_fast(parallel policy, state_space_dual_inputs<T> const& in,
                               tensor_view<accumulator_t<T> const, 4> const& initial,
                               tensor_view<accumulator_t<T> const, 4> const& y_cotangent,
                               tensor_view<accumulator_t<T>, 4> const& carry_cotangent,
                               state_space_dual_gradients<T> const& to,
                               state_space_dual_saved<T> saved) {
  using A = accumulator_t<T>;
  auto const e = extents_of(in);
  if (e.length == 0) return;

  // What was not saved is computed again.
  bool const needs_states = saved.states.data_handle() == nullptr;
  bool const needs_ungated = saved.ungated.data_handle() == nullptr &&
                             in.gate.data_handle() != nullptr && to.gate.data_handle() != nullptr;
  tensor<A, 5> states;
  tensor<A, 4> ungated;
  if (needs_states || needs_ungated) {
    state_space_dual_saved<T> again{};
    if (needs_states) {
      states = tensor<A, 5>({e.batch, e.blocks(), e.heads, e.head_dim, e.states});
      again.states = saved.states = states.view();
    }
    if (needs_ungated) {
      ungated = tensor<A, 4>(e.sequences());
      again.ungated = saved.ungated = ungated.view();
    }
    tensor<A, 4> carry(e.carry());
    for (index_t b = 0; b < e.batch; ++b) assign_row(row_of_carry(initial, b), carry.view(), b);
    state_space_dual_fast<T>(policy, in, carry.view(), {}, again);
  }

  ssd_vjp_partition const partition(e);
  ssd_partition const tiles(e, sizeof(A));
  auto const wanted = [](auto const& view) { return view.data_handle() != nullptr; };
  index_t padding = 0;
  dispatch(policy.instructions, [&](auto width) {
    padding = ssd_vjp_buffers<A>::padding(decltype(width)::template lanes<A>);
  });
  // Blocks of registers may begin at any row, and then read a few rows beyond.
  index_array<5> const of_parts{partition.parts, e.batch, e.groups,
                                std::min(e.length, state_space_dual_block) + product_rows,
                                round_up(e.states, padding)};
  tensor<A, 5> B(of_parts), C(of_parts);
  tensor<A, 3> D({e.batch, e.heads, e.head_dim});
  tensor<A, 3> step_size(wanted(to.step_size) ? in.step_size.extents() : index_array<3>{});
  tensor<A, 2> eigenvalue({e.batch, e.heads}), bias({e.batch, e.heads}), factor({e.batch, e.heads});
  gradient_target<A, 4> const x(to.x), gate(to.gate);
  ssd_vjp_views<T> const views{y_cotangent, carry_cotangent,   saved,       x.view,
                               gate.view,   step_size.view(),  B.view(),    C.view(),
                               D.view(),    eigenvalue.view(), bias.view(), factor.view()};
  index_t const chunk = ssd_chunk_length(policy.chunk, e);
  int const threads = worthwhile_threads(policy.threads, e);
  one_for_each_thread<ssd_vjp_buffers<A>> room;
  for (index_t k = e.blocks(); k-- > 0;) {
    parallel_for(threads, partition.count(), [&](index_t begin, index_t end) {
      dispatch(
          policy.instructions, [&](auto width) __attribute__((always_inline)) {
            constexpr int lanes = decltype(width)::template lanes<A>;
            auto& buffers = room.own(chunk, e, tiles.tile, lanes);
            for (index_t i = begin; i < end; ++i) {
              index_t const part = i % partition.parts, row = i / partition.parts;
              index_t const group = row % e.groups;
              ssd_vjp_part<lanes, T>{in,
                                     views,
                                     tiles,
                                     buffers,
                                     chunk,
                                     row / e.groups,
                                     group,
                                     part,
                                     partition.first_head(group, part),
                                     partition.first_head(group, part + 1)}
                  .run(k);
            }
          });
    });
    index_t const begin = k * state_space_dual_block,
                  count = std::min(e.length, begin + state_space_dual_block) - begin;
    add_parts(policy, threads, B, begin, count, to.B);
    add_parts(policy, threads, C, begin, count, to.C);
  }

  x.finish(to.x);
  gate.finish(to.gate);
  time_window const all{0, e.length, 1};
  sum_into(1, all, to.step_size.broadcast(3, 1),
           [&](index_t b, index_t t, index_t h, index_t) { return step_size(b, t, h); });
  for (index_t h = 0; h < e.heads; ++h) {
    A to_eigenvalue(0);
    for (index_t b = 0; b < e.batch; ++b) {
      to_eigenvalue += eigenvalue(b, h);
      if (wanted(to.step_bias)) to.step_bias(h) += bias(b, h);
      if (wanted(to.scaling.step)) to.scaling.step(h) += factor(b, h);
      for (index_t p = 0; wanted(to.D) && p < e.head_dim; ++p) to.D(h, p) += D(b, h, p);
    }
    A const of_input = in.scaling.pull_back(h, 0, in.eigenvalue(h), to_eigenvalue, to.scaling);
    if (wanted(to.eigenvalue)) to.eigenvalue(h) += of_input;
  }
}

}  // namespace ssm::detail
