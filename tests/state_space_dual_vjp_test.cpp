// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_test.cpp: the gradient of Mamba-2's operator in every policy.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <type_traits>

#include "compiled/state_space_dual.hpp"
#include "support/ssd_gradients.hpp"
#include "support/ssd_vectors.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class R>
struct cotangents {
  tensor<R, 4> y, carry;

  explicit cotangents(ssd_sizes const& s)
      : y{uniform_tensor<R>(s.sequences(), 31, -1, 1)},
        carry{uniform_tensor<R>(s.carry(), 32, -1, 1)} {}
};

/// The largest difference, in the largest magnitude of what is expected.
template <class R, int Rank>
double relative_difference(tensor<R, Rank> const& found, tensor<R, Rank> const& expected) {
  double worst = 0, largest = 1e-300;
  for (index_t i = 0; i < found.size(); ++i) {
    double const error =
        std::abs(static_cast<double>(found.data()[i]) - static_cast<double>(expected.data()[i]));
    if (!(error <= worst)) worst = error == error ? error : 1e300;
    largest = std::max(largest, std::abs(static_cast<double>(expected.data()[i])));
  }
  return worst / largest;
}

constexpr ssd_sizes odd_sizes[] = {
    {1, 0, 1, 1, 1, 1},    {2, 1, 3, 5, 1, 7},     {1, 15, 1, 1, 1, 1},   {2, 16, 3, 16, 3, 16},
    {1, 17, 2, 64, 1, 9},  {1, 63, 3, 80, 1, 100}, {2, 64, 1, 5, 1, 128}, {1, 65, 4, 64, 2, 16},
    {1, 130, 2, 80, 2, 7}, {1, 260, 2, 3, 1, 20},
};

TEST(StateSpaceDualVjp, ProductsOfMatricesGiveTheGradientOfTheRecurrence) {
  double worst = 0;
  for (ssd_sizes const& sizes : odd_sizes) {
    SCOPED_TRACE(test::to_string(sizes));
    ssd_problem<double> const problem(sizes);
    cotangents<double> const arriving(sizes);
    auto const expected =
        run_ssd_vjp(sequential{}, problem.inputs(), problem.initial, arriving.y, arriving.carry);
    for (auto const set :
         {instruction_set::baseline, instruction_set::avx2, instruction_set::avx512}) {
      auto const found = run_ssd_vjp(parallel{.threads = 1, .instructions = set}, problem.inputs(),
                                     problem.initial, arriving.y, arriving.carry);
      for_each_ssd_gradient(
          [&](char const* name, auto const& f, auto const& e) {
            double const error = relative_difference(f, e);
            EXPECT_LE(error, 1e-12) << name;
            worst = std::max(worst, error);
          },
          found, expected);
    }
  }
  std::printf("[ double ] worst relative difference %.2g\n", worst);
}

// Cotangents are divided by the decays after them, where these are neither small nor large and the
// quotients not too large, or those of a chunk are taken in parts.
TEST(StateSpaceDualVjp, ExtremeDecaysAndLargeCotangentsAreRight) {
  constexpr ssd_sizes sizes{1, 70, 1, 16, 1, 24};
  for (double const eigenvalue : {-1e4, -60.0, -3.0, -1.4, -1e-6, 0.0, 2.0}) {
    for (double const large : {1.0, 1e285}) {
      ssd_problem<double> problem(sizes);
      cotangents<double> arriving(sizes);
      problem.eigenvalue(0) = eigenvalue;
      auto inputs = problem.inputs();
      inputs.step_rule.limits = {0, 1};
      for (index_t t = 1; t < 70; t += 3)
        for (index_t p = 0; p < 16; ++p) arriving.y(0, t, 0, p) *= large;
      auto const expected =
          run_ssd_vjp(sequential{}, inputs, problem.initial, arriving.y, arriving.carry);
      auto const found =
          run_ssd_vjp(parallel{.threads = 1}, inputs, problem.initial, arriving.y, arriving.carry);
      for_each_ssd_gradient(
          [&](char const* name, auto const& f, auto const& e) {
            EXPECT_LE(relative_difference(f, e), 1e-12)
                << name << ' ' << eigenvalue << ' ' << large;
          },
          found, expected);
    }
  }
}

constexpr double in_double = 1e-12;

/// The gradients of a case in `found` against those of the file, as error(found, expected).
template <class R, class Error>
double worst_gradient(operator_case const& each, ssd_gradient<R> const& found, Error const& error) {
  double worst = 0;
  int compared = 0;
  auto const compare = [&](char const* name, auto const& f) {
    std::string const full = std::string("grad.") + name;
    if (!each.contains(full)) return;
    constexpr int rank = std::remove_cvref_t<decltype(f.view())>::rank;
    double const here = error(f, each.template read<double, rank>(full));
    EXPECT_LE(here, 1) << name;
    worst = std::max(worst, here);
    ++compared;
  };
  compare("x", found.x);
  compare("dt", found.step_size);
  compare("A", found.eigenvalue);
  compare("B", found.B);
  compare("C", found.C);
  compare("z", found.gate);
  compare("bias", found.step_bias);
  compare("h0", found.initial);
  if (!vector_case<double>::one_D_a_head(each)) {
    compare("D", found.D);
  } else {
    tensor<R, 1> D({found.D.extent(0)});  // the gradient of one number a head
    for (index_t h = 0; h < D.extent(0); ++h)
      for (index_t p = 0; p < found.D.extent(1); ++p) D(h) += found.D(h, p);
    compare("D", D);
  }
  EXPECT_GE(compared, 5);
  return worst;
}

template <class T>
ssd_gradient<T> gradient_of(auto policy, operator_case const& each) {
  vector_case<T> const from(each);
  return run_ssd_vjp(policy, from.inputs(), from.initial, each.read<T, 4>("cotangent.y"),
                     each.read<T, 4>("cotangent.final_state"));
}

TEST(StateSpaceDualVjp, AgreesWithResultsComputedElsewhere) {
  auto const file = operator_vectors();
  double worst = 0;
  for (auto const& each : operator_cases(file, "ssd")) {
    auto const compare = [&](auto policy, char const* name) {
      SCOPED_TRACE(each.name() + ", " + name);
      auto const error = [](auto const& f, auto const& e) {
        return relative_error(f, e) / in_double;
      };
      worst = std::max(worst, worst_gradient(each, gradient_of<double>(policy, each), error));
    };
    compare(sequential{}, "sequential");
    compare(chunked{16}, "chunked");
    compare(parallel{.threads = 1}, "parallel");
    compare(parallel{.threads = 1, .instructions = instruction_set::avx2}, "avx2");
    compare(parallel{.threads = 1, .instructions = instruction_set::baseline}, "baseline");
  }
  std::printf("[ double ] gradients: worst relative error %.2g\n", worst * in_double);
}

}  // namespace
