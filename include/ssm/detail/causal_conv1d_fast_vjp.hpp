// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_fast_vjp.hpp: the gradient of the causal convolution in vectors whose lanes are
// channels.
#pragma once

#include <algorithm>

#include "ssm/detail/causal_conv1d_block.hpp"
#include "ssm/detail/causal_conv1d_fast.hpp"
#include "ssm/detail/instruction_set.hpp"
#include "ssm/detail/parallel_for.hpp"
#include "ssm/detail/simd_math.hpp"
#include "ssm/tensor.hpp"

namespace ssm::detail {

/// Steps in a piece are at least this many: each piece has sums of its own for weight and bias.
inline constexpr index_t shortest_conv_gradient_chunk = 256;

/// What a piece of work reads, and where its gradients go.
template <class T>
struct conv_vjp {
  using A = accumulator_t<T>;

  causal_conv1d_inputs<T> in;
  state_view<T const> initial;
  sequence_view<A const> y_cotangent;
  state_view<A const> final_cotangent;
  sequence_view<A> x_gradient;
  state_view<A> initial_gradient;
};

/// d/dx x σ(x), as silu_slope: σ(-x) is not 1 - σ(x), which would cancel.
template <class T, int Lanes>
[[gnu::always_inline]] inline pack<T, Lanes> silu_slope(pack<T, Lanes> const& x) {
  pack<T, Lanes> const zero(T(0)), one(T(1)), e = exp_of_minus_size<false>(x),
                                              share = one / (one + e);
  pack<T, Lanes> const of_x = where_greater(zero, x, e, one) * share;
  pack<T, Lanes> const of_minus_x = where_greater(zero, x, one, e) * share;
  return of_x * multiply_add(x, of_minus_x, one);
}

/// g_t, the cotangent of the sum of step t, whose inputs are at hand; where `sums` is not null,
/// g_t times each input is added to its row of sums, and g_t itself to the last row.
template <int Lanes, class T>
[[gnu::always_inline]] inline void pull_back_step(conv_vjp<T> const& p,
                                                  conv_rows<T, Lanes> const& rows,
                                                  conv_work const& work, index_t t,
                                                  accumulator_t<T>* g,
                                                  accumulator_t<T> (*sums)[conv_block<T>]) {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;
  index_t const width = p.in.weight.extent(1);
  A const* inputs[largest_conv_width];
  for (index_t k = 0; k < width; ++k) inputs[k] = rows.input(t, t - (width - 1) + k);
  alignas(64) A space[conv_block<T>];
  A const* const arriving =
      contiguous_row(&p.y_cotangent(work.b, t, work.first_channel), p.y_cotangent.stride(2),
                     work.channels, rows.padded(), space);
  index_t const later = std::min(t + 4, p.in.x.extent(1) - 1);  // as convolve_steps
  T const* const later_inputs = &p.in.x(work.b, later, work.first_channel);
  A const* const later_arriving = &p.y_cotangent(work.b, later, work.first_channel);
  A const* const later_gradient =
      is_given(p.x_gradient) ? &p.x_gradient(work.b, later, work.first_channel) : later_arriving;

  bool const is_silu = p.in.activation == activation::silu;
  for (index_t c = 0; c < rows.padded(); c += Lanes) {
    __builtin_prefetch(later_inputs + c);
    __builtin_prefetch(later_arriving + c);
    __builtin_prefetch(later_gradient + c, 1);
    vector cotangent = vector::load(arriving + c);
    if (is_silu) {
      vector sum = vector::load(rows.bias() + c);
      for (index_t k = 0; k < width; ++k) {
        sum = multiply_add(vector::load(rows.weight(k) + c), vector::load(inputs[k] + c), sum);
      }
      cotangent *= silu_slope(sum);
    }
    cotangent.store(g + c);
    if (sums == nullptr) continue;
    for (index_t k = 0; k < width; ++k) {
      multiply_add(cotangent, vector::load(inputs[k] + c), vector::load(sums[k] + c))
          .store(sums[k] + c);
    }
    (vector::load(sums[width] + c) + cotangent).store(sums[width] + c);
  }
}

/// The gradient of the input of time s (before the call if negative): what the steps that see it
/// send, the first of them first, then what arrives at it as part of the final carry.
template <int Lanes, class T>
[[gnu::always_inline]] inline void pull_back_input(conv_vjp<T> const& p,
                                                   conv_rows<T, Lanes> const& rows,
                                                   conv_work const& work, index_t s,
                                                   accumulator_t<T> const (*g)[conv_block<T>]) {
  using A = accumulator_t<T>;
  using vector = pack<A, Lanes>;
  index_t const length = p.in.x.extent(1), kept = p.in.weight.extent(1) - 1;
  index_t const first = work.first_channel;
  A const *weights[largest_conv_width], *cotangents[largest_conv_width];
  int senders = 0;
  for (index_t t = std::max<index_t>(s, 0); t <= s + kept && t < length; ++t) {
    if (!same_sequence(p.in.sequence, work.b, t, s)) break;
    weights[senders] = rows.weight(s + kept - t);
    cotangents[senders++] = g[t & (conv_ring - 1)];
  }
  alignas(64) A space[conv_block<T>], carried_space[conv_block<T>];
  A const* carried = nullptr;
  index_t const place = s - (length - kept);  // in the final carry
  if (place >= 0 && is_given(p.final_cotangent) &&
      same_sequence(p.in.sequence, work.b, length - 1, s)) {
    carried = contiguous_row(&p.final_cotangent(work.b, first, place), p.final_cotangent.stride(1),
                             work.channels, rows.padded(), carried_space);
  }
  index_t const stride = p.x_gradient.stride(2);
  A* const to = s >= 0 && is_given(p.x_gradient) ? &p.x_gradient(work.b, s, first) : nullptr;
  bool const in_place = to != nullptr && stride == 1 && work.channels == rows.padded();
  for (index_t c = 0; c < rows.padded(); c += Lanes) {
    vector sum(A(0));
    for (int i = 0; i < senders; ++i) {
      sum = multiply_add(vector::load(weights[i] + c), vector::load(cotangents[i] + c), sum);
    }
    if (carried != nullptr) sum += vector::load(carried + c);
    if (in_place) {
      (vector::load(to + c) + sum).store(to + c);
    } else {
      sum.store(space + c);
    }
  }
  if (in_place) return;
  if (to != nullptr) {
    for (index_t c = 0; c < work.channels; ++c) to[c * stride] += space[c];
  } else if (s < 0 && is_given(p.initial_gradient)) {
    for (index_t c = 0; c < work.channels; ++c) {
      p.initial_gradient(work.b, first + c, s + kept) = space[c];
    }
  }
}

/// All gradients of a piece. The cotangents that later pieces' steps send into it are computed here
/// too, so that no piece waits for another; the sums are of its own steps alone.
template <int Lanes, class T>
[[gnu::always_inline]] inline void pull_back_block(conv_vjp<T> const& p, conv_work const& work,
                                                   accumulator_t<T> (*sums)[conv_block<T>]) {
  index_t const length = p.in.x.extent(1), kept = p.in.weight.extent(1) - 1;
  index_t const first_input = work.begin == 0 ? -kept : work.begin;
  index_t const end = std::min(work.end + kept, length);
  conv_rows<T, Lanes> rows(p.in, p.initial, work);
  alignas(64) accumulator_t<T> g[conv_ring][conv_block<T>];
  for (index_t s = work.begin - kept; s < work.begin; ++s) rows.load(s);
  for (index_t t = work.begin; t < end; ++t) {
    rows.load(t);
    pull_back_step(p, rows, work, t, g[t & (conv_ring - 1)], t < work.end ? sums : nullptr);
    if (t - kept >= first_input) pull_back_input(p, rows, work, t - kept, g);
  }
  for (index_t s = std::max(end - kept, first_input); s < work.end; ++s) {
    pull_back_input(p, rows, work, s, g);
  }
}

template <class T>
void causal_conv1d_vjp_fast(execution_plan const& plan, instruction_set instructions, conv_vjp<T> p,
                            state_view<accumulator_t<T>> const& carry_cotangent,
                            causal_conv1d_gradients<T> const& to) {
  using A = accumulator_t<T>;
  auto const extents = p.in.extents();
  conv_partition<T> const partition(extents, std::max(plan.chunk, shortest_conv_gradient_chunk));
  tensor<A, 3> initial_gradient;  // apart from the cotangent, which other pieces still read
  if (is_given(carry_cotangent)) {
    initial_gradient = tensor<A, 3>(carry_cotangent.extents());
    p.initial_gradient = initial_gradient;
  }
  tensor<A, 3> sums({partition.count(), extents.width + 1, conv_block<T>});
  auto const sums_of = [&](index_t i) {
    return reinterpret_cast<A(*)[conv_block<T>]>(&sums(i, 0, 0));
  };
  parallel_for(worthwhile_threads(plan.threads, p.in.x.size()), partition.count(),
               [&](index_t begin, index_t end) {
                 dispatch(
                     instructions, [&](auto width) __attribute__((always_inline)) {
                       constexpr int lanes = decltype(width)::template lanes<A>;
                       for (index_t i = begin; i < end; ++i) {
                         pull_back_block<lanes>(p, partition(i), sums_of(i));
                       }
                     });
               });

  // In the order of the pieces, whoever computed them.
  tensor<A, 2> total({extents.channels, extents.width + 1});
  for (index_t i = 0; i < partition.count(); ++i) {
    conv_work const work = partition(i);
    for (index_t k = 0; k <= extents.width; ++k)
      for (index_t c = 0; c < work.channels; ++c) {
        total(work.first_channel + c, k) += sums(i, k, c);
      }
  }
  for (index_t c = 0; c < extents.channels; ++c) {
    for (index_t k = 0; is_given(to.weight) && k < extents.width; ++k)
      to.weight(c, k) += total(c, k);
    if (is_given(to.bias)) to.bias(c) += total(c, extents.width);
  }
  if (extents.length == 0 || !is_given(carry_cotangent)) return;
  for (index_t b = 0; b < extents.batch; ++b)
    for (index_t c = 0; c < extents.channels; ++c)
      for (index_t j = 0; j + 1 < extents.width; ++j) {
        carry_cotangent(b, c, j) = initial_gradient(b, c, j);
      }
}

}  // namespace ssm::detail
