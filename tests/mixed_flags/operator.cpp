// SPDX-License-Identifier: Apache-2.0
// operator.cpp: compiled once without flags and once with -mavx2 -mfma.
#include "mixed_flags/operator.hpp"

namespace ssm::test {

#if defined(SSM_TEST_WITH_AVX2)
selective_outcome<float> run_with_avx2(instruction_set set, selective_problem<float> const& p)
#else
selective_outcome<float> run_without_flags(instruction_set set, selective_problem<float> const& p)
#endif
{
  return run_selective(parallel{.threads = 1, .instructions = set}, p);
}

}  // namespace ssm::test
