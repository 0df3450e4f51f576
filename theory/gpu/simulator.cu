// SPDX-License-Identifier: Apache-2.0
#include "gpu/simulator.cuh"

namespace ssm::theory {

std::unique_ptr<simulator> gpu_simulator() {
  return std::make_unique<gpu::simulator>();
}

}  // namespace ssm::theory
