// SPDX-License-Identifier: Apache-2.0
// spsa_ensmallen.hpp: the SPSA of ensmallen (mlpack) on our problems.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ensmallen.hpp>
#include <functional>
#include <span>

#include "support/spsa_problem.hpp"

namespace ssm::bench {

/// a/(k+1+A)^0.602 and c/(k+1)^0.101; ensmallen's own are 0.16, its A 0.001 × the iterations, 0.3.
struct ensmallen_gains {
  double step = 0.16;
  double offset = 100;
  double perturbation = 0.3;
};

/// Call at(x, evaluations) after every step until it returns false.
inline void run_ensmallen(spsa_problem const& problem, ensmallen_gains const& gains,
                          std::uint64_t seed,
                          std::function<bool(std::span<double const>, index_t)> const& at) {
  struct counted_loss {
    noisy_loss const& loss;
    random_stream stream;
    index_t evaluations = 0;
    double Evaluate(arma::mat const& x) {
      return loss({x.memptr(), x.n_elem}, stream.child(evaluations++));
    }
  } counted{problem.loss, random_stream{seed}.child(7)};
  struct observer {
    counted_loss& counted;
    std::function<bool(std::span<double const>, index_t)> const& at;
    bool StepTaken(ens::SPSA&, counted_loss&, arma::mat const& x) {
      return !at({x.memptr(), x.n_elem}, counted.evaluations);
    }
  } see{counted, at};
  arma::arma_rng::set_seed(seed);
  arma::mat x(problem.start);
  // its A is 0.001 × the iterations; they end when `at` says so
  auto const iterations = static_cast<std::size_t>(1000 * gains.offset);
  ens::SPSA spsa(0.602, 0.101, gains.step, gains.perturbation, iterations, 0.0);
  spsa.Optimize(counted, x, see);
}

}  // namespace ssm::bench
