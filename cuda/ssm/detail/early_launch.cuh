// SPDX-License-Identifier: Apache-2.0
// early_launch.cuh: kernels that are placed on the device while the one before them still runs.
#pragma once

#include <cstddef>
#include <type_traits>

#include "ssm/detail/device.cuh"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

// From sm_90 on. A kernel of launch_early first waits, and only then admits the next one: so when
// it begins, all kernels have ended but the one right before it.

/// Until the kernels before this one on its stream have ended, and what they stored is seen.
__device__ inline void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Let the next kernel on the stream be placed, where there is room, once all blocks have said so.
__device__ inline void admit_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

inline cudaLaunchAttribute begins_early() {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  return early;
}

/// Launch a kernel that calls wait_for_earlier_kernels() before it touches anything that others
/// write. If what was compiled cannot wait, it is launched like any other.
template <class... Parameters>
void launch_early(on where, void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
                  std::size_t bytes, char const* name,
                  std::type_identity_t<Parameters> const&... arguments) {
  cudaLaunchAttribute early = begins_early();
  cudaLaunchConfig_t config{};
  config.gridDim = blocks, config.blockDim = dim3(threads), config.dynamicSmemBytes = bytes;
  config.stream = where.stream, config.attrs = &early;
  config.numAttrs = is_compiled_for_hopper(kernel) ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

}  // namespace ssm::gpu::detail
