// SPDX-License-Identifier: Apache-2.0
// workspace.cuh: memory that a call is lent while it runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ssm/error.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::gpu {

/// Memory of the device that a call uses while it runs. Its contents do not matter.
using workspace = tensor_view<std::byte, 1, memory::device>;

namespace detail {

/// Throw shape_error unless a workspace is dense, aligned and has the bytes that `name` needs.
inline std::byte* checked(workspace const& memory, std::size_t needed, char const* name) {
  require<shape_error>(memory.is_contiguous() && memory.size() >= static_cast<index_t>(needed),
                       name, ": workspace has ", memory.size(), " bytes, expected at least ",
                       needed);
  require<shape_error>(reinterpret_cast<std::uintptr_t>(memory.data_handle()) % 16 == 0, name,
                       ": workspace begins in the middle of 16 bytes, expected a multiple of 16");
  return memory.data_handle();
}

}  // namespace detail
}  // namespace ssm::gpu
