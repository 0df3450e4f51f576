// SPDX-License-Identifier: Apache-2.0
// guarded_array.cuh: arrays on the device in any layout, with guards around all that may be
// written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "ssm/tensor.cuh"
#include "ssm/workspace.cuh"

namespace ssm::test {

/// Where the elements of a (batch, time, channel) array are.
struct layout {
  char const* name;
  index_array<3> (*strides)(index_t b, index_t l, index_t c);
  index_t first = 0;  ///< elements past a multiple of 16 bytes
};

using strides_of = index_array<3>;
inline constexpr layout rows{"rows", [](index_t, index_t l, index_t c) {
                               return strides_of{l * c, 1, l};
                             }};
inline constexpr layout shifted_rows{"rows from element 1 on", rows.strides, 1};
inline constexpr layout pitched_rows{"rows with gaps", [](index_t, index_t l, index_t c) {
                                       return strides_of{(l + 3) * c, 1, l + 3};
                                     }};
inline constexpr layout padded_rows{"rows padded to 16 bytes", [](index_t, index_t l, index_t c) {
                                      index_t const pitch = (l + 15) / 8 * 8;
                                      return strides_of{pitch * c, 1, pitch};
                                    }};
inline constexpr layout rows_apart{
    // a batch does not follow from the rows before it
    "rows with gaps between batches", [](index_t, index_t l, index_t c) {
      return strides_of{l * (c + 1) + 8, 1, l};
    }};
inline constexpr layout rows_from_their_ends{"rows from their ends",
                                             [](index_t, index_t l, index_t c) {
                                               return strides_of{l * c, -1, l};
                                             }};
inline constexpr layout columns{"columns", [](index_t, index_t l, index_t c) {
                                  return strides_of{l * c, c, 1};
                                }};
inline constexpr layout shifted_columns{"columns from element 1 on", columns.strides, 1};
inline constexpr layout wide_columns{"columns of a wider tensor",
                                     [](index_t, index_t l, index_t c) {
                                       return strides_of{l * (c + 16), c + 16, 1};
                                     }};
inline constexpr layout spread_columns{"every second column", [](index_t, index_t l, index_t c) {
                                         return strides_of{l * 2 * c, 2 * c, 2};
                                       }};
inline constexpr layout batch_innermost{"batch innermost", [](index_t b, index_t, index_t c) {
                                          return strides_of{1, b * c, b};
                                        }};
inline constexpr layout same_for_all_steps{"one for all steps", [](index_t, index_t, index_t c) {
                                             return strides_of{c, 0, 1};
                                           }};
inline constexpr layout same_for_all_channels{"one for all channels",
                                              [](index_t, index_t l, index_t) {
                                                return strides_of{l, 1, 0};
                                              }};
inline constexpr layout constant{"one for all", [](index_t, index_t, index_t) {
                                   return strides_of{0, 0, 0};
                                 }};

/// An array on the device and what the host knows of it. All bytes but those of its elements, and
/// theirs until they are assigned, are 0xff: NaN to all that reads them, and seen to be written to.
template <class T>
class guarded {
 public:
  guarded(gpu::on where, index_array<3> const& extents, layout const& how)
      : extents_{extents}, strides_{how.strides(extents[0], extents[1], extents[2])} {
    bool const is_empty = extents[0] * extents[1] * extents[2] == 0;
    index_t size = guard + how.first + guard;
    first_ = guard + how.first;
    for (int axis = 0; axis < 3 && !is_empty; ++axis) {
      index_t const reach = (extents[axis] - 1) * strides_[axis];
      size += std::abs(reach);
      first_ += reach < 0 ? -reach : 0;
    }
    host_.resize(static_cast<std::size_t>(is_empty ? size : size + 1));
    poison();
    device_ = std::make_unique<gpu::tensor<T, 1>>(where, index_array<1>{count()});
  }

  T& operator()(index_t b, index_t t, index_t c) { return host_[place(b, t, c)]; }
  T const& operator()(index_t b, index_t t, index_t c) const { return host_[place(b, t, c)]; }

  sequence_view<T, memory::device> view() const {
    return {device_->view().data_handle() + first_, extents_, strides_};
  }
  /// Of an array of one step.
  tensor_view<T, 2, memory::device> carry() const {
    return {view().data_handle(), {extents_[0], extents_[2]}, {strides_[0], strides_[2]}};
  }

  void poison() { std::memset(static_cast<void*>(host_.data()), 0xff, sizeof(T) * host_.size()); }
  void send(gpu::on where) const {
    gpu::copy_to_device(where, tensor_view<T const, 1>(host_.data(), {count()}), device_->view());
  }
  void fetch(gpu::on where) {
    gpu::copy_to_host(where, std::as_const(*device_).view(),
                      tensor_view<T, 1>(host_.data(), {count()}));
    gpu::check(cudaStreamSynchronize(where.stream), "cudaStreamSynchronize");
  }

  template <class Visit>
  void each(Visit const& visit) const {
    for (index_t b = 0; b < extents_[0]; ++b)
      for (index_t t = 0; t < extents_[1]; ++t)
        for (index_t c = 0; c < extents_[2]; ++c) visit(b, t, c);
  }

  /// Bytes that are not an element's and have been written to.
  index_t overwritten() const {
    std::vector<bool> own(host_.size());
    each([&](index_t b, index_t t, index_t c) { own[place(b, t, c)] = true; });
    auto const* const bytes = reinterpret_cast<unsigned char const*>(host_.data());
    index_t result = 0;
    for (std::size_t i = 0; i < sizeof(T) * host_.size(); ++i) {
      if (!own[i / sizeof(T)]) result += bytes[i] != 0xff;
    }
    return result;
  }

  /// Not even its elements have been written to.
  bool is_poisoned() const {
    auto const* const bytes = reinterpret_cast<unsigned char const*>(host_.data());
    return std::all_of(bytes, bytes + sizeof(T) * host_.size(), [](int b) { return b == 0xff; });
  }

  friend bool same_bits(guarded const& a, guarded const& b) {
    return a.host_.size() == b.host_.size() &&
           std::memcmp(a.host_.data(), b.host_.data(), sizeof(T) * a.host_.size()) == 0;
  }

 private:
  static constexpr index_t guard = 64;  // a multiple of 16 bytes

  index_t count() const { return static_cast<index_t>(host_.size()); }
  std::size_t place(index_t b, index_t t, index_t c) const {
    return static_cast<std::size_t>(first_ + b * strides_[0] + t * strides_[1] + c * strides_[2]);
  }

  index_array<3> extents_, strides_;
  index_t first_;
  std::vector<T> host_;
  std::unique_ptr<gpu::tensor<T, 1>> device_;
};

/// A workspace of exactly `bytes`, all 0xff, between guards.
struct guarded_workspace {
  guarded_workspace(gpu::on where, std::size_t bytes)
      : memory{where, {1, static_cast<index_t>(bytes), 1}, rows} {
    memory.send(where);
  }
  gpu::workspace view() const { return {memory.view().data_handle(), {memory.view().extent(1)}}; }
  guarded<std::byte> memory;
};

}  // namespace ssm::test
