// SPDX-License-Identifier: Apache-2.0
// selective_scan_vjp_views_test.cpp: what must not change a bit of the gradient of selective_scan,
// and what views of the gradients mean.
#include <gtest/gtest.h>

#include <string>

#include "compiled/selective_scan.hpp"
#include "support/selective_scan_gradients.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr instruction_set sets[] = {instruction_set::baseline, instruction_set::avx2,
                                    instruction_set::avx512};

TEST(SelectiveScanVjpViews, ThreadsChangeNoBit) {
  for (scan_shape const& s : {scan_shape{2, 70, 130, 9}, {1, 300, 65, 40}}) {
    auto const p = random_selective<float>(s, 1, selective_options::all(), 700);
    auto const expected = run_selective_vjp(parallel{1}, p);
    for (int const threads : {0, 2, 3, 7}) {
      SCOPED_TRACE("threads " + std::to_string(threads));
      expect_same_bits(run_selective_vjp(parallel{threads}, p), expected);
    }
  }
}

TEST(SelectiveScanVjpViews, CheckpointsOfTheForwardRunChangeNoBit) {
  for (index_t const length : {5, 32, 75}) {
    auto const p = random_selective<float>({2, length, 21, 6}, 1, selective_options::all(), 800);
    tensor<float, 4> checkpoints({2, (length + 31) / 32, 6, 21});
    auto carry = p.initial;
    tensor<float, 3> y(p.x.extents());
    selective_scan(parallel{}, p.inputs(), carry, y, checkpoints);
    expect_same_bits(run_selective_vjp(parallel{}, p, checkpoints),
                     run_selective_vjp(parallel{}, p));
  }
}

/// Inputs and gradients in `scattered` memory.
template <class Policy>
void expect_same_bits_from_any_strides(Policy policy) {
  auto const p = random_selective<float>({2, 41, 18, 7}, 2, selective_options::all(), 900);
  scattered<float, 3> const x(p.x), step_size(p.step_size), gate(p.gate), initial(p.initial),
      y_cotangent(p.y_cotangent), carry(p.final_cotangent);
  scattered<float, 4> const B(p.B), C(p.C);
  scattered<float, 2> const eigenvalue(p.eigenvalue), linear(p.linear), power(p.power);
  scattered<float, 1> const D(p.D), step_bias(p.step_bias), step(p.step);
  auto in = p.inputs();
  in.x = x, in.step_size = step_size, in.gate = gate, in.B = B, in.C = C;
  in.eigenvalue = eigenvalue, in.D = D, in.step_bias = step_bias;
  in.scaling = {.linear = linear, .power = power, .step = step};

  selective_gradient<float> zero(p);
  scattered<float, 3> const to_x(zero.x), to_step_size(zero.step_size), to_gate(zero.gate);
  scattered<float, 4> const to_B(zero.B), to_C(zero.C);
  scattered<float, 2> const to_eigenvalue(zero.eigenvalue), to_linear(zero.linear),
      to_power(zero.power);
  scattered<float, 1> const to_D(zero.D), to_step_bias(zero.step_bias), to_step(zero.step);
  selective_scan_vjp(policy, in, initial.view(), y_cotangent.view(), carry.view(),
                     {.x = to_x,
                      .step_size = to_step_size,
                      .eigenvalue = to_eigenvalue,
                      .B = to_B,
                      .C = to_C,
                      .D = to_D,
                      .gate = to_gate,
                      .step_bias = to_step_bias,
                      .scaling = {.linear = to_linear, .power = to_power, .step = to_step}});
  EXPECT_EQ(to_x.overwritten() + to_step_size.overwritten() + to_gate.overwritten() +
                carry.overwritten() + to_B.overwritten() + to_C.overwritten(),
            0);
  EXPECT_EQ(to_eigenvalue.overwritten() + to_linear.overwritten() + to_power.overwritten() +
                to_D.overwritten() + to_step_bias.overwritten() + to_step.overwritten(),
            0);
  selective_gradient<float> found(p);
  found.x = materialized(to_x.view()), found.step_size = materialized(to_step_size.view());
  found.gate = materialized(to_gate.view()), found.initial = materialized(carry.view());
  found.B = materialized(to_B.view()), found.C = materialized(to_C.view());
  found.eigenvalue = materialized(to_eigenvalue.view()), found.D = materialized(to_D.view());
  found.linear = materialized(to_linear.view()), found.power = materialized(to_power.view());
  found.step_bias = materialized(to_step_bias.view()), found.step = materialized(to_step.view());
  expect_same_bits(found, run_selective_vjp(policy, p));
}

