// SPDX-License-Identifier: Apache-2.0
// accumulate.cuh: whether a result is added to what is there.
#pragma once

namespace ssm::gpu {

enum class accumulate : bool {
  no,   // a result is stored over what is there
  yes,  // a result is added to what is there
};

}  // namespace ssm::gpu
