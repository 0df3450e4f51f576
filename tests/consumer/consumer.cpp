// SPDX-License-Identifier: Apache-2.0
#include <ssm/ssm.hpp>

int main() {
  ssm::affine_map const step{0.5, 1.0};
  return ssm::then{}(step, step)(2.0) == 2.0 ? 0 : 1;  // 2 is the fixed point of h/2 + 1
}
