// SPDX-License-Identifier: Apache-2.0
// selective_scan_problem.hpp: random inputs of selective_scan, what it should give by its formula,
// and how far rounding may take it from there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "ssm/detail/selective_scan_inputs.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

/// Which of the optional inputs there are. Bit i of a number stands for the i-th.
struct selective_options {
  bool D = true, gate = true, bias = true, softplus = true, limits = false, packed = false,
       linear = false, power = false, step = false;

  static constexpr unsigned combinations = 512;
  static selective_options of_bits(unsigned bits) {
    auto const bit = [&](int i) { return (bits >> i & 1u) != 0; };
    return {bit(0), bit(1), bit(2), bit(3), bit(4), bit(5), bit(6), bit(7), bit(8)};
  }
  static selective_options all() { return of_bits(combinations - 1); }
};

template <class To, class From, int Rank>
tensor<To, Rank> converted(tensor<From, Rank> const& from) {
  tensor<To, Rank> result(from.extents());
  for (index_t i = 0; i < from.size(); ++i) {
    auto const number = static_cast<accumulator_t<From>>(from.data()[i]);
    result.data()[i] = static_cast<To>(static_cast<accumulator_t<To>>(number));
  }
  return result;
}

/// Sequences of 1, 2, 3, ... steps, their indices with gaps; row b starts in its own.
inline tensor<std::int32_t, 2> growing_sequences(index_t batch, index_t length) {
  tensor<std::int32_t, 2> index({batch, length});
  for (index_t b = 0; b < batch; ++b)
    for (index_t t = 0, size = 1 + b, left = size; t < length; ++t, --left) {
      if (left == 0) left = ++size;
      index(b, t) = static_cast<std::int32_t>(3 * size - 7);
    }
  return index;
}

/// Inputs of selective_scan and the cotangents that arrive at its outputs.
template <class T>
struct selective_problem {
  using real = accumulator_t<T>;

  scan_shape shape;
  index_t groups;
  selective_options options;
  std::uint64_t seed;
  tensor<T, 3> x, step_size, gate;
  tensor<T, 4> B, C;
  tensor<real, 2> eigenvalue, linear, power;
  tensor<real, 1> D, step_bias, step;
  step_limits<real> limits;
  tensor<std::int32_t, 2> sequence;
  tensor<real, 3> initial;
  tensor<T, 3> y_cotangent;
  tensor<real, 3> final_cotangent;

  template <class U, int Rank>
  static tensor_view<U const, Rank> optional(bool exists, tensor<U, Rank> const& from) {
    return exists ? from.view() : tensor_view<U const, Rank>{};
  }
  selective_scan_inputs<T> inputs() const {
    selective_scan_inputs<T> in{.x = x,
                                .step_size = step_size,
                                .eigenvalue = eigenvalue,
                                .B = B,
                                .C = C,
                                .D = optional(options.D, D),
                                .gate = optional(options.gate, gate),
                                .step_bias = optional(options.bias, step_bias),
                                .step_rule = {.softplus = options.softplus},
                                .scaling = {.linear = optional(options.linear, linear),
                                            .power = optional(options.power, power),
                                            .step = optional(options.step, step)},
                                .sequence = optional(options.packed, sequence)};
    if (options.limits) in.step_rule.limits = limits;
    return in;
  }
  std::string name() const {
    std::ostringstream text;
    text << "batch " << shape.batch << ", length " << shape.length << ", channels "
         << shape.channels << ", states " << shape.states << ", groups " << groups << ", seed "
         << seed;
    auto const list = [&](bool exists, char const* option) { text << (exists ? option : ""); };
    list(options.D, ", D"), list(options.gate, ", gate"), list(options.bias, ", bias");
    list(options.softplus, ", softplus"), list(options.limits, ", limits");
    list(options.packed, ", packed"), list(options.linear, ", linear");
    list(options.power, ", power"), list(options.step, ", step");
    return text.str();
  }
};

