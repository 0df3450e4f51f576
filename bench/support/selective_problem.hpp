// SPDX-License-Identifier: Apache-2.0
// selective_problem.hpp: inputs of Mamba's and Mamba-2's recurrence, and whether an output is
// right.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "ssm/detail/half.hpp"
#include "ssm/numerics.hpp"
#include "ssm/packed.hpp"
#include "ssm/random.hpp"
#include "ssm/scalar.hpp"
#include "ssm/spectrum.hpp"
#include "ssm/tensor.hpp"
#include "support/rows.hpp"

namespace ssm::bench {

/// N(mean, deviation²), repeated after a prime number of elements: large inputs are quick to make.
template <class T, int Rank>
tensor<T, Rank> normal_tensor(index_array<Rank> const& extents, std::uint64_t seed, double mean = 0,
                              double deviation = 1) {
  constexpr index_t period = 1'000'003;
  tensor<T, Rank> all(extents);
  random_stream const random{seed};
  for (index_t i = 0; i < std::min(period, all.size()); ++i) {
    all.data()[i] =
        static_cast<T>(static_cast<accumulator_t<T>>(mean + deviation * random.normal(i)));
  }
  for (index_t i = period; i < all.size(); ++i) all.data()[i] = all.data()[i - period];
  return all;
}

/// What Mamba adds to its recurrence: a bias and softplus for the step size, D and the gate.
enum class options { none, all };

/// Channels that share a step size, an eigenvalue and D are a head; Mamba-1 has one channel in
/// each, with an eigenvalue for every state. Step sizes are about 0.02; eigenvalues -1 to -16.
template <class T>
struct selective_problem {
  using real = accumulator_t<T>;

  selective_problem(problem_size const& s, options o, index_t head_channels = 1)
      : with{o},
        heads{s.channels / head_channels},
        x(normal_tensor<T, 3>({s.batch, s.length, s.channels}, 1)),
        step_size(normal_tensor<T, 3>({s.batch, s.length, heads}, 2, -3.75, 1)),
        gate(normal_tensor<T, 3>(o == options::all ? x.extents() : index_array<3>{}, 3)),
        B(normal_tensor<T, 3>({s.batch, s.length, s.states}, 4)),
        C(normal_tensor<T, 3>({s.batch, s.length, s.states}, 5)),
        A({heads, head_channels == 1 ? s.states : 1}),
        D(normal_tensor<real, 1>({heads}, 6)),
        step_bias(normal_tensor<real, 1>({heads}, 7, -0.25, 0.1)),
        y(x.extents()),
        carry({s.batch, s.channels, s.states}) {
    for (index_t h = 0; h < heads; ++h) {
      for (index_t n = 0; n < A.extent(1); ++n) {
        A(h, n) = head_channels == 1 ? s4d_real<real>(n) : real(-1) - real(15 * h) / real(heads);
      }
    }
    if (o == options::all) return;
    for (T& each : step_size) each = static_cast<T>(softplus(static_cast<real>(each)));
  }

  index_t head_of(index_t channel) const { return channel / (x.extent(2) / heads); }
  real eigenvalue(index_t channel, index_t n) const {
    return A(head_of(channel), A.extent(1) == 1 ? 0 : n);
  }
  /// Δ
  double step(index_t b, index_t t, index_t head) const {
    auto const raw = static_cast<double>(static_cast<real>(step_size(b, t, head)));
    return with == options::all ? softplus(raw + double(step_bias(head))) : raw;
  }
  /// From zeros, and so that no row passes by what an earlier one wrote.
  void start_anew() {
    clear_carry();
    std::fill(y.begin(), y.end(), static_cast<T>(std::numeric_limits<real>::quiet_NaN()));
  }
  void clear_carry() { std::fill(carry.begin(), carry.end(), real(0)); }

  options with;
  index_t heads;
  tensor<T, 3> x, step_size, gate, B, C;
  tensor<real, 2> A;
  tensor<real, 1> D, step_bias;
  tensor<std::int32_t, 2> sequence;  ///< empty where rows are not packed
  tensor<T, 3> y;
  tensor<real, 3> carry;  ///< (batch, channel, state)
};

/// The largest error of p.y in channel c, as a multiple of what rounding may come to. In double, by
/// the definition. With u half an ulp: the step size has 4 u from its bias and softplus, so that
/// the decay exp(z) has 4|z| u, and 4 u more from exp and the product; a drive has 8 u; each sum
/// another one. The truth has errors of its own, hence twice that.
template <class T>
double channel_error(selective_problem<T> const& p, index_t b, index_t c) {
  using accumulator = accumulator_t<T>;
  double const unit = std::numeric_limits<accumulator>::epsilon() / 2;
  double const stored = sizeof(T) == 2 ? 0x1p-8 : 0;  // of what is written as 16 bits
  index_t const length = p.x.extent(1), states = p.B.extent(2);
  bool const all = p.with == options::all;
  index_t const head = p.head_of(c);
  double const D = p.D(head);
  auto const number = [](auto const& v) {
    return static_cast<double>(static_cast<accumulator>(v));
  };
  struct state {
    double h = 0;      // the state,
    double terms = 0;  // the sum of the sizes of its terms,
    double error = 0;  // and what its error may be, in units
  };
  std::vector<state> carried(static_cast<std::size_t>(states));
  double worst = 0;
  for (index_t t = 0; t < length; ++t) {
    if (starts_sequence(p.sequence, b, t)) std::fill(carried.begin(), carried.end(), state{});
    double const step = p.step(b, t, head), input = number(p.x(b, t, c));
    double y = 0, terms = 0, error = 0;
    for (index_t n = 0; n < states; ++n) {
      auto& [h, h_terms, h_error] = carried[static_cast<std::size_t>(n)];
      double const z = step * double(p.eigenvalue(c, n)), decay = ssm::exp(z);
      double const drive = step * number(p.B(b, t, n)) * input, weight = number(p.C(b, t, n));
      h_error = decay * (h_error + (4 + 4 * std::abs(z)) * h_terms) + 8 * std::abs(drive);
      h_terms = decay * h_terms + std::abs(drive);
      h_error += h_terms;
      h = decay * h + drive;
      y += weight * h;
      terms += std::abs(weight) * h_terms;
      error += std::abs(weight) * h_error;
    }
    if (all) {
      y += D * input;
      terms += std::abs(D * input);
    }
    error += (static_cast<double>(states) + 2) * terms;
    if (all) {
      double const factor = silu(number(p.gate(b, t, c)));
      error = std::abs(factor) * (error + 8 * terms);
      y *= factor;
    }
    double const allowed = 2 * unit * error + stored * std::abs(y) +
                           static_cast<double>(std::numeric_limits<accumulator>::min());
    double const found = std::abs(number(p.y(b, t, c)) - y) / allowed;
    if (!(found <= worst)) worst = found;  // NaN too
    if (std::isnan(found)) return found;
  }
  return worst;
}

/// The largest of a few channels, among them the first and the last.
template <class T>
double error_of(selective_problem<T> const& p) {
  index_t const channels = p.x.extent(2), count = std::min<index_t>(channels, 17);
  double worst = 0;
  for (index_t b = 0; b < p.x.extent(0); ++b) {
    for (index_t i = 0; i < count; ++i) {
      double const error = channel_error(p, b, count == 1 ? 0 : i * (channels - 1) / (count - 1));
      if (!(error <= worst)) worst = error;
      if (std::isnan(error)) return error;
    }
  }
  return worst;
}

}  // namespace ssm::bench
