// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_fast.hpp: the causal convolution in vectors whose lanes are channels.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ssm/detail/causal_conv1d_block.hpp"
#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/simd_math.hpp"

namespace ssm::detail {

template <class T>
inline constexpr bool has_fast_conv = std::is_same_v<T, float> || std::is_same_v<T, double> ||
                                      std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// The steps t ... t + Steps - 1 of a block, whose inputs are at hand; the weights are loaded once
/// for all of them.
template <int Steps, int Lanes, class T>
[[gnu::always_inline]] inline void convolve_steps(causal_conv1d_inputs<T> const& in,
                                                  conv_rows<T, Lanes> const& rows,
                                                  conv_work const& work, index_t t,
                                                  sequence_view<T> const& y) {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;
  index_t const width = in.weight.extent(1), padded = rows.padded();
  bool const in_place = std::is_same_v<T, A> && y.stride(2) == 1 && work.channels == padded;
  A const* inputs[largest_conv_width][Steps];
  A* sums[Steps];
  alignas(64) A space[Steps][conv_block<T>];
  for (int i = 0; i < Steps; ++i) {
    for (index_t k = 0; k < width; ++k) inputs[k][i] = rows.input(t + i, t + i - (width - 1) + k);
    sums[i] = space[i];
    if constexpr (std::is_same_v<T, A>) {
      if (in_place) sums[i] = &y(work.b, t + i, work.first_channel);
    }
  }

  // The rows of 2 KB that come next are too short for the machine to see them coming.
  T const* next_inputs[Steps];
  T const* next_sums[Steps];
  for (int i = 0; i < Steps; ++i) {
    index_t const next = std::min(t + Steps + i, work.end - 1);
    next_inputs[i] = &in.x(work.b, next, work.first_channel);
    next_sums[i] = &y(work.b, next, work.first_channel);
  }

  bool const is_silu = in.activation == activation::silu;
  for (index_t c = 0; c < padded; c += Lanes) {
    vector sum[Steps];
    unrolled<Steps>([&](auto i) __attribute__((always_inline)) {
      sum[decltype(i)::value] = vector::load(rows.bias() + c);
    });
    for (index_t k = 0; k < width; ++k) {
      vector const weight = vector::load(rows.weight(k) + c);
      unrolled<Steps>([&](auto i) __attribute__((always_inline)) {
        constexpr int step = decltype(i)::value;
        // Two roundings wherever a step is computed: a compiler may fuse here and not there.
        vector product = weight * vector::load(inputs[k][step] + c);
        keep(product);
        sum[step] += product;
      });
    }
    unrolled<Steps>([&](auto i) __attribute__((always_inline)) {
      constexpr int step = decltype(i)::value;
      __builtin_prefetch(next_inputs[step] + c);
      __builtin_prefetch(next_sums[step] + c, 1);
      if (is_silu) sum[step] = silu(sum[step]);
      sum[step].store(sums[step] + c);
    });
  }

  if (in_place) return;
  for (int i = 0; i < Steps; ++i) {
    T* const to = &y(work.b, t + i, work.first_channel);
    for (index_t c = 0; c < work.channels; ++c) to[c * y.stride(2)] = static_cast<T>(space[i][c]);
  }
}

template <int Lanes, class T>
[[gnu::always_inline]] inline void convolve_block(causal_conv1d_inputs<T> const& in,
                                                  state_view<T> const& carry, conv_work const& work,
                                                  sequence_view<T> const& y) {
  constexpr int steps = 4;
  static_assert(conv_ring >= steps + largest_conv_width - 1);
  conv_rows<T, Lanes> rows(in, carry, work);
  for (index_t s = work.begin - in.weight.extent(1) + 1; s < work.begin; ++s) rows.load(s);
  index_t t = work.begin;
  for (; t + steps <= work.end; t += steps) {
    for (int i = 0; i < steps; ++i) rows.load(t + i);
    convolve_steps<steps>(in, rows, work, t, y);
  }
  for (; t < work.end; ++t) {
    rows.load(t);
    convolve_steps<1>(in, rows, work, t, y);
  }
}

/// What one lane carries on: the last inputs, as the step after the last one would see them.
template <class T>
void update_conv_carry(causal_conv1d_inputs<T> const& in, index_t b, index_t c,
                       state_view<T> const& carry) {
  index_t const length = in.x.extent(1), kept = carry.extent(2);
  if (length == 0) return;
  for (index_t j = 0; j < kept; ++j) {  // reads carry only beyond j
    index_t const s = length - kept + j;
    if (!same_sequence(in.sequence, b, length - 1, s)) {
      carry(b, c, j) = static_cast<T>(accumulator_t<T>(0));
    } else {
      carry(b, c, j) = s < 0 ? carry(b, c, s + kept) : in.x(b, s, c);
    }
  }
}

template <execution_policy Policy>
constexpr instruction_set instructions_of(Policy policy) {
  if constexpr (std::same_as<Policy, parallel>) return policy.instructions;
  return instruction_set::widest;
}

/// Threads worth starting where it is ours to choose: one for every 2^15 outputs, 30 µs of work.
inline int worthwhile_threads(int wanted, index_t outputs) {
  return wanted == 0 && outputs < (index_t{2} << 15) ? 1 : wanted;
}

template <class T>
void causal_conv1d_fast(execution_plan const& plan, instruction_set instructions,
                        causal_conv1d_inputs<T> const& in, state_view<T> const& carry,
                        sequence_view<T> const& y) {
  conv_partition<T> const partition(in.extents(), plan.chunk);
  parallel_for(worthwhile_threads(plan.threads, y.size()), partition.count(),
               [&](index_t begin, index_t end) {
                 dispatch(
                     instructions, [&](auto width) __attribute__((always_inline)) {
                       constexpr int lanes = decltype(width)::template lanes<accumulator_t<T>>;
                       for (index_t i = begin; i < end; ++i) {
                         convolve_block<lanes>(in, carry, partition(i), y);
                       }
                     });
               });
  if (!is_given(carry)) return;
  for (index_t b = 0; b < y.extent(0); ++b)
    for (index_t c = 0; c < y.extent(2); ++c) update_conv_carry(in, b, c, carry);
}

}  // namespace ssm::detail
