// SPDX-License-Identifier: Apache-2.0
// selective_arrays.cuh: inputs of Mamba's operator on a GPU, the same numbers in either layout.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ssm/detail/element.cuh"
#include "ssm/detail/selective_scan_inputs.hpp"
#include "ssm/numerics.hpp"
#include "ssm/random.hpp"
#include "ssm/tensor.cuh"
#include "ssm/tensor.hpp"
#include "support/innermost.hpp"

namespace ssm::bench {

struct selective_shape {
  index_t batch, channels, length;
  static constexpr index_t states = 16;

  double elements() const { return static_cast<double>(batch * channels) * double(length); }
};

/// How soon a state is forgotten. Step sizes of channels, before noise of deviation 0.5 on what
/// goes into the softplus, are log-uniform between two bounds; eigenvalues are -1 to -16.
struct memory_kind {
  char const* name;
  double shortest_step, longest_step;
};
inline constexpr memory_kind as_initialized{"init", 1e-3, 1e-1};
inline constexpr memory_kind long_memory{"no-decay", 1e-6, 1e-5};

namespace detail {

/// Every byte of a contiguous view, in stream order.
template <class View>
void fill_bytes(gpu::on where, View const& view, int byte) {
  using element = typename View::value_type;
  gpu::check(cudaMemsetAsync(view.data_handle(), byte,
                             sizeof(element) * static_cast<std::size_t>(view.size()), where.stream),
             "cudaMemsetAsync");
}

/// Element i of a contiguous (batch, time, channel) is normal number i, whatever the strides.
template <class T>
__global__ void normal_kernel(random_stream numbers, double deviation,
                              sequence_view<T, memory::device> to, innermost layout) {
  index_t const length = to.extent(1), channels = to.extent(2), size = to.size();
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
       i += step) {
    index_t const inner = layout == innermost::time ? length : channels;
    index_t const outer = layout == innermost::time ? channels : length;
    index_t const b = i / (length * channels), middle = i / inner % outer, last = i % inner;
    index_t const t = layout == innermost::time ? last : middle;
    index_t const c = layout == innermost::time ? middle : last;
    double const number = deviation * numbers.normal((b * length + t) * channels + c);
    to(b, t, c) = gpu::detail::to_stored<T>(static_cast<accumulator_t<T>>(number));
  }
}

}  // namespace detail

/// A (batch, time, channel) that owns its elements, to be seen with either axis innermost.
template <class T>
class device_sequence_tensor {
 public:
  device_sequence_tensor(gpu::on where, index_array<3> const& shape)
      : shape_{shape}, data_(where, {shape[0] * shape[1] * shape[2]}) {}

  T* data() { return data_.view().data_handle(); }
  sequence_view<T, memory::device> view(innermost layout) {
    bool const is_time = layout == innermost::time;
    return {
        data(), shape_, {shape_[1] * shape_[2], is_time ? 1 : shape_[2], is_time ? shape_[1] : 1}};
  }
  /// With an axis of one group: (batch, time, group, state).
  trajectory_view<T, memory::device> grouped(innermost layout) {
    return view(layout).broadcast(2, 1);
  }

  void fill_bytes(gpu::on where, int byte) { detail::fill_bytes(where, data_.view(), byte); }
  void fill_normal(gpu::on where, innermost layout, std::uint64_t id, double deviation) {
    detail::normal_kernel<T>
        <<<4096, 256, 0, where.stream>>>(random_stream{2026, id}, deviation, view(layout), layout);
    gpu::check(cudaGetLastError(), "normal_kernel");
  }

 private:
  index_array<3> shape_;
  gpu::tensor<T, 1> data_;
};

