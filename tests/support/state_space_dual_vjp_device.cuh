// SPDX-License-Identifier: Apache-2.0
// state_space_dual_vjp_device.cuh: the gradients of a random problem of Mamba-2's operator on the
// device, and how far rounding may take them from those in double.
#pragma once

#include <type_traits>

#include "ssm/state_space_dual_vjp.cuh"
#include "support/ssd_gradients.hpp"
#include "support/state_space_dual_device.cuh"

namespace ssm::test {

template <class To, class From, int Rank>
tensor<To, Rank> in_numbers_of(tensor<From, Rank> const& from) {
  tensor<To, Rank> result(from.extents());
  for (index_t i = 0; i < from.size(); ++i) {
    result.data()[i] = static_cast<To>(static_cast<accumulator_t<From>>(from.data()[i]));
  }
  return result;
}

/// A problem, its cotangents, and a gradient of each input on the device, zeros at first.
template <class T>
struct dual_gradient_case {
  dual_case<T> problem;
  tensor<T, 4> y_cotangent;
  tensor<float, 4> carry_cotangent;
  dual_layout layout;
  dual_array<T, 4> arriving;
  dual_array<float, 4> x, gate, B, C, initial, to_initial;
  dual_array<float, 3> step_size;
  dual_array<float, 2> D, linear, power;
  dual_array<float, 1> eigenvalue, step_bias, step;

  dual_gradient_case(ssd_sizes const& s, dual_options const& with, std::uint64_t seed,
                     dual_layout const& how = {})
      : dual_gradient_case(s, with, seed, how, ssd_gradient<float>(s)) {}

  state_space_dual_gradients<T, memory::device> gradients() {
    auto const& with = problem.options;
    state_space_dual_gradients<T, memory::device> to{};
    to.x = x.view(), to.step_size = step_size.view(), to.eigenvalue = eigenvalue.view();
    to.B = B.view(), to.C = C.view(), to.D = D.view(), to.step_bias = step_bias.view();
    if (with.gate) to.gate = gate.view();
    if (with.linear) to.scaling.linear = linear.view();
    if (with.power) to.scaling.power = power.view();
    if (with.step) to.scaling.step = step.view();
    return to;
  }

  /// Add to what is there, in a workspace that begins as NaN; with `saves`, from the states that a
  /// forward run saves.
  void add(gpu::state_space_dual_plan const& plan = {},
           state_space_dual_saved<T, memory::device> const& saved = {},
           gpu::accumulate how = gpu::accumulate::yes) {
    auto const in = problem.device_inputs();
    to_initial = dual_array<float, 4>(carry_cotangent, layout);
    auto const bytes = gpu::state_space_dual_vjp_workspace(
        in, initial.view(), arriving.view(), to_initial.view(), gradients(), saved, plan);
    dual_array<std::byte, 1> memory(index_array<1>{static_cast<index_t>(bytes)}, {});
    gpu::state_space_dual_vjp({}, in, initial.view(), arriving.view(), to_initial.view(),
                              gradients(), memory.view(), saved, plan, how);
  }

  /// NaN in place of all gradients that are wanted.
  void poison() {
    auto const fill = [](auto& array, dual_layout const& how) {
      array = std::remove_reference_t<decltype(array)>(array.view().extents(), how);
    };
    auto const& with = problem.options;
    fill(x, layout), fill(B, layout), fill(C, layout), fill(step_size, layout);
    fill(D, {}), fill(eigenvalue, {}), fill(step_bias, {});
    if (with.gate) fill(gate, layout);
    if (with.linear) fill(linear, {});
    if (with.power) fill(power, {});
    if (with.step) fill(step, {});
  }

  ssd_gradient<float> fetch() {
    ssd_gradient<float> found(problem.p.sizes);
    found.x = x.fetch(), found.gate = gate.fetch(), found.B = B.fetch(), found.C = C.fetch();
    found.initial = to_initial.fetch(), found.step_size = step_size.fetch();
    found.D = D.fetch(), found.linear = linear.fetch(), found.power = power.fetch();
    found.eigenvalue = eigenvalue.fetch(), found.step_bias = step_bias.fetch();
    found.step = step.fetch();
    EXPECT_EQ(x.overwritten() + gate.overwritten() + B.overwritten() + C.overwritten() +
                  to_initial.overwritten() + step_size.overwritten(),
              0)
        << problem.name();
    return found;
  }

 private:
  dual_gradient_case(ssd_sizes const& s, dual_options const& with, std::uint64_t seed,
                     dual_layout const& how, ssd_gradient<float> const& zeros)
      : problem(s, with, seed, how),
        y_cotangent{uniform_tensor<T>(s.sequences(), seed + 31, -1, 1)},
        carry_cotangent{uniform_tensor<float>(s.carry(), seed + 32, -1, 1)},
        layout{how},
        arriving(y_cotangent, how),
        x(zeros.x, how),
        gate(zeros.gate, how),
        B(zeros.B, how),
        C(zeros.C, how),
        initial(problem.p.initial, how),
        to_initial(carry_cotangent, how),
        step_size(zeros.step_size, how),
        D(zeros.D, {}),
        linear(zeros.linear, {}),
        power(zeros.power, {}),
        eigenvalue(zeros.eigenvalue, {}),
        step_bias(zeros.step_bias, {}),
        step(zeros.step, {}) {}
};

/// The same problem in double, whose numbers its inputs refer to; in `magnitudes` that of all
/// numbers but step sizes and eigenvalues, with the gate in the cotangent, so that sums become
/// those of magnitudes.
struct dual_truth {
  ssd_gradient<double> expected, terms;

