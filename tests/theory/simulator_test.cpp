// SPDX-License-Identifier: Apache-2.0
// Samplers describe the systems that they run, and experiments hand them to a simulator whole.
#include "simulator.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <vector>

#include "closed_forms/spectra.hpp"
#include "experiments.hpp"
#include "spectrum/simulation.hpp"
#include "speed.hpp"
#include "support/layer_spectra.hpp"
#include "systems.hpp"
#include "theory/plain_simulator.hpp"

namespace ssm::theory {
namespace {

auto const law = uniform_law<double>::between(pole<double>::at(0.2), pole<double>::at(0.99));

/// What the sampler gives for a replicate against its system in plain loops.
template <class Sampler>
void expect_described(Sampler sampler) {
  auto const system = sampler.system();
  random_stream const stream{3, 5};
  for (index_t const i : {0, 7}) {
    tensor<double, 2> eigenvalues({1, system.eigenvalues()});
    sampler.draw_eigenvalues(stream.child(i),
                             {eigenvalues.data(), static_cast<std::size_t>(system.eigenvalues())});
    plain_simulator plain;
    double const expected = plain.sum(system, {stream, i, 1}, eigenvalues);
    ASSERT_LT(plain.tolerance, 1e-9 * expected);
    EXPECT_NEAR(sampler(stream.child(i)), expected, plain.tolerance);
  }
}

TEST(SystemSampler, DescribesTheSystemThatItRuns) {
  run_control const run;
  expect_described(energy_of_recurrence{law, {3, 2}, 5});
  expect_described(energy_of_recurrence{law, {1, 1}, 64});
  expect_described(normalized_energy_of_recurrence<uniform_law<double>>{law, {3, 2}, 5});
  expect_described(energy_of_mamba1{law, 0.1, 5, 33});
  expect_described(energy_of_mamba2{pole<double>::at(0.9), 0.1, 3, 5, 33});
  auto const mamba1 = test::mamba1_layer(4, 3);
  auto const mamba2 = test::mamba2_layer(4, 2, 3, 2);
  expect_described(energy_of_layer{mamba1, 70, run});
  expect_described(energy_of_layer{mamba2, 70, run});
}

TEST(SystemSampler, CountsItsStates) {
  EXPECT_EQ((energy_of_recurrence{law, {3, 2}, 5}.system().updates()), 15);
  EXPECT_EQ((energy_of_mamba1{law, 0.1, 5, 33}.system().updates()), 165);
  EXPECT_EQ((energy_of_mamba2{pole<double>::at(0.9), 0.1, 3, 5, 33}.system().updates()), 495);
}

template <class Sampler>
experiment mean_of(Sampler const& sampler, index_t samples) {
  return mean_experiment(
      {.setting = "s", .method = "m", .exact = 1, .variance = 1, .samples = samples}, sampler);
}

TEST(MeanExperiment, FindsTheSameOnASimulator) {
  plain_simulator plain;
  run_control here, there;
  there.gpu = &plain;
  auto const mean = mean_of(energy_of_recurrence{law, {2, 3}, 8}, 100);
  finding const expected = mean.run(here), found = mean.run(there);
  EXPECT_NEAR(found.value, expected.value, plain.tolerance / 100);
  EXPECT_EQ(found.samples, 100);
  EXPECT_EQ(found.standard_error, expected.standard_error);
  EXPECT_EQ(here.states, 1600);
  EXPECT_EQ(there.states, 1600);
}

/// Notes what it is asked for; a sum is its count.
struct notes final : simulator {
  std::vector<replicates> asked{};
  std::vector<index_t> rows{};
  std::vector<double> first_decays{};

  std::string name() const override { return "notes"; }
  double sum(linear_system const&, replicates const& of, numbers decay) override {
    asked.push_back(of);
    rows.push_back(decay.extent(0));
    first_decays.push_back(decay(0, 0));
    return static_cast<double>(of.count);
  }
  double sum(mamba1_channel const&, replicates const&, numbers) override { return 0; }
  double sum(mamba2_head const&, replicates const&, numbers) override { return 0; }
  double sum(layer_system const&, replicates const&, numbers) override { return 0; }
};

/// So large a system that a gigabyte holds few.
struct large_sampler {
  linear_system system() const { return {2, 3, 1 << 23}; }
  void draw_eigenvalues(random_stream const& replicate, std::span<double> to) const {
    for (double& value : to) value = replicate.uniform(0);
  }
  double operator()(random_stream const&) const { return 0; }
};

TEST(MeanExperiment, AsksASimulatorForEveryReplicateOnceInRounds) {
  notes all;
  run_control run;
  run.gpu = &all;
  EXPECT_EQ(mean_of(large_sampler{}, 13).run(run).value, 1);  // 5 a round
  ASSERT_EQ(all.asked.size(), 3u);
  index_t next = 0;
  for (std::size_t i = 0; i < all.asked.size(); ++i) {
    EXPECT_EQ(all.asked[i].first, next);
    EXPECT_EQ(all.asked[i].count, all.rows[i]);
    EXPECT_EQ(all.asked[i].stream, stream_of(run, "s", "m"));
    EXPECT_EQ(all.first_decays[i], all.asked[i].stream.child(next).uniform(0));
    next += all.asked[i].count;
  }
  EXPECT_EQ(next, 13);
}

TEST(SpeedText, SaysWhereAndHowFast) {
  run_control run;
  run.threads = 2;
  EXPECT_EQ(speed_text(speed_of(run)), "");
  run.states = 3e9;
  run.states_seconds = 2;
  EXPECT_EQ(speed_text(speed_of(run)), "3e9 states simulated on 2 threads in 2 s, 1.5e9 a second.");
  notes other;
  run.gpu = &other;
  run.law_seconds = 0.5;
  EXPECT_EQ(speed_text(speed_of(run)),
            "3e9 states simulated on notes in 2 s, 1.5e9 a second; 0.5 s of it drew eigenvalues.");
}

}  // namespace
}  // namespace ssm::theory
