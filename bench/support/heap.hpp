// SPDX-License-Identifier: Apache-2.0
// heap.hpp: how much memory a call asks for. Replaces operator new of the program that includes it,
// which must be one translation unit; what a library takes from malloc itself is not seen.
#pragma once

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace ssm::bench {

namespace detail {

inline std::atomic<std::int64_t> live_bytes{0};
inline std::atomic<std::int64_t> peak_bytes{0};

inline void* counted(void* block) {
  if (block == nullptr) throw std::bad_alloc();
  auto const size = static_cast<std::int64_t>(malloc_usable_size(block));
  std::int64_t const live = live_bytes.fetch_add(size) + size;
  std::int64_t peak = peak_bytes.load();
  while (live > peak && !peak_bytes.compare_exchange_weak(peak, live)) {
  }
  return block;
}

inline void release(void* block) {
  if (block == nullptr) return;
  live_bytes -= static_cast<std::int64_t>(malloc_usable_size(block));
  std::free(block);
}

}  // namespace detail

/// The most bytes that run() has from operator new at one time, beyond what there was before.
template <class Run>
std::int64_t peak_heap(Run const& run) {
  std::int64_t const before = detail::live_bytes;
  detail::peak_bytes = before;
  run();
  return detail::peak_bytes - before;
}

}  // namespace ssm::bench

void* operator new(std::size_t size) {
  return ssm::bench::detail::counted(std::malloc(size == 0 ? 1 : size));
}

void* operator new(std::size_t size, std::align_val_t alignment) {
  auto const step = static_cast<std::size_t>(alignment);
  return ssm::bench::detail::counted(std::aligned_alloc(step, (size + step - 1) / step * step));
}

// The array and nothrow forms of the standard library call these.
void operator delete(void* block) noexcept {
  ssm::bench::detail::release(block);
}
void operator delete(void* block, std::size_t) noexcept {
  ssm::bench::detail::release(block);
}
void operator delete(void* block, std::align_val_t) noexcept {
  ssm::bench::detail::release(block);
}
void operator delete(void* block, std::size_t, std::align_val_t) noexcept {
  ssm::bench::detail::release(block);
}
