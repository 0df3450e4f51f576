// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_test.cpp: the gradient of Mamba-2's operator in every policy.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "ssm/state_space_dual.hpp"
#include "support/ssd_gradients.hpp"

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

}  // namespace
