// SPDX-License-Identifier: Apache-2.0
// untouched_memory.cuh: views of memory that is not there, for errors that come before anything
// could read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ssm/error.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::test {

class untouched_memory {
 public:
  /// A dense view behind the last one.
  template <class T, int Rank>
  tensor_view<T, Rank, memory::device> next(index_array<Rank> const& extents) {
    tensor_view<T, Rank, memory::device> const view{reinterpret_cast<T*>(at_), extents};
    at_ += (static_cast<std::size_t>(view.size()) * sizeof(T) + 255) / 256 * 256;
    return view;
  }

 private:
  char* at_ = reinterpret_cast<char*>(std::uintptr_t{1} << 40);
};

/// What call() refuses with, or "nothing".
template <class Call>
std::string refusal_of(Call const& call) {
  try {
    call();
  } catch (shape_error const& error) {
    return error.what();
  }
  return "nothing";
}

}  // namespace ssm::test
