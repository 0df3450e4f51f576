// SPDX-License-Identifier: Apache-2.0
// config.hpp: version, the index type, and SSM_HD, the library's only function macro.
#pragma once

#include <cstdint>

#define SSM_VERSION_MAJOR 0
#define SSM_VERSION_MINOR 1
#define SSM_VERSION_PATCH 0

/// Marks a function that also runs inside CUDA kernels; nothing for a plain C++ compiler.
#if defined(__CUDACC__)
#define SSM_HD __host__ __device__
#else
#define SSM_HD
#endif

namespace ssm {

/// Every extent, stride and position: 64 bits, so a tensor may hold more than 2^31 elements.
using index_t = std::int64_t;

}  // namespace ssm
