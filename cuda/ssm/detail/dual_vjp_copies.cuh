// SPDX-License-Identifier: Apache-2.0
// dual_vjp_copies.cuh: inputs as the kernels of the gradient of Mamba-2's operator read them: rows
// dense, at multiples of 16 bytes, in a number type that is computed with.
#pragma once

#include <algorithm>

#include "ssm/detail/dual_vjp_problem.cuh"
#include "ssm/error.hpp"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// What inputs stored as T are computed with: float16 as float.
template <class T>
using vjp_stored = std::conditional_t<std::is_same_v<T, float16>, float, T>;

/// Whether rows of an array are dense and begin at multiples of 16 bytes.
template <class T, int Rank>
bool has_packed_rows(tensor_view<T, Rank, memory::device> const& of) {
  bool is_packed = reinterpret_cast<std::uintptr_t>(of.data_handle()) % 16 == 0;
  for (int axis = 0; axis < Rank; ++axis) {
    bool const is_row = axis + 1 == Rank;
    index_t const bytes = of.stride(axis) * static_cast<index_t>(sizeof(T));
    bool const fits = is_row ? of.stride(axis) == 1 : bytes % 16 == 0;
    is_packed = is_packed && (fits || of.extent(axis) <= 1);
  }
  return is_packed;
}

/// A view as if its elements were of another type: for shapes alone, where the types differ.
template <class To, class From, int Rank>
tensor_view<To const, Rank, memory::device> retyped(
    tensor_view<From const, Rank, memory::device> const& from) {
  return {reinterpret_cast<To const*>(from.data_handle()), from.extents(), from.strides()};
}

template <class T>
state_space_dual_inputs<vjp_stored<T>, memory::device> retyped_inputs(
    state_space_dual_inputs<T, memory::device> const& in) {
  using To = vjp_stored<T>;
  return {.x = retyped<To>(in.x),
          .step_size = retyped<To>(in.step_size),
          .eigenvalue = in.eigenvalue,
          .B = retyped<To>(in.B),
          .C = retyped<To>(in.C),
          .D = in.D,
          .gate = retyped<To>(in.gate),
          .step_bias = in.step_bias,
          .step_rule = in.step_rule,
          .scaling = in.scaling,
          .sequence = in.sequence};
}

/// A tensor (batch, time, ., .) that has to be copied, and where in the workspace to; nothing to do
/// where `needed` is false.
template <class T>
struct input_copy {
  using stored = vjp_stored<T>;
  tensor_view<T const, 4, memory::device> from;
  bool needed;
  index_t place = 0;  // in floats

  /// Elements from a row to the next.
  index_t pitch() const {
    index_t const unit = 16 / sizeof(stored);
    return (from.extent(3) + unit - 1) / unit * unit;
  }
  index_t rows() const { return from.extent(0) * from.extent(1) * from.extent(2); }
  index_t floats() const {
    return needed ? rows() * pitch() * index_t{sizeof(stored)} / index_t{sizeof(float)} : 0;
  }
};

template <class T>
__global__ void __launch_bounds__(256)
    dual_vjp_copy_kernel(tensor_view<T const, 4, memory::device> from, vjp_stored<T>* to,
                         index_t pitch) {
  index_t const size = from.size();
  for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i < size;
       i += gridDim.x * index_t{256}) {
    index_t const c = i % from.extent(3), row = i / from.extent(3);
    index_t const h = row % from.extent(2), t = row / from.extent(2) % from.extent(1);
    index_t const b = row / from.extent(2) / from.extent(1);
    to[row * pitch + c] = to_stored<vjp_stored<T>>(to_number(from(b, t, h, c)));
  }
}

/// Copy what has to be, and have the problem's view see the copy.
template <class T>
void run_copy(on where, input_copy<T> const& copy, float* workspace,
              tensor_view<vjp_stored<T> const, 4, memory::device>& view) {
  if (!copy.needed || copy.from.empty()) return;
  auto* const to = reinterpret_cast<vjp_stored<T>*>(workspace + copy.place);
  index_t const pitch = copy.pitch(), heads = copy.from.extent(2), steps = copy.from.extent(1);
  auto const blocks =
      static_cast<unsigned>(std::min<index_t>((copy.from.size() + 255) / 256, 4096));
  dual_vjp_copy_kernel<T><<<blocks, 256, 0, where.stream>>>(copy.from, to, pitch);
  check(cudaGetLastError(), "dual_vjp_copy_kernel");
  view = {to, copy.from.extents(), {steps * heads * pitch, heads * pitch, pitch, 1}};
}

}  // namespace ssm::gpu::detail
