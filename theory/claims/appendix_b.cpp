// SPDX-License-Identifier: Apache-2.0
// Claims: the state energy of any spectrum (Theorem B.1), the energy of an input (B.3), and the
// two limits of the integral (B.4).
// Source: arXiv:2509.19633, appendix B.

#include <boost/math/quadrature/gauss_kronrod.hpp>
#include <string>

#include "claims/all.hpp"
#include "closed_forms.hpp"
#include "experiments.hpp"
#include "systems.hpp"
#include "text.hpp"

namespace ssm::theory {
namespace {

template <class Law>
void add_recurrence(claim& c, Law const& law, std::string const& name, dimensions const& size,
                    index_t steps, std::optional<double> printed = {}) {
  energy_of_recurrence<Law> const recurrence{law, size, steps};
  c.experiments.push_back(mean_experiment(
      {.setting = name + ", d=" + std::to_string(size.states) +
                  ", m=" + std::to_string(size.inputs) + ", t=" + std::to_string(steps),
       .method = "recurrence",
       .exact = mean_state_gain(law, steps),
       .printed = printed,
       .variance = energy_variance(law, size, steps),
       .cost = recurrence.cost()},
      recurrence));
}

/// What the stationary integral says against the sum over time of the moments of the law.
template <class Law>
void add_moment_sum(claim& c, Law const& law, std::string const& name, index_t terms) {
  double sum = 0;
  for (index_t k = terms - 1; k >= 0; --k) sum += law.moment(2.0 * static_cast<double>(k));
  double const exact = mean_stationary_gain(law);
  c.experiments.push_back(computed_experiment({.setting = name + ", t=∞",
                                               .method = "Σ E λ^2k + remainder",
                                               .value = sum + remaining_gain(law, terms),
                                               .exact = exact,
                                               .tolerance = 1e-12 * exact}));
}

/// ‖Bx‖² with entries of B of the given variance.
struct energy_of_input {
  dimensions size;
  double entry_variance;