template <class T>
selective_problem<T> random_selective(scan_shape const& s, index_t groups,
                                      selective_options const& options, std::uint64_t seed) {
  using real = accumulator_t<T>;
  auto const stored = [](auto const& from) { return converted<T>(from); };
  auto const sequence = [&](std::uint64_t k, double low, double high) {
    return stored(random_tensor<real>({s.batch, s.length, s.channels}, seed + k, low, high));
  };
  auto const shared = [&](std::uint64_t k) {
    return stored(random_tensor<real>({s.batch, s.length, groups, s.states}, seed + k));
  };
  auto const matrix = [&](std::uint64_t k, double low, double high) {
    return random_tensor<real>({s.channels, s.states}, seed + k, low, high);
  };
  auto const vector = [&](std::uint64_t k, double low, double high) {
    return random_tensor<real>({s.channels}, seed + k, low, high);
  };
  auto const states = [&](std::uint64_t k) {
    return random_tensor<real>({s.batch, s.channels, s.states}, seed + k);
  };
  bool const softplus = options.softplus;
  return {s,
          groups,
          options,
          seed,
          sequence(1, -2, 2),
          softplus ? sequence(2, -4, 1) : sequence(2, 0.01, 0.5),
          sequence(3, -3, 3),
          shared(4),
          shared(5),
          matrix(6, -4, -0.05),
          matrix(7, 0.5, 2),
          matrix(8, 0.5, 1.5),
          vector(9, -1, 1),
          vector(10, -0.1, 0.1),
          vector(11, 0.5, 2),
          {real(0.05), real(0.4)},
          growing_sequences(s.batch, s.length),
          states(12),
          sequence(13, -1, 1),
          states(14)};
}

/// The same numbers in another type.
template <class W, class T>
selective_problem<W> converted_problem(selective_problem<T> const& p) {
  using real = accumulator_t<W>;
  return {p.shape,
          p.groups,
          p.options,
          p.seed,
          converted<W>(p.x),
          converted<W>(p.step_size),
          converted<W>(p.gate),
          converted<W>(p.B),
          converted<W>(p.C),
          converted<real>(p.eigenvalue),
          converted<real>(p.linear),
          converted<real>(p.power),
          converted<real>(p.D),
          converted<real>(p.step_bias),
          converted<real>(p.step),
          {static_cast<real>(p.limits.smallest), static_cast<real>(p.limits.largest)},
          p.sequence,
          converted<real>(p.initial),
          converted<W>(p.y_cotangent),
          converted<real>(p.final_cotangent)};
}

template <class T>
struct selective_outcome {
  tensor<T, 3> y;
  tensor<accumulator_t<T>, 3> carry;
};

template <class Policy, class T>
selective_outcome<T> run_selective(Policy policy, selective_problem<T> const& p) {
  auto const nan = static_cast<T>(not_a_number<accumulator_t<T>>());
  selective_outcome<T> result{tensor<T, 3>(p.x.extents(), nan), p.initial};
  selective_scan(policy, p.inputs(), result.carry, result.y);
  return result;
}

/// What is the same in every step of a problem, by its formula, and how far it may be off, in eps.
template <class W>
struct selective_formula {
  selective_problem<W> const& p;

