// SPDX-License-Identifier: Apache-2.0
#include "ssm/state_space_dual_vjp.cuh"

#include <gtest/gtest.h>

#include <string>

#include "support/device.cuh"
#include "support/ssd_vectors_device.cuh"
#include "support/state_space_dual_vjp_device.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

/// What rounding of factors to 16 bits adds: at most four of a term, half a unit each. float16 is
/// computed by TF32, whose 11 bits are its own.
template <class T>
constexpr double rounding_of = std::is_same_v<T, bfloat16>  ? 4 * 0x1p-9
                               : std::is_same_v<T, float16> ? 4 * 0x1p-12
                                                            : 0;

constexpr dual_options plain{false, false, true, false, false, false, false, false, 0};
constexpr dual_options all{true, true, true, true, true, true, true, true, 2};

template <class T>
void expect_truth_of(ssd_sizes const& s, dual_options const& options, std::uint64_t seed,
                     dual_layout const& how = {}, gpu::state_space_dual_plan const& plan = {}) {
  dual_gradient_case<T> device(s, options, seed, how);
  device.add(plan);
  auto const found = device.fetch();
  expect_truth(device, dual_truth(device), found, rounding_of<T>,
               std::string(", ") + how.name + ", segments " + std::to_string(plan.segments));
}

TEST(StateSpaceDualVjp, IsTheCpusForAnyLength) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 1;
  for (index_t const length : {1, 5, 63, 64, 65, 128, 129, 300}) {
    expect_truth_of<float>({2, length, 4, 64, 2, 64}, all, seed, dual_layouts[seed % 4]);
    expect_truth_of<float>({1, length, 3, 20, 1, 16}, plain, seed, dual_layouts[seed / 2 % 4]);
    ++seed;
  }
}

TEST(StateSpaceDualVjp, IsTheCpusForAnyHeadAndNumberOfStates) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 100;
  for (auto const& [head_dim, states] : {std::pair(1, 1),
                                         {5, 7},
                                         {32, 16},
                                         {64, 32},
                                         {72, 100},
                                         {128, 128},
                                         {64, 256},
                                         {130, 200}}) {
    expect_truth_of<float>({1, 150, 3, head_dim, 1, states}, {}, seed, dual_layouts[seed % 4]);
    expect_truth_of<bfloat16>({1, 150, 3, head_dim, 1, states}, {}, seed, dual_layouts[seed % 4]);
    ++seed;
  }
}

TEST(StateSpaceDualVjp, IsTheCpusForEveryOption) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (unsigned bits = 0; bits < dual_options::combinations; bits += 41) {
    expect_truth_of<float>({2, 100, 4, 24, 2, 40}, dual_options::of_bits(bits), 500 + bits,
                           dual_layouts[bits % 4], {.segments = 1 + bits % 2});
  }
}

TEST(StateSpaceDualVjp, IsTheCpusForAnyNumberOfSegments) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 2000;
  for (index_t const segments : {1, 2, 3, 7}) {
    expect_truth_of<float>({1, 800, 2, 64, 1, 64}, all, seed++, {}, {.segments = segments});
    expect_truth_of<float>({1, 800, 2, 64, 1, 64}, plain, seed++, {},
                           {.segments = segments, .negligible = 0.0f});
  }
}

TEST(StateSpaceDualVjp, TakesSixteenBits) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::uint64_t seed = 3000;
  for (auto const& layout : dual_layouts) {
    expect_truth_of<bfloat16>({2, 200, 6, 64, 2, 128}, all, seed++, layout);
    expect_truth_of<float16>({2, 200, 6, 64, 2, 128}, all, seed++, layout);
  }
}

/// Of numbers rounded to 11 bits, as of float16.
TEST(StateSpaceDualVjp, RoundsToTf32WhereThatIsAsked) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_gradient_case<float> device({1, 200, 4, 64, 1, 128}, all, 4000);
  device.add({.exact = false});
  expect_truth(device, dual_truth(device), device.fetch(), rounding_of<float16>);
}

