// SPDX-License-Identifier: Apache-2.0
#include "ssm/execution.cuh"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "ssm/graph.cuh"
#include "ssm/tensor.cuh"
#include "ssm/tensor.hpp"
#include "support/device.cuh"

namespace {

using namespace ssm;

void fill(gpu::on where, gpu::tensor<unsigned char, 1>& to, int byte) {
  auto const view = to.view();
  gpu::check(cudaMemsetAsync(view.data_handle(), byte, std::size_t(view.size()), where.stream),
             "cudaMemsetAsync");
}

unsigned char last_byte_of(gpu::on where, gpu::tensor<unsigned char, 1> const& from) {
  index_t const size = from.view().size();
  tensor<unsigned char, 1> last({1});
  gpu::copy_to_host(where, from.view().slice(0, size - 1, 1), last.view());
  gpu::check(cudaStreamSynchronize(where.stream), "cudaStreamSynchronize");
  return last(0);
}

TEST(Execution, AFailedCallIsNamedWithItsPlace) {
  try {
    gpu::check(cudaErrorInvalidValue, "cudaSomething");
    FAIL() << "nothing was thrown";
  } catch (gpu::error const& error) {
    EXPECT_EQ(error.code, cudaErrorInvalidValue);
    std::string const message = error.what();
    EXPECT_TRUE(message.starts_with("cudaSomething: cudaErrorInvalidValue (")) << message;
    EXPECT_NE(message.find("execution_test.cu:"), std::string::npos) << message;
  }
}

// A gigabyte is written to first, so that without the event the copy would come too early.
TEST(Execution, AStreamThatIsHeldWaitsForTheEvent) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const first, second;
  index_t const size = index_t{1} << 30;
  gpu::tensor<unsigned char, 1> bytes(first, {size});
  fill(first, bytes, 1);
  first.wait();
  gpu::event ready;
  for (int round = 2; round < 8; ++round) {
    for (int writes = 0; writes < 5; ++writes) fill(first, bytes, 99);
    fill(first, bytes, round);
    ready.record(first);
    ready.hold(second);
    EXPECT_EQ(last_byte_of(second, bytes), round);
  }
}

TEST(Execution, EventsTellTheTimeBetweenThem) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  gpu::tensor<unsigned char, 1> bytes(stream, {index_t{1} << 30});
  gpu::event first, last;
  first.record(stream);
  fill(stream, bytes, 1);
  last.record(stream);
  gpu::event const moved = std::move(last);
  moved.wait();
  double const seconds = seconds_between(first, moved);
  EXPECT_GT(seconds, 1e-5);  // at 100 TB/s
  EXPECT_LT(seconds, 1);
}

TEST(Execution, AGraphRunsWhatWasRecordedAsOftenAsItIsLaunched) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  gpu::tensor<unsigned char, 1> bytes(stream, {1000});
  fill(stream, bytes, 1);
  gpu::graph const program(stream, [&] { fill(stream, bytes, 2); });
  EXPECT_EQ(last_byte_of(stream, bytes), 1);
  for (int launch = 0; launch < 2; ++launch) {
    fill(stream, bytes, 1);
    program.launch(stream);
    EXPECT_EQ(last_byte_of(stream, bytes), 2);
  }
}

TEST(Execution, ARecordingThatFailsLeavesTheStreamAsItWas) {
  SSM_SKIP_WITHOUT_DEVICE();
  gpu::stream const stream;
  EXPECT_THROW(gpu::graph(stream, [] { throw std::logic_error("no"); }), std::logic_error);
  gpu::tensor<unsigned char, 1> bytes(stream, {1000});
  fill(stream, bytes, 3);
  EXPECT_EQ(last_byte_of(stream, bytes), 3);
}

}  // namespace
