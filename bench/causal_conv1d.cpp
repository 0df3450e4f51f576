// SPDX-License-Identifier: Apache-2.0
// The causal convolution of a Mamba block with bias and SiLU, forward and gradient, beside a copy
// of its bytes and the readable loop. The last extent of a row's name is the width.
#include "ssm/causal_conv1d.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "ssm/random.hpp"
#include "ssm/tensor.hpp"
#include "support/program.hpp"

namespace {

using namespace ssm;
using namespace ssm::bench;

template <class To, class From, int Rank>
tensor<To, Rank> converted(tensor<From, Rank> const& from) {
  tensor<To, Rank> to(from.extents());
  for (index_t i = 0; i < to.size(); ++i) {
    to.data()[i] = static_cast<To>(static_cast<accumulator_t<From>>(from.data()[i]));
  }
  return to;
}

template <class T>
struct convolution {
  using A = accumulator_t<T>;

  explicit convolution(problem_size const& s)
      : x({s.batch, s.length, s.channels}),
        y(x.extents()),
        carry({s.batch, s.channels, s.states - 1}),
        weight({s.channels, s.states}),
        bias({s.channels}) {
    random_stream const random{1};
    for (index_t i = 0; i < x.size(); ++i) x.data()[i] = T(static_cast<A>(random.normal(i)));
    for (index_t i = 0; i < weight.size(); ++i) {
      weight.data()[i] = static_cast<A>(random.child(1).normal(i) / 2);
    }
    for (index_t i = 0; i < bias.size(); ++i) {
      bias.data()[i] = static_cast<A>(random.child(2).normal(i));
    }
  }

  causal_conv1d_inputs<T> inputs(activation kind = activation::silu) const {
    return {.x = x, .weight = weight, .bias = bias, .activation = kind};
  }
  void clear_carry() { std::fill(carry.begin(), carry.end(), T(A(0))); }