/// Per channel, or per channel and state.
class selective_parameters {
 public:
  selective_parameters(gpu::stream const& stream, selective_shape const& s, memory_kind const& kind)
      : eigenvalue_(stream, {s.channels, s.states}),
        D_(stream, {s.channels}),
        step_bias_(stream, {s.channels}) {
    tensor<float, 2> eigenvalue({s.channels, s.states});
    tensor<float, 1> D({s.channels}), step_bias({s.channels});
    random_stream const normals{2026, 6}, uniforms{2026, 7};
    for (index_t c = 0; c < s.channels; ++c) {
      for (index_t n = 0; n < s.states; ++n) eigenvalue(c, n) = -static_cast<float>(n + 1);
      D(c) = static_cast<float>(normals.normal(c));
      double const step = kind.shortest_step *
                          std::pow(kind.longest_step / kind.shortest_step, uniforms.uniform(c));
      step_bias(c) = static_cast<float>(softplus_inverse(step));
    }
    gpu::copy_to_device(stream, std::as_const(eigenvalue).view(), eigenvalue_.view());
    gpu::copy_to_device(stream, std::as_const(D).view(), D_.view());
    gpu::copy_to_device(stream, std::as_const(step_bias).view(), step_bias_.view());
    stream.wait();  // before the host's copies are gone
  }

  auto eigenvalue() const { return eigenvalue_.view(); }
  auto D() const { return D_.view(); }
  auto step_bias() const { return step_bias_.view(); }

 private:
  gpu::tensor<float, 2> eigenvalue_;
  gpu::tensor<float, 1> D_, step_bias_;
};

/// The inputs in one layout, with all options on, and a cotangent of y: all N(0, 1), but for the
/// noise on step sizes. B and C, which are small, are there with states innermost and with time.
template <class T>
class selective_inputs {
 public:
  selective_inputs(gpu::stream const& stream, selective_shape const& s, innermost layout,
                   std::shared_ptr<selective_parameters const> parameters)
      : layout_{layout},
        parameters_{std::move(parameters)},
        x_(stream, {s.batch, s.length, s.channels}),
        step_size_(stream, {s.batch, s.length, s.channels}),
        gate_(stream, {s.batch, s.length, s.channels}),
        y_cotangent_(stream, {s.batch, s.length, s.channels}),
        B_(stream, {s.batch, s.length, s.states}),
        C_(stream, {s.batch, s.length, s.states}),
        B_along_time_(stream, {s.batch, s.length, s.states}),
        C_along_time_(stream, {s.batch, s.length, s.states}) {
    x_.fill_normal(stream, layout, 1, 1);
    step_size_.fill_normal(stream, layout, 2, 0.5);
    gate_.fill_normal(stream, layout, 3, 1);
    B_.fill_normal(stream, innermost::channels, 4, 1);
    C_.fill_normal(stream, innermost::channels, 5, 1);
    B_along_time_.fill_normal(stream, innermost::time, 4, 1);
    C_along_time_.fill_normal(stream, innermost::time, 5, 1);
    y_cotangent_.fill_normal(stream, layout, 8, 1);
  }

  innermost layout() const { return layout_; }
  /// With states innermost in B and C.
  selective_scan_inputs<T, memory::device> all() {
    return {.x = x_.view(layout_),
            .step_size = step_size_.view(layout_),
            .eigenvalue = parameters_->eigenvalue(),
            .B = B_.grouped(innermost::channels),
            .C = C_.grouped(innermost::channels),
            .D = parameters_->D(),
            .gate = gate_.view(layout_),
            .step_bias = parameters_->step_bias()};
  }
  selective_scan_inputs<T, memory::device> all_along_time() {
    auto in = all();
    in.B = B_along_time_.grouped(innermost::time);
    in.C = C_along_time_.grouped(innermost::time);
    return in;
  }
  sequence_view<T const, memory::device> y_cotangent() { return y_cotangent_.view(layout_); }

 private:
  innermost layout_;
  std::shared_ptr<selective_parameters const> parameters_;
  device_sequence_tensor<T> x_, step_size_, gate_, y_cotangent_, B_, C_, B_along_time_,
      C_along_time_;
};

}  // namespace ssm::bench
