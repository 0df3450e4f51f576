// SPDX-License-Identifier: Apache-2.0
// tensor.hpp: a host tensor that owns its elements, and how it is viewed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "ssm/error.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {
namespace detail {

/// For memory of several huge pages; where the system has none it stays as it is.
inline void prefer_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
  constexpr std::size_t page = 4096, least = std::size_t{1} << 22;
  if (bytes < least) return;
  std::size_t const before = -reinterpret_cast<std::uintptr_t>(memory) % page;
  madvise(static_cast<char*>(memory) + before, bytes - before, MADV_HUGEPAGE);
#endif
}

/// Memory that begins with a cache line, so that a vector register's worth does not straddle two.
/// Where there is much of it, Linux is asked for huge pages: rows of time lie a small page or more
/// apart, and to look each of them up takes a tenth of a scan.
template <class T>
struct cache_line_allocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{alignof(T) < 64 ? 64 : alignof(T)};

  cache_line_allocator() = default;
  template <class U>
  cache_line_allocator(cache_line_allocator<U> const&) {}

  T* allocate(std::size_t count) {
    if (count > static_cast<std::size_t>(-1) / 2 / sizeof(T)) throw std::bad_array_new_length();
    void* const memory = ::operator new(count * sizeof(T), alignment);
    prefer_huge_pages(memory, count * sizeof(T));
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t) { ::operator delete(memory, alignment); }

  friend bool operator==(cache_line_allocator const&, cache_line_allocator const&) = default;
};

}  // namespace detail

/// Contiguous elements from a 64-byte boundary on, the last axis fastest, all equal to `value` at
/// first. Copying copies the elements. Views made of it last as long as it does and is not moved
/// from.
template <class T, int Rank>
class tensor {
 public:
  using value_type = T;

  tensor() = default;
  explicit tensor(index_array<Rank> const& extents, T const& value = T())
      : extents_{extents}, elements_(element_count(extents), value) {}

  tensor_view<T, Rank> view() { return {elements_.data(), extents_}; }
  tensor_view<T const, Rank> view() const { return {elements_.data(), extents_}; }
  tensor_view<T const, Rank> const_view() const { return view(); }

  operator tensor_view<T, Rank>() { return view(); }
  operator tensor_view<T const, Rank>() const { return view(); }

  template <class... Index>
  T& operator()(Index... index) {
    return view()(index...);
  }
  template <class... Index>
  T const& operator()(Index... index) const {
    return view()(index...);
  }

  index_array<Rank> const& extents() const { return extents_; }
  index_t extent(int axis) const { return extents_[axis]; }
  index_t size() const { return static_cast<index_t>(elements_.size()); }

  T* data() { return elements_.data(); }
  T const* data() const { return elements_.data(); }
  auto begin() { return elements_.begin(); }
  auto end() { return elements_.end(); }
  auto begin() const { return elements_.begin(); }
  auto end() const { return elements_.end(); }

  friend bool operator==(tensor const&, tensor const&) = default;

 private:
  static std::size_t element_count(index_array<Rank> const& extents) {
    std::size_t count = 1;
    for (int axis = 0; axis < Rank; ++axis) {
      if (extents[axis] < 0) {  // asked first: the text takes longer than a small allocation
        require<shape_error>(false, "tensor: extents ", to_string(extents),
                             " hold a negative number, expected none");
      }
      count *= static_cast<std::size_t>(extents[axis]);
    }
    return count;
  }

  index_array<Rank> extents_{};
  std::vector<T, detail::cache_line_allocator<T>> elements_;
};

}  // namespace ssm
