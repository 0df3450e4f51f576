// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "compiled/linear_scan.cuh"
#include "ssm/scan.hpp"
#include "support/device.cuh"
#include "support/linear_scan_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::test;

/// Many tiles of rows and of columns, whose sums are rounded.
std::vector<linear_case> large_cases() {
  std::vector<linear_case> cases;
  for (auto const order : both_ways) {
    linear_case const of{.shape = {1, 100003, 7}, .order = order, .kind = gates::slow};
    for (auto const& how : {rows, pitched_rows, columns}) cases.push_back(of.all(how));
    cases.push_back(linear_case{.shape = {1, 3500001, 1}, .order = order, .kind = gates::slow});
  }
  return cases;
}

TEST(LinearScanStream, RepeatsBitForBitBesideOtherWork) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const streams[] = {{}, {}};
  gpu::stream const beside;
  index_t const bytes = index_t{1} << 28;
  gpu::tensor<std::byte, 1> from(beside, {bytes}), to(beside, {bytes});
  for (linear_case const& of : large_cases()) {
    SCOPED_TRACE(describe<float>(of));
    linear_problem<float> first(streams[0], of);
    first.run(streams[0]);
    first.check();
    linear_problem<float> again(streams[1], of);
    streams[1].wait();
    for (int run = 0; run < 20; ++run) {
      for (int copies = 0; copies < run; ++copies) {
        gpu::check(cudaMemcpyAsync(to.view().data_handle(), from.view().data_handle(),
                                   std::size_t{1} << 28, cudaMemcpyDeviceToDevice, beside.get()),
                   "cudaMemcpyAsync");
      }
      again.run(streams[run % 2]);
      ASSERT_TRUE(same_bits(first.states, again.states)) << "run " << run;
      ASSERT_TRUE(same_bits(first.final, again.final)) << "run " << run;
    }
    streams[0].wait();
  }
}

TEST(LinearScanStream, RunsInAGraphAsOftenAsItIsLaunched) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (linear_case const& of : large_cases()) {
    SCOPED_TRACE(describe<float>(of));
    linear_problem<float> direct(stream, of), replayed(stream, of);
    direct.run(stream);
    guarded_workspace own(stream,
                          gpu::linear_scan_workspace(replayed.inputs(), replayed.states.view(),
                                                     replayed.final_view(), of.order));
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t program = nullptr;
    gpu::check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "capture");
    gpu::linear_scan(stream, replayed.inputs(), replayed.states.view(), replayed.final_view(),
                     own.view(), of.order);
    gpu::check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
    gpu::check(cudaGraphInstantiate(&program, graph, 0), "cudaGraphInstantiate");
    for (int launch = 0; launch < 2; ++launch) {
      replayed.send(stream);
      gpu::check(cudaGraphLaunch(program, stream.get()), "cudaGraphLaunch");
      replayed.fetch(stream);
      EXPECT_TRUE(same_bits(direct.states, replayed.states)) << "launch " << launch;
      EXPECT_TRUE(same_bits(direct.final, replayed.final)) << "launch " << launch;
    }
    gpu::check(cudaGraphExecDestroy(program), "cudaGraphExecDestroy");
    gpu::check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
}

TEST(LinearScanStream, AllocatesItsWorkspaceWhereThatIsWanted) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (linear_case const& of : large_cases()) {
    SCOPED_TRACE(describe<float>(of));
    linear_problem<float> problem(stream, of);
    problem.send(stream);
    gpu::linear_scan_allocating(stream, problem.inputs(), problem.states.view(),
                                problem.final_view(), of.order);
    problem.fetch(stream);
    problem.check();
  }
}

// Sums are exact, so that the two ways to cut time must give the same bits.
TEST(LinearScanStream, GivesTheStatesOfTheCpuScan) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  for (auto const order : both_ways)
    for (auto const& how : {rows, columns}) {
      index_array<3> const shape{2, 50021, 3};
      auto const of = linear_case{.shape = shape, .order = order, .kind = gates::units}.all(how);
      SCOPED_TRACE(describe<double>(of));
      linear_problem<double> problem(stream, of);
      problem.run(stream);
      tensor<double, 4> decay({2, 50021, 3, 1}), drive({2, 50021, 3, 1}), states({2, 50021, 3, 1});
      tensor<double, 3> carry({2, 3, 1});
      problem.decay.each([&](auto b, auto t, auto c) {
        decay(b, t, c, 0) = problem.decay(b, t, c);
        drive(b, t, c, 0) = problem.drive(b, t, c);
        carry(b, c, 0) = problem.initial(b, 0, c);
      });
      scan(sequential{}, linear_recurrence<double>{.decay = decay, .drive = drive},
           store_states<double>{states}, carry.view(), order);
      mismatches<double> of_states("states", true), of_final("final_state", true);
      problem.states.each([&](auto b, auto t, auto c) {
        of_states.compare(problem.states(b, t, c), states(b, t, c, 0), 0, b, t, c);
      });
      problem.final.each([&](auto b, auto, auto c) {
        of_final.compare(problem.final(b, 0, c), carry(b, c, 0), 0, b, 0, c);
      });
    }
}

