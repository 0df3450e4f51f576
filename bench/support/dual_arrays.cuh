// SPDX-License-Identifier: Apache-2.0
// dual_arrays.cuh: inputs of Mamba-2's operator on a GPU, and room for its outputs.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "ssm/detail/state_space_dual_inputs.hpp"
#include "support/selective_arrays.cuh"

namespace ssm::bench {

/// Heads of 64 channels with 128 states each, B and C of one group.
struct dual_shape {
  index_t batch, heads, length;
  static constexpr index_t head_dim = 64, states = 128;

  index_t channels() const { return heads * head_dim; }
  index_array<4> sequences() const { return {batch, length, heads, head_dim}; }
  index_array<4> projections() const { return {batch, length, 1, states}; }
  index_array<4> carry() const { return {batch, heads, head_dim, states}; }
};

/// Per head: eigenvalues from -1 to -16, D normal, step sizes of which the logarithms are uniform.
class dual_parameters {
 public:
  dual_parameters(gpu::stream const& stream, dual_shape const& s, memory_kind const& kind)
      : eigenvalue_(stream, {s.heads}), D_(stream, {s.heads}), step_bias_(stream, {s.heads}) {
    tensor<float, 1> eigenvalue({s.heads}), D({s.heads}), step_bias({s.heads});
    random_stream const uniforms{2026, 5}, normals{2026, 6}, steps{2026, 7};
    for (index_t h = 0; h < s.heads; ++h) {
      eigenvalue(h) = -static_cast<float>(1 + 15 * uniforms.uniform(h));
      D(h) = static_cast<float>(normals.normal(h));
      double const step =
          kind.shortest_step * std::pow(kind.longest_step / kind.shortest_step, steps.uniform(h));
      step_bias(h) = static_cast<float>(softplus_inverse(step));
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
  gpu::tensor<float, 1> eigenvalue_, D_, step_bias_;
};

/// Inputs with softplus, bias and D, and a cotangent of y: all N(0, 1), but for the noise on step
/// sizes, of deviation 0.5.
template <class T>
class dual_inputs {
 public:
  dual_inputs(gpu::stream const& stream, dual_shape const& s, memory_kind const& kind)
      : shape_{s},
        parameters_(stream, s, kind),
        x_(stream, {s.batch, s.length, s.channels()}),
        y_cotangent_(stream, {s.batch, s.length, s.channels()}),
        step_size_(stream, {s.batch, s.length, s.heads}),
        B_(stream, {s.batch, s.length, s.states}),
        C_(stream, {s.batch, s.length, s.states}) {
    constexpr innermost layout = innermost::channels;
    x_.fill_normal(stream, layout, 1, 1);
    step_size_.fill_normal(stream, layout, 2, 0.5);
    B_.fill_normal(stream, layout, 4, 1);
    C_.fill_normal(stream, layout, 5, 1);
    y_cotangent_.fill_normal(stream, layout, 8, 1);
  }

  state_space_dual_inputs<T, memory::device> all() {
    tensor_view<float const, 2, memory::device> const D{
        parameters_.D().data_handle(), {shape_.heads, shape_.head_dim}, {1, 0}};
    return {.x = {x_.data(), shape_.sequences()},
            .step_size = step_size_.view(innermost::channels),
            .eigenvalue = parameters_.eigenvalue(),
            .B = {B_.data(), shape_.projections()},
            .C = {C_.data(), shape_.projections()},
            .D = D,
            .step_bias = parameters_.step_bias()};
  }
  tensor_view<T const, 4, memory::device> y_cotangent() {
    return {y_cotangent_.data(), shape_.sequences()};
  }

 private:
  dual_shape shape_;
  dual_parameters parameters_;
  device_sequence_tensor<T> x_, y_cotangent_, step_size_, B_, C_;
};

/// What the rows of a group share, made when first asked for.
template <class T>
class dual_arrays {
 public:
  dual_arrays(gpu::stream const& stream, dual_shape const& s, memory_kind const& kind)
      : stream_{stream}, shape_{s}, kind_{kind} {}

  gpu::stream const& stream() const { return stream_; }
  dual_shape const& shape() const { return shape_; }
  dual_inputs<T>& inputs() { return made(inputs_, shape_, kind_); }
  gpu::tensor<T, 4>& y() { return made(y_, shape_.sequences()); }
  gpu::tensor<float, 4>& carry() { return made(carry_, shape_.carry()); }

 private:
  template <class A, class... Arguments>
  A& made(std::unique_ptr<A>& own, Arguments const&... arguments) {
    if (!own) own = std::make_unique<A>(stream_, arguments...);
    return *own;
  }

  gpu::stream const& stream_;
  dual_shape shape_;
  memory_kind kind_;
  std::unique_ptr<dual_inputs<T>> inputs_;
  std::unique_ptr<gpu::tensor<T, 4>> y_;
  std::unique_ptr<gpu::tensor<float, 4>> carry_;
};

}  // namespace ssm::bench
