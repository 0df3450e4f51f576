// SPDX-License-Identifier: Apache-2.0
// scan.hpp: run a recurrence over time, forward or backward, and its gradient.
#pragma once

#include <algorithm>
#include <vector>

#include "ssm/affine_map.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/execution.hpp"
#include "ssm/readout.hpp"
#include "ssm/recurrence.hpp"
#include "ssm/tensor.hpp"

namespace ssm {
namespace detail {

/// Run the steps of a window from the states h, which end as the last ones. This loop is the
/// reference for every other way to run a recurrence.
template <recurrence R, readout<typename R::value_type> Readout>
SSM_HD constexpr void apply_steps(R const& recurrence, Readout const& readout,
                                  time_window const& window, index_t b, index_t c, index_t states,
                                  typename R::value_type* h) {
  for (index_t i = 0; i < window.count; ++i) {
    index_t const t = window(i);
    auto const step = recurrence.at(b, t, c);
    auto collect = readout.at(b, t, c);
    for (index_t n = 0; n < states; ++n) {
      h[n] = step(n)(h[n]);
      collect(n, h[n]);
    }
    collect.finish();
  }
}

/// Fold the steps of a window into one map for each state, the first step innermost.
template <recurrence R>
constexpr void fold_steps(R const& recurrence, time_window const& window, index_t b, index_t c,
                          index_t states, affine_map<typename R::value_type>* maps) {
  std::fill_n(maps, states, affine_map<typename R::value_type>{});
  for (index_t i = 0; i < window.count; ++i) {
    auto const step = recurrence.at(b, window(i), c);
    for (index_t n = 0; n < states; ++n) maps[n] = then{}(maps[n], step(n));
  }
}

/// The engine: lanes (batch, channel) and pieces of time are independent work once the state
/// that enters each piece is known.
template <recurrence R, readout<typename R::value_type> Readout>
void scan_window(execution_plan const& plan, R const& recurrence, scan_shape const& shape,
                 Readout const& readout, time_window const& window,
                 state_view<typename R::value_type> carry) {
  using T = typename R::value_type;
  index_t const lanes = shape.batch * shape.channels, states = shape.states;
  index_t const pieces = window.count < 1 ? 1 : (window.count - 1) / plan.chunk + 1;
  auto const piece = [&](index_t k) {
    index_t const begin = k * plan.chunk;
    return window.part(begin, std::min(plan.chunk, window.count - begin));
  };

  // 1. Fold every piece but the last of each lane.
  tensor<affine_map<T>, 3> maps({lanes, pieces - 1, states});
  parallel_for(plan.threads, lanes * (pieces - 1), [&](index_t begin, index_t end) {
    for (index_t work = begin; work < end; ++work) {
      index_t const lane = work / (pieces - 1), k = work % (pieces - 1);
      fold_steps(recurrence, piece(k), lane / shape.channels, lane % shape.channels, states,
                 maps.data() + work * states);
    }
  });

  // 2. Carry the state of each lane from piece to piece: what enters piece k.
  tensor<T, 3> entering({lanes, pieces, states});
  for (index_t lane = 0; lane < lanes; ++lane)
    for (index_t n = 0; n < states; ++n) {
      T h = carry(lane / shape.channels, lane % shape.channels, n);
      entering(lane, 0, n) = h;
      for (index_t k = 1; k < pieces; ++k) {
        h = maps(lane, k - 1, n)(h);
        entering(lane, k, n) = h;
      }
    }

  // 3. Run every piece from there; the last one of a lane ends with the final state.
  parallel_for(plan.threads, lanes * pieces, [&](index_t begin, index_t end) {
    for (index_t work = begin; work < end; ++work) {
      index_t const lane = work / pieces, k = work % pieces;
      index_t const b = lane / shape.channels, c = lane % shape.channels;
      T* const h = entering.data() + work * states;
      apply_steps(recurrence, readout, piece(k), b, c, states, h);
      if (k == pieces - 1) {
        for (index_t n = 0; n < states; ++n) carry(b, c, n) = h[n];
      }
    }
  });
}

template <recurrence R, class Readout>
scan_shape checked_shape(R const& recurrence, Readout const& readout,
                         state_view<typename R::value_type const> carry, char const* name) {
  scan_shape const s = recurrence.shape();
  readout.require_shape_for(s.batch, s.length, s.channels, s.states);
  require_shape(carry, {s.batch, s.channels, s.states}, name, "batch, channel, state");
  return s;
}

}  // namespace detail

/// Run h_t = step_t(h_{t-1}) over all of time for every (batch, channel, state).
/// `carry` is the state before the first step on entry and after the last one on exit, so one
/// call over a sequence equals a call for each part of it, down to single steps (bit for bit
/// under `sequential`). direction::backward visits the last step first.
/// Shapes    carry (batch, channel, state); the rest as the recurrence and the readout say.
/// Accuracy  a step rounds a product and a sum, so a term of h_t that has come m steps is off by
///           at most (m + 1)·eps of its size, 2(m + 1)·eps if complex, wherever time is cut.
/// Special   length 0 leaves carry as it is; NaN and infinity follow IEEE rules. Cutting time
///           multiplies decays first: where their product overflows, a state of 0 becomes NaN.
/// Throws    shape_error before anything is written.
/// Gradient  scan_vjp.
/// Tested    tests/scan_test.cpp.
template <execution_policy Policy, recurrence R, readout<typename R::value_type> Readout>
void scan(Policy policy, R const& recurrence, Readout const& readout,
          state_view<typename R::value_type> carry, direction order = direction::forward) {
  scan_shape const shape = detail::checked_shape(recurrence, readout, carry, "scan: carry");
  detail::scan_window(detail::plan(policy, shape.batch * shape.channels, shape.length), recurrence,
                      shape, readout, whole(shape.length, order), carry);
}

namespace detail {

/// A stretch of another recurrence, its steps counted from 0.
template <recurrence R>
struct windowed {
  using value_type = typename R::value_type;
  R const& base;
  scan_shape extents;
  time_window window;

