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

/// Whether different rows of a gradient are added to one place.
template <class A>
bool sums_up(trajectory_view<A> const& view) {
  for (int axis = 0; axis < 4; ++axis)
    if (view.stride(axis) == 0 && view.extent(axis) > 1) return true;
  return false;
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
  tensor<A, 5> states_again;
  tensor<A, 4> ungated;
  if (needs_states || needs_ungated) {
    state_space_dual_saved<T> again{};
    if (needs_states) {
      states_again = tensor<A, 5>({e.batch, e.blocks(), e.heads, e.head_dim, e.states});
      again.states = saved.states = channels_innermost(states_again.view());
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
  index_t const chunk = ssd_chunk_length(policy.chunk, e);
  index_t const padded_chunk = round_up(chunk, padding), states = round_up(e.states, padding);
  index_array<5> const of_parts{partition.parts, e.batch, e.groups, states,
                                ssd_vjp_buffers<A>::row};
  tensor<A, 5> B(of_parts), C(of_parts);
  tensor<A, 5> products(
      {partition.parts, e.batch, e.groups, ssd_vjp_buffers<A>::row, padded_chunk});
  tensor<A, 5> cotangents({e.batch, e.heads, tiles.tiles, states, tiles.tile});
  tensor<A, 3> D({e.batch, e.heads, e.head_dim});
  tensor<A, 3> step_size(wanted(to.step_size) ? in.step_size.extents() : index_array<3>{});
  tensor<A, 2> eigenvalue({e.batch, e.heads}), bias({e.batch, e.heads}), factor({e.batch, e.heads});
  gradient_target<A, 4> const x(to.x), gate(to.gate);
  ssd_vjp_views<T> const views{
      y_cotangent,       cotangents.view(), saved,        x.view,          gate.view,
      step_size.view(),  B.view(),          C.view(),     products.view(), D.view(),
      eigenvalue.view(), bias.view(),       factor.view()};
  int const threads = worthwhile_threads(policy.threads, e);
  // run(width, i) for i < count, on some thread
  auto const for_each = [&](int on, index_t count, auto const& run) {
    parallel_for(on, count, [&](index_t begin, index_t end) {
      dispatch(
          policy.instructions, [&](auto width) __attribute__((always_inline)) {
            for (index_t i = begin; i < end; ++i) run(width, i);
          });
    });
  };
  auto const cotangents_of = [&](ssd_tile const& at) {
    return &cotangents(at.b, at.head, at.first / tiles.tile, 0, 0);
  };
  for_each(
      threads, tiles.count(), [&](auto width, index_t i) __attribute__((always_inline)) {
        constexpr int lanes = decltype(width)::template lanes<A>;
        ssd_tile const at = tiles(i);
        load_states<lanes, A>(carry_cotangent, at, e.states, round_up(at.count, lanes),
                              cotangents_of(at));
      });
  one_for_each_thread<ssd_vjp_buffers<A>> room;
  auto const group_of = [&](auto width, index_t row, index_t k) __attribute__((always_inline)) {
    constexpr int lanes = decltype(width)::template lanes<A>;
    ssd_vjp_group<lanes, T> const group{in, room.own(chunk, e, tiles.tile, lanes), chunk,
                                        row / e.groups, row % e.groups};
    group.prepare(k);
    return group;
  };
  bool const sums = sums_up(to.B) || sums_up(to.C);
  for (index_t k = e.blocks(); k-- > 0;) {
    for_each(
        threads, partition.count(), [&](auto width, index_t i) __attribute__((always_inline)) {
          index_t const part = i % partition.parts;
          auto const group = group_of(width, i / partition.parts, k);
          ssd_vjp_part<decltype(width)::template lanes<A>, T>{
              group,
              views,
              tiles,
              part,
              partition.first_head(group.group, part),
              partition.first_head(group.group, part + 1)}
              .run();
        });
    for_each(
        sums ? 1 : threads,
        2 * e.batch * e.groups, [&](auto width, index_t i) __attribute__((always_inline)) {
          auto const group = group_of(width, i / 2, k);
          i % 2 == 0 ? group.add_to_B(views, to.B) : group.add_to_C(views, to.C);
        });
  }
  for_each(
      threads, tiles.count(), [&](auto width, index_t i) __attribute__((always_inline)) {
        constexpr int lanes = decltype(width)::template lanes<A>;
        ssd_tile const at = tiles(i);
        store_states<lanes, A>(cotangents_of(at), round_up(at.count, lanes), at, e.states,
                               carry_cotangent);
      });
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
