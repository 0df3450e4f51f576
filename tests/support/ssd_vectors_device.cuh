// SPDX-License-Identifier: Apache-2.0
// ssd_vectors_device.cuh: the cases of tests/data/operators.safetensors for Mamba-2's operator on
// the device, in float.
#pragma once

#include "ssm/state_space_dual_vjp.cuh"
#include "support/ssd_gradients.hpp"
#include "support/ssd_vectors.hpp"
#include "support/state_space_dual_device.cuh"

namespace ssm::test {

struct device_vector_case {
  vector_case<float> from;
  dual_array<float, 4> x, B, C, gate;
  dual_array<float, 3> step_size;
  dual_array<float, 1> eigenvalue, D_of_head, step_bias;
  dual_array<float, 2> D;
  dual_array<std::int32_t, 2> sequence;

  explicit device_vector_case(operator_case const& each)
      : from(each),
        x(from.x, {}),
        B(from.B, {}),
        C(from.C, {}),
        gate(from.gate, {}),
        step_size(from.step_size, {}),
        eigenvalue(from.eigenvalue, {}),
        D_of_head(from.D_of_head, {}),
        step_bias(from.step_bias, {}),
        D(from.D, {}),
        sequence(from.sequence, {}) {}

  state_space_dual_inputs<float, memory::device> inputs() {
    auto const host = from.inputs();
    state_space_dual_inputs<float, memory::device> in{};
    in.x = x.view(), in.step_size = step_size.view(), in.eigenvalue = eigenvalue.view();
    in.B = B.view(), in.C = C.view(), in.step_rule = host.step_rule;
    if (host.gate.size() > 0) in.gate = gate.view();
    if (host.step_bias.size() > 0) in.step_bias = step_bias.view();
    if (host.sequence.size() > 0) in.sequence = sequence.view();
    if (from.D.size() > 0) in.D = D.view();
    if (from.D_of_head.size() > 0)
      in.D = {D_of_head.view().data_handle(), {host.x.extent(2), host.x.extent(3)}, {1, 0}};
    return in;
  }

  ssd_result<float> run() {
    dual_array<float, 4> y(from.x.extents(), {}), carry(from.initial, {});
    gpu::state_space_dual_allocating({}, inputs(), carry.view(), y.view());
    return {y.fetch(), carry.fetch()};
  }

  /// With D's gradient for every channel.
  ssd_gradient<float> gradient(tensor<float, 4> const& y_cotangent,
                               tensor<float, 4> const& carry_cotangent) {
    auto const in = inputs();
    index_array<4> const e = from.x.extents();
    ssd_gradient<float> found({e[0], e[1], e[2], e[3], from.B.extent(2), from.B.extent(3)});
    auto const zeros = [](auto const& like) { return dual_array(like, dual_layout{}); };
    auto to_x = zeros(found.x), to_gate = zeros(found.gate), to_B = zeros(found.B);
    auto to_C = zeros(found.C);
    auto to_step_size = zeros(found.step_size);
    auto to_D = zeros(found.D);
    auto to_eigenvalue = zeros(found.eigenvalue), to_step_bias = zeros(found.step_bias);
    dual_array<float, 4> initial(from.initial, {}), arriving(y_cotangent, {});
    dual_array<float, 4> carry(carry_cotangent, {});
    state_space_dual_gradients<float, memory::device> to{};
    to.x = to_x.view(), to.step_size = to_step_size.view(), to.B = to_B.view();
    to.C = to_C.view(), to.D = to_D.view(), to.eigenvalue = to_eigenvalue.view();
    to.step_bias = to_step_bias.view();
    if (in.gate.data_handle() != nullptr) to.gate = to_gate.view();
    gpu::state_space_dual_vjp_allocating({}, in, initial.view(), arriving.view(), carry.view(), to);
    found.x = to_x.fetch(), found.gate = to_gate.fetch(), found.B = to_B.fetch();
    found.C = to_C.fetch(), found.D = to_D.fetch(), found.step_size = to_step_size.fetch();
    found.eigenvalue = to_eigenvalue.fetch(), found.step_bias = to_step_bias.fetch();
    found.initial = carry.fetch();
    return found;
  }
};

/// For each gradient of a case what its terms may add up to: gradients of the magnitudes of all
/// numbers but step sizes and eigenvalues, the gate being in the cotangent.
inline ssd_gradient<double> terms_of_gradients(operator_case const& each) {
  vector_case<double> of(each);
  auto y_cotangent = each.read<double, 4>("cotangent.y");
  auto carry_cotangent = each.read<double, 4>("cotangent.final_state");
  auto const magnitudes = [](auto&... tensors) {
    auto const of_one = [](auto& one) {
      for (double& z : one) z = std::abs(z);
    };
    (of_one(tensors), ...);
  };
  magnitudes(of.x, of.B, of.C, of.D, of.D_of_head, of.initial, y_cotangent, carry_cotangent);
  auto in = of.inputs();
  in.gate = {};
  tensor<double, 4> of_gate(of.gate.extents());
  if (of.gate.size() > 0) {
    auto const y = run_ssd(parallel{}, in, of.initial).y;
    for (index_t i = 0; i < y.size(); ++i) {
      double const z = of.gate.data()[i];
      of_gate.data()[i] = y_cotangent.data()[i] * y.data()[i] * std::abs(silu_slope(z));
      y_cotangent.data()[i] *= std::abs(silu(z));
    }
  }
  auto terms = run_ssd_vjp(parallel{}, in, of.initial, y_cotangent, carry_cotangent);
  terms.gate = of_gate;
  return terms;
}

/// Call compare(name, found, expected, terms) for each gradient that the file has; D as the file
/// has it, for each head or each channel.
template <class Compare>
void for_each_vector_gradient(operator_case const& each, ssd_gradient<float> const& found,
                              ssd_gradient<double> const& terms, Compare const& compare) {
  auto const one = [&](char const* name, auto const& f, auto const& t) {
    std::string const full = std::string("grad.") + name;
    constexpr int rank = std::remove_cvref_t<decltype(f.view())>::rank;
    if (each.contains(full)) compare(name, f, each.read<double, rank>(full), t);
  };
  one("x", found.x, terms.x);
  one("dt", found.step_size, terms.step_size);
  one("A", found.eigenvalue, terms.eigenvalue);
  one("B", found.B, terms.B);
  one("C", found.C, terms.C);
  one("z", found.gate, terms.gate);
  one("bias", found.step_bias, terms.step_bias);
  one("h0", found.initial, terms.initial);
  if (!vector_case<float>::one_D_a_head(each)) return one("D", found.D, terms.D);
  auto const of_heads = [](auto const& all) {
    using real = typename std::remove_cvref_t<decltype(all.view())>::value_type;
    tensor<std::remove_const_t<real>, 1> sums({all.extent(0)});
    for (index_t h = 0; h < all.extent(0); ++h)
      for (index_t p = 0; p < all.extent(1); ++p) sums(h) += all(h, p);
    return sums;
  };
  one("D", of_heads(found.D), of_heads(terms.D));
}

}  // namespace ssm::test