  W biased(index_t b, index_t t, index_t c) const {
    return p.options.bias ? W(p.step_size(b, t, c) + p.step_bias(c)) : p.step_size(b, t, c);
  }
  /// Δ before its factor, clamped as the limits say.
  W rule(W const& biased) const {
    W const raw = p.options.softplus ? W(log1p(exp(biased))) : biased;
    return p.options.limits ? std::clamp(raw, p.limits.smallest, p.limits.largest) : raw;
  }
  W factor(index_t c) const { return p.options.step ? p.step(c) : W(1); }
  W step(index_t b, index_t t, index_t c) const { return factor(c) * rule(biased(b, t, c)); }
  /// Of Δ: 2 ulp for softplus, half an eps for its argument and for the factor.
  W step_error(index_t b, index_t t, index_t c) const {
    W const at = biased(b, t, c);
    if (!p.options.softplus) return W(1);
    return W(2.5) + abs(at) / (2 * (1 + exp(W(-at))) * log1p(exp(at)));
  }
  W size_of(index_t c, index_t n) const {
    W const A = abs(p.eigenvalue(c, n));
    return p.options.power ? W(exp(W(p.power(c, n) * log(A)))) : A;
  }
  W eigenvalue(index_t c, index_t n) const {
    W const sign = p.eigenvalue(c, n) < 0 ? W(-1) : W(1);
    return sign * (p.options.linear ? p.linear(c, n) : W(1)) * size_of(c, n);
  }
  /// Of A': the argument of exp has a logarithm and a product, exp an ulp; half for the factor.
  W eigenvalue_error(index_t c, index_t n) const {
    W const power = abs(W(p.power(c, n) * log(W(abs(p.eigenvalue(c, n))))));
    return (p.options.power ? W(1 + 1.5 * power) : W(0)) + W(p.options.linear ? 0.5 : 0);
  }
  /// Of exp(z), z = ΔA': half an eps of z for each of two products, 0.12 for the constant log2 e,
  /// an ulp for exp2.
  W decay_error(index_t b, index_t t, index_t c, index_t n) const {
    W const z = abs(W(step(b, t, c) * eigenvalue(c, n)));
    return z * (step_error(b, t, c) + eigenvalue_error(c, n) + W(1.12)) + 1;
  }
  bool starts(index_t b, index_t t) const {
    return p.options.packed && t > 0 && p.sequence(b, t) != p.sequence(b, t - 1);
  }
  index_t group(index_t c) const { return c / (p.shape.channels / p.groups); }
};

/// y and the final state by their definition, and what rounding may add up to, in eps.
template <class W>
struct selective_truth {
  tensor<W, 3> y, y_bound, carry, carry_bound;

  explicit selective_truth(selective_problem<W> const& p)
      : y(p.x.extents()), y_bound(y), carry(p.initial), carry_bound(p.initial.extents()) {
    selective_formula<W> const f{p};
    scan_shape const& s = p.shape;
    W const sums = W(s.states + 1) / 2;
    tensor<W, 3> terms = carry;
    for (W& term : terms) term = abs(term);
    for_each_position(p.x.extents(), [&](auto const& position) {
      auto const [b, t, c] = position.value;
      W const x = p.x(b, t, c), step = f.step(b, t, c), step_error = f.step_error(b, t, c);
      W const skip = p.options.D ? W(p.D(c) * x) : W(0);
      W sum = skip, size = abs(skip), error = size * (sums + W(0.5));
      for (index_t n = 0; n < s.states; ++n) {
        W &h = carry(b, c, n), &inherited = carry_bound(b, c, n), &term = terms(b, c, n);
        if (f.starts(b, t)) h = inherited = term = 0;
        W const B = p.B(b, t, f.group(c), n), C = p.C(b, t, f.group(c), n);
        W const decay = exp(W(step * f.eigenvalue(c, n))), drive = step * B * x;
        // Two products round the drive, a product and a sum the state.
        inherited =
            decay * (inherited + f.decay_error(b, t, c, n) * term) + abs(drive) * (step_error + 1);
        h = decay * h + drive;
        term = decay * term + abs(drive);
        inherited += term;
        sum += C * h;
        size += abs(C) * term;
        error += abs(C) * (inherited + (sums + W(0.5)) * term);
      }
      W const gate = p.options.gate ? W(p.gate(b, t, c) / (1 + exp(W(-p.gate(b, t, c))))) : W(1);
      y(b, t, c) = gate * sum;
      // The gate is right to 4 ulp, its product to half an eps.
      y_bound(b, t, c) = abs(gate) * (error + W(p.options.gate ? 4.5 : 0) * size);
    });
  }
};

/// The largest |found - expected| / (eps·bound); infinite where NaN is found. 1.01 stands for eps².
template <class T, class W, int Rank>
double worst_ratio(tensor<T, Rank> const& found, tensor<W, Rank> const& expected,
                   tensor<W, Rank> const& bound) {
  if (found.extents() != expected.extents()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (index_t i = 0; i < found.size(); ++i) {
    W const error = abs(W(W(found.data()[i]) - expected.data()[i]));
    W const unit = W(1.01 * std::numeric_limits<T>::epsilon()) * bound.data()[i];
    double const ratio = error == 0 ? 0 : static_cast<double>(W(error / unit));
    worst = ratio >= 0 ? std::max(worst, ratio) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

}  // namespace ssm::test
