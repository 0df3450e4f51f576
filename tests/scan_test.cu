// SPDX-License-Identifier: Apache-2.0
#include "ssm/scan.cuh"

#include <gtest/gtest.h>

#include <cmath>

#include "ssm/diagonal.hpp"
#include "ssm/random.hpp"
#include "ssm/scalar_identity.hpp"
#include "ssm/tensor.cuh"
#include "ssm/tensor.hpp"
#include "support/device.cuh"

namespace {

using namespace ssm;

template <class T, int Rank>
gpu::tensor<T, Rank> on_device(gpu::on where, tensor<T, Rank> const& host) {
  gpu::tensor<T, Rank> device(where, host.extents());
  gpu::copy_to_device(where, host.view(), device.view());
  return device;
}

template <class T, int Rank>
tensor<T, Rank> random_tensor(index_array<Rank> const& extents, std::uint64_t id) {
  tensor<T, Rank> values(extents);
  random_stream const stream{2026, id};
  for (index_t i = 0; i < values.size(); ++i) values.data()[i] = static_cast<T>(stream.normal(i));
  return values;
}

/// Largest |difference| against the largest |expected|.
template <class T, int Rank>
double worst(tensor<T, Rank> const& found, tensor<T, Rank> const& expected) {
  double difference = 0, largest = 0;
  for (index_t i = 0; i < expected.size(); ++i) {
    double const gap = std::abs(double(found.data()[i]) - double(expected.data()[i]));
    difference = gap > difference || std::isnan(gap) ? gap : difference;
    largest = std::max(largest, std::abs(double(expected.data()[i])));
  }
  return largest > 0 ? difference / largest : difference;
}

// The device contracts to fused multiply-adds and its exp is within 2 ulp, so decays differ by a
// few eps and a state by that times its memory, at most `length` steps.
template <class T>
double tolerance(index_t length) {
  return 8 * double(std::numeric_limits<T>::epsilon()) * double(length + 1);
}

template <class T>
void diagonal_runs_as_on_the_cpu(index_t batch, index_t length, index_t channels, index_t states,
                                 direction order) {
  SCOPED_TRACE(testing::Message() << "shape " << batch << ", " << length << ", " << channels << ", "
                                  << states);
  auto step_size = random_tensor<T, 3>({batch, length, channels}, 1);
  for (T& delta : step_size) delta = softplus(T(delta - T(2)));
  auto eigenvalue = random_tensor<T, 2>({channels, states}, 2);
  for (T& lambda : eigenvalue) lambda = -std::exp(lambda);
  auto const B = random_tensor<T, 3>({batch, length, states}, 3);
  auto const C = random_tensor<T, 3>({batch, length, states}, 4);
  auto const x = random_tensor<T, 3>({batch, length, channels}, 5);
  auto const initial = random_tensor<T, 3>({batch, channels, states}, 6);

  auto carry = initial;
  tensor<T, 3> y({batch, length, channels}, std::numeric_limits<T>::quiet_NaN());
  scan(sequential{},
       diagonal<mamba_hold, T>{.step_size = step_size,
                               .eigenvalue = eigenvalue,
                               .B = B.view().broadcast(2, channels),
                               .x = x},
       contract<T>{C.view().broadcast(2, channels), y}, carry.view(), order);

  gpu::stream const stream;
  auto const d_step = on_device(stream, step_size);
  auto const d_eigenvalue = on_device(stream, eigenvalue);
  auto const d_B = on_device(stream, B), d_C = on_device(stream, C), d_x = on_device(stream, x);
  auto d_carry = on_device(stream, initial);
  tensor<T, 3> poison({batch, length, channels}, std::numeric_limits<T>::quiet_NaN());
  auto d_y = on_device(stream, poison);
  scan(gpu::on(stream),
       diagonal<mamba_hold, T, memory::device>{.step_size = d_step,
                                               .eigenvalue = d_eigenvalue,
                                               .B = d_B.view().broadcast(2, channels),
                                               .x = d_x},
       contract<T, memory::device>{d_C.view().broadcast(2, channels), d_y}, d_carry, order);
  tensor<T, 3> found_y({batch, length, channels}), found_carry({batch, channels, states});
  gpu::copy_to_host(stream, std::as_const(d_y).view(), found_y.view());
  gpu::copy_to_host(stream, std::as_const(d_carry).view(), found_carry.view());
  stream.wait();
  EXPECT_LE(worst(found_y, y), tolerance<T>(length));
  EXPECT_LE(worst(found_carry, carry), tolerance<T>(length));
}

TEST(ScanOnDevice, RunsADiagonalRecurrenceAsTheCpuDoes) {
  SSM_SKIP_WITHOUT_DEVICE();
  for (auto const order : {direction::forward, direction::backward}) {
    for (index_t const length : {0, 1, 31, 32, 33, 257}) {
      diagonal_runs_as_on_the_cpu<float>(2, length, 5, 16, order);
      diagonal_runs_as_on_the_cpu<double>(2, length, 5, 16, order);
    }
    diagonal_runs_as_on_the_cpu<double>(1, 7, 131, 3, order);
    diagonal_runs_as_on_the_cpu<double>(0, 7, 3, 3, order);
  }
}

TEST(ScanOnDevice, RunsAScalarIdentityRecurrenceAsTheCpuDoes) {
  SSM_SKIP_WITHOUT_DEVICE();
  index_t const batch = 2, length = 67, heads = 4, groups = 2, channels = 12, states = 8;
  auto step_size = random_tensor<double, 3>({batch, length, heads}, 1);
  for (double& delta : step_size) delta = softplus(delta - 2);
  tensor<double, 1> eigenvalue({heads}, -1.5);
  auto const B = random_tensor<double, 4>({batch, length, groups, states}, 3);
  auto const x = random_tensor<double, 3>({batch, length, channels}, 5);
  tensor<double, 3> carry({batch, channels, states}), energy({batch, length, channels});
  scan(sequential{},
       scalar_identity<zero_order_hold, double>{
           .step_size = step_size, .eigenvalue = eigenvalue, .B = B, .x = x},
       squared_norm<double>{energy}, carry.view());

  gpu::stream const stream;
  auto const d_step = on_device(stream, step_size);
  auto const d_eigenvalue = on_device(stream, eigenvalue);
  auto const d_B = on_device(stream, B);
  auto const d_x = on_device(stream, x);
  auto d_carry = on_device(stream, tensor<double, 3>({batch, channels, states}));
  gpu::tensor<double, 3> d_energy(stream, energy.extents());
  scan(gpu::on(stream),
       scalar_identity<zero_order_hold, double, memory::device>{
           .step_size = d_step, .eigenvalue = d_eigenvalue, .B = d_B, .x = d_x},
       squared_norm<double, memory::device>{d_energy}, d_carry);
  tensor<double, 3> found(energy.extents());
  gpu::copy_to_host(stream, std::as_const(d_energy).view(), found.view());
  stream.wait();
  EXPECT_LE(worst(found, energy), tolerance<double>(length));
}

TEST(ScanOnDevice, RefusesACarryOfTheWrongShapeBeforeAnyLaunch) {
  tensor_view<double const, 4, memory::device> const nothing{nullptr, {1, 2, 3, 4}};
  linear_recurrence<double, memory::device> const recurrence{.decay = nothing, .drive = nothing};
  try {
    scan(gpu::on{}, recurrence, discard{}, state_view<double, memory::device>{nullptr, {1, 3, 5}});
    FAIL() << "no error";
  } catch (shape_error const& error) {
    EXPECT_STREQ(error.what(),
                 "scan: carry has shape (1, 3, 5), expected (1, 3, 4) (batch, channel, state)");
  }
}

TEST(Check, NamesTheCallThatFailed) {
  try {
    gpu::check(cudaErrorInvalidValue, "cudaSomething");
    FAIL() << "no error";
  } catch (gpu::error const& error) {
    EXPECT_EQ(error.code, cudaErrorInvalidValue);
    EXPECT_NE(std::string(error.what()).find("cudaSomething: cudaErrorInvalidValue"),
              std::string::npos);
  }
}

}  // namespace