/// The states that a forward run saves are used, and give the same gradients.
TEST(StateSpaceDualVjp, GoesOnFromSavedStates) {
  SSM_SKIP_WITHOUT_DEVICE();
  ssd_sizes const s{2, 700, 2, 64, 1, 64};
  dual_gradient_case<float> device(s, plain, 5000);
  auto const extents = [&](index_t block) {
    return index_array<5>{s.batch, (s.length + block - 1) / block, s.heads, s.head_dim, s.states};
  };
  tensor<float, 5> states(extents(state_space_dual_block));
  tensor<float, 4> y(s.sequences()), carry = device.problem.p.initial;
  state_space_dual(parallel{}, device.problem.host_inputs(), carry.view(), y.view(),
                   {.states = states.view()});
  auto strides = states.view().strides();  // a device wants fewer of them
  strides[1] *= state_space_dual_device_block / state_space_dual_block;
  dual_array<float, 5> saved(materialized(tensor_view<float const, 5>(
                                 states.data(), extents(state_space_dual_device_block), strides)),
                             {});
  device.add({.segments = 3}, {.states = saved.view()});
  expect_truth(device, dual_truth(device), device.fetch(), 0);

  dual_array<float, 5> nothing(extents(state_space_dual_device_block), {});  // NaN
  device.add({.segments = 3}, {.states = nothing.view()});
  float const last = device.C.fetch()(0, s.length - 1, 0, 0);
  EXPECT_NE(last, last);
}

// To zeros, then to what is there: twice the same is exact.
TEST(StateSpaceDualVjp, AddsTheSameBitsAgain) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_gradient_case<bfloat16> device({3, 333, 8, 64, 2, 128}, all, 6000);
  device.add({.segments = 2});
  auto once = device.fetch();
  device.add({.segments = 2});
  auto const twice = device.fetch();
  for_each_ssd_gradient(
      [](std::string const& name, auto& found) {
        if (name == "initial") return;  // stored, not added
        for (auto& each : found) each *= 2;
      },
      once);
  EXPECT_TRUE(once == twice);
}

template <class T>
void expect_stored(ssd_sizes const& s, dual_options const& options, std::uint64_t seed,
                   dual_layout const& how = {}, gpu::state_space_dual_plan const& plan = {}) {
  dual_gradient_case<T> added(s, options, seed, how), stored(s, options, seed, how);
  added.add(plan);
  stored.poison();
  stored.add(plan, {}, gpu::accumulate::no);
  EXPECT_TRUE(stored.fetch() == added.fetch()) << added.problem.name() << ", " << how.name;
}

// In tiles of states and channels, with a gate or without, heads in one part or many.
TEST(StateSpaceDualVjp, StoresOverWhatIsThere) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_options ungated = all;
  ungated.gate = false;
  for (auto const& how : dual_layouts) {
    expect_stored<float>({2, 300, 4, 72, 2, 100}, all, 6100, how, {.segments = 2});
    expect_stored<bfloat16>({1, 333, 8, 64, 2, 128}, all, 6200, how);
    expect_stored<bfloat16>({2, 333, 8, 64, 2, 128}, ungated, 6300, how);
    expect_stored<bfloat16>({1, 70, 40, 64, 1, 128}, ungated, 6400, how);
  }
}

TEST(StateSpaceDualVjp, RunsAgainFromAGraph) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_gradient_case<bfloat16> device({1, 300, 4, 64, 1, 128}, all, 7000), again = [] {
    return dual_gradient_case<bfloat16>({1, 300, 4, 64, 1, 128}, all, 7000);
  }();
  device.add();
  auto const expected = device.fetch();

  auto const in = again.problem.device_inputs();
  auto const to = again.gradients();
  auto const bytes = gpu::state_space_dual_vjp_workspace(
      in, again.initial.view(), again.arriving.view(), again.to_initial.view(), to);
  dual_array<std::byte, 1> memory(index_array<1>{static_cast<index_t>(bytes)}, {});
  gpu::stream const stream;
  cudaGraph_t graph{};
  cudaGraphExec_t run{};
  gpu::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "capture");
  gpu::state_space_dual_vjp(stream, in, again.initial.view(), again.arriving.view(),
                            again.to_initial.view(), to, memory.view());
  gpu::check(cudaStreamEndCapture(stream.get(), &graph), "capture");
  gpu::check(cudaGraphInstantiate(&run, graph, 0), "instantiate");
  gpu::check(cudaGraphLaunch(run, stream.get()), "launch");
  stream.wait();
  EXPECT_TRUE(again.fetch() == expected);
  gpu::check(cudaGraphExecDestroy(run), "destroy");
  gpu::check(cudaGraphDestroy(graph), "destroy");
}

