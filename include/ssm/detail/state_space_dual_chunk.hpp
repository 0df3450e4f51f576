// SPDX-License-Identifier: Apache-2.0
// state_space_dual_chunk.hpp: the step sizes and decays of a few steps of one head.
#pragma once

#include <algorithm>

#include "ssm/detail/simd_math.hpp"
#include "ssm/detail/state_space_dual_inputs.hpp"
#include "ssm/detail/state_space_dual_products.hpp"

namespace ssm::detail {

/// Steps in a chunk where it is ours to choose, and at most: the matrices between the steps of a
/// chunk have its square of elements.
inline constexpr index_t default_ssd_chunk = 16;
inline constexpr index_t longest_ssd_chunk = state_space_dual_block;

/// A chunk ends before its states could grow by more than 2 to this power, so that no product of
/// decays overflows where the states do not.
inline constexpr int largest_ssd_growth = 32;

/// Δ and what it is made of for the steps [t, t + count) of a head, and log2 of their decays:
/// `rule` is Δ before the factor, `log_decay` is Δ' A' log2(e). Rows are filled up with zeros.
template <int Lanes, class T>
[[gnu::always_inline]] inline void fill_steps(state_space_dual_inputs<T> const& in, index_t b,
                                              index_t head, index_t t, index_t count,
                                              index_t padded, accumulator_t<T> rate,
                                              accumulator_t<T>* step, accumulator_t<T>* log_decay) {
  using A = accumulator_t<T>;
  A const factor = in.scaling.step_factor(head);
  for (index_t i = 0; i < count; ++i) step[i] = biased_step(in, b, t + i, head);
  for (index_t i = count; i < padded; ++i) step[i] = A(0);
  for (index_t i = 0; i < padded; i += Lanes) {
    auto delta = pack<A, Lanes>::load(step + i);
    if (in.step_rule.softplus) delta = softplus(delta);
    if (in.step_rule.limits) {
      delta = larger(pack<A, Lanes>(in.step_rule.limits->smallest),
                     smaller(pack<A, Lanes>(in.step_rule.limits->largest), delta));
    }
    delta = delta * factor;
    delta.store(step + i);
    pack<A, Lanes>(delta * rate).store(log_decay + i);
  }
  for (index_t i = count; i < padded; ++i) step[i] = log_decay[i] = A(0);
}

/// How many of the steps may be one chunk.
template <class A>
index_t steps_without_overflow(A const* log_decay, index_t count) {
  A growth(0);  // log2 of the most that any run of steps up to here multiplies by
  for (index_t i = 0; i < count; ++i) {
    growth = std::max(growth, A(0)) + log_decay[i];
    if (growth > A(largest_ssd_growth) && i > 0) return i;
  }
  return count;
}

/// What the steps of a chunk multiply by: between[i·padded + j] from after step j to after step i
/// for j <= i (1 elsewhere), and entered[i] from before the chunk to after step i. Sums of
/// logarithms are taken over just the steps between, so nothing cancels.
template <int Lanes, class A>
[[gnu::always_inline]] inline void fill_decays(A const* log_decay, index_t count, index_t padded,
                                               A* between, A* entered) {
  A sum(0);
  for (index_t i = 0; i < count; ++i) entered[i] = sum += log_decay[i];
  for (index_t i = count; i < padded; ++i) entered[i] = A(0);
  for (index_t j = 0; j < padded; j += Lanes) {
    exp2(pack<A, Lanes>::load(entered + j)).store(entered + j);
    pack<A, Lanes> index, row(A(0));
    for (int k = 0; k < Lanes; ++k) index.v[k] = static_cast<A>(j + k);
    for (index_t i = j; i < count; ++i) {
      row = where_greater(pack<A, Lanes>(A(0)), pack<A, Lanes>(index.v - static_cast<A>(i)),
                          pack<A, Lanes>(row.v + log_decay[i]), pack<A, Lanes>(A(0)));
      exp2(row).store(between + i * padded + j);
    }
  }
}

}  // namespace ssm::detail
