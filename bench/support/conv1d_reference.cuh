// SPDX-License-Identifier: Apache-2.0
// conv1d_reference.cuh: how wrong a causal convolution or its gradient is, against the formulas in
// double precision.
#pragma once

#include "ssm/detail/causal_conv1d_inputs.hpp"
#include "support/linear_reference.cuh"

namespace ssm::bench {
namespace detail {

/// With SiLU, a bias, and zeros before the first step.
template <class T>
struct conv1d_reference {
  causal_conv1d_inputs<T, memory::device> in;
  sequence_view<float const, memory::device> y_cotangent;

  __device__ int width() const { return static_cast<int>(in.weight.extent(1)); }
  __device__ double weight(index_t c, int lag) const {
    return static_cast<double>(in.weight(c, width() - 1 - lag));
  }
  __device__ double input(index_t b, index_t t, index_t c) const {
    return t < 0 ? 0. : static_cast<double>(to_number(in.x(b, t, c)));
  }
  /// And what it may be off by, in eps.
  __device__ bounded sum(index_t b, index_t t, index_t c) const {
    bounded result;
    result.plus(static_cast<double>(in.bias(c)));
    for (int lag = 0; lag < width(); ++lag) result.plus(weight(c, lag) * input(b, t - lag, c));
    result.weighted = 0.5 * (width() + 1) * result.size;
    return result;
  }
  __device__ bounded output(index_t b, index_t t, index_t c) const {
    bounded const from = sum(b, t, c);
    bounded y;
    y.value = from.value / (1 + exp(-from.value));
    y.weighted = 1.1 * from.weighted + (4 + fabs(from.value)) * fabs(y.value);
    return y;
  }
  /// Of the sum of step t, times `factor`, as one of `count` terms.
  __device__ bounded cotangent(index_t b, index_t t, index_t c, double factor, double count) const {
    bounded const from = sum(b, t, c);
    double const share = 1 / (1 + exp(-from.value));
    double const arriving = factor * static_cast<double>(y_cotangent(b, t, c));
    bounded g;
    g.value = arriving * share * (1 + from.value * (1 - share));
    g.weighted = fabs(arriving) * (1.1 * 0.5 * (count + 1) + 14 + 0.5 * from.weighted);
    return g;
  }
  __device__ bounded input_gradient(index_t b, index_t s, index_t c) const {
    bounded result;
    for (int lag = 0; lag < width() && s + lag < in.x.extent(1); ++lag) {
      bounded const g = cotangent(b, s + lag, c, weight(c, lag), width() + 1);
      result.value += g.value, result.weighted += g.weighted;
    }
    return result;
  }
};

template <class T>
__global__ void compare_outputs_kernel(conv1d_reference<T> p, sequence_view<T, memory::device> y,
                                       tally* all) {
  index_t const channels = y.extent(2), length = y.extent(1),
                step = index_t{gridDim.x} * blockDim.x;
  thread_tally mine;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < y.size(); i += step) {
    index_t const b = i / (length * channels), t = i / channels % length, c = i % channels;
    mine.compare(y(b, t, c), p.output(b, t, c));
  }
  mine.add_to(all, true);
}

template <class T>
__global__ void compare_inputs_kernel(conv1d_reference<T> p, sequence_view<float, memory::device> x,
                                      tally* all) {
  index_t const channels = x.extent(2), length = x.extent(1),
                step = index_t{gridDim.x} * blockDim.x;
  thread_tally mine;
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < x.size(); i += step) {
    index_t const b = i / (length * channels), t = i / channels % length, c = i % channels;
    mine.compare(x(b, t, c), p.input_gradient(b, t, c));
  }
  mine.add_to(all, true);
}

/// Block (c, k) has the gradient of weight k of channel c, or of its bias where k is the width.
template <class T>
__global__ void compare_parameters_kernel(conv1d_reference<T> p,
                                          causal_conv1d_gradients<T, memory::device> to,
                                          tally* all) {
  __shared__ double value, weighted;
  if (threadIdx.x == 0) value = 0, weighted = 0;
  __syncthreads();
  index_t const c = blockIdx.x, length = p.in.x.extent(1), steps = length * p.in.x.extent(0);
  int const k = static_cast<int>(blockIdx.y), lag = p.width() - 1 - k;
  bounded mine;
  for (index_t i = threadIdx.x; i < steps; i += blockDim.x) {
    index_t const b = i / length, t = i % length;
    double const factor = k == p.width() ? 1. : p.input(b, t - lag, c);
    bounded const g = p.cotangent(b, t, c, factor, static_cast<double>(steps));
    mine.value += g.value, mine.weighted += g.weighted;
  }
  atomicAdd(&value, mine.value);
  atomicAdd(&weighted, mine.weighted);
  __syncthreads();
  if (threadIdx.x > 0) return;
  mine.value = value, mine.weighted = weighted;
  thread_tally one;
  one.compare(k == p.width() ? to.bias(c) : to.weight(c, k), mine);
  one.add_to(all, true);
}

/// What kernels that are given a tally find.
template <class Launch>
tally counted(gpu::stream const& stream, Launch const& launch) {
  gpu::tensor<tally, 1> found(stream, {1});
  tally result;
  auto const copy = [&](void* to, void const* from) {
    gpu::check(cudaMemcpyAsync(to, from, sizeof result, cudaMemcpyDefault, stream.get()),
               "cudaMemcpyAsync");
  };
  copy(found.view().data_handle(), &result);
  launch(found.view().data_handle());
  gpu::check(cudaGetLastError(), "comparison with the reference");
  copy(&result, found.view().data_handle());
  stream.wait();
  return result;
}

}  // namespace detail

template <class T>
tally compare_conv1d(gpu::stream const& stream, causal_conv1d_inputs<T, memory::device> const& in,
                     sequence_view<T, memory::device> const& y) {
  return detail::counted(stream, [&](tally* found) {
    detail::compare_outputs_kernel<T><<<4096, 128, 0, stream.get()>>>({in, {}}, y, found);
  });
}

template <class T>
tally compare_conv1d_vjp(gpu::stream const& stream,
                         causal_conv1d_inputs<T, memory::device> const& in,
                         sequence_view<float const, memory::device> const& y_cotangent,
                         causal_conv1d_gradients<T, memory::device> const& to) {
  return detail::counted(stream, [&](tally* found) {
    detail::conv1d_reference<T> const p{in, y_cotangent};
    detail::compare_inputs_kernel<T><<<4096, 128, 0, stream.get()>>>(p, to.x, found);
    dim3 const sums(static_cast<unsigned>(in.x.extent(2)),
                    static_cast<unsigned>(in.weight.extent(1) + 1));
    detail::compare_parameters_kernel<T><<<sums, 128, 0, stream.get()>>>(p, to, found);
  });
}

}  // namespace ssm::bench
