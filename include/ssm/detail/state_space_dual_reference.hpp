// SPDX-License-Identifier: Apache-2.0
// state_space_dual_reference.hpp: Mamba-2's operator as the plain recurrence, run by the engine,
// and its gradient: what the fast path is tested against, for every number type.
#pragma once

#include <algorithm>
#include <vector>

#include "ssm/detail/state_space_dual_inputs.hpp"
#include "ssm/discretize.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar_identity.hpp"
#include "ssm/scan.hpp"

namespace ssm::detail {

/// y_tc = Σ_n C_tgn h_tcn for the group g of channel c, and its gradient.
template <class R>
struct grouped_contract {
  trajectory_view<R const> C;  // (batch, time, group, state)
  sequence_view<R> y{};        // (batch, time, channel)
  sequence_view<R const> y_cotangent{};
  trajectory_view<R> C_gradient{};
  index_t span;  // channels in a group

  void require_shape_for(index_t, index_t, index_t, index_t) const {}

  struct visitor {
    grouped_contract const& self;
    index_t b, t, c, group;
    R sum{0};

    void operator()(index_t n, R const& h) { sum += self.C(b, t, group, n) * h; }
    void finish() const { self.y(b, t, c) = sum; }
  };
  visitor at(index_t b, index_t t, index_t c) const { return {*this, b, t, c, c / span}; }
};

template <class R>
struct grouped_contract_vjp {
  grouped_contract<R> base;

  void require_shape_for(index_t, index_t, index_t, index_t) const {}

  struct source {
    grouped_contract<R> const& base;
    index_t b, t, c;

    R operator()(index_t n, R const&) const {
      return base.C(b, t, c / base.span, n) * base.y_cotangent(b, t, c);
    }
  };
  source at(index_t b, index_t t, index_t c) const { return {base, b, t, c}; }

  void pull_back(int threads, time_window const& window, trajectory_view<R const> after) const {
    sum_into(threads, window, base.C_gradient, [&](index_t b, index_t i, index_t g, index_t n) {
      R sum(0);
      for (index_t c = g * base.span; c < (g + 1) * base.span; ++c) {
        sum += after(b, i, c, n) * base.y_cotangent(b, window(i), c);
      }
      return sum;
    });
  }
};

/// The inputs in the type that is computed with, the step sizes as the recurrence sees them.
template <class T>
struct ssd_recurrence {
  using R = accumulator_t<T>;

  ssd_extents extents;
  tensor<R, 3> step, x;  // (batch, time, head), (batch, time, channel)
  tensor<R, 1> eigenvalue;
  tensor<R, 4> B, C;

  explicit ssd_recurrence(state_space_dual_inputs<T> const& in)
      : extents{extents_of(in)},
        step{in.step_size.extents()},
        x{{extents.batch, extents.length, extents.heads * extents.head_dim}},
        eigenvalue{{extents.heads}},
        B{in.B.extents()},
        C{in.C.extents()} {
    auto const& e = extents;
    for (index_t h = 0; h < e.heads; ++h) eigenvalue(h) = scaled_eigenvalue(in, h);
    for (index_t b = 0; b < e.batch; ++b) {
      for (index_t t = 0; t < e.length; ++t) {
        for (index_t h = 0; h < e.heads; ++h) {
          step(b, t, h) = in.scaling.step_factor(h) * in.step_rule(biased_step(in, b, t, h));
          for (index_t p = 0; p < e.head_dim; ++p) {
            x(b, t, h * e.head_dim + p) = static_cast<R>(in.x(b, t, h, p));
          }
        }
        for (index_t g = 0; g < e.groups; ++g) {
          for (index_t n = 0; n < e.states; ++n) {
            B(b, t, g, n) = static_cast<R>(in.B(b, t, g, n));
            C(b, t, g, n) = static_cast<R>(in.C(b, t, g, n));
          }
        }
      }
    }
  }

