// SPDX-License-Identifier: Apache-2.0
// all.hpp: every claim that is checked, in the order of the paper. A claim is a function here, a
// file beside this one, and a line in all_claims().
#pragma once

#include <vector>

#include "claim.hpp"

namespace ssm::theory {

claim lemma_4_1();
claim theorem_4_2();
claim corollary_4_3();
claim corollary_4_4();
claim equation_9_to_one();
claim equation_9_to_zero();
claim section_4_2_scaling();
claim theorem_b_1();
claim appendix_b_3_covariance();
claim appendix_b_3_deviation();
claim appendix_b_4_to_one();
claim appendix_b_4_to_zero();
claim doubling();
claim table_1();
claim algorithm_1_bias();
claim algorithm_1_variance();
claim algorithm_1_clamp();

inline std::vector<claim> all_claims() {
  return {lemma_4_1(),
          theorem_4_2(),
          corollary_4_3(),
          corollary_4_4(),
          equation_9_to_one(),
          equation_9_to_zero(),
          section_4_2_scaling(),
          theorem_b_1(),
          appendix_b_3_covariance(),
          appendix_b_3_deviation(),
          appendix_b_4_to_one(),
          appendix_b_4_to_zero(),
          doubling(),
          table_1(),
          algorithm_1_bias(),
          algorithm_1_variance(),
          algorithm_1_clamp()};
}

}  // namespace ssm::theory
