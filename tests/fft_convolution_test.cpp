// SPDX-License-Identifier: Apache-2.0
// fft_convolution_test.cpp: causal convolutions, by sums and by transforms, and their gradients.
#include "ssm/fft_convolution.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>

#include "ssm/numerics.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// Σ_l K_l x_{t-l} by definition in a wider type, with Σ|terms|.
template <class Wide, class Real>
struct sums {
  tensor<Wide, 3> value, terms;

  sums(tensor<Real, 2> const& kernel, tensor<Real, 3> const& x)
      : value{x.extents()}, terms{x.extents()} {
    for_each_position(x.extents(), [&](auto const& position) {
      auto const [b, t, c] = position.value;
      for (index_t l = 0; l < kernel.extent(1) && l <= t; ++l) {
        Wide const term = Wide(kernel(c, l)) * Wide(x(b, t - l, c));
        value(b, t, c) += term;
        terms(b, t, c) += ssm::abs(term);
      }
    });
  }
};

template <class Real>
void expect_direct_sums() {
  for (index_t const length : {0, 1, 17}) {
    for (index_t const kernel_length : {0, 1, 5, 17, 40}) {
      auto const kernel = random_tensor<Real>({3, kernel_length}, 1100);
      auto const x = random_tensor<Real>({2, length, 3}, 1101);
      auto y = poisoned<Real>({2, length, 3});
      causal_convolution<Real>(parallel{2}, kernel, x, y);
      sums<digits50, Real> const expected(kernel, x);
      EXPECT_TRUE(
          is_within(0.5 * static_cast<double>(length + 1), y, expected.value, expected.terms))
          << length << ", " << kernel_length;
    }
  }
}

TEST(CausalConvolution, IsWithinItsBoundOfTheSumIn50Digits) {
  expect_direct_sums<float>();
  expect_direct_sums<double>();
}

TEST(CausalConvolution, GradientsAreThoseOfDifferencesIn50DigitsAndAdded) {
  using W = digits50;
  for (index_t const kernel_length : {0, 3, 9}) {
    auto kernel = random_tensor<W>({2, kernel_length}, 1110);
    auto x = random_tensor<W>({2, 7, 2}, 1111);
    auto const cotangent = random_tensor<W>({2, 7, 2}, 1112);
    auto to_kernel = random_tensor<W>({2, kernel_length}, 1113);
    auto to_x = random_tensor<W>({2, 7, 2}, 1114);
    auto const kernel_before = to_kernel;
    auto const x_before = to_x;
    causal_convolution_vjp<W>(parallel{2}, kernel, x, cotangent, to_kernel, to_x);
    std::transform(to_kernel.begin(), to_kernel.end(), kernel_before.begin(), to_kernel.begin(),
                   [](W const& a, W const& b) { return W(a - b); });
    std::transform(to_x.begin(), to_x.end(), x_before.begin(), to_x.begin(),
                   [](W const& a, W const& b) { return W(a - b); });
    auto const loss = [&] {
      tensor<W, 3> y(x.extents());
      causal_convolution<W>(sequential{}, kernel, x, y);
      return inner_product(cotangent, y);
    };
    EXPECT_TRUE(is_near(to_kernel, gradient_by_differences(kernel, loss), "1e-30"));
    EXPECT_TRUE(is_near(to_x, gradient_by_differences(x, loss), "1e-30"));
  }
}

template <class Real, class View>
double norm(View const& view) {
  double sum = 0;
  for (index_t i = 0; i < view.extent(0); ++i) sum += double(view(i)) * double(view(i));
  return std::sqrt(sum);
}

/// max |found - expected| in the bound for each lane; `extra` eps of the same norms on top, and
/// what the expectation itself, a sum in double, may be off by.
template <class Real>
double worst_share(tensor<Real, 3> const& found, sums<double, Real> const& expected,
                   tensor<Real, 2> const& kernel, tensor<Real, 3> const& x, double bound) {
  double worst = 0;
  double const eps = std::numeric_limits<Real>::epsilon();
  for_each_position(found.extents(), [&](auto const& position) {
    auto const [b, t, c] = position.value;
    double const unit = eps * norm<Real>(kernel.view().select(0, c)) *
                        norm<Real>(x.view().select(2, c).select(0, b));
    double const error = std::abs(double(found(b, t, c)) - expected.value(b, t, c));
    double const own = 1.2e-16 * static_cast<double>(t + 1) * expected.terms(b, t, c);
    double const share = error == 0 ? 0 : error / (bound * unit + own);
    worst = std::isnan(worst) || share <= worst ? worst : share;  // NaN is the worst
  });
  return worst;
}