  constexpr auto at(index_t b, index_t i, index_t c) const { return base.at(b, window(i), c); }
  scan_shape shape() const { return extents; }
};

/// The recurrence of cotangents: with g_i arriving at the state after step i, the cotangent e_i of
/// the state before step i is  e_i = conj(decay_i)·(g_i + e_{i+1}), an affine map of e_{i+1}.
/// Run backward from the cotangent of the final state, it ends with that of the initial state.
template <recurrence R, readout_vjp<typename R::value_type> ReadoutVjp>
struct adjoint {
  using value_type = typename R::value_type;
  windowed<R> const& forward;
  ReadoutVjp const& readout;
  trajectory_view<value_type const> after;

  struct step {
    adjoint const& self;
    decltype(forward.at(0, 0, 0)) map;
    decltype(readout.at(0, 0, 0)) arriving;
    index_t b, i, c;

    constexpr affine_map<value_type> operator()(index_t n) const {
      value_type const decay = conjugate(map(n).decay);
      return {decay, decay * arriving(n, self.after(b, i, c, n))};
    }
  };

  constexpr step at(index_t b, index_t i, index_t c) const {
    return {*this, forward.at(b, i, c), readout.at(b, forward.window(i), c), b, i, c};
  }
  scan_shape shape() const { return forward.extents; }
};

/// Steps whose states are held at once by scan_vjp: about this many numbers, and at least the
/// square root of the length, which balances them against the saved carries.
inline constexpr index_t default_gradient_block = index_t{1} << 20;

inline index_t gradient_block(scan_shape const& s) {
  index_t const row = std::max<index_t>(1, s.batch * s.channels * s.states);
  index_t root = 1;
  while (root * root < s.length) ++root;
  return std::max(root, default_gradient_block / row);
}

}  // namespace detail

/// Gradient of scan. The forward run is repeated from `initial` in blocks of time whose entering
/// states are saved, so memory grows with the square root of the length, not with the length.
/// `carry_cotangent` is the cotangent of the final state on entry and the gradient of the initial
/// state on exit. `readout` says what arrives at each state; `gradient` has a view for each member
/// of the recurrence, to which its gradient is added (empty: not wanted).
/// For complex numbers cotangents and gradients are ∂/∂Re + i·∂/∂Im.
/// Shapes    initial, carry_cotangent (batch, channel, state).
/// Accuracy  k·eps·Σ|terms| with k = 4 for a single step, plus 2 for each step a term travels and
///           1/2 for each term that a stride of 0 sums; then what the maps themselves are off by.
/// Throws    shape_error before anything is written.
/// Repeats   bit for bit for any number of threads.
/// Tested    tests/scan_vjp_test.cpp, against differences in 50 digits.
template <execution_policy Policy, differentiable_recurrence R,
          readout_vjp<typename R::value_type> ReadoutVjp>
void scan_vjp(Policy policy, R const& recurrence, ReadoutVjp const& readout,
              state_view<typename R::value_type const> initial,
              state_view<typename R::value_type> carry_cotangent,
              typename R::gradient const& gradient, direction order = direction::forward) {
  using T = typename R::value_type;
  scan_shape const s = detail::checked_shape(recurrence, readout, initial, "scan_vjp: initial");
  require_shape(carry_cotangent, initial.extents(), "scan_vjp: carry_cotangent",
                "batch, channel, state");
  recurrence.pull_back(1, time_window{}, {}, {}, gradient);  // checks the shapes
  index_t const lanes = s.batch * s.channels;
  int const threads = detail::plan(policy, lanes, s.length).threads;
  time_window const all = whole(s.length, order);
  index_t const block = detail::gradient_block(s), blocks = (s.length + block - 1) / block;
  auto const stretch = [&](index_t k) {
    time_window const part = all.part(k * block, std::min(block, s.length - k * block));
    return detail::windowed<R>{recurrence, {s.batch, part.count, s.channels, s.states}, part};
  };

  tensor<T, 4> entering({blocks, s.batch, s.channels, s.states});
  tensor<T, 3> carry({s.batch, s.channels, s.states});
  auto const copy = [&](auto const& from, auto const& to) {
    for (index_t b = 0; b < s.batch; ++b)
      for (index_t c = 0; c < s.channels; ++c)
        for (index_t n = 0; n < s.states; ++n) to(b, c, n) = from(b, c, n);
  };
  copy(initial, carry.view());
  for (index_t k = 0; k < blocks; ++k) {
    copy(carry.view(), entering.view().select(0, k));
    if (k + 1 < blocks) scan(policy, stretch(k), discard{}, carry.view());
  }

  // Row i holds what is before step i, row i + 1 what is after it.
  index_t const longest = std::min(block, s.length);
  tensor<T, 4> states({s.batch, longest + 1, s.channels, s.states});
  tensor<T, 4> cotangents({s.batch, longest + 1, s.channels, s.states});
  for (index_t k = blocks - 1; k >= 0; --k) {
    auto const part = stretch(k);
    index_t const count = part.window.count;
    auto const before = states.view().slice(1, 0, count), after = states.view().slice(1, 1, count);
    copy(entering.view().select(0, k), states.view().select(1, 0));
    scan(policy, part, store_states<T>{after}, entering.view().select(0, k));

    auto const from = cotangents.view().slice(1, 0, count);
    auto const arriving = cotangents.view().slice(1, 1, count);
    copy(carry_cotangent, cotangents.view().select(1, count));
    scan(policy, detail::adjoint<R, ReadoutVjp>{part, readout, after}, store_states<T>{from},
         carry_cotangent, direction::backward);
    // The gradient of a step's drive is all that arrives at the state after it: g_i + e_{i+1}.
    detail::sum_into(threads, time_window{0, count, 1}, arriving,
                     [&](index_t b, index_t i, index_t c, index_t n) {
                       return readout.at(b, part.window(i), c)(n, after(b, i, c, n));
                     });
    recurrence.pull_back(threads, part.window, arriving, before, gradient);
    readout.pull_back(threads, part.window, after);
  }
}

}  // namespace ssm
