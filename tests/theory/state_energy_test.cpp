// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "spectrum/prediction.hpp"
#include "spectrum/simulation.hpp"
#include "support/layer_spectra.hpp"

namespace ssm::theory {
namespace {

using test::mamba1_layer;
using test::mamba2_layer;

/// Small layers of every kind: one channel, one state, shared and separate B, several heads.
std::vector<layer_spectrum> small_layers() {
  return {mamba1_layer(1, 1),       mamba1_layer(2, 2),       mamba1_layer(1, 3),
          mamba1_layer(3, 1),       mamba2_layer(1, 2, 2, 1), mamba2_layer(2, 1, 2, 1),
          mamba2_layer(2, 1, 1, 2), mamba2_layer(2, 2, 1, 1)};
}

std::string shape_of(layer_spectrum const& layer) {
  return std::to_string(layer.rows()) + " rows of " + std::to_string(layer.columns()) + ", " +
         std::to_string(layer.channels_per_row) + " channels and " +
         std::to_string(layer.states_per_column) + " states for each, " +
         std::to_string(layer.groups) + " groups";
}

/// S by the definition, with x(t, c) and B(t, g, n) given by a function of their place in a row of
/// numbers: all x of all steps, then all B.
template <class Input>
double average_energy(layer_spectrum const& layer, index_t steps, Input const& input) {
  index_t const channels = layer.channels(), states = layer.states();
  double sum = 0;
  for (index_t c = 0; c < channels; ++c) {
    index_t const row = c / layer.channels_per_row, group = row / layer.rows_per_group();
    for (index_t n = 0; n < states; ++n) {
      double const eigenvalue = layer.eigenvalue(row, n / layer.states_per_column);
      double const decay = std::exp(layer.step_size(row) * eigenvalue);
      double h = 0;
      for (index_t t = 0; t < steps; ++t) {
        double const x = input(t * channels + c);
        double const B = input(steps * channels + (t * layer.groups + group) * states + n);
        h = decay * h + layer.step_size(row) * B * x;
        sum += h * h;
      }
    }
  }
  double input_energy = 0;
  for (index_t c = 0; c < channels; ++c) {
    double const step = layer.step_size(c / layer.channels_per_row);
    input_energy += static_cast<double>(states) * step * step;
  }
  return sum / (static_cast<double>(steps) * input_energy);
}

// S is a polynomial of degree 2 in each of its inputs, so the three-point rule of Gauss and
// Hermite (-√3, 0, √3 with weights 1/6, 2/3, 1/6) gives E S and E S² without any error.
TEST(EnergyMoments, AreThoseOfAnEnumerationOfAllInputs) {
  for (auto const& layer : small_layers()) {
    index_t const of_step = layer.channels() + layer.groups * layer.states();
    index_t const steps = of_step > 4 ? 2 : 3;
    index_t const inputs = steps * of_step;
    std::vector<int> digit(static_cast<std::size_t>(inputs), -1);
    double mean = 0, square = 0;
    for (bool done = false; !done;) {
      double weight = 1;
      for (int const d : digit) weight *= d == 0 ? 2.0 / 3 : 1.0 / 6;
      double const S = average_energy(layer, steps, [&](index_t i) {
        return std::sqrt(3.0) * digit[static_cast<std::size_t>(i)];
      });
      mean += weight * S;
      square += weight * S * S;
      done = true;
      for (int& d : digit) {
        d = d == 1 ? -1 : d + 1;
        if (d != -1) {
          done = false;
          break;
        }
      }
    }
    moments const known = energy_moments(layer, steps);
    EXPECT_NEAR(known.mean, mean, 1e-12 * mean) << shape_of(layer);
    EXPECT_NEAR(known.variance, square - mean * mean, 1e-11 * square) << shape_of(layer);
  }
}

TEST(EnergyMoments, MeanIsThatOfTheStateGains) {
  auto const layer = mamba1_layer(5, 3);
  for (index_t const steps : {1, 2, 63, 64, 65, 1000}) {
    double sum = 0;
    for (index_t t = 1; t <= steps; ++t) {
      sum += state_energy(layer.view(), static_cast<double>(t)) / state_energy(layer.view(), 1.0);
    }
    double const mean = sum / static_cast<double>(steps);
    EXPECT_NEAR(energy_moments(layer, steps).mean, mean, 1e-12 * mean) << steps << " steps";
  }
}

TEST(EnergyOfLayer, IsThatOfThePlainRecurrenceOnTheSameInputs) {
  run_control const run;
  auto layers = small_layers();
  layers.push_back(mamba1_layer(7, 5));
  layers.push_back(mamba2_layer(6, 3, 5, 2));
  for (auto const& layer : layers) {
    for (index_t const steps : {1, 63, 64, 65, 130}) {
      random_stream const stream{7, 11};
      auto const x = stream.child(0), B = stream.child(1);
      index_t const all_x = steps * layer.channels();
      double const expected = average_energy(
          layer, steps, [&](index_t i) { return i < all_x ? x.normal(i) : B.normal(i - all_x); });
      EXPECT_NEAR(energy_of_layer(layer, steps, run)(stream), expected, 1e-12 * expected)
          << shape_of(layer) << ", " << steps << " steps";
    }
  }
}

TEST(EnergyOfLayer, HasTheKnownMeanAndVariance) {
  run_control const run;
  index_t const steps = 20, samples = 20000;
  for (auto const& layer : {mamba1_layer(4, 3), mamba2_layer(4, 2, 3, 2)}) {
    energy_of_layer sampler{layer, steps, run};
    moments const known = energy_moments(layer, steps);
    double sum = 0, squares = 0;
    for (index_t i = 0; i < samples; ++i) {
      double const centred = sampler(random_stream{3, 5}.child(i)) - known.mean;
      sum += centred;
      squares += centred * centred;
    }
    double const n = static_cast<double>(samples);
    EXPECT_LT(std::abs(sum / n), 4.5 * std::sqrt(known.variance / n)) << shape_of(layer);
    EXPECT_NEAR(squares / n, known.variance, 0.1 * known.variance) << shape_of(layer);
  }
}

TEST(EnergyExperiment, AcceptsTheTruthAndRejectsAWrongSpectrum) {
  run_control run;
  run.threads = 1;
  auto layer = mamba1_layer(32, 4);
  for (double& step : layer.step_size) step /= 100;
  finding const found = energy_experiment("test", layer, 100, run).run(run);
  EXPECT_TRUE(found.accepted) << found.z_exact;
  EXPECT_TRUE(found.rejected) << found.z_alternative;
  EXPECT_TRUE(found.decisive) << found.power;

  auto slower = layer;
  for (double& eigenvalue : slower.eigenvalue) eigenvalue *= 0.7;
  double const wrong = energy_moments(slower, 100).mean;
  EXPECT_GT(std::abs(found.value - wrong), 4.5 * found.standard_error);
}

TEST(EnergyExperiment, StopsInTheMiddleOfASample) {
  std::atomic<bool> const interrupted{true};
  run_control run;
  run.interrupted = &interrupted;
  EXPECT_THROW(energy_of_layer(mamba1_layer(2, 2), 1000, run)({1, 1}), stopped);
}

}  // namespace
}  // namespace ssm::theory
