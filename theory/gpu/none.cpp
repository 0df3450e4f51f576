// SPDX-License-Identifier: Apache-2.0
// What stands in for gpu/simulator.cu where there is no CUDA.
#include <stdexcept>

#include "simulator.hpp"

namespace ssm::theory {

std::unique_ptr<simulator> gpu_simulator() {
  throw std::runtime_error("--device gpu: this program was built without CUDA");
}

}  // namespace ssm::theory