  double operator()(random_stream const& stream) const {
    auto const B = stream.child(0), x = stream.child(1);
    double energy = 0;
    for (index_t i = 0; i < size.states; ++i) {
      double sum = 0;
      for (index_t j = 0; j < size.inputs; ++j) sum += B.normal(i * size.inputs + j) * x.normal(j);
      energy += sum * sum;
    }
    return energy * entry_variance;
  }
};

experiment input_experiment(dimensions const& size, row_scale reading,
                            std::optional<double> printed) {
  double const W = input_energy(size, reading);
  auto const d = static_cast<double>(size.states), m = static_cast<double>(size.inputs);
  return mean_experiment(
      {.setting = "d=" + std::to_string(size.states) + ", m=" + std::to_string(size.inputs),
       .method = "E‖Bx‖²",
       .exact = W,
       .printed = printed,
       .variance = W * W * ((1 + 2 / m) * (1 + 2 / d) - 1),  // |x|² chi-square times chi-square
       .cost = 2 * normal_cost * d * m},
      energy_of_input{size, entry_variance(size, reading)});
}

}  // namespace

claim theorem_b_1() {
  claim c{.id = "theorem-B.1",
          .place = "Theorem B.1",
          .statement = "Energy of the stationary state for any density p of the eigenvalues.",
          .printed = "E‖h∞‖²/W = ∫ p(λ)/(1-λ²) dλ",
          .exact = "the same",
          .remark =
              "True, if the integral is finite and the inputs are white and centred. With "
              "p = 1/(b-a) it is the artanh formula, so the paper contradicts its own "
              "Theorem 4.2. A Beta(α, β) density has a finite integral only for β > 1.",
          .recorded = verdict::holds,
          .experiments = {}};
  using real = double;
  dimensions const size{32, 16};
  auto const point = point_law<real>{pole<real>::at(0.9)};
  auto const uniform = uniform_law<real>::between(pole<real>::at(0.2), pole<real>::at(0.8));
  auto const beta = beta_law<real>::of(2, 3);
  auto const heavy = beta_law<real>::of(0.5, 1.5);
  auto const mamba2 = log_uniform_law<real>::of_rates(0.1, 1.6);
  auto const mamba1 = s4d_real_law<real>::of(16, 0.1);
  add_recurrence(c, point, "point 0.9", size, 96);
  add_recurrence(c, uniform, short_text(uniform), size, 64);
  add_recurrence(c, beta, "Beta(2, 3)", size, 128);
  add_recurrence(c, heavy, "Beta(0.5, 1.5)", size, 64);
  add_recurrence(c, mamba2, "log-uniform, αΔ in [0.1, 1.6]", size, 64);
  add_recurrence(c, mamba1, "S4D-real, N=16, Δ=0.1", size, 64);
  add_moment_sum(c, point, "point 0.9", 200);
  add_moment_sum(c, uniform, short_text(uniform), 100);
  add_moment_sum(c, beta, "Beta(2, 3)", 500);
  add_moment_sum(c, heavy, "Beta(0.5, 1.5)", 500);
  add_moment_sum(c, mamba2, "log-uniform, αΔ in [0.1, 1.6]", 100);
  add_moment_sum(c, mamba1, "S4D-real, N=16, Δ=0.1", 100);
  return c;
}

claim appendix_b_3_covariance() {
  claim c{.id = "B.3-covariance",
          .place = "Appendix B.3; rows of B ~ N(0, (1/√d) I), read as the covariance",
          .statement = "Energy W of one input when 1/√d is the variance of an entry of B.",
          .printed = "W = E‖Bx‖² = m √d   (d^(3/2) for m = d)",
          .exact = "the same",
          .remark = "True under this reading, which is the one the appendix computes with.",
          .recorded = verdict::holds,
          .experiments = {}};
  for (auto const size : {dimensions{16, 16}, dimensions{64, 16}}) {
    c.experiments.push_back(input_experiment(size, row_scale::covariance, {}));
  }
  return c;
}

claim appendix_b_3_deviation() {
  claim c{.id = "B.3-deviation",
          .place = "Appendix B.3; rows of B ~ N(0, (1/√d) I), read as the standard deviation",
          .statement = "Energy W of one input when 1/√d is the standard deviation of an entry.",
          .printed = "W = E‖Bx‖² = m √d   (d^(3/2) for m = d)",
          .exact = "W = m   (d for m = d), a factor √d less",
          .remark =
              "The notation allows both readings; results in units of W do not depend on "
              "it, those in absolute terms differ by √d.",
          .recorded = verdict::refuted,
          .experiments = {}};
  for (auto const size : {dimensions{16, 16}, dimensions{64, 16}}) {
    c.experiments.push_back(input_experiment(size, row_scale::standard_deviation,
                                             input_energy(size, row_scale::covariance)));
  }
  return c;
}

claim appendix_b_4_to_one() {
  claim c{.id = "B.4-to-1",
          .place = "Appendix B.4 (1)",
          .statement = "How the gain I diverges as the largest eigenvalue goes to 1.",
          .printed = "I ~ -(p(1)/2) log(1-λmax)",
          .exact = "the same to leading order; the difference tends to a constant",
          .remark =
              "True of a fixed density p. The slope dI/d log(1/(1-λmax)) is p(1)/2. "
              "Convergence of the ratio is slow: at 1-λmax = 1e-16 the leading term is "
              "still 1.8 % short for U[0, λmax].",
          .recorded = verdict::holds,
          .experiments = {}};
  // p(λ) = n λ^(n-1) on [0, λmax], not renormalised: p(1) = n. In u = artanh λ the integral is
  // ∫ p(tanh u) du, and u grows by log(10)/2 a decade.
  for (int const n : {1, 2, 5}) {
    auto const gain = [n](double gap) {
      double const end = std::log((2 - gap) / gap) / 2;
      auto const density = [n](double u) { return n * std::pow(std::tanh(u), n - 1); };
      return boost::math::quadrature::gauss_kronrod<double, 61>::integrate(density, 0.0, end, 15,
                                                                           1e-14);
    };
    double const from = 1e-6, to = 1e-12;
    double const slope = (gain(to) - gain(from)) / std::log(from / to);
    c.experiments.push_back(computed_experiment(
        {.setting = "p = " + std::to_string(n) + "λ^" + std::to_string(n - 1) + ", slope",
         .method = "quadrature, 1-λmax 1e-6 to 1e-12",
         .value = slope,
         .exact = n / 2.0,
         .tolerance = 1e-5 * n}));  // p(λ) differs from p(1) by n(n-1)·1e-6 and less
  }
  // The constant: I(U[0, b]) - leading term → log(2)/2.
  auto const law = uniform_law<double>::between({}, pole<double>::below_one(1e-8));
  c.experiments.push_back(
      mean_experiment({.setting = short_text(law),
                       .method = "control variate",
                       .exact = leading_gain(law) + leading_gain_constant(law.low),
                       .variance = control_variate_variance(law, {1, 1}),
                       .cost = 50},
                      [law, known = printed_gain(law)](random_stream const& stream) {
                        return known + 1 / (1 + law.sample(stream.uniform(0)).value);
                      }));
  return c;
}

claim appendix_b_4_to_zero() {
  claim c{.id = "B.4-to-0",
          .place = "Appendix B.4 (2)",
          .statement = "The gain I as the largest eigenvalue goes to 0.",
          .printed = "I ~ p(0) λmax → 0",
          .exact = "I → 1: 1 ≤ I ≤ 1/(1-λmax²)",
          .remark =
              "A density on [0, λmax] integrates to 1 as the interval shrinks, so p(0) "
              "grows as 1/λmax. What vanishes is only the part of a fixed density below "
              "λmax. It contradicts Theorem 4.2 as printed, too, which gives λmax/2.",
          .recorded = verdict::refuted,
          .experiments = {}};
  for (double const b : {0.1, 0.01, 0.001}) {
    auto const law = uniform_law<double>::between({}, pole<double>::at(b));
    add_recurrence(c, law, short_text(law), {32, 16}, 8, b);  // p(0) = 1 as fixed
  }
  return c;
}

}  // namespace ssm::theory
