// SPDX-License-Identifier: Apache-2.0
// simulator.cuh: the systems of simulator.hpp on a GPU, by the library's scan and Thrust.
#pragma once

#include <thrust/execution_policy.h>
#include <thrust/for_each.h>
#include <thrust/functional.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/reduce.h>
#include <thrust/transform_reduce.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include "simulator.hpp"
#include "ssm/diagonal.hpp"
#include "ssm/scalar_identity.hpp"
#include "ssm/scan.cuh"
#include "ssm/tensor.cuh"

namespace ssm::theory::gpu {

using ssm::gpu::check;

template <class T, int Rank>
using device_view = tensor_view<T, Rank, memory::device>;
template <int Rank>
using device_tensor = ssm::gpu::tensor<double, Rank>;

/// out(i, r, c) = normal number start + r·columns + c of a child of replicate i; a call writes a
/// pair, which comes from one block of the stream.
struct pair_of_normals {
  random_stream stream;
  index_t first, child, start;
  device_view<double, 3> out;

  __device__ void operator()(index_t p) const {
    index_t const columns = out.extent(2), all = out.extent(1) * columns, pairs = (all + 1) / 2;
    index_t const i = p / pairs, k = 2 * (p % pairs);
    random_stream const numbers = stream.child(first + i).child(child);
    out(i, k / columns, k % columns) = numbers.normal(start + k);
    if (k + 1 == all) return;
    out(i, (k + 1) / columns, (k + 1) % columns) = numbers.normal(start + k + 1);
  }
};

/// h_t = decay h_{t-1} + Σ_j B_j x_tj with one state for each lane, its drive summed on the way.
/// Shapes    decay (replicate, state); B (replicate, state, input); x (replicate, time, input).
struct driven_states {
  using value_type = double;

  device_view<double const, 2> decay;
  device_view<double const, 3> B, x;

  struct step {
    driven_states const& self;
    index_t b, t, c;

    SSM_HD affine_map<double> operator()(index_t) const {
      double drive = 0;
      for (index_t j = 0; j < self.x.extent(2); ++j) drive += self.B(b, c, j) * self.x(b, t, j);
      return {self.decay(b, c), drive};
    }
  };

  SSM_HD step at(index_t b, index_t t, index_t c) const { return {*this, b, t, c}; }
  scan_shape shape() const { return {x.extent(0), x.extent(1), decay.extent(1), 1}; }
};

/// The energy of replicate i over `unit`.
/// Shapes    h (replicate, anything).
struct energy_of_replicate {
  device_view<double const, 2> h;
  double unit;

  __device__ double operator()(index_t i) const {
    double energy = 0;
    for (index_t n = 0; n < h.extent(1); ++n) energy += h(i, n) * h(i, n);
    return energy / unit;
  }
};

/// Σ_n h_n²/(|b_n|² g_t(λ_n)) over the number of states, for replicate i.
struct normalized_energy_of_replicate {
  device_view<double const, 2> h;
  driven_states system;

