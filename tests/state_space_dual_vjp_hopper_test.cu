// SPDX-License-Identifier: Apache-2.0
// The kernel for Hopper of the gradient: what it takes, and that it is the gradient there.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ssm/state_space_dual_vjp.cuh"
#include "support/device.cuh"
#include "support/long_patterns.cuh"
#include "support/state_space_dual_vjp_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;
using T = bfloat16;

constexpr dual_options plain{false, true, true, false, false, false, false, false, 2};

/// What rounding of factors to 16 bits adds: at most four of a term, half a unit each.
constexpr double rounding = 4 * 0x1p-9;

bool is_taken(dual_gradient_case<T>& of) {
  auto const in = of.problem.device_inputs();
  auto p = gpu::detail::vjp_problem<T>(in, of.initial.view(), of.arriving.view(),
                                       of.to_initial.view(), of.gradients(), {}, {});
  auto copies = gpu::detail::copies_for<T>(in, of.arriving.view());
  (void)gpu::detail::plan_dual_vjp(p, copies, 0);
  return gpu::detail::is_for_hopper(p);
}

#define SSM_SKIP_WITHOUT_HOPPER()                          \
  SSM_SKIP_WITHOUT_DEVICE();                               \
  if (!gpu::detail::hopper::is_compiled_for_this_device(   \
          gpu::detail::hopper::dual_vjp_hopper_kernel<T>)) \
  GTEST_SKIP() << "this device is not Hopper, or nothing is compiled for it"

void expect_truth_on_hopper(ssd_sizes const& sizes, dual_options const& options, std::uint64_t seed,
                            dual_layout const& how = {},
                            gpu::state_space_dual_plan const& plan = {}) {
  dual_gradient_case<T> of(sizes, options, seed, how);
  EXPECT_TRUE(is_taken(of)) << of.problem.name() << ", " << how.name;
  of.add(plan);
  expect_truth(of, dual_truth(of), of.fetch(), rounding,
               std::string(", ") + how.name + ", segments " + std::to_string(plan.segments));
}

TEST(StateSpaceDualVjpHopper, TakesWhatItsCopyEngineReads) {
  SSM_SKIP_WITHOUT_HOPPER();
  for (auto const& how : dual_layouts) {
    dual_gradient_case<T> of({1, 100, 2, 64, 1, 128}, plain, 1, how);
    EXPECT_EQ(is_taken(of), how.offset == 0) << how.name;
  }
  for (auto const& [head_dim, states] : {std::pair{32, 128}, {64, 64}, {80, 128}, {64, 256}}) {
    dual_gradient_case<T> of({1, 100, 2, head_dim, 1, states}, plain, 1);
    EXPECT_FALSE(is_taken(of)) << head_dim << " x " << states;
  }
  dual_gradient_case<T> gated({1, 100, 2, 64, 1, 128}, {}, 1);
  EXPECT_FALSE(is_taken(gated));
}

TEST(StateSpaceDualVjpHopper, IsTheCpusForAnyLength) {
  SSM_SKIP_WITHOUT_HOPPER();
  std::uint64_t seed = 1;
  for (index_t const length : {1, 5, 63, 64, 65, 128, 129, 300}) {
    for (int const how : {0, 1, 3}) {
      expect_truth_on_hopper({2, length, 3, 64, 1, 128}, plain, seed++, dual_layouts[how]);
    }
  }
}

TEST(StateSpaceDualVjpHopper, IsTheCpusForAnyHeadsAndGroups) {
  SSM_SKIP_WITHOUT_HOPPER();
  std::uint64_t seed = 100;
  for (index_t const head_dim : {64, 128}) {
    for (index_t const groups : {1, 2, 6}) {
      expect_truth_on_hopper({2, 200, 6, head_dim, groups, 128}, plain, seed++);
    }
  }
  // More than a block for each chunk and group, and none for some processors.
  expect_truth_on_hopper({4, 5000, 2, 64, 2, 128}, plain, seed++);
  expect_truth_on_hopper({1, 70, 40, 64, 1, 128}, plain, seed++);
}

TEST(StateSpaceDualVjpHopper, IsTheCpusForEveryOption) {
  SSM_SKIP_WITHOUT_HOPPER();
  for (unsigned bits = 0; bits < dual_options::combinations; bits += 38) {
    auto const options = dual_options::of_bits(bits);  // the gate is bit 0
    expect_truth_on_hopper({1, 300, 2, 64, 1, 128}, options, 500 + bits, {},
                           {.segments = 1 + bits % 3});
  }
}

// Both round the same products of the same numbers; the twin adds to what has odd strides. What
// each rounds of four factors is independent: a mean square of 4 · 2^-18 / 3, twice.
TEST(StateSpaceDualVjpHopper, EqualsThePortableKernel) {
  SSM_SKIP_WITHOUT_HOPPER();
  dual_options options = plain;
  options.packed = true;
  for (bool const packed : {false, true}) {
    options.packed = packed;
    dual_gradient_case<T> of({1, 2000, 4, 64, 2, 128}, options, 3000);
    dual_gradient_case<T> twin({1, 2000, 4, 64, 2, 128}, options, 3000, dual_layouts[2]);
    ASSERT_TRUE(is_taken(of));
    ASSERT_FALSE(is_taken(twin));
    of.add(), twin.add();
    auto const found = of.fetch(), expected = twin.fetch();
    auto const expect_near = [](char const* name, auto const& a, auto const& b) {
      double error = 0, norm = 0;
      for (index_t i = 0; i < a.size(); ++i) {
        double const x = a.data()[i], y = b.data()[i];
        error += (x - y) * (x - y), norm += y * y;
      }
      EXPECT_LE(std::sqrt(error / norm), 0x1p-9 * std::sqrt(8.0 / 3)) << name;
    };
    expect_near("x", found.x, expected.x);
    expect_near("B", found.B, expected.B);
    expect_near("C", found.C, expected.C);
    expect_near("step_size", found.step_size, expected.step_size);
  }
}

