// SPDX-License-Identifier: Apache-2.0
// operator.hpp: one operator in two translation units, compiled with different flags.
#pragma once

#include "ssm/selective_scan.hpp"
#include "support/selective_scan_problem.hpp"

namespace ssm::test {

selective_outcome<float> run_without_flags(instruction_set set, selective_problem<float> const& p);
selective_outcome<float> run_with_avx2(instruction_set set, selective_problem<float> const& p);

}  // namespace ssm::test