TEST(SelectiveScanVjpViews, StridesChangeNoBit) {
  for (auto const set : sets) expect_same_bits_from_any_strides(parallel{1, 0, set});
  expect_same_bits_from_any_strides(sequential{});
}

/// The gradients of `p`, each summed over axis 0 by a view of stride 0.
template <class Policy>
selective_gradient<float> summed(Policy policy, selective_problem<float> const& p) {
  selective_gradient<float> to(p);
  to.initial = p.final_cotangent;
  auto views = to.views();
  auto const shared = [](auto& view) { view = view.select(0, 0).broadcast(0, view.extent(0)); };
  shared(views.x), shared(views.step_size), shared(views.gate), shared(views.B), shared(views.C);
  shared(views.eigenvalue), shared(views.scaling.linear), shared(views.scaling.power);
  views.D = {to.D.data(), to.D.extents(), {0}};
  views.step_bias = {to.step_bias.data(), to.D.extents(), {0}};
  views.scaling.step = {to.step.data(), to.D.extents(), {0}};
  selective_scan_vjp(policy, p.inputs(), p.initial, p.y_cotangent, to.initial, views);
  return to;
}

TEST(SelectiveScanVjpViews, Stride0Sums) {
  auto const p = random_selective<float>({3, 40, 10, 5}, 1, selective_options::all(), 1000);
  selective_gradient_bounds const bounds(converted_problem<double>(p));
  auto const check = [&](auto policy) {
    auto single = run_selective_vjp(policy, p);
    auto found = summed(policy, p);
    auto terms = bounds.terms;
    for_each_gradient(
        p.options,
        [&](std::string const name, auto const& f, auto& all, auto& sizes) {
          if (name == "initial") return;
          index_t const count = all.size() / all.extent(0);
          for (index_t i = count; i < all.size(); ++i) {
            all.data()[i % count] += all.data()[i];
            sizes.data()[i % count] += sizes.data()[i];
          }
          for (index_t i = 0; i < count; ++i) {  // both have the roundings of their own sums
            EXPECT_NEAR(f.data()[i], all.data()[i], 1.2e-7 * 2 * bounds.roundings * sizes.data()[i])
                << name;
          }
        },
        found, single, terms);
  };
  check(parallel{});
  check(sequential{});
}

TEST(SelectiveScanVjpViews, IsAddedToWhatIsThereAndUnwantedGradientsChangeNoOther) {
  auto const p = random_selective<float>({2, 40, 10, 5}, 1, {}, 1100);
  auto const once = run_selective_vjp(parallel{}, p);
  auto twice = once;
  twice.initial = p.final_cotangent;
  selective_scan_vjp(parallel{}, p.inputs(), p.initial, p.y_cotangent, twice.initial,
                     twice.views());
  selective_gradient_bounds const bounds(converted_problem<double>(p));
  for_each_gradient(
      p.options,
      [&](std::string const name, auto const& one, auto const& two, auto const& terms) {
        double const times = name == "initial" ? 1 : 2;
        for (index_t i = 0; i < one.size(); ++i) {  // all three have the roundings of their sums
          EXPECT_NEAR(two.data()[i], times * one.data()[i],
                      1.2e-7 * 4 * bounds.roundings * terms.data()[i])
              << name;
        }
      },
      once, twice, bounds.terms);
  selective_gradient<float> only(p);
  only.initial = p.final_cotangent;
  selective_scan_vjp(parallel{}, p.inputs(), p.initial, p.y_cotangent, only.initial,
                     {.eigenvalue = only.eigenvalue});
  EXPECT_EQ(only.eigenvalue, once.eigenvalue);
  EXPECT_EQ(only.initial, once.initial);
}

}  // namespace
