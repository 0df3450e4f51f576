// SPDX-License-Identifier: Apache-2.0
// Claim: for eigenvalues U[a, b] of A, E‖h_∞‖² = W log((1-a²)/(1-b²))/(2(b-a)), W = E‖Bx‖².
// Source: arXiv:2509.19633, Theorem 4.2, equation (8); proof in equations (11) to (18).
// Refuted: that is E λ/(1-λ²). The expectation is E 1/(1-λ²) = (artanh b - artanh a)/(b-a).

#include <boost/math/quadrature/gauss_kronrod.hpp>
#include <string>

#include "claims/all.hpp"
#include "closed_forms.hpp"
#include "experiments.hpp"
#include "systems.hpp"
#include "text.hpp"

namespace ssm::theory {
namespace {

using law = uniform_law<double>;

law uniform(double a, double b) {
  return law::between(pole<double>::at(a), pole<double>::at(b));
}

std::string setting_of(law const& spectrum, dimensions const& size, index_t steps) {
  return short_text(spectrum) + ", d=" + std::to_string(size.states) +
         ", m=" + std::to_string(size.inputs) + ", t=" + std::to_string(steps);
}

/// The recurrence itself, and the same averaged over its inputs in closed form.
void add_simulations(claim& c, law const& spectrum, dimensions const& size, index_t steps,
                     index_t samples = 0) {
  double const exact = mean_state_gain(spectrum, steps), printed = printed_gain(spectrum);
  energy_of_recurrence<law> const recurrence{spectrum, size, steps};
  c.experiments.push_back(mean_experiment({.setting = setting_of(spectrum, size, steps),
                                           .method = "recurrence",
                                           .exact = exact,
                                           .printed = printed,
                                           .variance = energy_variance(spectrum, size, steps),
                                           .cost = recurrence.cost(),
                                           .samples = samples},
                                          recurrence));
  energy_given_system<law> const averaged{spectrum, size, steps};
  c.experiments.push_back(
      mean_experiment({.setting = setting_of(spectrum, size, steps),
                       .method = "averaged over x",
                       .exact = exact,
                       .printed = printed,
                       .variance = energy_variance_given_B(spectrum, size, steps),
                       .cost = averaged.cost(),
                       .samples = samples},
                      averaged));
}

/// One state of the recurrence in units of its own expectation: no heavy tail, so this tells the
/// integrand 1/(1-λ²) from the printed λ/(1-λ²) for every spectrum, at any number of steps.
void add_normalized(claim& c, law const& spectrum) {
  index_t const steps = 64;
  normalized_energy_of_recurrence<law> const one{spectrum, {1, 1}, steps};
  c.experiments.push_back(
      mean_experiment({.setting = short_text(spectrum) + ", t=" + std::to_string(steps),
                       .method = "recurrence, h²/(b² g_t)",
                       .exact = 1,
                       .printed = (spectrum.low.value + spectrum.high.value) / 2,
                       .variance = 2,
                       .cost = one.cost()},
                      one));
}

/// The integral alone, by sampling what the known mean of λ/(1-λ²) leaves: 1/(1+λ).
void add_control_variate(claim& c, law const& spectrum) {
  c.experiments.push_back(
      mean_experiment({.setting = short_text(spectrum),
                       .method = "control variate",
                       .exact = mean_stationary_gain(spectrum),
                       .printed = printed_gain(spectrum),
                       .variance = control_variate_variance(spectrum, {1, 1}),
                       .cost = 50,
                       .samples = 10000},
                      [spectrum, known = printed_gain(spectrum)](random_stream const& stream) {
                        return known + 1 / (1 + spectrum.sample(stream.uniform(0)).value);
                      }));
}

/// The integral alone, by quadrature in u = artanh λ, where the integrand is 1: as the paper's
/// equation (12) sets it up, before (16) loses its way.
void add_quadrature(claim& c, law const& spectrum) {
  double const a = std::atanh(spectrum.low.value);
  double const b = std::log((1 + spectrum.high.value) / spectrum.high.gap) / 2;
  auto const density = [&](double u) {
    double const sech = 1 / std::cosh(u);
    double const gain = 1 / (sech * sech);  // 1/(1 - tanh² u)
    return gain * sech * sech / spectrum.width();
  };
  double const value = boost::math::quadrature::gauss_kronrod<double, 61>::integrate(density, a, b);
  double const exact = mean_stationary_gain(spectrum);
  c.experiments.push_back(computed_experiment({.setting = short_text(spectrum),
                                               .method = "quadrature of E 1/(1-λ²)",
                                               .value = value,
                                               .exact = exact,
                                               .printed = printed_gain(spectrum),
                                               .tolerance = 1e-13 * exact}));
}

}  // namespace

claim theorem_4_2() {
  claim c{.id = "theorem-4.2",
          .place = "Theorem 4.2, eq. (8); proof eq. (11)-(18)",
          .statement = "Energy of the stationary state for eigenvalues uniform on [a, b].",
          .printed = "E‖h∞‖²/W = log((1-a²)/(1-b²)) / (2(b-a))",
          .exact = "E‖h∞‖²/W = (artanh b - artanh a)/(b-a)",
          .remark =
              "Equation (16) integrates λ/(1-λ²) in place of 1/(1-λ²). What is printed is "
              "too small by E 1/(1+λ), between W/2 and W, for every spectrum; it falls "
              "below W, the energy of a single input, for b < 0.9166 at a = 0. A run of "
              "0.082/(1-b) steps passes the printed value on its way (t = 83 below): such a "
              "run confirms the misprint.",
          .recorded = verdict::refuted,
          .experiments = {}};
  add_simulations(c, uniform(0, 0.01), {32, 8}, 4);
  add_simulations(c, uniform(0, 0.5), {32, 8}, 16);
  add_simulations(c, uniform(0.2, 0.8), {32, 8}, 64);
  add_simulations(c, uniform(0.3, 0.3), {32, 8}, 16);
  add_simulations(c, uniform(0, 0.9), {8, 16}, 64);
  add_simulations(c, uniform(0, 0.99), {8, 16}, 1024);
  add_simulations(c, uniform(0.5, 0.99), {8, 16}, 1024);
  add_simulations(c, uniform(0, 0.999), {32, 8}, 2048);
  add_simulations(c, uniform(0, 0.999), {32, 8}, 83, 2000);      // the trap
  add_simulations(c, uniform(0.9, 0.999), {4, 2}, 1024, 20000);  // no power
  for (auto const& spectrum : {uniform(0, 0.5), uniform(0, 0.99), uniform(0.9, 0.999)}) {
    add_normalized(c, spectrum);
  }
  auto const zero = pole<double>{};
  for (auto const& spectrum :
       {uniform(0.9, 0.999), law::between(zero, pole<double>::below_one(1e-6)),
        law::between(zero, pole<double>::below_one(1e-12))}) {
    add_control_variate(c, spectrum);
    add_quadrature(c, spectrum);
  }
  return c;
}

}  // namespace ssm::theory
