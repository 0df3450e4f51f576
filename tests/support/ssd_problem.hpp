// SPDX-License-Identifier: Apache-2.0
// ssd_problem.hpp: inputs of Mamba-2's operator, its definition in double, and how far rounding
// may take a result from there.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "ssm/state_space_dual.hpp"
#include "support/random_tensor.hpp"

namespace ssm::test {

struct ssd_sizes {
  index_t batch = 1, length = 1, heads = 1, head_dim = 1, groups = 1, states = 1;

  index_array<4> carry() const { return {batch, heads, head_dim, states}; }
  index_array<4> sequences() const { return {batch, length, heads, head_dim}; }
};

inline std::string to_string(ssd_sizes const& s) {
  return std::to_string(s.batch) + "x" + std::to_string(s.length) + "x" + std::to_string(s.heads) +
         "x" + std::to_string(s.head_dim) + "x" + std::to_string(s.groups) + "x" +
         std::to_string(s.states);
}

template <class T, int Rank>
tensor<T, Rank> uniform_tensor(index_array<Rank> const& extents, std::uint64_t seed, double low,
                               double high) {
  tensor<T, Rank> result(extents);
  random_stream const stream{seed};
  index_t i = 0;
  for (T& element : result) {
    element =
        static_cast<T>(static_cast<accumulator_t<T>>(low + (high - low) * stream.uniform(i++)));
  }
  return result;
}

/// Every input, with all options on.
template <class T>
struct ssd_problem {
  using R = accumulator_t<T>;

  ssd_sizes sizes;
  tensor<T, 4> x, gate, B, C;
  tensor<T, 3> step_size;
  tensor<R, 1> eigenvalue, step_bias;
  tensor<R, 2> D;
  tensor<R, 4> initial;

  explicit ssd_problem(ssd_sizes const& s, std::uint64_t seed = 1)
      : sizes{s},
        x{uniform_tensor<T>(s.sequences(), seed + 1, -1, 1)},
        gate{uniform_tensor<T>(s.sequences(), seed + 2, -3, 3)},
        B{uniform_tensor<T>(index_array<4>{s.batch, s.length, s.groups, s.states}, seed + 3, -1,
                            1)},
        C{uniform_tensor<T>(index_array<4>{s.batch, s.length, s.groups, s.states}, seed + 4, -1,
                            1)},
        step_size{uniform_tensor<T>(index_array<3>{s.batch, s.length, s.heads}, seed + 5, -5, 1)},
        eigenvalue{uniform_tensor<R>(index_array<1>{s.heads}, seed + 6, -3, -0.1)},
        step_bias{uniform_tensor<R>(index_array<1>{s.heads}, seed + 7, -1, 1)},
        D{uniform_tensor<R>(index_array<2>{s.heads, s.head_dim}, seed + 8, -1, 1)},
        initial{uniform_tensor<R>(s.carry(), seed + 9, -1, 1)} {}

  state_space_dual_inputs<T> inputs() const {
    return {.x = x.view(),
            .step_size = step_size.view(),
            .eigenvalue = eigenvalue.view(),
            .B = B.view(),
            .C = C.view(),
            .D = D.view(),
            .gate = gate.view(),
            .step_bias = step_bias.view()};
  }
};

template <class T>
struct ssd_result {
  tensor<T, 4> y;
  tensor<accumulator_t<T>, 4> carry;

  friend bool operator==(ssd_result const& a, ssd_result const& b) requires std::floating_point<T>
  = default;
};

/// The operator from `initial`, into outputs that start as NaN.
template <class Policy, class T>
ssd_result<T> run_ssd(Policy policy, state_space_dual_inputs<T> const& inputs,
                      tensor<accumulator_t<T>, 4> const& initial) {
  using R = accumulator_t<T>;
  ssd_result<T> result{
      tensor<T, 4>(inputs.x.extents(), static_cast<T>(std::numeric_limits<R>::quiet_NaN())),
      initial};
  state_space_dual(policy, inputs, result.carry.view(), result.y.view());
  return result;
}

/// The operator by its definition in double, and for each number what rounding may do to it, in
/// eps. With T = Σ|terms|, a term that has come m steps over decays with logarithms S has in it
///  - (8 |S|)      Δ to 6 eps (|p| <= 7 rounded, softplus, factor) and two products in each z;
///  - (3/2 m)      a product and a sum for each step, or fewer where a chunk takes them at once;
///  - N/2 + Q + 20 the sums over states and over a chunk of Q, its own products, exp, and the gate.
struct ssd_truth {
  tensor<double, 4> y, carry, y_bound, carry_bound;
  tensor<double, 4> y_terms, carry_terms;  // T

