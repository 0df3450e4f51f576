// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_problem.hpp: random causal convolutions, what they should be by the formula, and
// how far they and their gradients may be off.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "ssm/causal_conv1d.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

/// Which of the optional arguments a convolution has.
struct conv_options {
  bool bias = true;
  bool carry = true;
  bool packed = false;
  activation kind = activation::silu;
};

template <class T>
struct conv_problem {
  using A = accumulator_t<T>;

  index_array<3> shape;  // batch, time, channel
  index_t width;
  conv_options options;
  std::uint64_t seed;
  tensor<T, 3> x, initial;
  tensor<A, 2> weight;
  tensor<A, 1> bias;
  tensor<std::int32_t, 2> sequence;
  tensor<A, 3> y_cotangent, final_cotangent;

  causal_conv1d_inputs<T> inputs() const {
    return {.x = x,
            .weight = weight,
            .bias = options.bias ? bias.view() : tensor_view<A const, 1>{},
            .sequence = options.packed ? sequence.view() : sequence_index_view<>{},
            .activation = options.kind};
  }
  index_array<3> carry_shape() const { return {shape[0], shape[2], width - 1}; }
  std::string name() const {
    std::ostringstream text;
    text << to_string(shape) << ", width " << width << ", seed " << seed
         << (options.bias ? ", bias" : "") << (options.carry ? ", carry" : "")
         << (options.packed ? ", packed" : "")
         << (options.kind == activation::silu ? ", silu" : "");
    return text.str();
  }
};

template <class To, class From, int Rank>
tensor<To, Rank> converted(tensor<From, Rank> const& from) {
  tensor<To, Rank> result(from.extents());
  for (index_t i = 0; i < from.size(); ++i) result.data()[i] = static_cast<To>(from.data()[i]);
  return result;
}

/// Sequences of 1, 2, 3, ... steps, their indices with gaps; row b starts in its own.
inline tensor<std::int32_t, 2> growing_sequences(index_t batch, index_t length) {
  tensor<std::int32_t, 2> index({batch, length});
  for (index_t b = 0; b < batch; ++b) {
    for (index_t t = 0, size = 1 + b, left = size; t < length; ++t, --left) {
      if (left == 0) left = ++size;
      index(b, t) = static_cast<std::int32_t>(3 * size - 7);
    }
  }
  return index;
}

template <class T>
conv_problem<T> random_conv(index_array<3> const& shape, index_t width, conv_options options,
                            std::uint64_t seed) {
  using A = accumulator_t<T>;
  auto const [batch, length, channels] = shape.value;
  index_t const kept = width - 1;
  return {shape,
          width,
          options,
          seed,
          converted<T>(random_tensor<A>({batch, length, channels}, seed, -2, 2)),
          converted<T>(random_tensor<A>({batch, channels, kept}, seed + 1, -2, 2)),
          random_tensor<A>({channels, width}, seed + 2),
          random_tensor<A>({channels}, seed + 3),
          growing_sequences(batch, length),
          random_tensor<A>({batch, length, channels}, seed + 4),
          random_tensor<A>({batch, channels, kept}, seed + 5)};
}

/// The same numbers in W.
template <class W, class T>
conv_problem<W> converted_problem(conv_problem<T> const& p) {
  return {p.shape,
          p.width,
          p.options,
          p.seed,
          converted<W>(converted<accumulator_t<T>>(p.x)),
          converted<W>(converted<accumulator_t<T>>(p.initial)),
          converted<W>(p.weight),
          converted<W>(p.bias),
          p.sequence,
          converted<W>(p.y_cotangent),
          converted<W>(p.final_cotangent)};
}

template <class T>
struct conv_outcome {
  tensor<T, 3> y, carry;
};

template <class Policy, class T>
conv_outcome<T> run_conv(Policy policy, conv_problem<T> const& p) {
  conv_outcome<T> result{tensor<T, 3>(p.shape, static_cast<T>(not_a_number<accumulator_t<T>>())),
                         p.options.carry ? p.initial : tensor<T, 3>{}};
  causal_conv1d(policy, p.inputs(), result.carry, result.y);
  return result;
}

/// y and the final carry by their formulas in W, and Σ|terms| of the sums before the activation.
template <class W>
struct conv_truth {
  tensor<W, 3> sum, y, carry, terms;
};

template <class W>
conv_truth<W> conv_by_formula(conv_problem<W> const& p) {
  conv_truth<W> r{tensor<W, 3>(p.shape), tensor<W, 3>(p.shape), tensor<W, 3>(p.carry_shape()),
                  tensor<W, 3>(p.shape)};
  auto const [batch, length, channels] = p.shape.value;
  index_t const kept = p.width - 1;
  // What a step of sequence `own` sees at time s.
  auto const seen = [&](index_t b, index_t c, index_t s, std::int32_t own) {
    if (p.options.packed && p.sequence(b, s < 0 ? 0 : s) != own) return W(0);
    if (s >= 0) return p.x(b, s, c);
    return p.options.carry ? p.initial(b, c, kept + s) : W(0);
  };
  for (index_t b = 0; b < batch; ++b)
    for (index_t c = 0; c < channels; ++c) {
      for (index_t t = 0; t < length; ++t) {
        W sum = p.options.bias ? p.bias(c) : W(0), terms = abs(sum);
        for (index_t lag = 0; lag < p.width; ++lag) {
          W const term = p.weight(c, kept - lag) * seen(b, c, t - lag, p.sequence(b, t));
          sum += term;
          terms += abs(term);
        }
        r.sum(b, t, c) = sum;
        r.terms(b, t, c) = terms;
        r.y(b, t, c) = p.options.kind == activation::silu ? W(sum / (1 + exp(W(-sum)))) : sum;
      }
      for (index_t j = 0; j < kept; ++j) {
        if (length > 0) {
          r.carry(b, c, j) = seen(b, c, length - kept + j, p.sequence(b, length - 1));
        } else {
          r.carry(b, c, j) = p.initial(b, c, j);
        }
      }
    }
  return r;
}