  __device__ double operator()(index_t i) const {
    double sum = 0;
    for (index_t n = 0; n < h.extent(1); ++n) {
      double const decay = system.decay(i, n);
      double row = 0, gain = 0;
      for (index_t j = 0; j < system.B.extent(2); ++j) row += system.B(i, n, j) * system.B(i, n, j);
      for (index_t t = 0; t < system.x.extent(1); ++t) gain = decay * decay * gain + 1;
      sum += h(i, n) * h(i, n) / (row * gain);
    }
    return sum / static_cast<double>(h.extent(1));
  }
};

/// The first GPU; every call returns when its sum is there.
class simulator final : public theory::simulator {
 public:
  /// Inputs of layers are drawn in pieces of so many numbers.
  explicit simulator(index_t piece = index_t{1} << 26) : piece_{piece} {
    // Memory stays with the program from sum to sum.
    cudaMemPool_t pool;
    check(cudaDeviceGetDefaultMemPool(&pool, 0), "cudaDeviceGetDefaultMemPool");
    std::uint64_t all = ~std::uint64_t{0};
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all),
          "cudaMemPoolSetAttribute");
  }

  std::string name() const override { return name_; }

  double sum(linear_system const& system, replicates const& of, numbers decay) override {
    index_t const count = of.count, states = system.states, inputs = system.inputs;
    auto const d_decay = on_device(decay);
    device_tensor<3> B(stream_, {count, inputs, states}), x(stream_, {count, system.steps, inputs});
    // (replicate, state, input), with states side by side as the lanes are
    device_view<double, 3> const B_view{
        B.view().data_handle(), {count, states, inputs}, {states * inputs, 1, states}};
    fill(of, 1, 0, B_view);
    fill(of, 2, 0, x);
    driven_states const recurrence{d_decay.view(), B_view, std::as_const(x).view()};
    auto h = zero_states({count, states, 1});
    ssm::gpu::scan(stream_, recurrence, discard{}, h);
    device_view<double const, 2> const last{h.view().data_handle(), {count, states}};
    if (system.is_normalized) {
      return sum_over(count, normalized_energy_of_replicate{last, recurrence});
    }
    return sum_over(count, energy_of_replicate{last, static_cast<double>(states * inputs)});
  }

  double sum(mamba1_channel const& system, replicates const& of, numbers eigenvalue) override {
    index_t const count = of.count, states = system.states, steps = system.steps;
    auto const d_step_size = on_device(tensor_view<double const, 1>{&system.step_size, {1}});
    auto const d_eigenvalue = on_device(eigenvalue);
    device_tensor<3> B(stream_, {count, 1, states}), x(stream_, {count, 1, steps});
    fill(of, 1, 0, B);
    fill(of, 2, 0, x);
    // A channel for each replicate.
    diagonal<mamba_hold, double, memory::device> const recurrence{
        .step_size = {d_step_size.view().data_handle(), {1, steps, count}, {0, 0, 0}},
        .eigenvalue = d_eigenvalue,
        .B = {B.view().data_handle(), {1, steps, count, states}, {0, 0, states, 1}},
        .x = {x.view().data_handle(), {1, steps, count}, {0, 1, steps}}};
    auto h = zero_states({1, count, states});
    ssm::gpu::scan(stream_, recurrence, discard{}, h);
    return sum_over(count, energy_of_replicate{{h.view().data_handle(), {count, states}},
                                               static_cast<double>(states)});
  }

  double sum(mamba2_head const& system, replicates const& of, numbers) override {
    index_t const count = of.count, channels = system.channels, states = system.states;
    auto const d_step_size = on_device(tensor_view<double const, 1>{&system.step_size, {1}});
    auto const d_eigenvalue = on_device(tensor_view<double const, 1>{&system.eigenvalue, {1}});
    device_tensor<3> B(stream_, {count, 1, states}), x(stream_, {count, system.steps, channels});
    fill(of, 1, 0, B);
    fill(of, 2, 0, x);
    scalar_identity<mamba_hold, double, memory::device> const recurrence{
        .step_size = {d_step_size.view().data_handle(), {count, system.steps, 1}, {0, 0, 0}},
        .eigenvalue = d_eigenvalue,
        .B = {B.view().data_handle(), {count, system.steps, 1, states}, {states, 0, 0, 1}},
        .x = x};
    auto h = zero_states({count, channels, states});
    ssm::gpu::scan(stream_, recurrence, discard{}, h);
    return sum_over(count, energy_of_replicate{{h.view().data_handle(), {count, channels * states}},
                                               static_cast<double>(channels * states)});
  }

  double sum(layer_system const& layer, replicates const& of, numbers) override {
    index_t const count = of.count, channels = layer.channels, states = layer.states;
    index_t const of_step = 2 * channels + layer.groups * states;
    index_t const piece = std::clamp<index_t>(piece_ / (count * of_step), 1, layer.steps);
    auto const d_eigenvalue = on_device(layer.eigenvalue);
    auto const d_step_size = on_device(layer.step_size);
    device_tensor<3> B(stream_, {count, piece, layer.groups * states});
    device_tensor<3> x(stream_, {count, piece, channels});
    device_tensor<3> energy(stream_, {count, piece, channels});
    auto h = zero_states({count, channels, states});
    double sum = 0;
    for (index_t t = 0; t < layer.steps; t += piece) {
      index_t const steps = std::min(piece, layer.steps - t);
      auto const part = [&](auto& whole) { return whole.view().slice(1, 0, steps); };
      fill(of, 0, t * channels, part(x));
      fill(of, 1, t * layer.groups * states, part(B));
      squared_norm<double, memory::device> const collect{
          {energy.view().data_handle(), {count, steps, channels}}};
      auto const sizes = d_step_size.view().broadcast(0, steps).broadcast(0, count);
      device_view<double const, 4> const groups{
          B.view().data_handle(),
          {count, steps, layer.groups, states},
          {piece * layer.groups * states, layer.groups * states, states, 1}};
      if (layer.has_heads) {
        ssm::gpu::scan(stream_,
                       scalar_identity<mamba_hold, double, memory::device>{
                           .step_size = sizes,
                           .eigenvalue = d_eigenvalue.view().select(1, 0),
                           .B = groups,
                           .x = part(x)},
                       collect, h);
      } else {
        ssm::gpu::scan(stream_,
                       diagonal<mamba_hold, double, memory::device>{
                           .step_size = sizes,
                           .eigenvalue = d_eigenvalue,
                           .B = groups.select(2, 0).broadcast(2, channels),
                           .x = part(x)},
                       collect, h);
      }
      double const* const first = energy.view().data_handle();
      sum += thrust::reduce(policy(), first, first + count * steps * channels, 0.0);
    }
    return sum / (static_cast<double>(layer.steps) * layer.input_energy);
  }

 private:
  thrust::cuda_cub::execute_on_stream_nosync policy() const {
    return thrust::cuda::par_nosync.on(stream_.get());
  }

  template <int Rank>
  device_tensor<Rank> on_device(tensor_view<double const, Rank> from) const {
    device_tensor<Rank> to(stream_, from.extents());
    ssm::gpu::copy_to_device(stream_, from, to);
    return to;
  }

  device_tensor<3> zero_states(index_array<3> const& extents) const {
    device_tensor<3> h(stream_, extents);
    auto const bytes = sizeof(double) * static_cast<std::size_t>(h.view().size());
    check(cudaMemsetAsync(h.view().data_handle(), 0, bytes, stream_.get()), "cudaMemsetAsync");
    return h;
  }

  /// Numbers [start, ...) of the given child of each replicate.
  void fill(replicates const& of, index_t child, index_t start, device_view<double, 3> out) const {
    index_t const pairs = (out.extent(1) * out.extent(2) + 1) / 2;
    thrust::for_each_n(policy(), thrust::counting_iterator<index_t>(0), out.extent(0) * pairs,
                       pair_of_normals{of.stream, of.first, child, start, out});
  }

  template <class Sample>
  double sum_over(index_t count, Sample const& sample) const {
    thrust::counting_iterator<index_t> const first(0);
    return thrust::transform_reduce(policy(), first, first + count, sample, 0.0,
                                    thrust::plus<double>{});
  }

  static std::string name_of_device() {
    int devices = 0;
    cudaError_t const status = cudaGetDeviceCount(&devices);
    require<std::runtime_error>(
        status == cudaSuccess && devices > 0,
        "--device gpu: no CUDA device answers: ", cudaGetErrorString(status));
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    return properties.name;
  }

  std::string name_ = name_of_device();  // before the stream, which needs the device
  ssm::gpu::stream stream_;
  index_t piece_;
};

}  // namespace ssm::theory::gpu
