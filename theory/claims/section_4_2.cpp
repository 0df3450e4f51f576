// SPDX-License-Identifier: Apache-2.0
// Claim: scaling every step size by s is scaling A by s, but for a factor s of the state.
// Source: against arXiv:2509.19633, section 4.2, which prefers scaling A because scaling the step
// "does not address the root cause", the spectrum. Step s·Δ and eigenvalue λ have the decay
// e^{sΔλ} of step Δ and eigenvalue s·λ; the input weight is s times larger. By induction from
// h_0 = 0, h^{step scaled}_t = s · h^{A scaled}_t for every input and every t, selective or not.

#include <cmath>
#include <limits>
#include <string>

#include "claims/all.hpp"
#include "closed_forms.hpp"
#include "experiments.hpp"
#include "systems.hpp"
#include "text.hpp"

namespace ssm::theory {
namespace {

/// 1 + max |h^{step scaled} - s h^{A scaled}|/‖s h^{A scaled}‖_max over all steps and states of a
/// Mamba-1 channel with random step sizes softplus(N(-1, 1)), inputs and B_t.
struct deviation_of_scalings {
  index_t states, steps;
  double scale;

  double operator()(random_stream const& stream) const {
    tensor<double, 3> step_size({1, steps, 1}), scaled_step({1, steps, 1}), x({1, steps, 1});
    tensor<double, 2> eigenvalue({1, states}), scaled_eigenvalue({1, states});
    tensor<double, 4> B({1, steps, 1, states}), by_step(B), by_A(B);
    auto const steps_in = stream.child(0);
    for (index_t t = 0; t < steps; ++t) {
      step_size(0, t, 0) = softplus(steps_in.normal(t) - 1);
      scaled_step(0, t, 0) = scale * step_size(0, t, 0);
    }
    for (index_t n = 0; n < states; ++n) {
      eigenvalue(0, n) = s4d_real<double>(n);
      scaled_eigenvalue(0, n) = scale * eigenvalue(0, n);
    }
    stream.child(1).fill_normal({x.data(), static_cast<std::size_t>(steps)});
    stream.child(2).fill_normal({B.data(), static_cast<std::size_t>(B.size())});

    using mamba1 = diagonal<mamba_hold, double>;
    tensor<double, 3> carry({1, 1, states});
    scan(sequential{}, mamba1{.step_size = scaled_step, .eigenvalue = eigenvalue, .B = B, .x = x},
         store_states<double>{by_step}, carry.view());
    std::fill(carry.begin(), carry.end(), 0.0);
    scan(sequential{},
         mamba1{.step_size = step_size, .eigenvalue = scaled_eigenvalue, .B = B, .x = x},
         store_states<double>{by_A}, carry.view());

    double difference = 0, largest = 0;
    for (index_t i = 0; i < B.size(); ++i) {
      difference = std::max(difference, std::abs(by_step.data()[i] - scale * by_A.data()[i]));
      largest = std::max(largest, std::abs(scale * by_A.data()[i]));
    }
    return 1 + difference / largest;
  }
};

}  // namespace

claim section_4_2_scaling() {
  claim c{.id = "section-4.2",
          .place = "Section 4.2, on MambaExtend: tuning Δ \"does not address the root cause\"",
          .statement = "Scaling A and scaling the step act on the spectrum in the same way.",
          .printed = "(denied by the paper) h_t(Δ scaled by s) = s · h_t(A scaled by s)",
          .exact = "true for every input, every t, selective or not, from h0 = 0",
          .remark =
              "A common factor gives the same decays λ^s, the same memory and the same "
              "growth with length; only the level differs, by s² in energy. Nor can one "
              "factor compress large decays and inflate small ones: λ^s moves all one way. "
              "What a factor on A adds is a factor for each state within a channel.",
          .recorded = verdict::holds,
          .experiments = {}};
  double const eps = std::numeric_limits<double>::epsilon();
  for (double const s : {0.5, 0.9, 3.0}) {
    index_t const steps = 512;
    // z = sΔλ rounds in two orders and decays as |z|e^{-|z|k} over k steps: a few eps in all; the
    // states round by 2 eps a step and forget at the same rate.
    c.experiments.push_back(bound_experiment({.setting = "s=" + short_text(s) + ", t≤512, N=16",
                                              .method = "1 + largest relative difference",
                                              .alternative = 1 - wrong_by,
                                              .rounding = 64 * eps * static_cast<double>(steps),
                                              .cost = 4e5,
                                              .samples = 200},
                                             deviation_of_scalings{16, steps, s}));
  }
  struct scaling {
    char const* name;
    double step_factor;  ///< of the input weight; the decays are the same
  };
  for (auto const [name, factor] : {scaling{"A", 1}, scaling{"Δ", 3}}) {
    double const s = 3, step_size = 0.1 * factor;
    index_t const states = 16, steps = 64;
    auto const law = s4d_real_law<double>::of(states, 0.1 * s);
    energy_of_mamba1<s4d_real_law<double>> const channel{law, step_size, states, steps};
    double const square = step_size * step_size;
    c.experiments.push_back(
        mean_experiment({.setting = std::string("S4D-real, Δ=0.1, s=3 on ") + name,
                         .method = "recurrence (diagonal)",
                         .exact = square * mean_state_gain(law, steps),
                         .variance = square * square * energy_variance(law, {states, 1}, steps),
                         .cost = channel.cost()},
                        channel));
  }
  return c;
}

}  // namespace ssm::theory