/// Blocks shorter, as long as and longer than kernels and inputs.
template <class Real>
double worst_of_all_sizes() {
  double worst = 0;
  for (index_t const length : {0, 1, 2, 3, 64, 65, 300}) {
    for (index_t const kernel_length : {0, 1, 7, 64, 65, 300, 999}) {
      auto const seed = static_cast<std::uint64_t>(1120 + length);
      auto const kernel = random_tensor<Real>({3, kernel_length}, seed);
      auto const x = random_tensor<Real>({2, length, 3}, seed + 1);
      sums<double, Real> const expected(kernel, x);
      for (index_t const block : {0, 1, 2, 8, 64, 1024}) {
        auto y = poisoned<Real>({2, length, 3});
        fft_convolution<Real>(parallel{2}, kernel, x, y, block);
        double const share = worst_share(y, expected, kernel, x,
                                         fft_convolution_bound(kernel_length, length, block));
        EXPECT_LE(share, 1) << "length " << length << ", kernel " << kernel_length << ", block "
                            << block << ", seed " << seed;
        worst = std::max(worst, share);
      }
    }
  }
  return worst;
}

TEST(FftConvolution, IsWithinItsBoundForEverySizeAndBlock) {
  std::cout << "largest error in its bound: float " << worst_of_all_sizes<float>() << ", double "
            << worst_of_all_sizes<double>() << '\n';
}

// The transform of an impulse is flat, so the kernel must come back where the impulse was.
TEST(FftConvolution, OfAnImpulseIsTheKernelThere) {
  index_t const length = 100000, at = 31234;
  auto const kernel = random_tensor<float>({1, length}, 1130);
  tensor<float, 3> x({1, length, 1}), y(x.extents());
  x(0, at, 0) = 1;
  fft_convolution<float>(sequential{}, kernel, x, y);
  double const bound =
      1.2e-7 * fft_convolution_bound(length, length) * norm<float>(kernel.view().select(0, 0));
  double worst = 0;
  for (index_t t = 0; t < length; ++t) {
    double const expected = t < at ? 0 : kernel(0, t - at);
    worst = std::max(worst, std::abs(double(y(0, t, 0)) - expected));
  }
  EXPECT_LE(worst, bound);
  std::cout << "largest error in its bound: " << worst / bound << '\n';
}

TEST(FftConvolution, GradientsAreWithinTheirBoundsOfTheSums) {
  using Real = double;
  for (index_t const length : {0, 1, 65, 200}) {
    for (index_t const kernel_length : {0, 1, 40, 65, 300}) {
      for (index_t const block : {0, 16}) {
        auto const kernel = random_tensor<Real>({3, kernel_length}, 1140);
        auto const x = random_tensor<Real>({2, length, 3}, 1141);
        auto const g = random_tensor<Real>({2, length, 3}, 1142);
        auto to_kernel = random_tensor<Real>({3, kernel_length}, 1143);
        auto to_x = random_tensor<Real>({2, length, 3}, 1144);
        auto kernel_sum = to_kernel;
        auto x_sum = to_x;
        fft_convolution_vjp<Real>(parallel{2}, kernel, x, g, to_kernel, to_x, block);
        causal_convolution_vjp<Real>(sequential{}, kernel, x, g, kernel_sum, x_sum);
        // The sums themselves are off by half an eps a term, and what is there rounds both once.
        double const eps = 2.3e-16, terms = static_cast<double>(length) / 2 + 2;
        for (index_t c = 0; c < 3; ++c) {
          double norms = 0, k = fft_convolution_bound(length, length, block) + 1 + terms;
          for (index_t b = 0; b < 2; ++b)
            norms += norm<Real>(g.view().select(2, c).select(0, b)) *
                     norm<Real>(x.view().select(2, c).select(0, b));
          for (index_t l = 0; l < kernel_length; ++l)
            EXPECT_NEAR(to_kernel(c, l), kernel_sum(c, l), eps * (k * norms + 1));
          k = fft_convolution_bound(kernel_length, length, block) + terms;
          for (index_t b = 0; b < 2; ++b) {
            norms = norm<Real>(g.view().select(2, c).select(0, b)) *
                    norm<Real>(kernel.view().select(0, c));
            for (index_t t = 0; t < length; ++t)
              EXPECT_NEAR(to_x(b, t, c), x_sum(b, t, c), eps * (k * norms + 1));
          }
        }
      }
    }
  }
}

