// SPDX-License-Identifier: Apache-2.0
// linear_scan.cuh: the raw scan h_t = a_t h_{t-1} + b_t at memory speed, and its gradient.
#pragma once

#include <cstddef>
#include <type_traits>

#include "ssm/detail/linear_launch.cuh"
#include "ssm/detail/require_apart.cuh"
#include "ssm/detail/require_writable.hpp"
#include "ssm/tensor.cuh"
#include "ssm/workspace.cuh"

namespace ssm::gpu {

/// What the raw scan reads. T is how it is stored: float, double, bfloat16, float16, or
/// std::complex or cuda::std::complex of float or double; states are carried in `number`, which is
/// float for the 16-bit types and T otherwise.
template <class T>
struct linear_scan_inputs {
  using number = accumulator_t<T>;

  sequence_view<T const, memory::device> decay;                  ///< (batch, time, channel)
  sequence_view<T const, memory::device> drive;                  ///< (batch, time, channel)
  tensor_view<number const, 2, memory::device> initial_state{};  ///< (batch, channel); empty: 0
};

/// Where the gradients of the inputs go. They are stored, not added.
template <class T>
struct linear_scan_gradients {
  using number = accumulator_t<T>;

  sequence_view<T, memory::device> decay;                  ///< (batch, time, channel)
  sequence_view<T, memory::device> drive;                  ///< (batch, time, channel)
  tensor_view<number, 2, memory::device> initial_state{};  ///< (batch, channel); empty: not wanted
};

namespace detail {

template <class T, class U>
linear_array<U> kernel_array(sequence_view<T, memory::device> const& view) {
  return {reinterpret_cast<U*>(view.data_handle()), view.stride(0), view.stride(1), view.stride(2)};
}
template <class T, class U>
linear_array<U> kernel_array(tensor_view<T, 2, memory::device> const& view) {
  return {reinterpret_cast<U*>(view.data_handle()), view.stride(0), 0, view.stride(1)};
}

/// From views of the user's element type to arrays of the kernels'.
template <class T, class View>
auto in_kernel(View const& view) {
  using user = typename View::element_type;
  using stored = std::conditional_t<std::is_const_v<user>, T const, T>;
  return kernel_array<user, stored>(view);
}

template <class T>
linear_call<element_t<T>, linear_step> linear_scan_call(
    linear_scan_inputs<T> const& in, sequence_view<T, memory::device> const& states,
    tensor_view<accumulator_t<T>, 2, memory::device> const& final_state, direction order) {
  using number = accumulator_t<T>;
  index_array<3> const shape = in.drive.extents();
  index_array<2> const carry{shape[0], shape[2]};
  require_shape(in.decay, shape, "linear_scan: decay", "batch, time, channel");
  require_shape(states, shape, "linear_scan: states", "batch, time, channel");
  if (in.initial_state.data_handle() != nullptr) {
    require_shape(in.initial_state, carry, "linear_scan: initial_state", "batch, channel");
  }
  if (final_state.data_handle() != nullptr) {
    require_shape(final_state, carry, "linear_scan: final_state", "batch, channel");
  }
  ssm::detail::require_writable(states, "linear_scan: states");
  ssm::detail::require_writable(final_state, "linear_scan: final_state");
  require_apart_or_same(states, in.decay, "linear_scan: states", "decay");
  require_apart_or_same(states, in.drive, "linear_scan: states", "drive");
  require_apart(states, final_state, "linear_scan: states", "final_state");
  require_apart(states, in.initial_state, "linear_scan: states", "initial_state");
  require_apart(final_state, in.decay, "linear_scan: final_state", "decay");
  require_apart(final_state, in.drive, "linear_scan: final_state", "drive");
  require_apart(final_state, in.initial_state, "linear_scan: final_state", "initial_state");

  using stored = element_t<T>;
  using kernel_number = element_t<number>;
  return {{in_kernel<stored>(in.decay), in_kernel<stored>(in.drive)},
          {in_kernel<stored>(states)},
          in_kernel<kernel_number>(in.initial_state),
          in_kernel<kernel_number>(final_state),
          {},
          shape[0],
          shape[1],
          shape[2],
          order == direction::backward};
}

template <class T>
linear_call<element_t<T>, linear_adjoint_step> linear_scan_vjp_call(
    linear_scan_inputs<T> const& in, sequence_view<T const, memory::device> const& states,
    sequence_view<T const, memory::device> const& cotangent,
    tensor_view<accumulator_t<T> const, 2, memory::device> const& final_cotangent,
    linear_scan_gradients<T> const& to, direction order) {
  using number = accumulator_t<T>;
  index_array<3> const shape = in.drive.extents();
  index_array<2> const carry{shape[0], shape[2]};
  char const *const axes = "batch, time, channel", *const carry_axes = "batch, channel";
  require_shape(in.decay, shape, "linear_scan_vjp: decay", axes);
  require_shape(states, shape, "linear_scan_vjp: states", axes);
  require_shape(cotangent, shape, "linear_scan_vjp: cotangent", axes);
  require_shape(to.decay, shape, "linear_scan_vjp: gradient of decay", axes);
  require_shape(to.drive, shape, "linear_scan_vjp: gradient of drive", axes);
  auto const optional = [&](auto const& view, char const* name) {
    if (view.data_handle() != nullptr) require_shape(view, carry, name, carry_axes);
  };
  optional(in.initial_state, "linear_scan_vjp: initial_state");
  optional(final_cotangent, "linear_scan_vjp: final_cotangent");
  optional(to.initial_state, "linear_scan_vjp: gradient of initial_state");
  ssm::detail::require_writable(to.decay, "linear_scan_vjp: gradient of decay");
  ssm::detail::require_writable(to.drive, "linear_scan_vjp: gradient of drive");
  ssm::detail::require_writable(to.initial_state, "linear_scan_vjp: gradient of initial_state");
  auto const check_output = [&](auto const& out, char const* name) {
    require_apart_or_same(out, in.decay, name, "decay");
    require_apart_or_same(out, cotangent, name, "cotangent");
    require_apart(out, states, name, "states");
    require_apart(out, in.initial_state, name, "initial_state");
    require_apart(out, final_cotangent, name, "final_cotangent");
    require_apart(out, to.initial_state, name, "gradient of initial_state");
  };
  check_output(to.decay, "linear_scan_vjp: gradient of decay");
  check_output(to.drive, "linear_scan_vjp: gradient of drive");
  require_apart(to.decay, to.drive, "linear_scan_vjp: gradient of decay", "gradient of drive");
  auto const check_initial = [&](auto const& other, char const* other_name) {
    require_apart(to.initial_state, other, "linear_scan_vjp: gradient of initial_state",
                  other_name);
  };
  check_initial(in.decay, "decay");
  check_initial(cotangent, "cotangent");
  check_initial(states, "states");
  check_initial(in.initial_state, "initial_state");
  check_initial(final_cotangent, "final_cotangent");

  using stored = element_t<T>;
  using kernel_number = element_t<number>;
  return {{in_kernel<stored>(in.decay), in_kernel<stored>(cotangent), in_kernel<stored>(states)},
          {in_kernel<stored>(to.decay), in_kernel<stored>(to.drive)},
          in_kernel<kernel_number>(final_cotangent),
          in_kernel<kernel_number>(to.initial_state),
          in_kernel<kernel_number>(in.initial_state),
          shape[0],
          shape[1],
          shape[2],
          order == direction::forward};
}

}  // namespace detail

/// Bytes of workspace that linear_scan needs for these arguments; 0 where there is little to do.
template <class T>
std::size_t linear_scan_workspace(
    linear_scan_inputs<T> const& in,
    std::type_identity_t<sequence_view<T, memory::device>> const& states,
    std::type_identity_t<tensor_view<accumulator_t<T>, 2, memory::device>> const& final_state = {},
    direction order = direction::forward) {
  return detail::run_linear({}, detail::linear_scan_call(in, states, final_state, order), nullptr,
                            false);
}

/// Every state of h_t = decay_t · h_{t-1} + drive_t, and the last one if final_state is not empty.
/// direction::backward visits the last step first. Returns before the work is done, allocates
/// nothing, and may be captured in a graph.
/// Views may have any strides. Fast are those with time innermost (stride 1) and those with
/// channels innermost; their arrays need not be aligned, but packets of 16 bytes are faster. Fewer
/// than 320 rows of many thousands of steps should begin equally far from a multiple of 16 bytes in
/// all arrays.
/// `states` may be the very view of decay or of drive.
/// Shapes    states (batch, time, channel); final_state (batch, channel). Fewer than 2^31 tiles of
///           about 2000 elements.
/// Accuracy  a term of h_t that has come m steps is off by at most (m + 18)·eps of its size, twice
///           that if complex; then rounded to T.
/// Repeats   bit for bit, whatever else the device does: sums have an order of their own.
/// Special   length 0 hands the initial state on. NaN and infinity follow IEEE rules and stay in
/// their row;
///           decays are multiplied with each other, so where their product overflows a state of 0
///           becomes NaN.
/// Memory    reads each element once and writes it once; workspace none or a few hundredths.
/// Throws    shape_error before any launch; gpu::error where the launch fails.
/// Gradient  linear_scan_vjp.
/// Tested    tests/linear_scan_test.cu.
template <class T>
void linear_scan(
    on where, linear_scan_inputs<T> const& in,
    std::type_identity_t<sequence_view<T, memory::device>> const& states,
    std::type_identity_t<tensor_view<accumulator_t<T>, 2, memory::device>> const& final_state,
    workspace const& memory, direction order = direction::forward) {
  auto const call = detail::linear_scan_call(in, states, final_state, order);
  auto* const own =
      detail::checked(memory, detail::run_linear({}, call, nullptr, false), "linear_scan");
  detail::run_linear(where, call, own, true);
}

/// linear_scan with a workspace that is allocated and freed in stream order.
template <class T>
void linear_scan_allocating(
    on where, linear_scan_inputs<T> const& in,
    std::type_identity_t<sequence_view<T, memory::device>> const& states,
    std::type_identity_t<tensor_view<accumulator_t<T>, 2, memory::device>> const& final_state = {},
    direction order = direction::forward) {
  auto const bytes = static_cast<index_t>(linear_scan_workspace(in, states, final_state, order));
  tensor<std::byte, 1> own(where, {bytes});
  linear_scan(where, in, states, final_state, own.view(), order);
}

/// Bytes of workspace that linear_scan_vjp needs for these arguments.
template <class T>
std::size_t linear_scan_vjp_workspace(
    linear_scan_inputs<T> const& in,
    std::type_identity_t<sequence_view<T const, memory::device>> const& states,
    std::type_identity_t<sequence_view<T const, memory::device>> const& cotangent,
    std::type_identity_t<tensor_view<accumulator_t<T> const, 2, memory::device>> const&
        final_cotangent,
    std::type_identity_t<linear_scan_gradients<T>> const& to,
    direction order = direction::forward) {
  return detail::run_linear(
      {}, detail::linear_scan_vjp_call(in, states, cotangent, final_cotangent, to, order), nullptr,
      false);
}

/// Gradient of linear_scan, given its states and the cotangents of the states and of the final
/// state (empty: 0). Gradients are stored, not added. `drive` is not read, but for its shape.
/// For complex numbers cotangents and gradients are ∂/∂Re + i·∂/∂Im.
///   e_t = g_t + conj(decay_{t+1}) e_{t+1},  gradients  e_t conj(h_{t-1}) of decay, e_t of drive.
/// The gradient of decay or drive may be the very view of decay or of cotangent.
/// Shapes, accuracy, repeats, errors as linear_scan; states are as exact as T stores them.
/// Tested    tests/linear_scan_vjp_test.cu.
template <class T>
void linear_scan_vjp(
    on where, linear_scan_inputs<T> const& in,
    std::type_identity_t<sequence_view<T const, memory::device>> const& states,
    std::type_identity_t<sequence_view<T const, memory::device>> const& cotangent,
    std::type_identity_t<tensor_view<accumulator_t<T> const, 2, memory::device>> const&
        final_cotangent,
    std::type_identity_t<linear_scan_gradients<T>> const& to, workspace const& memory,
    direction order = direction::forward) {
  auto const call = detail::linear_scan_vjp_call(in, states, cotangent, final_cotangent, to, order);
  auto* const own =
      detail::checked(memory, detail::run_linear({}, call, nullptr, false), "linear_scan_vjp");
  detail::run_linear(where, call, own, true);
}

}  // namespace ssm::gpu