  template <class T>
  explicit dual_truth(dual_gradient_case<T>& from)
      : expected{from.problem.p.sizes}, terms{expected} {
    auto const& p = from.problem.p;
    ssd_problem<double> q(p.sizes);
    q.x = in_numbers_of<double>(p.x), q.gate = in_numbers_of<double>(p.gate);
    q.B = in_numbers_of<double>(p.B), q.C = in_numbers_of<double>(p.C);
    q.step_size = in_numbers_of<double>(p.step_size), q.D = in_numbers_of<double>(p.D);
    q.eigenvalue = in_numbers_of<double>(p.eigenvalue);
    q.step_bias = in_numbers_of<double>(p.step_bias), q.initial = in_numbers_of<double>(p.initial);
    auto y_cotangent = in_numbers_of<double>(from.y_cotangent);
    auto carry_cotangent = in_numbers_of<double>(from.carry_cotangent);
    auto const linear = in_numbers_of<double>(from.problem.linear);
    auto const power = in_numbers_of<double>(from.problem.power);
    auto const step = in_numbers_of<double>(from.problem.step);
    auto head_D = in_numbers_of<double>(from.problem.head_D);
    auto const& with = from.problem.options;
    auto const inputs = [&] {
      auto in = q.inputs();
      if (!with.gate) in.gate = {};
      if (!with.bias) in.step_bias = {};
      if (with.linear) in.scaling.linear = linear.view();
      if (with.power) in.scaling.power = power.view();
      if (with.step) in.scaling.step = step.view();
      if (with.packed) in.sequence = from.problem.sequence.view();
      if (with.D == 0) in.D = {};
      if (with.D == 1) in.D = {head_D.view().data_handle(), q.D.extents(), {1, 0}};
      in.step_rule.softplus = with.softplus;
      if (with.limits) in.step_rule.limits = step_limits<double>{double{0.1f}, double{0.7f}};
      return in;
    };
    expected = run_ssd_vjp(parallel{}, inputs(), q.initial, y_cotangent, carry_cotangent);
    for (auto* each : {&q.x, &q.B, &q.C, &q.initial, &y_cotangent, &carry_cotangent})
      for (double& z : *each) z = std::abs(z);
    for (double& z : q.D) z = std::abs(z);
    for (double& z : head_D) z = std::abs(z);
    auto in = inputs();
    in.gate = {};
    if (with.gate) {
      tensor<double, 4> y(q.x.extents());
      auto carry = q.initial;
      ssm::state_space_dual(parallel{}, in, carry.view(), y.view());
      for (index_t i = 0; i < y.size(); ++i) {
        double const z = q.gate.data()[i];
        terms.gate.data()[i] = std::abs(y_cotangent.data()[i] * y.data()[i] * silu_slope(z));
        y_cotangent.data()[i] *= std::abs(silu(z));
      }
    }
    auto const of_gate = terms.gate;
    terms = run_ssd_vjp(parallel{}, in, q.initial, y_cotangent, carry_cotangent);
    terms.gate = of_gate;
  }
};

/// The largest error of each gradient in units of k eps (and of `rounding`) times the largest
/// Σ|terms| in its tensor. k as in the docstring of state_space_dual_vjp: sums have at most N + P +
/// L terms, decays are off by 8 |S| <= 128 eps of what 1/eps leaves of them, all else by 40.
template <class T>
void expect_truth(dual_gradient_case<T>& from, dual_truth const& truth,
                  ssd_gradient<float> const& found, double rounding, std::string const& what = {}) {
  auto const& s = from.problem.p.sizes;
  double const k = static_cast<double>(s.states + s.head_dim + s.length) + 8 * 16 + 40;
  double const unit = std::numeric_limits<float>::epsilon() * k + rounding;
  double worst = 0;
  std::string worst_name;
  for_each_ssd_gradient(
      [&](char const* name, auto const& f, auto const& e, auto const& m) {
        double largest = 1e-30, here = 0;
        for (double const z : m) largest = std::max(largest, std::abs(z));
        for (index_t i = 0; i < f.size(); ++i) {
          double const error = std::abs(double{f.data()[i]} - e.data()[i]) / (unit * largest);
          if (!(error <= here)) here = error == error ? error : 1e300;
        }
        EXPECT_LE(here, 1) << name << " of " << from.problem.name() << what;
        if (here >= worst) worst = here, worst_name = name;
      },
      found, truth.expected, truth.terms);
  std::printf("[ %s%s ] worst error %.2g of what is allowed, in %s\n", from.problem.name().c_str(),
              what.c_str(), worst, worst_name.c_str());
}

}  // namespace ssm::test
