// SPDX-License-Identifier: Apache-2.0
// The generic scan, forward and gradient: state steps per second beside what bounds them.
//   floor      a copy of the bytes that the row reads and writes
//   baseline   the recurrence written by hand with Eigen, one array expression a step
// The CPU operators that fuse discretization and vectorize exp are not here yet; these rows are
// what they will be measured against. Rows are operation/policy/scalar/B×L×C×N.
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "ssm/ssm.hpp"

namespace {

using namespace ssm;

template <class T>
struct problem {
  problem(index_t length, index_t channels, index_t states)
      : step_size({1, length, channels}),
        x({1, length, channels}),
        y({1, length, channels}),
        B({1, length, states}),
        C({1, length, states}),
        A({channels, states}),
        carry({1, channels, states}) {
    random_stream const random{1};
    for (index_t i = 0; i < x.size(); ++i) {
      x.data()[i] = static_cast<T>(random.normal(i));
      step_size.data()[i] = softplus(static_cast<T>(random.child(1).normal(i) - 4));
    }
    for (index_t i = 0; i < B.size(); ++i) {
      B.data()[i] = static_cast<T>(random.child(2).normal(i));
      C.data()[i] = static_cast<T>(random.child(3).normal(i));
    }
    for (index_t c = 0; c < channels; ++c)
      for (index_t n = 0; n < states; ++n) A(c, n) = s4d_real<T>(n);
  }

  diagonal<mamba_hold, T> recurrence() const {
    return {
        .step_size = step_size, .eigenvalue = A, .B = B.view().broadcast(2, x.extent(2)), .x = x};
  }
  contract<T> readout() { return {C.const_view().broadcast(2, x.extent(2)), y}; }
  index_t state_steps() const { return x.size() * A.extent(1); }
  index_t bytes() const { return static_cast<index_t>(sizeof(T)) * (3 * x.size() + 2 * B.size()); }

  tensor<T, 3> step_size, x, y, B, C;
  tensor<T, 2> A;
  tensor<T, 3> carry;
};

/// The same operator by Eigen: all states of a channel in one expression.
template <class T>
void eigen_selective_scan(problem<T>& p) {
  index_t const length = p.x.extent(1), channels = p.x.extent(2), states = p.A.extent(1);
  using array = Eigen::Array<T, Eigen::Dynamic, 1>;
  for (index_t c = 0; c < channels; ++c) {
    Eigen::Map<array const> const A(&p.A(c, 0), states);
    array h = array::Zero(states);
    for (index_t t = 0; t < length; ++t) {
      T const delta = p.step_size(0, t, c), input = delta * p.x(0, t, c);
      Eigen::Map<array const> const B(&p.B(0, t, 0), states), C(&p.C(0, t, 0), states);
      h = (delta * A).exp() * h + input * B;
      p.y(0, t, c) = (C * h).sum();
    }
  }
}

/// Largest difference from y in double, relative to the largest |y|.
template <class T>
double error_of(problem<T> const& p, problem<double>& truth) {
  truth.carry = tensor<double, 3>(truth.carry.extents());
  scan(sequential{}, truth.recurrence(), truth.readout(), truth.carry);
  double difference = 0, largest = 0;
  for (index_t i = 0; i < p.y.size(); ++i) {
    difference = std::max(difference, std::abs(double(p.y.data()[i]) - truth.y.data()[i]));
    largest = std::max(largest, std::abs(truth.y.data()[i]));
  }
  return difference / largest;
}

template <class T, class Run>
void measure(benchmark::State& state, problem<T>& p, Run const& run) {
  {
    problem<double> truth(p.x.extent(1), p.x.extent(2), p.A.extent(1));
    // Inputs of a float row are themselves rounded: 8 eps of each of a few hundred live terms.
    run();
    double const error = error_of(p, truth);
    if (!(error < 2048 * double(std::numeric_limits<T>::epsilon()))) {
      return state.SkipWithError(("wrong by " + std::to_string(error)).c_str());
    }
  }
  for (auto _ : state) {
    run();
    benchmark::DoNotOptimize(p.y.data());
    benchmark::ClobberMemory();
  }
  auto const rounds = static_cast<double>(state.iterations());
  state.counters["state_steps/s"] = benchmark::Counter(
      rounds * static_cast<double>(p.state_steps()), benchmark::Counter::kIsRate);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * p.bytes());
}

template <class T>
void register_rows(char const* scalar, index_t length, index_t channels, index_t states) {
  auto const shape = std::string(scalar) + "/1x" + std::to_string(length) + "x" +
                     std::to_string(channels) + "x" + std::to_string(states);
  auto const add = [](std::string const& name, auto const& body) {
    benchmark::RegisterBenchmark(name.c_str(), body)->Unit(benchmark::kMillisecond)->UseRealTime();
  };
  add("copy/floor/" + shape, [=](benchmark::State& state) {
    problem<T> const p(length, channels, states);
    auto const half = static_cast<std::size_t>(p.bytes() / 2);
    std::vector<char> from(half, 1), to(half);
    for (auto _ : state) {
      std::memcpy(to.data(), from.data(), half);
      benchmark::ClobberMemory();
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * p.bytes());
  });
  add("scan/eigen_baseline/" + shape, [=](benchmark::State& state) {
    problem<T> p(length, channels, states);
    measure(state, p, [&] { eigen_selective_scan(p); });
  });
  auto const add_policy = [&](auto policy, std::string const& name) {
    add("scan/" + name + "/" + shape, [=](benchmark::State& state) {
      problem<T> p(length, channels, states);
      measure(state, p, [&] {
        p.carry = tensor<T, 3>(p.carry.extents());
        scan(policy, p.recurrence(), p.readout(), p.carry);
      });
    });
  };
  add_policy(sequential{}, "sequential");
  add_policy(chunked{.length = 256}, "chunked:256");
  add_policy(parallel{}, "parallel");
  add("scan_vjp/parallel/" + shape, [=](benchmark::State& state) {
    problem<T> p(length, channels, states);
    tensor<T, 3> const initial(p.carry.extents());
    tensor<T, 3> cotangent(p.carry.extents()), x_gradient(p.x.extents());
    tensor<T, 2> A_gradient(p.A.extents());
    auto const C = p.readout().C;
    measure(state, p, [&] {
      p.carry = tensor<T, 3>(p.carry.extents());
      scan(parallel{}, p.recurrence(), p.readout(), p.carry);
      scan_vjp(parallel{}, p.recurrence(), contract_vjp<T>{.C = C, .y_cotangent = p.y}, initial,
               cotangent, {.eigenvalue = A_gradient, .x = x_gradient});
    });
  });
}

}  // namespace

int main(int count, char** arguments) {
  register_rows<float>("f32", 2048, 256, 16);  // many lanes: time is not cut
  register_rows<double>("f64", 2048, 256, 16);
  register_rows<double>("f64", 65536, 1, 16);  // one lane: time is cut
  std::vector<char*> with_interleaving(arguments, arguments + count);
  std::string interleaving = "--benchmark_enable_random_interleaving=true";
  with_interleaving.insert(with_interleaving.begin() + 1, interleaving.data());
  int total = count + 1;
  benchmark::Initialize(&total, with_interleaving.data());
  if (benchmark::ReportUnrecognizedArguments(total, with_interleaving.data())) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
