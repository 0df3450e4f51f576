// SPDX-License-Identifier: Apache-2.0
// Claims: the gains of Mamba (Corollary 4.3) and Mamba-2 (Corollary 4.4), and both limits of
// equation (9).
// Source: arXiv:2509.19633, section 4.1; proofs in equations (19) to (26).

#include <string>

#include "claims/all.hpp"
#include "closed_forms.hpp"
#include "experiments.hpp"
#include "systems.hpp"
#include "text.hpp"

namespace ssm::theory {
namespace {

using law = uniform_law<double>;

law up_to(double largest) {
  return law::between(pole<double>{}, pole<double>::at(largest));
}

/// A Mamba-1 channel of 16 states with decays U[0, l]. `printed` empty: the test must tell the
/// exact value from one off by 5 %.
experiment mamba1_experiment(double largest, double step_size, index_t steps,
                             std::optional<double> printed) {
  index_t const states = 16;
  auto const spectrum = up_to(largest);
  energy_of_mamba1<law> const channel{spectrum, step_size, states, steps};
  double const square = step_size * step_size;
  return mean_experiment(
      {.setting =
           short_text(spectrum) + ", Δ=" + short_text(step_size) + ", t=" + std::to_string(steps),
       .method = "recurrence (diagonal)",
       .exact = square * mean_state_gain(spectrum, steps),
       .printed = printed,
       .variance = square * square * energy_variance(spectrum, {states, 1}, steps),
       .cost = channel.cost()},
      channel);
}

/// A Mamba-2 head of 16 channels and 16 states with decay λ.
experiment mamba2_experiment(double decay, double step_size, index_t steps,
                             std::optional<double> printed, std::string const& note = "") {
  index_t const channels = 16, states = 16;
  auto const p = pole<double>::at(decay);
  energy_of_mamba2 const head{p, step_size, channels, states, steps};
  double const square = step_size * step_size;
  return mean_experiment(
      {.setting = "λ=" + short_text(decay) + ", Δ=" + short_text(step_size) +
                  ", t=" + std::to_string(steps) + note,
       .method = "recurrence (scalar identity)",
       .exact = square * state_gain(p, static_cast<double>(steps)),
       .printed = printed,
       .variance =
           square * square * shared_decay_variance(point_law<double>{p}, {states, channels}, steps),
       .cost = head.cost()},
      head);
}

}  // namespace

claim corollary_4_3() {
  claim c{.id = "corollary-4.3",
          .place = "Corollary 4.3; eq. (19)",
          .statement = "Gain of a Mamba layer, decays U[0, l], B discretized to ΔB.",
          .printed = "ρ = Δ/(2l) log(1/(1-l²))",
          .exact = "lim E‖h_t‖²/E‖Bx_t‖² = Δ² artanh(l)/l",
          .remark =
              "Wrong three ways: the integral of Theorem 4.2; Δ for Δ², since energies "
              "scale with the square; and ρ is called a rate of convergence, but is the "
              "gain of the stationary state, which is approached as l^2t.",
          .recorded = verdict::refuted,
          .experiments = {}};
  struct row {
    double largest, step_size;
    index_t steps;
  };
  for (auto const [l, step_size, steps] :
       {row{0.01, 1, 8}, row{0.5, 1, 32}, row{0.5, 0.1, 32}, row{0.9, 1, 128}, row{0.9, 0.1, 128},
        row{0.99, 0.1, 512}}) {
    c.experiments.push_back(
        mamba1_experiment(l, step_size, steps, printed_mamba_gain(pole<double>::at(l), step_size)));
  }
  return c;
}

claim corollary_4_4() {
  claim c{.id = "corollary-4.4",
          .place = "Corollary 4.4; eq. (20)-(26)",
          .statement = "Gain of a Mamba-2 head, all decays λ, B discretized to ΔB.",
          .printed = "O(Δ λ/(1-λ²))",
          .exact = "Δ²/(1-λ²) = Δ²/(1 - e^(-2αΔ))",
          .remark =
              "The proof differentiates the wrong antiderivative; equation (14) already "
              "gives 1/(1-λ²). No constant in the O(·) mends it: with one that fits at "
              "λ = 0.9 the form is still wrong at other λ and at other Δ.",
          .recorded = verdict::refuted,
          .experiments = {}};
  struct row {
    double decay, step_size;
    index_t steps;
  };
  for (auto const [decay, step_size, steps] : {row{0.01, 1, 8}, row{0.5, 1, 32}, row{0.5, 0.1, 32},
                                               row{0.9, 0.1, 128}, row{0.99, 0.1, 512}}) {
    c.experiments.push_back(mamba2_experiment(
        decay, step_size, steps, printed_mamba2_gain(pole<double>::at(decay), step_size)));
  }
  auto const fitted_at = pole<double>::at(0.9);
  double const constant = mamba2_gain(fitted_at, 1.0) / printed_mamba2_gain(fitted_at, 1.0);
  for (auto const [decay, step_size, steps] : {row{0.1, 1, 16}, row{0.9, 0.1, 128}}) {
    c.experiments.push_back(mamba2_experiment(
        decay, step_size, steps, constant * printed_mamba2_gain(pole<double>::at(decay), step_size),
        ", O(·) fitted"));
  }
  return c;
}

claim equation_9_to_one() {
  claim c{.id = "equation-9-to-1",
          .place = "Equation (9), first limit",
          .statement = "The gain of the state grows without bound as the decay goes to 1.",
          .printed = "lim ρ = ∞ as l → 1",
          .exact = "the same at fixed Δ: Δ²/(1-λ²) ~ Δ²/(2(1-λ))",
          .remark =
              "True at fixed Δ. As a function of l alone it is not defined, since "
              "λ = e^(-αΔ): where λ → 1 because Δ → 0, the gain Δ²/(1-λ²) ~ Δ/(2α) goes to "
              "0 (the last row), as it does under the zero-order hold of equation (3).",
          .recorded = verdict::holds,
          .experiments = {}};
  c.experiments.push_back(mamba2_experiment(0.5, 1, 32, {}));
  c.experiments.push_back(mamba2_experiment(0.9, 1, 96, {}));
  c.experiments.push_back(mamba2_experiment(0.99, 1, 512, {}));
  for (double const gap : {1e-3, 1e-6, 1e-12}) {
    auto const p = pole<double>::below_one(gap);
    // Summing λ^2k by doubling, S_2t = S_t (1 + λ^2t): an independent road to the limit.
    double sum = 1, log_factor = 2 * std::log1p(-gap);
    while (log_factor > -100) {
      sum *= 1 + std::exp(log_factor);
      log_factor *= 2;
    }
    c.experiments.push_back(computed_experiment({.setting = "λ=" + short_text(p) + ", Δ=1, t=∞",
                                                 .method = "sum of λ^2k by doubling",
                                                 .value = sum,
                                                 .exact = mamba2_gain(p, 1.0),
                                                 .tolerance = 1e-12 * sum}));
  }
  c.experiments.push_back(mamba2_experiment(std::exp(-0.01), 0.01, 256, {}, ", α=1"));
  return c;
}

claim equation_9_to_zero() {
  claim c{.id = "equation-9-to-0",
          .place = "Equation (9), second limit",
          .statement = "The gain of the state vanishes as the decay goes to 0.",
          .printed = "lim ρ = 0 as l → 0",
          .exact = "lim ρ = Δ², the energy of the discretized input itself",
          .remark =
              "A small decay destroys memory, not norm: the state still holds the input of "
              "this step, so its energy is never less than that. (Only under the "
              "zero-order hold at α → ∞ does the gain vanish, because the input gain does.)",
          .recorded = verdict::refuted,
          .experiments = {}};
  for (double const l : {0.1, 0.01, 0.001}) {
    c.experiments.push_back(
        mamba1_experiment(l, 1, 8, printed_mamba_gain(pole<double>::at(l), 1.0)));
  }
  c.experiments.push_back(
      mamba2_experiment(0.001, 1, 8, printed_mamba2_gain(pole<double>::at(0.001), 1.0)));
  return c;
}

}  // namespace ssm::theory
