// SPDX-License-Identifier: Apache-2.0
// tensor_view.hpp: a strided view over borrowed memory, and the shapes the library names.
#pragma once

#include <sstream>
#include <string>
#include <type_traits>

#include "ssm/config.hpp"
#include "ssm/error.hpp"

namespace ssm {

/// Where the elements live. A host view does not convert to a device view, so handing one to a
/// kernel is a compile error rather than a crash.
enum class memory { host, device };

/// A fixed number of extents, strides or positions; usable inside kernels, unlike std::array.
template <int Rank>
struct index_array {
  index_t value[Rank];

  SSM_HD constexpr index_t operator[](int axis) const { return value[axis]; }
  SSM_HD constexpr index_t& operator[](int axis) { return value[axis]; }
  friend constexpr bool operator==(index_array const&, index_array const&) = default;
};

/// "(2, 3, 4)", as error messages print a shape.
template <int Rank>
std::string to_string(index_array<Rank> const& extents) {
  std::ostringstream text;
  for (int axis = 0; axis < Rank; ++axis) text << (axis ? ", " : "(") << extents[axis];
  text << ')';
  return text.str();
}

/// Elements of T at data[Σ index_r · stride_r]; the words are those of std::mdspan.
/// A stride of 0 broadcasts: a time-invariant B, a shared step size and a per-step B are the same
/// code. Strides may be negative. The view owns nothing, is trivially copyable, and checks
/// positions nowhere: shapes are checked once by the function that receives the view.
/// A default-constructed view is empty; an optional argument that is not wanted is left empty.
template <class T, int Rank, memory Where = memory::host>
class tensor_view {
  static_assert(Rank >= 1);

 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  static constexpr int rank = Rank;

  tensor_view() = default;

  /// Contiguous, the last axis fastest.
  SSM_HD constexpr tensor_view(T* data, index_array<Rank> const& extents)
      : data_{data}, extents_{extents} {
    index_t stride = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      strides_[axis] = stride;
      stride *= extents[axis];
    }
  }

  SSM_HD constexpr tensor_view(T* data, index_array<Rank> const& extents,
                               index_array<Rank> const& strides)
      : data_{data}, extents_{extents}, strides_{strides} {}

  /// A view of mutable elements is also a view of constant ones.
  template <class U>
  requires(std::is_same_v<U const, T> && !std::is_same_v<U, T>) SSM_HD
      constexpr tensor_view(tensor_view<U, Rank, Where> const& other)
      : data_{other.data_handle()}, extents_{other.extents()}, strides_{other.strides()} {}

  template <class... Index>
  requires(sizeof...(Index) == Rank) SSM_HD constexpr T& operator()(Index... index) const {
    // Not a loop over an array: g++ makes vectors of it, which takes ten times as long.
    index_t offset = 0;
    int axis = 0;
    ((offset += static_cast<index_t>(index) * strides_[axis++]), ...);
    return data_[offset];
  }

  SSM_HD constexpr T* data_handle() const { return data_; }
  SSM_HD constexpr index_array<Rank> const& extents() const { return extents_; }
  SSM_HD constexpr index_array<Rank> const& strides() const { return strides_; }
  SSM_HD constexpr index_t extent(int axis) const { return extents_[axis]; }
  SSM_HD constexpr index_t stride(int axis) const { return strides_[axis]; }

  SSM_HD constexpr index_t size() const {
    index_t count = 1;
    for (int axis = 0; axis < Rank; ++axis) count *= extents_[axis];
    return count;
  }
  SSM_HD constexpr bool empty() const { return size() == 0; }

  /// Contiguous with the last axis fastest; axes of extent 1 do not matter, nor does any axis where
  /// there are no elements.
  SSM_HD constexpr bool is_contiguous() const {
    if (empty()) return true;
    index_t stride = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      if (extents_[axis] != 1 && strides_[axis] != stride) return false;
      stride *= extents_[axis];
    }
    return true;
  }

  /// The same elements with `axis` cut to [first, first + count).
  SSM_HD constexpr tensor_view slice(int axis, index_t first, index_t count) const {
    tensor_view part = *this;
    if (data_ != nullptr) part.data_ = data_ + first * strides_[axis];
    part.extents_[axis] = count;
    return part;
  }

  /// The same elements with `axis` read from its end.
  SSM_HD constexpr tensor_view reversed(int axis) const {
    tensor_view mirror = *this;
    if (!empty()) mirror.data_ = data_ + (extents_[axis] - 1) * strides_[axis];
    mirror.strides_[axis] = -strides_[axis];
    return mirror;
  }

  /// The view with a new axis of stride 0 before `axis`: every index along it sees this view.
  SSM_HD constexpr tensor_view<T, Rank + 1, Where> broadcast(int axis, index_t extent) const {
    index_array<Rank + 1> extents{};
    index_array<Rank + 1> strides{};
    for (int to = 0, from = 0; to <= Rank; ++to) {
      if (to == axis) {
        extents[to] = extent;
        strides[to] = 0;
      } else {
        extents[to] = extents_[from];
        strides[to] = strides_[from++];
      }
    }
    return {data_, extents, strides};
  }

  /// The view at one position of `axis`, which disappears.
  SSM_HD constexpr tensor_view<T, Rank - 1, Where> select(int axis, index_t position) const
      requires(Rank > 1) {
    index_array<Rank - 1> extents{};
    index_array<Rank - 1> strides{};
    for (int from = 0, to = 0; from < Rank; ++from) {
      if (from == axis) continue;
      extents[to] = extents_[from];
      strides[to++] = strides_[from];
    }
    return {data_ == nullptr ? data_ : data_ + position * strides_[axis], extents, strides};
  }

 private:
  T* data_ = nullptr;
  index_array<Rank> extents_{};
  index_array<Rank> strides_{};
};

/// (batch, time, channel): inputs, outputs, step sizes.
template <class T, memory Where = memory::host>
using sequence_view = tensor_view<T, 3, Where>;

/// (batch, channel, state): what is carried from one step, chunk or call to the next.
template <class T, memory Where = memory::host>
using state_view = tensor_view<T, 3, Where>;

/// (batch, time, channel, state): something with a value for every step and state.
template <class T, memory Where = memory::host>
using trajectory_view = tensor_view<T, 4, Where>;

/// Throw shape_error unless `view` has the `expected` extents, for example
///   "scan: carry has shape (2, 3, 4), expected (2, 3, 5) (batch, channel, state)".
template <class T, int Rank, memory Where>
void require_shape(tensor_view<T, Rank, Where> const& view, index_array<Rank> const& expected,
                   char const* name, char const* axes) {
  if (view.extents() == expected) return;
  require<shape_error>(false, name, " has shape ", to_string(view.extents()), ", expected ",
                       to_string(expected), " (", axes, ")");
}

}  // namespace ssm
