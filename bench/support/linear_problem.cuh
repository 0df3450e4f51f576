// SPDX-License-Identifier: Apache-2.0
// linear_problem.cuh: the arrays of raw scans of all shapes, allocated once, and the calls on them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>

#include "ssm/linear_scan.cuh"
#include "ssm/random.hpp"
#include "ssm/scan.cuh"
#include "support/device_program.cuh"
#include "support/innermost.hpp"
#include "support/linear_baselines.cuh"
#include "support/linear_peer.hpp"
#include "support/linear_reference.cuh"

namespace ssm::bench {
namespace detail {

/// Numbers of a stream, uniform in [low, low + width).
template <class T>
__global__ void fill_kernel(random_stream numbers, double low, double width, index_t size, T* out) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += step)
    out[i] =
        gpu::detail::to_stored<T>(static_cast<accumulator_t<T>>(low + width * numbers.uniform(i)));
}

}  // namespace detail

/// Memory of the largest problem: decay, drive, states, and the gradients of decay and drive.
class linear_arrays {
 public:
  /// `bytes` of each, a multiple of 256.
  linear_arrays(gpu::stream const& stream, index_t bytes)
      : stream_{stream}, bytes_{bytes}, all_(stream, {5, bytes}) {}

  index_t bytes() const { return bytes_; }
  template <class T>
  T* array(int which) {
    return reinterpret_cast<T*>(all_.view().data_handle() + which * bytes_);
  }

  /// Random decays in [0.9, 1) and drives in [-1, 1), of which each shape takes the first.
  template <class T>
  void fill() {
    index_t const size = bytes_ / static_cast<index_t>(sizeof(T));
    auto const fill = [&](std::uint64_t id, double low, double width, int which) {
      detail::fill_kernel<<<4096, 256, 0, stream_.get()>>>(random_stream{2026, id}, low, width,
                                                           size, array<T>(which));
      gpu::check(cudaGetLastError(), "fill_kernel");
    };
    fill(1, 0.9, 0.1, 0);
    fill(2, -1, 2, 1);
  }
  /// A copy that reads and writes so many bytes together, or as many as there is room for. It
  /// writes to array 3.
  yardstick copy(double bytes = 0x1p62) {
    auto const copied = static_cast<index_t>(
        std::min(bytes / 2, static_cast<double>(std::min(bytes_, copy_bytes))));
    return {[from = array<std::byte>(0), to = array<std::byte>(3), copied](gpu::on where) {
              gpu::check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(copied),
                                         cudaMemcpyDeviceToDevice, where.stream),
                         "cudaMemcpyAsync");
            },
            2. * static_cast<double>(copied)};
  }

 private:
  static constexpr index_t copy_bytes = index_t{1} << 32;
  gpu::stream const& stream_;
  index_t bytes_;
  gpu::tensor<std::byte, 2> all_;
};

/// A raw scan of one shape and layout. What a call writes is NaN before it is checked.
template <class T>
class linear_problem {
 public:
  using number = accumulator_t<T>;

  linear_problem(gpu::stream const& stream, linear_arrays& arrays, index_t rows, index_t length,
                 innermost layout)
      : stream_{stream},
        arrays_{arrays},
        shape_{1, length, rows},
        strides_{rows * length, layout == innermost::time ? 1 : rows,
                 layout == innermost::time ? length : 1},
        final_(stream, {1, rows}) {}

  /// Makes `run` the forward scan; the workspace lives as long as the function.
  std::function<void(gpu::on)> forward() {
    gpu::linear_scan_inputs<T> const in{view(0), view(1)};
    auto const states = view(2);
    tensor_view<number, 2, memory::device> const final_state = final_.view();
    auto const own = workspace(gpu::linear_scan_workspace(in, states, final_state));
    return [=](gpu::on where) { gpu::linear_scan(where, in, states, final_state, own->view()); };
  }