/// How far y may be off, in eps: a product and up to width + 1 sums round each term, half an eps
/// each; SiLU, of slope at most 1.1, adds the 4 eps of silu, and `by_size` more for each unit of
/// its argument. (1.001 is for eps².)
template <class W>
tensor<W, 3> conv_rounding(conv_problem<W> const& p, conv_truth<W> const& truth,
                           double by_size = 0) {
  bool const silu = p.options.kind == activation::silu;
  tensor<W, 3> bound(p.shape);
  for (index_t i = 0; i < bound.size(); ++i) {
    W const size = abs(truth.y.data()[i]);
    bound.data()[i] = W(1.001) * (W(silu ? 1.1 : 1) * W(p.width + 1) / 2 * truth.terms.data()[i] +
                                  W(silu ? 4 : 0) * size);
    if (silu && by_size > 0) bound.data()[i] += by_size * abs(truth.sum.data()[i]) * size;
  }
  return bound;
}

/// The largest |found - expected| / (eps·bound) over all elements; infinite where NaN is found.
template <class T, class W, int Rank>
double worst_ratio(tensor<T, Rank> const& found, tensor<W, Rank> const& expected,
                   tensor<W, Rank> const& bound) {
  if (found.extents() != expected.extents()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (index_t i = 0; i < found.size(); ++i) {
    W const error = abs(W(W(found.data()[i]) - expected.data()[i]));
    W const unit = W(std::numeric_limits<T>::epsilon()) * bound.data()[i];
    double const ratio = error == 0 ? 0 : static_cast<double>(W(error / unit));
    worst = ratio >= 0 ? std::max(worst, ratio) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

template <class A>
struct conv_gradients {
  tensor<A, 3> x, initial;
  tensor<A, 2> weight;
  tensor<A, 1> bias;
};

/// `to` holds what the gradients are added to; its `initial` is not read.
template <class Policy, class T, class A>
void add_conv_gradients(Policy policy, conv_problem<T> const& p, conv_gradients<A>& to) {
  to.initial = p.options.carry ? p.final_cotangent : tensor<A, 3>{};
  causal_conv1d_vjp(policy, p.inputs(), p.options.carry ? p.initial.view() : state_view<T const>{},
                    p.y_cotangent, to.initial, {.x = to.x, .weight = to.weight, .bias = to.bias});
}

template <class Policy, class T>
auto run_conv_vjp(Policy policy, conv_problem<T> const& p) {
  using A = accumulator_t<T>;
  conv_gradients<A> to{
      tensor<A, 3>(p.shape), {}, tensor<A, 2>({p.shape[2], p.width}), tensor<A, 1>({p.shape[2]})};
  add_conv_gradients(policy, p, to);
  return to;
}

template <class W>
tensor<W, 3> magnitudes(tensor<W, 3> from) {
  for (W& element : from) element = abs(element);
  return from;
}

/// How far gradients may be off, in eps, where `roundings` sums round each term. The slope of SiLU
/// is at most 1.1 and off by `of_slope` eps with the product it enters; its own slope is at most
/// 1/2. The sums are the gradients of the linear convolution of magnitudes.
template <class W>
conv_gradients<W> conv_gradient_bounds(conv_problem<W> p, W const& roundings, int of_slope = 5) {
  auto const truth = conv_by_formula(p);
  W const k = W(1.001) * (roundings + 1) / 2;
  for (index_t i = 0; i < p.x.size(); ++i) {
    W const size = abs(p.y_cotangent.data()[i]);
    W& error = p.y_cotangent.data()[i];
    error = size * k;
    if (p.options.kind == activation::none) continue;
    error += size * (W(0.1) * k + of_slope + W(p.width + 1) / 4 * truth.terms.data()[i]);
  }
  p.options.kind = activation::none;
  p.x = magnitudes(p.x);
  p.initial = magnitudes(p.initial);
  for (W& element : p.final_cotangent) element = abs(element) * k;
  for (W& element : p.weight) element = abs(element);
  return run_conv_vjp(sequential{}, p);
}

/// Every combination of the optional arguments.
inline std::vector<conv_options> all_conv_options() {
  std::vector<conv_options> all;
  for (bool const bias : {false, true})
    for (bool const carry : {false, true})
      for (bool const packed : {false, true})
        for (activation const kind : {activation::none, activation::silu}) {
          all.push_back({bias, carry, packed, kind});
        }
  return all;
}

}  // namespace ssm::test
