// SPDX-License-Identifier: Apache-2.0
// state_space_dual_device.cuh: a random problem of Mamba-2's operator on the device, with any
// options and in any layout, and what its error may be there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "ssm/state_space_dual.cuh"
#include "support/dual_array.cuh"
#include "support/ssd_problem.hpp"

namespace ssm::test {

/// Which options a problem has; `D`: 0 none, 1 a number for each head, 2 for each channel.
struct dual_options {
  bool gate = true, bias = true, softplus = true, limits = false, linear = false, power = false,
       step = false, packed = false;
  int D = 2;

  static dual_options of_bits(unsigned bits) {
    auto const bit = [&](int i) { return (bits >> i & 1u) != 0; };
    return {bit(0), bit(1), bit(2),
            bit(3), bit(4), bit(5),
            bit(6), bit(7), static_cast<int>(bits >> 8) % 3};
  }
  static constexpr unsigned combinations = 3u << 8;
};

/// A problem with these options, on the host and on the device.
template <class T>
struct dual_case {
  ssd_problem<T> p;
  dual_options options;
  std::uint64_t seed;
  tensor<float, 2> linear, power, head_D;
  tensor<float, 1> step;
  tensor<std::int32_t, 2> sequence;
  dual_array<T, 4> x, gate, B, C;
  dual_array<T, 3> step_size;
  dual_array<float, 1> eigenvalue, step_bias, step_factor;
  dual_array<float, 2> D, linear_factor, power_factor, one_D;
  dual_array<std::int32_t, 2> index;

  dual_case(ssd_sizes const& s, dual_options const& with, std::uint64_t from,
            dual_layout const& how = {})
      : p(with_steps(ssd_problem<T>(s, from), with)),
        options{with},
        seed{from},
        linear{uniform_tensor<float>(index_array<2>{s.heads, 1}, from + 20, 0.5, 1.5)},
        power{uniform_tensor<float>(index_array<2>{s.heads, 1}, from + 21, 0.5, 1.5)},
        head_D{uniform_tensor<float>(index_array<2>{s.heads, 1}, from + 22, -1, 1)},
        step{uniform_tensor<float>(index_array<1>{s.heads}, from + 23, 0.5, 1.5)},
        sequence({s.batch, s.length}),
        x(p.x, how),
        gate(p.gate, how),
        B(p.B, how),
        C(p.C, how),
        step_size(p.step_size, how),
        eigenvalue(p.eigenvalue, {}),
        step_bias(p.step_bias, {}),
        step_factor(step, {}),
        D(p.D, {}),
        linear_factor(linear, {}),
        power_factor(power, {}),
        one_D(head_D, {}),
        index(numbered(sequence, from), {}) {}

  /// Without softplus step sizes are those of a step, not what softplus makes them from.
  static ssd_problem<T> with_steps(ssd_problem<T> p, dual_options const& with) {
    if (with.softplus) return p;
    p.step_size = uniform_tensor<T>(p.step_size.extents(), 77, 0, 0.5);
    p.step_bias = uniform_tensor<float>(p.step_bias.extents(), 78, 0, 0.1);
    return p;
  }
  /// Sequences of 1 to about 90 steps.
  static tensor<std::int32_t, 2> const& numbered(tensor<std::int32_t, 2>& index,
                                                 std::uint64_t from) {
    random_stream const stream{from + 24};
    for (index_t b = 0; b < index.extent(0); ++b) {
      std::int32_t number = 0;
      for (index_t t = 0; t < index.extent(1); ++t) {
        bool const in_runs = t / 200 % 2 == 0;
        number += stream.uniform(b * index.extent(1) + t) < (in_runs ? 0.02 : 0.3);
        index(b, t) = number;
      }
    }
    return index;
  }

  template <class Inputs, class View>
  void give(Inputs& in, View const& of) {
    if (options.gate) in.gate = of(p.gate, gate);
    if (options.bias) in.step_bias = of(p.step_bias, step_bias);
    if (options.linear) in.scaling.linear = of(linear, linear_factor);
    if (options.power) in.scaling.power = of(power, power_factor);
    if (options.step) in.scaling.step = of(step, step_factor);
    if (options.packed) in.sequence = of(sequence, index);
    if (options.D == 2) in.D = of(p.D, D);
    if (options.D == 1) {
      auto const one = of(head_D, one_D);
      in.D = {one.data_handle(), p.D.extents(), {1, 0}};
    }
    in.step_rule.softplus = options.softplus;
    if (options.limits) in.step_rule.limits = step_limits<float>{0.1f, 0.7f};
  }
  state_space_dual_inputs<T> host_inputs() {
    state_space_dual_inputs<T> in{};
    in.x = p.x.view(), in.step_size = p.step_size.view(), in.eigenvalue = p.eigenvalue.view();
    in.B = p.B.view(), in.C = p.C.view();
    give(in, [](auto& host, auto&) { return host.view(); });
    return in;
  }
  state_space_dual_inputs<T, memory::device> device_inputs() {
    state_space_dual_inputs<T, memory::device> in{};
    in.x = x.view(), in.step_size = step_size.view(), in.eigenvalue = eigenvalue.view();
    in.B = B.view(), in.C = C.view();
    give(in, [](auto&, auto& device) { return device.view(); });
    return in;
  }

