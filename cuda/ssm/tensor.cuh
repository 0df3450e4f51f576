// SPDX-License-Identifier: Apache-2.0
// tensor.cuh: a device tensor that owns its elements, and copies to and from the host.
#pragma once

#include <type_traits>
#include <utility>

#include "ssm/error.hpp"
#include "ssm/execution.cuh"
#include "ssm/tensor_view.hpp"

namespace ssm::gpu {

/// Contiguous device elements, the last axis fastest, *uninitialized*. Allocated and freed in
/// stream order, so using it on another stream needs an event between. Moves, does not copy.
template <class T, int Rank>
class tensor {
 public:
  tensor(on where, index_array<Rank> const& extents) : where_{where}, extents_{extents} {
    std::size_t const bytes = sizeof(T) * static_cast<std::size_t>(view().size());
    if (bytes > 0) {
      void* memory = nullptr;
      check(cudaMallocAsync(&memory, bytes, where.stream), "cudaMallocAsync");
      data_ = static_cast<T*>(memory);
    }
  }
  ~tensor() {
    if (data_ != nullptr) (void)cudaFreeAsync(data_, where_.stream);
  }
  tensor(tensor&& other) noexcept
      : where_{other.where_}, extents_{other.extents_}, data_{std::exchange(other.data_, nullptr)} {
    other.extents_ = {};
  }
  tensor& operator=(tensor&& other) noexcept {
    std::swap(where_, other.where_);
    std::swap(extents_, other.extents_);
    std::swap(data_, other.data_);
    return *this;
  }

  tensor_view<T, Rank, memory::device> view() { return {data_, extents_}; }
  tensor_view<T const, Rank, memory::device> view() const { return {data_, extents_}; }

  operator tensor_view<T, Rank, memory::device>() { return view(); }
  operator tensor_view<T const, Rank, memory::device>() const { return view(); }

 private:
  on where_;
  index_array<Rank> extents_{};
  T* data_ = nullptr;
};

namespace detail {

/// Both views hold the same elements in the same order without gaps.
template <class From, class To>
void copy(on where, From const& from, To const& to, cudaMemcpyKind kind, char const* name) {
  require<shape_error>(from.extents() == to.extents(), name, ": the source has shape ",
                       to_string(from.extents()), ", expected that of the target, ",
                       to_string(to.extents()));
  require<shape_error>(from.is_contiguous() && to.is_contiguous(), name,
                       ": a view is strided, expected both contiguous");
  std::size_t const bytes = sizeof(typename To::value_type) * static_cast<std::size_t>(to.size());
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to.data_handle(), from.data_handle(), bytes, kind, where.stream), name);
}

}  // namespace detail

/// Copy host elements to the device, in stream order; pageable host memory makes the call wait.
/// Shapes    the same, both contiguous.      Throws  shape_error, gpu::error.
template <class T, int Rank>
void copy_to_device(on where, tensor_view<T const, Rank> from,
                    std::type_identity_t<tensor_view<T, Rank, memory::device>> to) {
  detail::copy(where, from, to, cudaMemcpyHostToDevice, "copy_to_device");
}

/// Copy device elements to the host, in stream order: wait for the stream before reading them.
template <class T, int Rank>
void copy_to_host(on where, tensor_view<T const, Rank, memory::device> from,
                  std::type_identity_t<tensor_view<T, Rank>> to) {
  detail::copy(where, from, to, cudaMemcpyDeviceToHost, "copy_to_host");
}

}  // namespace ssm::gpu
