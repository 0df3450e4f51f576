// SPDX-License-Identifier: Apache-2.0
// dual_array.cuh: arrays of any rank on the device, in any layout, between bytes that nobody may
// write.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "ssm/tensor.cuh"
#include "ssm/tensor.hpp"

namespace ssm::test {

/// The order of axes in memory, from the slowest on, and the elements between rows (-1: up to a
/// multiple of 16, and 16 more) and before the first.
struct dual_layout {
  char const* name = "dense";
  bool heads_before_time = false;
  index_t padding = 0, offset = 0;
};
inline constexpr dual_layout dual_layouts[] = {
    {}, {"wider", false, -1, 0}, {"odd", false, 3, 1}, {"heads first", true, 0, 0}};

/// Elements on the device whose last axis is `padding` wider; all bytes that are not theirs are
/// 0xff, NaN to what reads them, and so are theirs until they are sent.
template <class T, int Rank>
class dual_array {
 public:
  dual_array(index_array<Rank> const& extents, dual_layout const& how)
      : extents_{extents}, offset_{how.offset} {
    std::array<int, Rank> order;
    for (int axis = 0; axis < Rank; ++axis) order[static_cast<std::size_t>(axis)] = axis;
    if (how.heads_before_time && Rank > 2) std::swap(order[1], order[2]);
    index_t stride = 1;
    for (int i = Rank - 1; i >= 0; --i) {
      int const axis = order[static_cast<std::size_t>(i)];
      strides_[axis] = stride;
      bool const is_row = i == Rank - 1;
      stride *= !is_row            ? extents[axis]
                : how.padding >= 0 ? extents[axis] + how.padding
                                   : (extents[axis] + 31) / 16 * 16;
    }
    host_.resize(static_cast<std::size_t>(stride + offset_));
    std::memset(static_cast<void*>(host_.data()), 0xff, host_.size() * sizeof(T));
    device_.emplace_back(gpu::on{}, index_array<1>{stride + offset_});
    send();
  }
  dual_array(tensor<T, Rank> const& from, dual_layout const& how)
      : dual_array(from.extents(), how) {
    std::copy(from.begin(), from.end(), begin_of_elements(*this));
    send();
  }

  tensor_view<T, Rank, memory::device> view() {
    return {device_[0].view().data_handle() + offset_, extents_, strides_};
  }
  tensor<T, Rank> fetch() {
    auto const size = static_cast<index_t>(host_.size());
    gpu::copy_to_host({}, std::as_const(device_[0]).view(),
                      tensor_view<T, 1>(host_.data(), {size}));
    gpu::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    tensor<T, Rank> result(extents_);
    std::copy_n(begin_of_elements(*this), result.size(), result.begin());
    return result;
  }
  /// Bytes beside the elements that have been written to, of what was fetched.
  index_t overwritten() {
    for (index_t i = 0; i < tensor_view<T, Rank>(nullptr, extents_).size(); ++i) {
      std::memset(static_cast<void*>(&*(begin_of_elements(*this) + i)), 0xff, sizeof(T));
    }
    auto const* const bytes = reinterpret_cast<unsigned char const*>(host_.data());
    return std::count_if(bytes, bytes + host_.size() * sizeof(T), [](int b) { return b != 0xff; });
  }

 private:
  /// The elements in the order of a dense tensor.
  struct iterator {
    using iterator_category = std::forward_iterator_tag;
    using value_type = T;
    using difference_type = index_t;
    using pointer = T*;
    using reference = T&;
    dual_array* of;
    index_t i = 0;
    T& operator*() const {
      index_t rest = i, at = of->offset_;
      for (int axis = Rank - 1; axis >= 0; --axis) {
        at += rest % of->extents_[axis] * of->strides_[axis];
        rest /= of->extents_[axis];
      }
      return of->host_[static_cast<std::size_t>(at)];
    }
    iterator& operator++() {
      ++i;
      return *this;
    }
    iterator operator+(index_t n) const { return {of, i + n}; }
  };
  static iterator begin_of_elements(dual_array& of) { return {&of}; }

  void send() {
    if (host_.empty()) return;
    gpu::check(cudaMemcpy(device_[0].view().data_handle(), host_.data(), host_.size() * sizeof(T),
                          cudaMemcpyHostToDevice),
               "cudaMemcpy");
  }

  index_array<Rank> extents_, strides_{};
  index_t offset_;
  std::vector<T> host_;
  std::vector<gpu::tensor<T, 1>> device_;
};

}  // namespace ssm::test