/// One number for a layer, a head or a channel: the sum of what its elements would have got.
TEST(StateSpaceDualVjp, SumsWhereStridesAreZero) {
  SSM_SKIP_WITHOUT_DEVICE();
  ssd_sizes const s{2, 90, 6, 40, 2, 24};
  dual_gradient_case<float> device(s, all, 8000);
  device.add();
  auto const each = device.fetch();
  for (auto const strides : {index_array<2>{0, 0}, {1, 0}, {0, 1}}) {
    dual_array<float, 1> sums(tensor<float, 1>({5 * 64}), {});
    auto const sum = [&](int i) { return sums.view().data_handle() + i * 64; };
    auto to = device.gradients();
    to.D = {sum(0), {s.heads, s.head_dim}, strides};
    to.eigenvalue = {sum(1), {s.heads}, {strides[0]}};
    to.step_bias = {sum(2), {s.heads}, {strides[0]}};
    to.scaling.linear = {sum(3), {s.heads, 1}, {strides[0], 0}};
    to.scaling.step = {sum(4), {s.heads}, {strides[0]}};
    device.to_initial = dual_array<float, 4>(device.carry_cotangent, {});
    gpu::state_space_dual_vjp_allocating({}, device.problem.device_inputs(), device.initial.view(),
                                         device.arriving.view(), device.to_initial.view(), to);
    auto const found = sums.fetch();
    double const eps = std::numeric_limits<float>::epsilon();
    auto const expect = [&](int i, auto const& terms, char const* name) {
      tensor<double, 1> expected({64}), magnitude({64});
      index_t const columns = terms.size() / s.heads;
      for (index_t k = 0; k < terms.size(); ++k) {
        index_t const place = k / columns * strides[0] + k % columns * strides[1];
        expected(place) += terms.data()[k];
        magnitude(place) += std::abs(terms.data()[k]);
      }
      for (index_t k = 0; k < 64; ++k) {
        EXPECT_NEAR(found(i * 64 + k), expected(k), 240 * eps * magnitude(k)) << name;
      }
    };
    expect(0, each.D, "D");
    expect(1, each.eigenvalue, "eigenvalue");
    expect(2, each.step_bias, "step_bias");
    expect(3, each.linear, "linear");
    expect(4, each.step, "step");
  }
}

/// Where states decay the first pass ends early, and what it leaves out does not show.
TEST(StateSpaceDualVjp, FollowsNoFurtherThanStatesLast) {
  SSM_SKIP_WITHOUT_DEVICE();
  ssd_sizes const s{1, 4096, 2, 16, 1, 16};
  dual_array<unsigned long long, 1> visited(tensor<unsigned long long, 1>({1}), {});
  dual_gradient_case<float> device(s, plain, 9000);
  device.add({.segments = 4, .visited = visited.view().data_handle()});
  auto const first = visited.fetch()(0);
  expect_truth(device, dual_truth(device), device.fetch(), 0);
  unsigned long long const most = 2 * 2 * 3 * 1024;  // directions, heads, segments, steps
  EXPECT_GT(first, 0u);
  EXPECT_LT(first, most / 4);
  device.add({.segments = 4, .negligible = 0.0f, .visited = visited.view().data_handle()});
  EXPECT_EQ(visited.fetch()(0), first + most);
}

TEST(StateSpaceDualVjp, LeavesTheCotangentOfNoStepsAsItIs) {
  SSM_SKIP_WITHOUT_DEVICE();
  dual_gradient_case<float> device({2, 0, 3, 5, 1, 7}, {}, 10000);
  device.add();
  EXPECT_TRUE(device.fetch().initial == device.carry_cotangent);
}

// Results that were computed elsewhere, in float64.
TEST(StateSpaceDualVjp, AndItsForwardAgreeWithTheVectors) {
  SSM_SKIP_WITHOUT_DEVICE();
  auto const file = operator_vectors();
  auto const cases = operator_cases(file, "ssd");
  ASSERT_EQ(cases.size(), 5u);
  for (operator_case const& each : cases) {
    SCOPED_TRACE(each.name());
    device_vector_case device(each);
    ssd_truth truth(device.from.inputs(), device.from.initial, 64);
    truth.y = each.read<double, 4>("out.y");
    truth.carry = each.read<double, 4>("out.final_state");
    EXPECT_LE(worst_error(device.run(), truth), 4);  // of the device's functions

    auto const found = device.gradient(each.read<float, 4>("cotangent.y"),
                                       each.read<float, 4>("cotangent.final_state"));
    auto const e = device.from.x.extents();
    double const k = static_cast<double>(device.from.B.extent(3) + e[3] + e[1]) + 168;
    int compared = 0;
    for_each_vector_gradient(
        each, found, terms_of_gradients(each),
        [&](char const* name, auto const& f, auto const& expected, auto const& terms) {
          double largest = 0, error = 0;
          for (double const z : terms) largest = std::max(largest, std::abs(z));
          for (index_t i = 0; i < f.size(); ++i)
            error = std::max(error, std::abs(double{f.data()[i]} - expected.data()[i]));
          EXPECT_LE(error, k * double{std::numeric_limits<float>::epsilon()} * largest) << name;
          ++compared;
        });
    EXPECT_GE(compared, 5);
  }
}

}  // namespace
