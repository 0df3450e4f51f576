// SPDX-License-Identifier: Apache-2.0
// linear_reference.cuh: how wrong a raw scan or its gradient is, against double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "ssm/detail/element.cuh"
#include "ssm/execution.cuh"
#include "ssm/tensor.cuh"
#include "ssm/tensor_view.hpp"

namespace ssm::bench {

template <class T>
using device_sequence = sequence_view<T const, memory::device>;
template <class T>
using device_carry = tensor_view<T const, 2, memory::device>;

/// What the comparison of all elements came to.
struct tally {
  double difference = 0;         ///< sum of squares
  double reference = 0;          ///< sum of squares
  unsigned long long worst{};    ///< bits of the largest error, as a multiple of what is allowed
  unsigned long long unknown{};  ///< bits of the largest part of an unknown state that is left

  double relative() const { return std::sqrt(difference / reference); }
  double of_allowed() const { return __builtin_bit_cast(double, worst); }
  double left_unknown() const { return __builtin_bit_cast(double, unknown); }
};

namespace detail {

using gpu::detail::to_number;

/// A state in double precision, and what its error in float may be: a term that has come m steps
/// is off by at most (m + 1)·eps of its size.
struct bounded {
  double value = 0, size = 0, weighted = 0;  ///< Σ terms, Σ |terms|, Σ (m + 1)|terms|

  __device__ void times(double a) {
    value *= a;
    weighted = fabs(a) * (weighted + size);
    size *= fabs(a);
  }
  __device__ void plus(double b) {
    value += b;
    weighted += fabs(b);
    size += fabs(b);
  }
};

/// Of what is computed with.
template <class T>
constexpr double carried_eps =
    static_cast<double>(std::numeric_limits<accumulator_t<T>>::epsilon());

/// Largest relative error of rounding to T, where T is not what is computed with.
template <class T>
constexpr double storage_rounding = std::is_same_v<T, bfloat16>  ? 0x1p-8
                                    : std::is_same_v<T, float16> ? 0x1p-11
                                                                 : 0;

class thread_tally {
 public:
  template <class T>
  __device__ void compare(T stored, bounded const& expected) {
    double const found = static_cast<double>(to_number(stored));
    constexpr double eps = carried_eps<T>;
    double const carried = eps * expected.weighted;
    constexpr double rounding = storage_rounding<T>;
    double const allowed = carried + rounding * (fabs(expected.value) + carried);
    double const gap = fabs(found - expected.value);
    difference_ += gap * gap;
    reference_ += expected.value * expected.value;
    double const ratio = gap == 0 ? 0 : gap / allowed;
    if (ratio > worst_ || isnan(ratio)) worst_ = ratio;  // NaN stays: nothing is above it
  }

  /// The state before the first step of a stretch is not known; the decays since then are left.
  __device__ void forget(double decay) { unknown_ *= decay; }

  __device__ void add_to(tally* all, bool is_known) const {
    atomicAdd(&all->difference, difference_);
    atomicAdd(&all->reference, reference_);
    atomicMax(&all->worst, bits_of(fabs(worst_)));  // the bits of NaN are above all others
    if (!is_known) atomicMax(&all->unknown, bits_of(fabs(unknown_)));
  }

