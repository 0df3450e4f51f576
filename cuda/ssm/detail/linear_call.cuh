// SPDX-License-Identifier: Apache-2.0
// linear_call.cuh: a raw scan as it is asked for.
#pragma once

#include <array>

#include "ssm/config.hpp"
#include "ssm/detail/half.hpp"

namespace ssm::gpu::detail {

/// An array (batch, time, channel); the stride in time of one without time is 0.
template <class T>
struct linear_array {
  T* data = nullptr;
  index_t batch = 0, time = 0, channel = 0;
};

/// A raw scan as kernels see it, before it is decided how it runs.
template <class T, class Step>
struct linear_call {
  using number = accumulator_t<T>;

  std::array<linear_array<T const>, Step::inputs> in;
  std::array<linear_array<T>, Step::outputs> out;
  linear_array<number const> initial;
  linear_array<number> final;
  linear_array<number const> edge;
  index_t batch, length, channels;
  bool reversed;

  template <class Visit>
  void each_array(Visit const& visit) {
    for (auto& array : in) visit(array);
    for (auto& array : out) visit(array);
    if (initial.data != nullptr) visit(initial);
    if (final.data != nullptr) visit(final);
    if (edge.data != nullptr) visit(edge);
  }
  template <class Test>
  bool all_arrays(Test const& test) {
    bool all = true;
    each_array([&](auto const& array) { all = all && test(array); });
    return all;
  }
};

}  // namespace ssm::gpu::detail
