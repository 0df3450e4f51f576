// SPDX-License-Identifier: Apache-2.0
// linear_step.cuh: what a kernel of the raw scan does at one step, forward and for the gradient.
#pragma once

#include "ssm/affine_map.hpp"

namespace ssm::gpu::detail {

/// h ↦ a·h + b, and h is stored. Inputs a, b; output h.
struct linear_step {
  static constexpr int inputs = 2, outputs = 1;
  static constexpr bool reads_neighbor = false;

  template <class A>
  __device__ static affine_map<A> map(A const (&in)[2]) {
    return {in[0], in[1]};
  }

  template <class A>
  __device__ static void run(A const (&in)[2], A& carry, A (&out)[1]) {
    carry = in[0] * carry + in[1];
    out[0] = carry;
  }
};

/// The cotangent of the state before a step, e ↦ conj(a)·(g + e), in the reverse order of time.
/// Inputs a, g and the state before the step, which the next step of this order has as its own;
/// outputs the gradients of a and b. Source: adjoint in ssm/scan.hpp.
struct linear_adjoint_step {
  static constexpr int inputs = 3, outputs = 2;
  static constexpr bool reads_neighbor = true;  ///< the last input is that of the next step

  template <class A>
  __device__ static affine_map<A> map(A const (&in)[3]) {
    A const decay = conjugate(in[0]);
    return {decay, decay * in[1]};
  }

  template <class A>
  __device__ static void run(A const (&in)[3], A& carry, A (&out)[2]) {
    A const arriving = in[1] + carry;
    out[0] = arriving * conjugate(in[2]);
    out[1] = arriving;
    carry = conjugate(in[0]) * arriving;
  }
};

}  // namespace ssm::gpu::detail