// Numbers of element i of arrays too large for the host. Decays of at most 7/8 forget: after 400
// steps 1e-23 is left.
SSM_HD inline float pattern(index_t i, std::uint64_t factor) {
  return static_cast<float>((static_cast<std::uint64_t>(i) * factor >> 32) % 8);
}
SSM_HD inline float decay_pattern(index_t i) {
  return (pattern(i, 0x9e3779b97f4a7c15u) - 3.5f) / 4;
}
SSM_HD inline float drive_pattern(index_t i) {
  return pattern(i, 0xc2b2ae3d27d4eb4fu) - 3;
}

__global__ void fill_patterns(bfloat16* decay, bfloat16* drive, index_t count) {
  for (index_t i = index_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += index_t{gridDim.x} * blockDim.x) {
    decay[i] = bfloat16(decay_pattern(i));
    drive[i] = bfloat16(drive_pattern(i));
  }
}

void expect_states_of_patterns(index_array<3> const& shape, layout const& how, direction order) {
  index_t const length = shape[1], count = shape[0] * length * shape[2];
  SCOPED_TRACE(testing::Message() << how.name << ' ' << to_string(shape)
                                  << (order == direction::forward ? " forward" : " backward"));
  gpu::stream const stream;
  gpu::tensor<bfloat16, 1> decay(stream, {count}), drive(stream, {count}), states(stream, {count});
  fill_patterns<<<4096, 256, 0, stream.get()>>>(decay.view().data_handle(),
                                                drive.view().data_handle(), count);
  gpu::check(cudaGetLastError(), "fill_patterns");
  guarded<float> final(stream, {shape[0], 1, shape[2]}, columns);
  index_array<3> const strides = how.strides(shape[0], length, shape[2]);
  auto const as_sequence = [&](auto& flat) {
    return sequence_view<bfloat16, memory::device>{flat.view().data_handle(), shape, strides};
  };
  gpu::linear_scan_allocating<bfloat16>(stream, {as_sequence(decay), as_sequence(drive)},
                                        as_sequence(states), final.carry(), order);
  final.fetch(stream);

  mismatches<bfloat16> of_states("states", false);
  mismatches<float> of_final("final_state", false);
  auto const last = order == direction::forward ? length - 1 : index_t{0};
  for (index_t b = 0; b < shape[0]; ++b)
    for (index_t c = 0; c < shape[2]; ++c) {
      index_t const lane = b * strides[0] + c * strides[2];
      std::vector<index_t> steps{0, 1, 2, 3071, 6144, length / 2, length - 2, length - 1};
      random_stream const anywhere{7, static_cast<std::uint64_t>(b + c)};
      for (index_t i = 0; i < 50; ++i) {
        steps.push_back(static_cast<index_t>(anywhere.uniform(i) * static_cast<double>(length)));
      }
      index_t const edges[] = {index_t{1} << 30, index_t{1} << 31};  // in bytes and in elements
      for (index_t const edge : edges)
        for (index_t const t : {(edge - lane) / strides[1], (edge - lane) / strides[1] + 1}) {
          if (t >= 0 && t < length) steps.push_back(t);
        }
      for (index_t const t : steps) {
        index_t const before = order == direction::forward ? t : length - 1 - t;
        double h = 0;
        term_sizes size;
        for (index_t back = std::min<index_t>(before, 400); back >= 0; --back) {
          index_t const at =
              lane + (order == direction::forward ? t - back : t + back) * strides[1];
          h = decay_pattern(at) * h + drive_pattern(at);
          size.multiply(std::abs(decay_pattern(at)));
          size.sum += std::abs(drive_pattern(at));
        }
        bfloat16 found{};
        gpu::check(cudaMemcpy(&found, states.view().data_handle() + lane + t * strides[1],
                              sizeof(found), cudaMemcpyDeviceToHost),
                   "cudaMemcpy");
        of_states.compare(found, h, size.bound<float>(), b, t, c);
        if (t == last) of_final.compare(final(b, 0, c), h, size.bound<float>(), b, t, c);
      }
    }
}

TEST(LinearScanStream, GoesBeyondTwoToThe31Elements) {
  SSM_SKIP_WITHOUT_DEVICE();
  std::size_t unused = 0, total = 0;
  gpu::check(cudaMemGetInfo(&unused, &total), "cudaMemGetInfo");
  if (unused < std::size_t{24} << 30) GTEST_SKIP() << unused << " bytes are free, expected 24 GiB";
  index_t const length = 900000001;
  for (auto const order : both_ways) {
    expect_states_of_patterns({3, length, 1}, rows, order);
    expect_states_of_patterns({1, 3 * length, 1}, rows, order);
    expect_states_of_patterns({1, length, 3}, columns, order);
  }
}

}  // namespace