  template <class T>
  ssd_truth(state_space_dual_inputs<T> const& in, tensor<accumulator_t<T>, 4> const& initial,
            index_t chunk = 16)
      : y{in.x.extents()},
        carry{initial.extents()},
        y_bound{in.x.extents()},
        carry_bound{initial.extents()},
        y_terms{in.x.extents()},
        carry_terms{initial.extents()} {
    auto const number = [](auto const& z) {
      return static_cast<double>(static_cast<accumulator_t<std::remove_cvref_t<decltype(z)>>>(z));
    };
    index_t const heads = in.x.extent(2), states = in.B.extent(3), groups = in.B.extent(2);
    double const k = static_cast<double>(states) / 2 + static_cast<double>(chunk) + 20;
    for (index_t b = 0; b < in.x.extent(0); ++b)
      for (index_t head = 0; head < heads; ++head)
        for (index_t p = 0; p < in.x.extent(3); ++p) {
          index_t const g = head / (heads / groups);
          tensor<double, 1> h({states}), terms({states}), logs({states}), steps({states});
          for (index_t n = 0; n < states; ++n) {
            h(n) = number(initial(b, head, p, n));
            terms(n) = std::abs(h(n));
          }
          auto const bound = [&](index_t n, double constant) {
            return 8 * logs(n) + 1.5 * steps(n) + constant * terms(n);
          };
          for (index_t t = 0; t < in.x.extent(1); ++t) {
            double step = number(in.step_size(b, t, head));
            if (in.step_bias.data_handle() != nullptr) step += number(in.step_bias(head));
            if (in.step_rule.softplus) step = ssm::softplus(step);
            if (in.step_rule.limits) {
              step = std::min(std::max(step, number(in.step_rule.limits->smallest)),
                              number(in.step_rule.limits->largest));
            }
            step *= number(in.scaling.step_factor(head));
            double const z = step * number(in.scaling.eigenvalue(head, 0, in.eigenvalue(head)));
            double const decay = std::exp(z), x = number(in.x(b, t, head, p));
            bool const cut = starts_sequence(in.sequence, b, t);
            double sum = 0, sum_bound = 0, sum_terms = 0;
            for (index_t n = 0; n < states; ++n) {
              double const drive = step * number(in.B(b, t, g, n)) * x;
              if (cut) h(n) = terms(n) = logs(n) = steps(n) = 0;
              logs(n) = decay * (logs(n) + std::abs(z) * terms(n));
              steps(n) = decay * (steps(n) + terms(n));
              h(n) = decay * h(n) + drive;
              terms(n) = decay * terms(n) + std::abs(drive);
              double const C = number(in.C(b, t, g, n));
              sum += C * h(n);
              sum_terms += std::abs(C) * terms(n);
              sum_bound += std::abs(C) * bound(n, k);
            }
            if (in.D.data_handle() != nullptr) {
              double const skip = number(in.D(head, p)) * x;
              sum += skip;
              sum_terms += std::abs(skip);
              sum_bound += k * std::abs(skip);
            }
            double factor = 1;
            if (in.gate.data_handle() != nullptr)
              factor = ssm::silu(number(in.gate(b, t, head, p)));
            y(b, t, head, p) = sum * factor;
            y_terms(b, t, head, p) = sum_terms * std::abs(factor);
            y_bound(b, t, head, p) = sum_bound * std::abs(factor);
          }
          for (index_t n = 0; n < states; ++n) {
            carry(b, head, p, n) = h(n);
            carry_terms(b, head, p, n) = terms(n);
            carry_bound(b, head, p, n) = bound(n, k - static_cast<double>(states) / 2);
          }
        }
  }
};

/// Every number of a result within eps·bound of the truth, and 16-bit outputs half an ulp more.
/// Returns the worst error in eps·bound, infinite for NaN.
template <class T>
double worst_error(ssd_result<T> const& found, ssd_truth const& truth) {
  using R = accumulator_t<T>;
  double worst = 0;
  double const eps = std::numeric_limits<R>::epsilon();
  double const storage = std::is_same_v<T, R> ? 0 : std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-11;
  auto const compare = [&](auto const& a, auto const& b, auto const& bounds, double rounding) {
    for (index_t i = 0; i < a.size(); ++i) {
      double const size = std::abs(b.data()[i]);
      double const error = std::abs(static_cast<double>(static_cast<R>(a.data()[i])) - b.data()[i]);
      double const unit = eps * bounds.data()[i] + rounding * size + (rounding > 0 ? 0x1p-24 : 0) +
                          static_cast<double>(std::numeric_limits<R>::min());
      if (!(error / unit <= worst)) worst = error / unit;
      if (error != error) worst = std::numeric_limits<double>::infinity();
    }
  };
  EXPECT_EQ(found.y.extents(), truth.y.extents());
  EXPECT_EQ(found.carry.extents(), truth.carry.extents());
  compare(found.y, truth.y, truth.y_bound, storage);
  compare(found.carry, truth.carry, truth.carry_bound, 0);
  return worst;
}

}  // namespace ssm::test
