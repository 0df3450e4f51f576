// SPDX-License-Identifier: Apache-2.0
// selective_thrust.cuh: Mamba's operator on whole arrays, as one writes it with Thrust: every map
// of every state in memory, a scan by key, a readout. Inputs have time innermost; lengths are
// powers of two, so that no key needs a division.
#pragma once

#include "support/linear_baselines.cuh"
#include "support/selective_arrays.cuh"

namespace ssm::bench {
namespace detail {

/// Maps of (batch, channel, state, time), the last axis fastest.
template <class T>
__global__ void discretize_kernel(selective_scan_inputs<T, memory::device> in, float_map* maps) {
  using gpu::detail::to_number;
  index_t const length = in.x.extent(1), channels = in.x.extent(2), states = in.B.extent(3);
  index_t const b = blockIdx.z, c = blockIdx.y;
  float const bias = in.step_bias(c);
  for (index_t t = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < length;
       t += static_cast<index_t>(gridDim.x) * blockDim.x) {
    float const step = softplus(to_number(in.step_size(b, t, c)) + bias);
    float const weight = step * to_number(in.x(b, t, c));
    for (index_t n = 0; n < states; ++n) {
      maps[((b * channels + c) * states + n) * length + t] = {ssm::exp(step * in.eigenvalue(c, n)),
                                                              weight * to_number(in.B(b, t, 0, n))};
    }
  }
}

template <class T>
__global__ void readout_kernel(selective_scan_inputs<T, memory::device> in, float const* states_of,
                               sequence_view<T, memory::device> y) {
  using gpu::detail::to_number;
  index_t const length = in.x.extent(1), channels = in.x.extent(2), states = in.B.extent(3);
  index_t const b = blockIdx.z, c = blockIdx.y;
  for (index_t t = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; t < length;
       t += static_cast<index_t>(gridDim.x) * blockDim.x) {
    float sum = in.D(c) * to_number(in.x(b, t, c));
    for (index_t n = 0; n < states; ++n) {
      sum +=
          to_number(in.C(b, t, 0, n)) * states_of[((b * channels + c) * states + n) * length + t];
    }
    y(b, t, c) = gpu::detail::to_stored<T>(sum * silu(to_number(in.gate(b, t, c))));
  }
}

}  // namespace detail

/// Memory of such calls: 12 bytes for each state of each element, and what Thrust needs.
class selective_thrust_memory {
 public:
  static index_t bytes(selective_shape const& s) {
    return 12 * s.batch * s.channels * s.length * s.states + (index_t{1} << 26);
  }
  selective_thrust_memory(gpu::on where, selective_shape const& s)
      : maps_(where, {s.batch * s.channels * s.length * s.states}),
        states_(where, {s.batch * s.channels * s.length * s.states}),
        thrust_(where, {index_t{1} << 26}) {}

  template <class T>
  void forward(gpu::on where, selective_scan_inputs<T, memory::device> const& in,
               sequence_view<T, memory::device> y) {
    index_t const length = in.x.extent(1);
    auto const shift = std::countr_zero(static_cast<std::uint64_t>(length));
    require<std::runtime_error>(index_t{1} << shift == length, "thrust: not a power of two");
    dim3 const blocks(static_cast<unsigned>((length + 1023) / 1024),
                      static_cast<unsigned>(in.x.extent(2)), static_cast<unsigned>(in.x.extent(0)));
    auto* const maps = maps_.view().data_handle();
    auto* const states = states_.view().data_handle();
    detail::discretize_kernel<T><<<blocks, 256, 0, where.stream>>>(in, maps);
    gpu::check(cudaGetLastError(), "discretize_kernel");
    detail::prepared_memory own(thrust_.view());
    auto const keys = thrust::make_transform_iterator(thrust::counting_iterator<index_t>(0),
                                                      detail::row_of{shift});
    thrust::inclusive_scan_by_key(
        thrust::cuda::par_nosync(own).on(where.stream), keys, keys + maps_.view().size(), maps,
        thrust::make_transform_output_iterator(states, detail::drive_of{}), thrust::equal_to<int>{},
        then{});
    detail::readout_kernel<T><<<blocks, 256, 0, where.stream>>>(in, states, y);
    gpu::check(cudaGetLastError(), "readout_kernel");
  }

 private:
  gpu::tensor<float_map, 1> maps_;
  gpu::tensor<float, 1> states_;
  gpu::tensor<std::byte, 1> thrust_;
};

}  // namespace ssm::bench