  /// From the problem's initial state into outputs and a workspace that begin as NaN.
  ssd_result<T> run(dual_layout const& how = {}, gpu::state_space_dual_plan const& plan = {}) {
    auto const in = device_inputs();
    dual_array<T, 4> y(p.x.extents(), how);
    dual_array<float, 4> carry(p.initial, how);
    auto const bytes = gpu::state_space_dual_workspace(in, carry.view(), y.view(), {}, plan);
    dual_array<std::byte, 1> memory(index_array<1>{static_cast<index_t>(bytes)}, {});
    gpu::state_space_dual({}, in, carry.view(), y.view(), memory.view(), {}, plan);
    ssd_result<T> result{y.fetch(), carry.fetch()};
    EXPECT_EQ(y.overwritten() + carry.overwritten(), 0) << name();
    return result;
  }

  std::string name() const {
    auto const& o = options;
    bool const on[] = {o.gate, o.bias, o.softplus, o.limits, o.linear, o.power, o.step, o.packed};
    std::string text = to_string(p.sizes) + ", seed " + std::to_string(seed) + ", options ";
    for (bool const each : on) text += each ? '1' : '0';
    text += " (of_bits), D " + std::to_string(o.D);
    return text;
  }
};

template <class T, int Rank>
bool same_bits(tensor<T, Rank> const& a, tensor<T, Rank> const& b) {
  return a.extents() == b.extents() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0;
}

/// The largest error over what rounding may do, of y and of the final state. To what the CPU's
/// bound counts come
///  - u, half an ulp of T, for each factor of a product that was rounded to T: a decayed C·B; a
///    decayed x, which a final state also has, and a state; and for y itself. Without `exact`
///    floats are rounded to 11 bits, the inputs too;
///  - the device's functions and the matrix units' sums, four times what the bound counts for them;
///  - float16 below its normal range: 2^-25 of the size that numbers are scaled to, for each of a
///    sum of 256 or fewer.
template <class T>
double worst_ratio(ssd_result<T> const& found, dual_case<T>& of, bool exact = true) {
  ssd_truth const truth(of.host_inputs(), of.p.initial, 64);
  double const eps = std::numeric_limits<float>::epsilon();
  bool const is_float = std::is_same_v<T, float>;
  double const u = is_float ? 0 : std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-11;
  double const factors = is_float ? (exact ? 0 : 4 * 0x1p-11) : 2 * u, more = 1 + 4 * u;
  double largest = 0, worst = 0;
  for (double const terms : std::as_const(truth.y_terms)) largest = std::max(largest, terms);
  double const least = std::is_same_v<T, float16> ? 0x1p-17 * largest : 1e-30;
  auto const meet = [&](double value, double expected, double bound) {
    double const ratio = std::abs(value - expected) / bound;
    worst = std::max(worst, std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio);
  };
  for (index_t i = 0; i < found.y.size(); ++i) {
    double const expected = truth.y.data()[i];
    double const bound =
        4 * eps * truth.y_bound.data()[i] + factors * more * truth.y_terms.data()[i] + least;
    meet(static_cast<double>(static_cast<float>(found.y.data()[i])), expected,
         bound + u * (std::abs(expected) + bound));
  }
  for (index_t i = 0; i < found.carry.size(); ++i) {
    meet(static_cast<double>(found.carry.data()[i]), truth.carry.data()[i],
         4 * eps * truth.carry_bound.data()[i] + factors / 2 * more * truth.carry_terms.data()[i] +
             least);
  }
  return worst;
}

/// One random problem against the definition in double.
template <class T>
void expect_definition(ssd_sizes const& sizes, dual_options const& options, std::uint64_t seed,
                       dual_layout const& how = {}, gpu::state_space_dual_plan const& plan = {}) {
  dual_case<T> of(sizes, options, seed, how);
  EXPECT_LE(worst_ratio(of.run(how, plan), of, plan.exact), 1.0)
      << of.name() << ", " << how.name << ", segments " << plan.segments;
}

}  // namespace ssm::test
