// SPDX-License-Identifier: Apache-2.0
// recurrence_test.cpp: what counts as a recurrence, and the plainest one, read and pulled back.
#include "ssm/recurrence.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <string>
#include <type_traits>

#include "ssm/diagonal.hpp"
#include "ssm/scalar_identity.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

struct without_shape {
  using value_type = double;
  struct step {
    affine_map<double> operator()(index_t) const { return {}; }
  };
  step at(index_t, index_t, index_t) const { return {}; }
};

struct with_shape : without_shape {
  scan_shape shape() const { return {}; }
};

struct of_another_scalar : with_shape {
  using value_type = float;
};

TEST(Recurrence, NeedsMapsOfItsScalarAndAShape) {
  EXPECT_TRUE(recurrence<with_shape>);
  EXPECT_FALSE(recurrence<without_shape>);
  EXPECT_FALSE(recurrence<of_another_scalar>);
  EXPECT_FALSE(recurrence<affine_map<double>>);
}

TEST(Recurrence, OnlyOneWithAPullBackIsDifferentiable) {
  EXPECT_FALSE(differentiable_recurrence<with_shape>);
  EXPECT_TRUE(differentiable_recurrence<linear_recurrence<double>>);
  EXPECT_TRUE((differentiable_recurrence<diagonal<mamba_hold, float>>));
  EXPECT_TRUE((differentiable_recurrence<diagonal<bilinear, std::complex<double>>>));
  EXPECT_TRUE((differentiable_recurrence<scalar_identity<zero_order_hold, double>>));
}

TEST(Recurrence, KernelsMayTakeThemByValue) {
  EXPECT_TRUE((std::is_trivially_copyable_v<linear_recurrence<float>>));
  EXPECT_TRUE((std::is_trivially_copyable_v<diagonal<mamba_hold, float, memory::device>>));
  EXPECT_TRUE((std::is_trivially_copyable_v<scalar_identity<mamba_hold, float>>));
}

template <class T>
class LinearRecurrence : public ::testing::Test {
 public:
  tensor<T, 4> decay = random_tensor<T>({2, 5, 3, 4}, 1);
  tensor<T, 4> drive = random_tensor<T>({2, 5, 3, 4}, 2);
  tensor<T, 4> adjoint = random_tensor<T>({2, 5, 3, 4}, 3);
  tensor<T, 4> before = random_tensor<T>({2, 5, 3, 4}, 4);
  linear_recurrence<T> recurrence{decay, drive};
};
using scalars = ::testing::Types<float, double, std::complex<double>>;
TYPED_TEST_SUITE(LinearRecurrence, scalars);

TYPED_TEST(LinearRecurrence, MapOfAStepIsTheGivenDecayAndDrive) {
  EXPECT_EQ(this->recurrence.shape(), (scan_shape{2, 5, 3, 4}));
  for_each_position(this->decay.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    auto const map = this->recurrence.at(b, t, c)(n);
    EXPECT_EQ(map.decay, this->decay(b, t, c, n));
    EXPECT_EQ(map.drive, this->drive(b, t, c, n));
  });
}

// Over the last three steps, last first: local step i is at time 4 - i.
TYPED_TEST(LinearRecurrence, PullBackAddsAdjointTimesConjugateOfTheStateBefore) {
  using T = TypeParam;
  auto const start = random_tensor<T>({2, 5, 3, 4}, 5);
  auto to_decay = start, to_drive = start;
  auto const window = whole(5, direction::backward).part(0, 3);
  this->recurrence.pull_back(2, window, this->adjoint, this->before, {to_decay, to_drive});
  for_each_position(start.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    wide<T> const there = widened(start(b, t, c, n));
    wide<T> g(0), h(0);
    if (t >= 2) {
      g = widened(this->adjoint(b, 4 - t, c, n));
      h = widened(this->before(b, 4 - t, c, n));
    }
    // A product and a sum.
    EXPECT_TRUE(is_within(eps_per_step<T>, to_decay(b, t, c, n), wide<T>(there + g * conjugate(h)),
                          digits50(magnitude(there) + magnitude(g) * magnitude(h))))
        << to_string(position);
    EXPECT_TRUE(is_within(0.5, to_drive(b, t, c, n), wide<T>(there + g),
                          digits50(magnitude(there) + magnitude(g))))
        << to_string(position);
  });
}

TYPED_TEST(LinearRecurrence, PullBackLeavesAnUnwantedGradientAlone) {
  using T = TypeParam;
  tensor<T, 4> to_drive({2, 5, 3, 4});
  auto const window = whole(5, direction::forward);
  this->recurrence.pull_back(2, window, this->adjoint, this->before, {{}, to_drive});
  EXPECT_EQ(to_drive, this->adjoint);
  this->recurrence.pull_back(2, window, this->adjoint, this->before, {});
}

TEST(LinearRecurrenceErrors, ViewsThatDisagreeThrowAndAreNamed) {
  auto const a = random_tensor<double>({2, 5, 3, 4}, 6);
  auto const b = random_tensor<double>({2, 5, 4, 3}, 7);
  linear_recurrence<double> const r{a, b};
  EXPECT_EQ(message_of<shape_error>([&] { r.shape(); }),
            "linear_recurrence: decay has shape (2, 5, 3, 4), expected (2, 5, 4, 3) "
            "(batch, time, channel, state)");
}

TEST(LinearRecurrenceErrors, GradientOfWrongShapeThrowsEvenForAnEmptyWindow) {
  auto const a = random_tensor<double>({2, 5, 3, 4}, 8);
  tensor<double, 4> wrong({2, 5, 3, 1});
  linear_recurrence<double> const r{a, a};
  EXPECT_EQ(message_of<shape_error>([&] {
              r.pull_back(1, {}, {}, {}, {wrong, {}});
            }),
            "linear_recurrence: gradient.decay has shape (2, 5, 3, 1), expected (2, 5, 3, 4) "
            "(batch, time, channel, state)");
}

}  // namespace