  tensor<T, 3> x, y, carry;
  tensor<A, 2> weight;
  tensor<A, 1> bias;
};

/// The error of y as a multiple of the stated bound: (width + 1)/2 eps of the terms through a slope
/// of at most 1.1, 4 eps of y, and half a unit of what y is stored in.
template <class T>
double error_of(convolution<T> const& p) {
  problem_size const size{p.x.extent(0), p.x.extent(1), p.x.extent(2), p.weight.extent(1)};
  convolution<double> truth(size), terms(size);
  truth.x = converted<double>(p.x);
  truth.weight = converted<double>(p.weight);
  truth.bias = converted<double>(p.bias);
  causal_conv1d(sequential{}, truth.inputs(), truth.carry, truth.y);
  auto const magnitudes = [](auto& to, auto const& from) {
    std::transform(from.begin(), from.end(), to.begin(), [](double v) { return std::abs(v); });
  };
  magnitudes(terms.x, truth.x);
  magnitudes(terms.weight, truth.weight);
  magnitudes(terms.bias, truth.bias);
  causal_conv1d(sequential{}, terms.inputs(activation::none), terms.carry, terms.y);
  double const eps = double(std::numeric_limits<accumulator_t<T>>::epsilon());
  double const unit = std::is_same_v<T, bfloat16>  ? 0x1p-8
                      : std::is_same_v<T, float16> ? 0x1p-11
                                                   : 0;
  double worst = 0;
  for (index_t i = 0; i < p.y.size(); ++i) {
    double const y = truth.y.data()[i], found = double(accumulator_t<T>(p.y.data()[i]));
    double const bound = eps * (1.1 * double(size.states + 1) / 2 * terms.y.data()[i]) +
                         (4 * eps + unit) * std::abs(y) + unit * 0x1p-14;
    double const ratio = std::abs(found - y) / (1.001 * bound);
    worst = ratio >= 0 ? std::max(worst, ratio) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

template <class T>
void add_rows(group& rows, std::string const& scalar, problem_size const& size) {
  lazy<convolution<T>> const problem([=] { return convolution<T>(size); });
  // SiLU: an exponential by a polynomial of degree 6, in double 12, and a division.
  double const silu = sizeof(T) == 8 ? 18 : 11;
  work const needed{.multiply_adds = double(size.states) + silu, .bytes = 2 * sizeof(T)};
  auto const named = [&](std::string const& policy, int threads, instruction_set set) {
    return row{
        .operation = "causal_conv1d",
        .policy = policy,
        .scalar = scalar,
        .size = size,
        .with = {.threads = threads, .instructions = set, .scalar_bytes = sizeof(accumulator_t<T>)},
        .needed = needed,
        .relative_to = "causal_conv1d/sequential"};
  };
  auto const widest = instruction_set::widest;
  rows.add(named("memcpy", 1, widest), [=] {
    return task{[&p = *problem] {
      std::memcpy(static_cast<void*>(p.y.data()), p.x.data(),
                  static_cast<std::size_t>(p.x.size()) * sizeof(T));
    }};
  });
  auto const add_policy = [&](auto policy, row const& what) {
    rows.add(what, [=] {
      return task{[=, &p = *problem] {
                    p.clear_carry();
                    causal_conv1d(policy, p.inputs(), p.carry, p.y);
                  },
                  [&p = *problem] { return error_of(p); }};
    });
  };
  add_policy(sequential{}, named("sequential", 1, widest));
  add_policy(parallel{1, 0, instruction_set::baseline},
             named("parallel:1:baseline", 1, instruction_set::baseline));
  add_policy(parallel{1, 0, instruction_set::avx2},
             named("parallel:1:avx2", 1, instruction_set::avx2));
  add_policy(parallel{1}, named("parallel:1", 1, widest));
  add_policy(parallel{}, named("parallel", all_threads(), widest));

  using A = accumulator_t<T>;
  auto const add_gradient = [&](auto policy, std::string const& name, int threads) {
    auto what = named(name, threads, widest);
    what.operation = "causal_conv1d_vjp";
    what.relative_to = "causal_conv1d_vjp/sequential";
    what.needed.bytes = sizeof(T) + 3 * sizeof(A);  // x, the cotangent, and its gradient twice
    what.needed.multiply_adds = 3.0 * double(size.states) + 2 * silu;
    rows.add(what, [=] {
      auto& p = *problem;
      struct sums {
        tensor<A, 3> y_cotangent, x;
        tensor<A, 2> weight;
        tensor<A, 1> bias;
      };
      auto const g = std::make_shared<sums>(
          sums{converted<A>(p.x), tensor<A, 3>(p.x.extents()), p.weight, p.bias});
      auto const run = [&p](auto with, sums& to) {
        causal_conv1d_vjp(with, p.inputs(), {}, to.y_cotangent, {},
                          {.x = to.x, .weight = to.weight, .bias = to.bias});
      };
      return task{[=] { run(policy, *g); },
                  [=] {  // tests have the bound; here 64 eps of the largest gradient
                    std::fill(g->x.begin(), g->x.end(), A(0));
                    sums reference = *g;
                    run(policy, *g);
                    run(sequential{}, reference);
                    double largest = 0, error = 0;
                    for (index_t i = 0; i < g->x.size(); ++i) {
                      double const expected = double(reference.x.data()[i]);
                      largest = std::max(largest, std::abs(expected));
                      error = std::max(error, std::abs(double(g->x.data()[i]) - expected));
                    }
                    return error / largest / (64 * double(std::numeric_limits<A>::epsilon()));
                  }};
    });
  };
  add_gradient(sequential{}, "sequential", 1);
  add_gradient(parallel{1}, "parallel:1", 1);
  add_gradient(parallel{}, "parallel", all_threads());
}

}  // namespace

int main(int count, char** arguments) {
  return run_program(count, arguments, [](program& all) {
    for (index_t const length : {1, 256, 2048, 16384}) {
      if (length > 2048 && !all.is_full()) continue;
      all.run([=](group& rows) { add_rows<float>(rows, "f32", {1, length, 1536, 4}); });
    }
    all.run([](group& rows) { add_rows<double>(rows, "f64", {1, 2048, 1536, 4}); });
    all.run([](group& rows) { add_rows<bfloat16>(rows, "bf16", {1, 2048, 1536, 4}); });
    all.run([](group& rows) { add_rows<float16>(rows, "f16", {1, 2048, 1536, 4}); });
  });
}
