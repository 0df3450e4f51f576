// SPDX-License-Identifier: Apache-2.0
// require_apart.cuh: outputs must not lie where something else is read or written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>

#include "ssm/error.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::gpu::detail {

/// The bytes from a view's lowest element to the end of its highest.
struct byte_range {
  std::uintptr_t begin = 0, end = 0;
};

template <class T, int Rank, memory Where>
byte_range bytes_of(tensor_view<T, Rank, Where> const& view) {
  if (view.data_handle() == nullptr || view.empty()) return {};
  index_t lowest = 0, highest = 0;
  for (int axis = 0; axis < Rank; ++axis) {
    index_t const reach = (view.extent(axis) - 1) * view.stride(axis);
    (reach < 0 ? lowest : highest) += reach;
  }
  auto const first = reinterpret_cast<std::uintptr_t>(view.data_handle());
  auto const at = [&](index_t element) {
    return first + static_cast<std::uintptr_t>(element * static_cast<index_t>(sizeof(T)));
  };
  return {at(lowest), at(highest + 1)};
}

/// Whether two views of one shape and strides are side by side in a wider tensor: for some axis
/// both lie within its stride, in different places.
template <class T, class U, int Rank, memory Where>
bool are_side_by_side(tensor_view<T, Rank, Where> const& a, tensor_view<U, Rank, Where> const& b) {
  if (sizeof(T) != sizeof(U) || a.extents() != b.extents() || a.strides() != b.strides()) {
    return false;
  }
  auto const from = reinterpret_cast<std::uintptr_t>(a.data_handle());
  auto const to = reinterpret_cast<std::uintptr_t>(b.data_handle());
  auto const gap = static_cast<index_t>(from > to ? from - to : to - from);
  for (int axis = 0; axis < Rank; ++axis) {
    index_t const pitch = std::abs(a.stride(axis)) * static_cast<index_t>(sizeof(T));
    index_t within = sizeof(T);  // bytes of what lies between two steps along the axis
    for (int other = 0; other < Rank; ++other) {
      index_t const step = std::abs(a.stride(other)) * static_cast<index_t>(sizeof(T));
      if (step < pitch) within += (a.extent(other) - 1) * step;
    }
    if (pitch > 0 && gap % pitch >= within && pitch - gap % pitch >= within) return true;
  }
  return false;
}

/// Throw shape_error unless the output shares no memory with the other view.
template <class T, class U, int RankT, int RankU, memory Where>
void require_apart(tensor_view<T, RankT, Where> const& out,
                   tensor_view<U, RankU, Where> const& other, char const* name,
                   char const* other_name) {
  byte_range const a = bytes_of(out), b = bytes_of(other);
  if (a.begin >= b.end || b.begin >= a.end) return;
  if constexpr (RankT == RankU) {
    if (are_side_by_side(out, other)) return;
  }
  require<shape_error>(false, name, " overlaps ", other_name, ", expected memory of its own");
}

/// A view and what a message calls it.
template <class View>
struct named_view {
  View const& view;
  char const* name;
};
template <class View>
named_view(View const&, char const*) -> named_view<View>;

/// Throw shape_error unless an output of `call` shares no memory with any of the others.
template <class Out, class... Others>
void require_apart_from_all(char const* call, named_view<Out> const& out,
                            named_view<Others> const&... others) {
  [[maybe_unused]] auto const check = [&](auto const& other) {
    byte_range const a = bytes_of(out.view), b = bytes_of(other.view);
    if (a.begin >= b.end || b.begin >= a.end) return;
    require_apart(out.view, other.view, (std::string(call) + ": " + out.name).c_str(), other.name);
  };
  (check(others), ...);
}

/// Throw shape_error unless the outputs of `call` share no memory with each other or an input.
template <class... Outs, class... Inputs>
void require_all_apart(char const* call, std::tuple<named_view<Outs>...> const& outs,
                       std::tuple<named_view<Inputs>...> const& inputs) {
  std::apply(
      [&](auto const& first, auto const&... rest) {
        std::apply([&](auto const&... all) { require_apart_from_all(call, first, all...); },
                   inputs);
        require_apart_from_all(call, first, rest...);
        if constexpr (sizeof...(rest) > 0) {
          require_all_apart(call, std::tuple(rest...), inputs);
        }
      },
      outs);
}

/// As require_apart, or the very same view: every element is read before it is written.
template <class T, class U, int Rank, memory Where>
void require_apart_or_same(tensor_view<T, Rank, Where> const& out,
                           tensor_view<U, Rank, Where> const& other, char const* name,
                           char const* other_name) {
  bool const is_same = out.data_handle() == other.data_handle() &&
                       out.strides() == other.strides() && out.extents() == other.extents();
  if (!is_same) require_apart(out, other, name, other_name);
}

}  // namespace ssm::gpu::detail
