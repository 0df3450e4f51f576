// SPDX-License-Identifier: Apache-2.0
// conv1d_vjp_problem.cuh: the gradient of the causal convolution as its kernels see it.
#pragma once

#include "ssm/detail/conv1d_elements.cuh"
#include "ssm/detail/conv1d_problem.cuh"

namespace ssm::gpu::detail {

/// The forward problem, the cotangents that arrive and the gradients that leave; null: not wanted.
template <class T>
struct conv1d_vjp_problem : conv1d_problem<T> {
  sequence_view<float const, memory::device> y_cotangent;
  state_view<float, memory::device> carry_cotangent;
  causal_conv1d_gradients<T, memory::device> to;
  bool accumulates = true;  // or what was there is replaced
  // (part, width + 1, channel): what a part of time adds to the gradients of weight and bias.
  float* sums = nullptr;
  index_t parts = 0;  // of all batch entries
  // (batch, channel, width - 1): the gradient of the initial carry, until nobody reads the
  // cotangent of the final one.
  float* initial_gradient = nullptr;

  /// Neighbouring elements of a gradient, and one.
  template <int Count>
  __device__ void leave(float* at, float const (&terms)[Count]) const {
    accumulates ? add_elements<Count>(at, terms) : store_elements<Count>(at, terms);
  }
  __device__ void leave(float& at, float term) const { at = accumulates ? at + term : term; }

  /// What the final carry sends to the input of time s.
  __device__ float from_carry(index_t b, index_t s, index_t c) const {
    index_t const place = s - (this->length() - (this->width() - 1));
    bool const is_kept = place >= 0 && carry_cotangent.data_handle() != nullptr &&
                         ssm::detail::same_sequence(this->in.sequence, b, this->length() - 1, s);
    return is_kept ? carry_cotangent(b, c, place) : 0.0f;
  }
  __device__ float& initial_gradient_at(index_t b, index_t s, index_t c) const {
    int const kept = this->width() - 1;
    return initial_gradient[(b * this->in.x.extent(2) + c) * kept + s + kept];
  }
  __device__ float& sum_at(index_t part, int row, index_t c) const {
    return sums[(part * (this->width() + 1) + row) * this->in.x.extent(2) + c];
  }

  /// The gradient of the input of time s by its definition: for those of the initial carry.
  __device__ float input_gradient(index_t b, index_t s, index_t c) const {
    float result = from_carry(b, s, c);
    for (int lag = 0; lag < this->width(); ++lag) {
      index_t const t = s + lag;
      if (t < 0) continue;
      if (t >= this->length() || !ssm::detail::same_sequence(this->in.sequence, b, t, s)) break;
      float sum = this->bias(c);
      for (int back = this->width() - 1; back >= 0; --back) {
        sum = fmaf(this->weight(c, back), this->input(b, t, t - back, c), sum);
      }
      float const slope = this->in.activation == activation::silu ? silu_slope(sum) : 1.0f;
      result = fmaf(this->weight(c, lag), y_cotangent(b, t, c) * slope, result);
    }
    return result;
  }
};

}  // namespace ssm::gpu::detail