  /// A stretch of row b, as a recurrence of its own.
  scalar_identity<mamba_hold, R> stretch(index_t b, index_t begin, index_t count) const {
    auto const part = [&](auto const& view) { return view.slice(0, b, 1).slice(1, begin, count); };
    return {.step_size = part(step.view()),
            .eigenvalue = eigenvalue.view(),
            .B = part(B.view()),
            .x = part(x.view())};
  }
};

/// Row b of a carry as the engine has it, (1, channel, state), and back.
template <class R>
tensor<std::remove_const_t<R>, 3> row_of_carry(tensor_view<R, 4> carry, index_t b) {
  auto const [batch, heads, head_dim, states] = carry.extents().value;
  tensor<std::remove_const_t<R>, 3> row({1, heads * head_dim, states});
  for (index_t h = 0; h < heads; ++h)
    for (index_t p = 0; p < head_dim; ++p)
      for (index_t n = 0; n < states; ++n) row(0, h * head_dim + p, n) = carry(b, h, p, n);
  return row;
}

template <class R>
void assign_row(tensor<R, 3> const& row, tensor_view<R, 4> carry, index_t b) {
  auto const [batch, heads, head_dim, states] = carry.extents().value;
  for (index_t h = 0; h < heads; ++h)
    for (index_t p = 0; p < head_dim; ++p)
      for (index_t n = 0; n < states; ++n) carry(b, h, p, n) = row(0, h * head_dim + p, n);
}

/// y = silu(gate) (Σ_n C h + D x) from the first sum, which is left without D in `ungated`.
template <class T>
accumulator_t<T> with_skip(state_space_dual_inputs<T> const& in, accumulator_t<T> const& sum,
                           index_t b, index_t t, index_t h, index_t p) {
  using R = accumulator_t<T>;
  return in.D.data_handle() == nullptr ? sum
                                       : R(sum + in.D(h, p) * static_cast<R>(in.x(b, t, h, p)));
}

/// The operator by its definition; `saved` as state_space_dual says, which also cuts time.
template <execution_policy Policy, class T>
void state_space_dual_reference(Policy policy, state_space_dual_inputs<T> const& in,
                                tensor_view<accumulator_t<T>, 4> carry, tensor_view<T, 4> y,
                                state_space_dual_saved<T> const& saved) {
  using R = accumulator_t<T>;
  ssd_recurrence<T> const run(in);
  auto const& e = run.extents;
  bool const saves = saved.states.data_handle() != nullptr;
  tensor<R, 3> sums(run.x.extents());
  for (index_t b = 0; b < e.batch; ++b) {
    tensor<R, 3> state = row_of_carry<R>(carry, b);
    for (index_t t = 0, end; t < e.length; t = end) {
      if (starts_sequence(in.sequence, b, t)) std::fill(state.begin(), state.end(), R(0));
      end = end_of_sequence(in.sequence, b, t, e.length);
      if (saves) {
        index_t const block = t / state_space_dual_block;
        end = std::min(end, (block + 1) * state_space_dual_block);
        if (t % state_space_dual_block == 0) {
          assign_row(state, saved.states.select(1, block), b);
        }
      }
      auto const part = [&](auto const& v) { return v.slice(0, b, 1).slice(1, t, end - t); };
      scan(policy, run.stretch(b, t, end - t),
           grouped_contract<R>{.C = part(run.C.view()),
                               .y = part(sums.view()),
                               .span = e.heads_per_group() * e.head_dim},
           state.view());
    }
    assign_row(state, carry, b);
  }

  for (index_t b = 0; b < e.batch; ++b)
    for (index_t t = 0; t < e.length; ++t)
      for (index_t h = 0; h < e.heads; ++h)
        for (index_t p = 0; p < e.head_dim; ++p) {
          R result = with_skip(in, sums(b, t, h * e.head_dim + p), b, t, h, p);
          if (saved.ungated.data_handle() != nullptr) saved.ungated(b, t, h, p) = result;
          if (in.gate.data_handle() != nullptr) {
            result *= ssm::silu(static_cast<R>(in.gate(b, t, h, p)));
          }
          y(b, t, h, p) = static_cast<T>(result);
        }
}

}  // namespace ssm::detail