 private:
  __device__ static unsigned long long bits_of(double x) {
    return static_cast<unsigned long long>(__double_as_longlong(x));
  }
  double difference_ = 0, reference_ = 0, worst_ = 0, unknown_ = 1;
};

/// Each thread checks a stretch of one lane. It starts so many steps before, from 0: decays of the
/// benchmark are below 1, and what is left of the state there is measured too.
inline constexpr index_t stretch = 2048, run_up = 1024;

template <class T>
__global__ void compare_states_kernel(device_sequence<T> decay, device_sequence<T> drive,
                                      device_sequence<T> states,
                                      device_carry<accumulator_t<T>> final_state, tally* all) {
  index_t const lanes = states.extent(2), length = states.extent(1);
  index_t const work = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  index_t const c = work % lanes, begin = work / lanes * stretch;
  if (begin >= length) return;
  index_t const end = begin + stretch < length ? begin + stretch : length;
  bool const is_known = begin <= run_up;
  thread_tally mine;
  bounded h;
  for (index_t t = is_known ? 0 : begin - run_up; t < end; ++t) {
    double const a = static_cast<double>(to_number(decay(0, t, c)));
    h.times(a);
    h.plus(static_cast<double>(to_number(drive(0, t, c))));
    t < begin ? mine.forget(a) : mine.compare(states(0, t, c), h);
  }
  if (end == length && final_state.data_handle() != nullptr) mine.compare(final_state(0, c), h);
  mine.add_to(all, is_known);
}

template <class T>
__global__ void compare_gradients_kernel(device_sequence<T> decay, device_sequence<T> states,
                                         device_sequence<T> cotangent,
                                         device_sequence<T> decay_gradient,
                                         device_sequence<T> drive_gradient, tally* all) {
  index_t const lanes = states.extent(2), length = states.extent(1);
  index_t const work = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  index_t const c = work % lanes, begin = work / lanes * stretch;
  if (begin >= length) return;
  index_t const end = begin + stretch < length ? begin + stretch : length;
  bool const is_known = length - end <= run_up;
  thread_tally mine;
  bounded e;
  for (index_t t = is_known ? length - 1 : end + run_up - 1; t >= begin; --t) {
    double const a = static_cast<double>(to_number(decay(0, t, c)));
    e.plus(static_cast<double>(to_number(cotangent(0, t, c))));
    if (t < end) {
      mine.compare(drive_gradient(0, t, c), e);
      bounded product = e;
      product.times(t == 0 ? 0. : static_cast<double>(to_number(states(0, t - 1, c))));
      mine.compare(decay_gradient(0, t, c), product);
    } else {
      mine.forget(a);
    }
    e.times(a);
  }
  mine.add_to(all, is_known);
}

/// Launch a comparison with a thread for each stretch of `shape`, and wait for what it finds.
template <class Launch>
tally compare(gpu::stream const& stream, index_array<3> const& shape, Launch const& launch) {
  gpu::tensor<tally, 1> found(stream, {1});
  tally result;
  gpu::check(cudaMemcpyAsync(found.view().data_handle(), &result, sizeof result,
                             cudaMemcpyHostToDevice, stream.get()),
             "cudaMemcpyAsync");
  index_t const threads = shape[2] * ((shape[1] + stretch - 1) / stretch);
  launch(static_cast<unsigned>((threads + 127) / 128), 128u, found.view().data_handle());
  gpu::check(cudaGetLastError(), "comparison with the reference");
  gpu::check(cudaMemcpyAsync(&result, found.view().data_handle(), sizeof result,
                             cudaMemcpyDeviceToHost, stream.get()),
             "cudaMemcpyAsync");
  stream.wait();
  return result;
}

}  // namespace detail

/// All states and the final one (empty: not compared) of one batch entry.
template <class T>
tally compare_states(gpu::stream const& stream, device_sequence<T> const& decay,
                     device_sequence<T> const& drive, device_sequence<T> const& states,
                     device_carry<accumulator_t<T>> const& final_state) {
  return detail::compare(
      stream, states.extents(), [&](unsigned blocks, unsigned threads, tally* found) {
        detail::compare_states_kernel<T>
            <<<blocks, threads, 0, stream.get()>>>(decay, drive, states, final_state, found);
      });
}

/// All gradients of the raw scan, from states as they are stored.
template <class T>
tally compare_gradients(gpu::stream const& stream, device_sequence<T> const& decay,
                        device_sequence<T> const& states, device_sequence<T> const& cotangent,
                        device_sequence<T> const& decay_gradient,
                        device_sequence<T> const& drive_gradient) {
  return detail::compare(
      stream, states.extents(), [&](unsigned blocks, unsigned threads, tally* found) {
        detail::compare_gradients_kernel<T><<<blocks, threads, 0, stream.get()>>>(
            decay, states, cotangent, decay_gradient, drive_gradient, found);
      });
}

}  // namespace ssm::bench