TEST(StateSpaceDualVjpHopper, GivesTheSameBitsEveryTime) {
  SSM_SKIP_WITHOUT_HOPPER();
  dual_gradient_case<T> of({2, 1000, 5, 64, 1, 128}, plain, 4000);
  of.add({.segments = 4});
  auto const once = of.fetch();
  for (int repeat = 0; repeat < 5; ++repeat) {
    dual_gradient_case<T> again({2, 1000, 5, 64, 1, 128}, plain, 4000);
    again.add({.segments = 4});
    EXPECT_TRUE(again.fetch() == once);
  }
}

/// Inputs of more than 2^31 elements, dense, and what any part of their time gives from zeros.
struct long_case {
  static constexpr index_t length = (index_t{1} << 19) + 300, heads = 64, head_dim = 64;
  static constexpr index_t states = 128;
  static constexpr index_array<4> carry{1, heads, head_dim, states};
  template <class Element, int Rank>
  using array = gpu::tensor<Element, Rank>;

  gpu::stream stream;
  array<T, 4> x{stream, {1, length, heads, head_dim}}, y_cotangent{stream, {1, length, heads, 64}};
  array<T, 4> B{stream, {1, length, 1, states}}, C{stream, {1, length, 1, states}};
  array<T, 3> step_size{stream, {1, length, heads}};
  array<float, 1> eigenvalue{stream, {heads}};

  long_case() {
    auto const fill = [&](auto&... each) {
      (fill_pattern(stream, tensor_view<T, 1, memory::device>(each.view().data_handle(),
                                                              {each.view().size()})),
       ...);
    };
    fill(x, y_cotangent, B, C, step_size);
    tensor<float, 1> rates({heads});
    for (index_t h = 0; h < heads; ++h) rates(h) = -0.25f * static_cast<float>(1 + h % 8);
    gpu::copy_to_device(stream, std::as_const(rates).view(), eigenvalue.view());
    stream.wait();
  }

  struct result {
    array<T, 4> y;
    array<float, 4> x, B;
  };
  result of(index_t first, index_t count) {
    auto const part = [&](auto& all) { return std::as_const(all).view().slice(1, first, count); };
    state_space_dual_inputs<T, memory::device> in{};
    in.x = part(x), in.B = part(B), in.C = part(C), in.step_size = part(step_size);
    in.eigenvalue = std::as_const(eigenvalue).view();
    in.step_rule.softplus = true;
    result r{{stream, {1, count, heads, head_dim}},
             {stream, {1, count, heads, head_dim}},
             {stream, {1, count, 1, states}}};
    array<float, 4> initial(stream, carry), final(stream, carry), cotangent(stream, carry);
    for (auto* each : {&initial, &final, &cotangent}) {
      gpu::check(cudaMemsetAsync(each->view().data_handle(), 0,
                                 sizeof(float) * std::size_t(each->view().size()), stream.get()),
                 "cudaMemsetAsync");
    }
    gpu::state_space_dual_allocating(stream, in, final.view(), r.y.view());
    gpu::state_space_dual_vjp_allocating(
        stream, in, std::as_const(initial).view(), part(y_cotangent), cotangent.view(),
        {.x = r.x.view(), .B = r.B.view()}, {}, {}, gpu::accumulate::no);
    stream.wait();
    return r;
  }
};

template <class Element>
std::vector<Element> steps_of(gpu::tensor<Element, 4> const& from, index_t first, index_t count) {
  auto const view = from.view();
  std::vector<Element> found(static_cast<std::size_t>(count * view.stride(1)));
  gpu::check(cudaMemcpy(found.data(), view.data_handle() + first * view.stride(1),
                        sizeof(Element) * found.size(), cudaMemcpyDeviceToHost),
             "cudaMemcpy");
  return found;
}

// A step is forgotten after 300 more: e^(-0.25 · 0.34 · 300) of it are left. What each run rounds
// of four factors is independent, as above.
TEST(StateSpaceDualVjpHopper, ReachesBeyondTwoToThe31) {
  SSM_SKIP_WITHOUT_HOPPER();
  if (!is_free(std::size_t{60} << 30)) GTEST_SKIP() << "too little memory";
  long_case of;
  constexpr index_t part = 704, looked_at = 300, last = (long_case::length - part) / 64 * 64;
  constexpr index_t rest = long_case::length - last;
  auto const whole = of.of(0, long_case::length), begin = of.of(0, part), end = of.of(last, rest);
  auto const expect_near = [](char const* name, auto const& a, auto const& b) {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      double const u = static_cast<float>(a[i]), v = static_cast<float>(b[i]);
      error += (u - v) * (u - v), norm += v * v;
    }
    EXPECT_GT(norm, 0) << name;
    EXPECT_LE(std::sqrt(error / norm), 0x1p-9 * std::sqrt(8.0 / 3)) << name;
  };
  index_t const to = long_case::length - looked_at;
  expect_near("y", steps_of(whole.y, to, looked_at), steps_of(end.y, to - last, looked_at));
  expect_near("x", steps_of(whole.x, to, looked_at), steps_of(end.x, to - last, looked_at));
  expect_near("B", steps_of(whole.B, to, looked_at), steps_of(end.B, to - last, looked_at));
  expect_near("first x", steps_of(whole.x, 0, looked_at), steps_of(begin.x, 0, looked_at));
  expect_near("first B", steps_of(whole.B, 0, looked_at), steps_of(begin.B, 0, looked_at));
}

}  // namespace
