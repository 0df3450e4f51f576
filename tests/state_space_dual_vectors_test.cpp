// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vectors_test.cpp: Mamba-2's operator against results that were computed
// elsewhere, in float64. (Its gradient: state_space_dual_vjp_test.cpp.)
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "compiled/state_space_dual.hpp"
#include "support/ssd_vectors.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr double in_double = 1e-12;

TEST(StateSpaceDualVectors, ResultsAgreeInDouble) {
  auto const file = operator_vectors();
  auto const cases = operator_cases(file, "ssd");
  ASSERT_EQ(cases.size(), 5u);
  double worst = 0;
  for (auto const& each : cases) {
    SCOPED_TRACE(each.name());
    vector_case<double> const from(each);
    auto const compare = [&](auto policy, char const* name) {
      auto const found = run_ssd(policy, from.inputs(), from.initial);
      double const error =
          std::max(relative_error(found.y, each.read<double, 4>("out.y")),
                   relative_error(found.carry, each.read<double, 4>("out.final_state")));
      EXPECT_LE(error, in_double) << name;
      worst = std::max(worst, error);
    };
    compare(sequential{}, "sequential");
    compare(chunked{16}, "chunked");
    compare(parallel{.threads = 1}, "parallel");
    compare(parallel{.threads = 1, .instructions = instruction_set::avx2}, "avx2");
    compare(parallel{.threads = 1, .instructions = instruction_set::baseline}, "baseline");
  }
  std::printf("[ double ] worst relative error %.2g\n", worst);
}

TEST(StateSpaceDualVectors, ResultsAgreeInFloatToDerivedRounding) {
  auto const file = operator_vectors();
  for (auto const& each : operator_cases(file, "ssd")) {
    SCOPED_TRACE(each.name());
    vector_case<float> const from(each);
    ssd_truth truth(from.inputs(), from.initial);
    truth.y = each.read<double, 4>("out.y");  // not by our own definition
    truth.carry = each.read<double, 4>("out.final_state");
    for (auto const set :
         {instruction_set::baseline, instruction_set::avx2, instruction_set::avx512}) {
      double const error = worst_error(
          run_ssd(parallel{.threads = 1, .instructions = set}, from.inputs(), from.initial), truth);
      EXPECT_LE(error, 1);
      std::printf("[ float ] %s: k = %.0f, worst error %.2g of k eps of the terms\n",
                  each.name().c_str(), static_cast<double>(from.B.extent(3)) / 2 + 36, error);
    }
    EXPECT_LE(worst_error(run_ssd(sequential{}, from.inputs(), from.initial), truth), 1);
  }
}

}  // namespace
