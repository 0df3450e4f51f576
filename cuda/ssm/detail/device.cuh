// SPDX-License-Identifier: Apache-2.0
// device.cuh: what the device of this thread has, and what was compiled for it.
#pragma once

#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

inline int device_attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

inline int multiprocessors() {
  return device_attribute(cudaDevAttrMultiProcessorCount);
}

// Where no device answers nothing will be launched, and sizes are those of a device that has it
// all.

/// Whether a block may have so many bytes of shared memory.
inline bool has_shared_memory(int bytes) {
  int device = 0, most = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess) {
    (void)cudaGetLastError();
    return true;
  }
  return bytes <= most;
}

/// Whether the code of a kernel that runs here was compiled for Hopper or what came after it, so
/// that clusters, bulk copies, barriers that count bytes and launches before the end of another
/// kernel are in it. On a device before Hopper no such code runs.
template <class... Parameters>
bool is_compiled_for_hopper(void (*kernel)(Parameters...)) {
  cudaFuncAttributes compiled{};
  if (cudaFuncGetAttributes(&compiled, kernel) != cudaSuccess) {
    (void)cudaGetLastError();
    return true;
  }
  return compiled.ptxVersion >= 90;
}

}  // namespace ssm::gpu::detail