TEST(FftConvolution, ThreadsAndStridesChangeNoBitAndYMayBeX) {
  auto const kernel = random_tensor<float>({5, 70}, 1150);
  auto const x = random_tensor<float>({2, 100, 5}, 1151);
  tensor<float, 3> expected(x.extents());
  fft_convolution<float>(sequential{}, kernel, x, expected, 32);
  tensor<float, 2> to_kernel(kernel.extents());
  fft_convolution_vjp<float>(sequential{}, kernel, x, expected, to_kernel, {});
  for (int const threads : {0, 2, 3, 7}) {
    tensor<float, 3> found(x.extents());
    fft_convolution<float>(parallel{threads}, kernel, x, found, 32);
    EXPECT_TRUE(has_same_bits(found, expected));
    tensor<float, 2> to(kernel.extents());
    fft_convolution_vjp<float>(parallel{threads}, kernel, x, expected, to, {});
    EXPECT_TRUE(has_same_bits(to, to_kernel));
  }
  scattered const far_kernel(kernel);
  scattered const in_place(x);
  fft_convolution<float>(parallel{2}, far_kernel, in_place, in_place, 32);
  EXPECT_TRUE(has_same_bits(materialized(in_place.view()), expected));
  EXPECT_EQ(in_place.overwritten(), 0);
}

TEST(FftConvolution, WrongShapesThrowAreNamedAndNothingIsWritten) {
  auto const kernel = random_tensor<float>({3, 9}, 1160);
  auto const x = random_tensor<float>({2, 5, 3}, 1161);
  auto y = poisoned<float>({2, 5, 3}), wrong = poisoned<float>({2, 4, 3});
  auto to_kernel = poisoned<float>({3, 9}), wrong_kernel = poisoned<float>({2, 9});
  auto const message = [&](auto const& call) {
    auto const text = message_of<shape_error>(call);
    EXPECT_TRUE(is_poisoned(y)) << text;
    EXPECT_TRUE(is_poisoned(to_kernel)) << text;
    return text;
  };
  EXPECT_EQ(message([&] { fft_convolution<float>(sequential{}, wrong_kernel, x, y); }),
            "fft_convolution: kernel has shape (2, 9), expected (3, 9) (channel, length)");
  EXPECT_EQ(message([&] { causal_convolution<float>(sequential{}, kernel, x, wrong); }),
            "causal_convolution: y has shape (2, 4, 3), expected (2, 5, 3) "
            "(batch, time, channel)");
  EXPECT_EQ(message([&] { fft_convolution<float>(sequential{}, kernel, x, y, 48); }),
            "fft_convolution: block is 48, expected 0 (from the shape) or a power of two up to "
            "268435456");
  EXPECT_EQ(message([&] { fft_convolution<float>(sequential{}, kernel, x, y, -2); }),
            "fft_convolution: block is -2, expected 0 (from the shape) or a power of two up to "
            "268435456");
  EXPECT_EQ(message([&] {
              fft_convolution<float>(sequential{}, kernel, x,
                                     y.view().select(0, 0).broadcast(0, 2));
            }),
            "fft_convolution: y has stride 0 along axis 0 of extent 2, expected elements of its "
            "own at every position");
  EXPECT_EQ(
      message([&] { fft_convolution_vjp<float>(sequential{}, kernel, x, x, to_kernel, wrong); }),
      "fft_convolution_vjp: x_gradient has shape (2, 4, 3), expected (2, 5, 3) "
      "(batch, time, channel)");
  EXPECT_EQ(
      message([&] { causal_convolution_vjp<float>(sequential{}, kernel, x, x, wrong_kernel, y); }),
      "causal_convolution_vjp: kernel_gradient has shape (2, 9), expected (3, 9) "
      "(channel, length)");
}

}  // namespace
