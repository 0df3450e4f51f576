// SPDX-License-Identifier: Apache-2.0
// main.cpp: of functions that two translation units share the linker keeps one, with the flags of
// either. Results stay within the bound whichever it is: this program is linked in both orders.
#include <gtest/gtest.h>

#include "mixed_flags/operator.hpp"
#include "ssm/detail/instruction_set.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

TEST(MixedFlags, AreWithinTheBoundInBothUnitsWithEveryInstructionSet) {
  if (ssm::detail::machine_instruction_set() == instruction_set::baseline) {
    GTEST_SKIP() << "this machine has no AVX2";
  }
  for (index_t const length : {1, 33}) {  // a step, and a scan
    auto const p = random_selective<float>({2, length, 17, 5}, 1, selective_options::all(), 900);
    selective_truth const truth(converted_problem<double>(p));
    for (auto const set :
         {instruction_set::baseline, instruction_set::avx2, instruction_set::widest})
      for (auto const run : {run_without_flags, run_with_avx2}) {
        auto const found = run(set, p);
        EXPECT_LE(worst_ratio(found.y, truth.y, truth.y_bound), 1) << p.name();
        EXPECT_LE(worst_ratio(found.carry, truth.carry, truth.carry_bound), 1) << p.name();
      }
  }
}

}  // namespace