  /// The gradient, with the drives for cotangents of states that are there.
  std::function<void(gpu::on)> gradient() {
    gpu::linear_scan_inputs<T> const in{view(0), view(1)};
    gpu::linear_scan_gradients<T> const to{view(3), view(4)};
    device_sequence<T> const states = view(2), cotangent = view(1);
    device_carry<number> const none{};
    auto const own = workspace(gpu::linear_scan_vjp_workspace(in, states, cotangent, none, to));
    return [=](gpu::on where) {
      gpu::linear_scan_vjp(where, in, states, cotangent, none, to, own->view());
    };
  }

  /// The generic scan, one thread for each row.
  std::function<void(gpu::on)> twin() {
    auto const trajectory = [&](int which) {
      auto const v = view(which);
      return trajectory_view<T, memory::device>(v.data_handle(), {1, shape_[1], shape_[2], 1},
                                                {strides_[0], strides_[1], strides_[2], 1});
    };
    linear_recurrence<T, memory::device> const recurrence{trajectory(0), trajectory(1)};
    store_states<T, memory::device> const readout{trajectory(2)};
    state_view<T, memory::device> const carry(final_.view().data_handle(), {1, shape_[2], 1});
    return [=](gpu::on where) {
      gpu::check(cudaMemsetAsync(carry.data_handle(), 0,
                                 sizeof(T) * static_cast<std::size_t>(carry.size()), where.stream),
                 "cudaMemsetAsync");
      gpu::scan(where, recurrence, readout, carry);
    };
  }

  /// What a peer is asked for where time is innermost.
  ssm_linear_peer_call peer_call() {
    auto const at = [&](int which) { return arrays_.array<T>(which); };
    return {shape_[2], shape_[1], sizeof(T), at(0), at(1), at(2), at(1), at(3), at(4)};
  }

  /// Run once and compare.
  tally check_forward(std::function<void(gpu::on)> const& run, bool has_final = true) {
    poison(view(2).data_handle(), sizeof(T));
    gpu::check(cudaMemsetAsync(final_.view().data_handle(), 0xff,
                               sizeof(number) * static_cast<std::size_t>(shape_[2]), stream_.get()),
               "cudaMemsetAsync");
    run(stream_);
    device_carry<number> none{};
    return compare_states<T>(stream_, view(0), view(1), view(2),
                             has_final ? device_carry<number>(final_.view()) : none);
  }
  tally check_gradient(std::function<void(gpu::on)> const& run) {
    poison(view(3).data_handle(), sizeof(T));
    poison(view(4).data_handle(), sizeof(T));
    run(stream_);
    return compare_gradients<T>(stream_, view(0), view(2), view(1), view(3), view(4));
  }

  /// Of a scan that writes all of the maps up to each step, not only the states.
  tally check_maps(std::function<void(gpu::on)> const& run, float_map* maps) {
    poison(maps, sizeof(float_map));
    run(stream_);
    device_sequence<T> const states(&maps->drive, shape_,
                                    {2 * strides_[0], 2 * strides_[1], 2 * strides_[2]});
    return compare_states<T>(stream_, view(0), view(1), states, {});
  }

  gpu::on where() const { return stream_; }

  sequence_view<T, memory::device> view(int which) {
    return {arrays_.array<T>(which), shape_, strides_};
  }

 private:
  auto workspace(std::size_t bytes) {
    auto const own = std::make_shared<gpu::tensor<std::byte, 1>>(
        stream_, index_array<1>{static_cast<index_t>(bytes)});
    poison(own->view().data_handle(), bytes, 1);
    return own;
  }
  void poison(void* data, std::size_t element) {
    poison(data, static_cast<std::size_t>(shape_[1] * shape_[2]), element);
  }
  void poison(void* data, std::size_t count, std::size_t element) {
    if (count == 0) return;
    gpu::check(cudaMemsetAsync(data, 0xff, count * element, stream_.get()), "cudaMemsetAsync");
  }

  gpu::stream const& stream_;
  linear_arrays& arrays_;
  index_array<3> shape_, strides_;
  gpu::tensor<number, 2> final_;
};

}  // namespace ssm::bench
