// SPDX-License-Identifier: Apache-2.0
// scalar_identity_test.cpp: heads and groups against the diagonal system they stand for.
#include "ssm/scalar_identity.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <cmath>
#include <complex>
#include <cstdint>
#include <sstream>
#include <string>
#include <type_traits>

#include "ssm/diagonal.hpp"
#include "ssm/scan.hpp"
#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

constexpr direction directions[] = {direction::forward, direction::backward};

struct layout {
  index_t batch, length, heads, head_dim, groups, states;

  index_t channels() const { return heads * head_dim; }
};

/// Inputs of scalar_identity, C for its contraction, and the cotangents that arrive.
template <scalar T>
struct problem {
  layout size;
  tensor<real_t<T>, 3> step_size, x, y_cotangent;  // (batch, time, head), (.., channel) twice
  tensor<T, 1> eigenvalue;                         // (head)
  tensor<T, 4> B, C;                               // (batch, time, group, state), (.., channel, ..)
  tensor<T, 3> initial, final_cotangent;

  index_t head(index_t c) const { return c / size.head_dim; }
  index_t group(index_t c) const { return c / (size.channels() / size.groups); }

  /// The same system with every value spelled out for every channel and state.
  diagonal_system<T> spelled_out() const {
    tensor<real_t<T>, 3> step(x.extents());
    tensor<T, 2> lambda({size.channels(), size.states});
    tensor<T, 4> wide_B(C.extents());
    for_each_position(C.extents(), [&](auto const& position) {
      auto const [b, t, c, n] = position.value;
      step(b, t, c) = step_size(b, t, head(c));
      wide_B(b, t, c, n) = B(b, t, group(c), n);
    });
    for_each_position(lambda.extents(), [&](auto const& position) {
      auto const [c, n] = position.value;
      lambda(c, n) = eigenvalue(head(c));
    });
    return {step, x, y_cotangent, lambda, wide_B, C, initial, final_cotangent};
  }
};

/// Stable for every rule: |z| < 0.75 and Re z < 0.
template <scalar T>
problem<T> random_problem(layout const& s, std::uint64_t seed) {
  using real = real_t<T>;
  auto eigenvalue = random_tensor<T>({s.heads}, seed, -1.5, 0);
  if constexpr (complex_scalar<T>) {
    for (T& lambda : eigenvalue) lambda = T(lambda.real(), lambda.imag() + real(0.75));
  }
  return {s,
          random_tensor<real>({s.batch, s.length, s.heads}, seed + 1, 0.1, 0.5),
          random_tensor<real>({s.batch, s.length, s.channels()}, seed + 2),
          random_tensor<real>({s.batch, s.length, s.channels()}, seed + 3),
          eigenvalue,
          random_tensor<T>({s.batch, s.length, s.groups, s.states}, seed + 4),
          random_tensor<T>({s.batch, s.length, s.channels(), s.states}, seed + 5),
          random_tensor<T>({s.batch, s.channels(), s.states}, seed + 6),
          random_tensor<T>({s.batch, s.channels(), s.states}, seed + 7)};
}

template <scalar T>
problem<wide<T>> widened(problem<T> const& p) {
  using ssm::test::widened;
  return {p.size,
          widened(p.step_size),
          widened(p.x),
          widened(p.y_cotangent),
          widened(p.eigenvalue),
          widened(p.B),
          widened(p.C),
          widened(p.initial),
          widened(p.final_cotangent)};
}

template <class Rule, scalar T>
scalar_identity<Rule, T> recurrence_of(problem<T> const& p) {
  return {.step_size = p.step_size, .eigenvalue = p.eigenvalue, .B = p.B, .x = p.x};
}

template <recurrence R>
tensor<typename R::value_type, 4> run(parallel policy, R const& recurrence,
                                      tensor<typename R::value_type, 3> carry) {
  auto const [batch, length, channels, states] = recurrence.shape();
  auto result = poisoned<typename R::value_type>({batch, length, channels, states});
  scan(policy, recurrence, store_states<typename R::value_type>{result}, carry.view());
  return result;
}

template <scalar T>
struct gradients {
  tensor<real_t<T>, 3> step_size, x;
  tensor<T, 1> eigenvalue;
  tensor<T, 4> B, C;
  tensor<T, 3> initial;
};

template <class Rule, scalar T>
gradients<T> run_vjp(parallel policy, problem<T> const& p, direction order) {
  using real = real_t<T>;
  gradients<T> to{tensor<real, 3>(p.step_size.extents()),
                  tensor<real, 3>(p.x.extents()),
                  tensor<T, 1>(p.eigenvalue.extents()),
                  tensor<T, 4>(p.B.extents()),
                  tensor<T, 4>(p.C.extents()),
                  p.final_cotangent};
  typename scalar_identity<Rule, T>::gradient const gradient{to.step_size, to.eigenvalue, to.B,
                                                             to.x};
  scan_vjp(policy, recurrence_of<Rule>(p), contract_vjp<T>{p.C, p.y_cotangent, to.C}, p.initial,
           to.initial, gradient, order);
  return to;
}

template <class Rule, scalar T>
real_t<T> loss(problem<T> const& p, direction order) {
  tensor<real_t<T>, 3> y(p.x.extents());
  tensor<T, 3> carry = p.initial;
  scan(parallel{1, 100}, recurrence_of<Rule>(p), contract<T>{p.C, y}, carry, order);
  return inner_product(p.y_cotangent, y) + inner_product(p.final_cotangent, carry);
}

std::string text(auto const&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

template <class Rule>
class ScalarIdentity : public ::testing::Test {};
using rules = ::testing::Types<zero_order_hold, mamba_hold, bilinear, forward_euler>;
TYPED_TEST_SUITE(ScalarIdentity, rules);

TYPED_TEST(ScalarIdentity, MapsAreThoseOfTheDiagonalSystemItStandsFor) {
  using W = complex50;
  for (layout const size : {layout{2, 3, 4, 3, 2, 2}, layout{1, 2, 4, 1, 4, 3},
                            layout{1, 2, 3, 2, 1, 1}, layout{1, 2, 1, 5, 1, 2}}) {
    auto const p = random_problem<W>(size, 800);
    auto const all = p.spelled_out();
    auto const recurrence = recurrence_of<TypeParam>(p);
    EXPECT_EQ(recurrence.shape(),
              (scan_shape{size.batch, size.length, size.channels(), size.states}));
    for_each_position(all.B.extents(), [&](auto const& position) {
      auto const [b, t, c, n] = position.value;
      auto const found = recurrence.at(b, t, c)(n);
      auto const expected = discretize(TypeParam{}, all.step_size(b, t, c), all.eigenvalue(c, n),
                                       all.B(b, t, c, n), all.x(b, t, c));
      EXPECT_EQ(found.decay, expected.decay) << to_string(position);
      EXPECT_LT(magnitude(W(found.drive - expected.drive)), 1e-48) << to_string(position);
    });
  }
}

template <class Rule, scalar T>
void expect_states_in_working_precision() {
  for (index_t const length : {0, 1, 4, 5, 6, 31}) {
    auto const p =
        random_problem<T>({2, length, 2, 2, 1, 2}, static_cast<std::uint64_t>(810 + length));
    map_errors const maps(Rule{}, ssm::test::widened(p.spelled_out()));
    auto const reference = reference_scan(maps.decay, maps.drive, ssm::test::widened(p.initial),
                                          maps.decay_error, maps.drive_error);
    for (index_t const chunk : {1, 5, 100}) {
      auto const found = run(parallel{2, chunk}, recurrence_of<Rule>(p), p.initial);
      EXPECT_TRUE(is_within(1, found, reference.states, reference.bound(eps_per_step<T>)))
          << "chunk " << chunk << ", seed " << 810 + length;
    }
  }
}

TYPED_TEST(ScalarIdentity, StatesAreWithinTheRoundingOfMapsAndStepsFrom50Digits) {
  expect_states_in_working_precision<TypeParam, float>();
}

TEST(ScalarIdentityComplex, StatesAreWithinTheRoundingOfMapsAndStepsFrom50Digits) {
  expect_states_in_working_precision<zero_order_hold, std::complex<double>>();
}

TYPED_TEST(ScalarIdentity, StepOfSizeZeroHoldsTheStateExactly) {
  auto p = random_problem<double>({2, 5, 2, 3, 1, 2}, 820);
  for (double& step : p.step_size) step = 0;
  auto const found = run(parallel{1, 100}, recurrence_of<TypeParam>(p), p.initial);
  EXPECT_TRUE(has_same_bits(found, materialized(p.initial.view().broadcast(1, 5))));
}

TYPED_TEST(ScalarIdentity, StridedAndBroadcastViewsGiveTheBitsOfContiguousOnes) {
  using T = double;
  auto p = random_problem<T>({2, 7, 4, 2, 2, 3}, 830);
  auto const shared = p.step_size.view().select(2, 1).broadcast(2, 4);  // one Δ for all heads
  auto const step = materialized(shared);
  p.step_size = step;
  auto const expected = run(parallel{1, 3}, recurrence_of<TypeParam>(p), p.initial);
  scattered const step_size(p.step_size), x(p.x);
  scattered const eigenvalue(p.eigenvalue);
  scattered const B(p.B);
  scalar_identity<TypeParam, T> const strided{
      .step_size = step_size, .eigenvalue = eigenvalue, .B = B, .x = x};
  EXPECT_TRUE(has_same_bits(run(parallel{1, 3}, strided, p.initial), expected));
  auto const twin = random_problem<T>({2, 7, 4, 2, 2, 3}, 830);
  auto broadcast = recurrence_of<TypeParam>(p);
  broadcast.step_size = twin.step_size.view().select(2, 1).broadcast(2, 4);
  EXPECT_TRUE(has_same_bits(run(parallel{1, 3}, broadcast, p.initial), expected));
}

template <class Rule, class W>
void expect_gradients_of_differences() {
  for (direction const order : directions) {
    auto p = random_problem<W>({1, 3, 4, 2, 2, 2}, 840);
    auto const found = run_vjp<Rule>(parallel{1, 2}, p, order);
    auto const of_loss = [&] { return loss<Rule>(p, order); };
    char const* const tolerance = "1e-28";
    EXPECT_TRUE(is_near(found.step_size, gradient_by_differences(p.step_size, of_loss), tolerance));
    EXPECT_TRUE(
        is_near(found.eigenvalue, gradient_by_differences(p.eigenvalue, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.B, gradient_by_differences(p.B, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.x, gradient_by_differences(p.x, of_loss), tolerance));
    EXPECT_TRUE(is_near(found.initial, gradient_by_differences(p.initial, of_loss), tolerance));
  }
}

TYPED_TEST(ScalarIdentity, EveryGradientIsThatOfDifferencesIn50Digits) {
  expect_gradients_of_differences<TypeParam, digits50>();
  expect_gradients_of_differences<TypeParam, complex50>();
}

/// Σ|terms| for each head and group: the sum over what the diagonal system has for each channel.
template <class Rule, class W>
struct head_terms {
  tensor<digits50, 3> step_size;
  tensor<digits50, 1> eigenvalue;
  tensor<digits50, 4> B;
  gradient_terms of_channels;

  head_terms(problem<W> const& p, direction order)
      : step_size{p.step_size.extents()},
        eigenvalue{p.eigenvalue.extents()},
        B{p.B.extents()},
        of_channels(Rule{}, p.spelled_out(), order) {
    for_each_position(p.x.extents(), [&](auto const& position) {
      auto const [b, t, c] = position.value;
      step_size(b, t, p.head(c)) += of_channels.step_size(b, t, c);
      for (index_t n = 0; n < p.size.states; ++n) {
        B(b, t, p.group(c), n) += of_channels.B(b, t, c, n);
      }
    });
    for_each_position(of_channels.eigenvalue.extents(), [&](auto const& position) {
      auto const [c, n] = position.value;
      eigenvalue(p.head(c)) += of_channels.eigenvalue(c, n);
    });
  }
};

/// As in diagonal_test: 4 and 2 for each step of scan_vjp, 3 for each discretized step (12 if
/// complex), and half an eps for each term of the longest sum, that over a head and all times.
template <class Rule, scalar T>
void expect_gradients_in_working_precision() {
  for (index_t const length : {0, 1, 4, 5, 6, 13}) {
    layout const size{2, length, 4, 2, 2, 2};
    auto const p = random_problem<T>(size, static_cast<std::uint64_t>(850 + length));
    double const rule = complex_scalar<T> ? 12 : 3;
    auto const steps = static_cast<double>(length);
    double const sum =
        static_cast<double>(size.batch * length * size.head_dim * size.states + size.channels()) /
        2;
    double const k = 4 + 2 * rule + (2 + rule) * steps + sum;
    for (direction const order : directions) {
      auto const expected = run_vjp<Rule>(parallel{1, 100}, widened(p), order);
      head_terms<Rule, wide<T>> const terms(widened(p), order);
      for (index_t const chunk : {1, 5, 100}) {
        SCOPED_TRACE(text("length ", length, ", chunk ", chunk, ", seed ", 850 + length));
        auto const found = run_vjp<Rule>(parallel{2, chunk}, p, order);
        EXPECT_TRUE(is_within(k, found.step_size, expected.step_size, terms.step_size))
            << "step_size";
        EXPECT_TRUE(is_within(k, found.eigenvalue, expected.eigenvalue, terms.eigenvalue))
            << "eigenvalue";
        EXPECT_TRUE(is_within(k, found.B, expected.B, terms.B)) << "B";
        EXPECT_TRUE(is_within(k, found.x, expected.x, terms.of_channels.x)) << "x";
        EXPECT_TRUE(is_within(k, found.C, expected.C, terms.of_channels.C)) << "C";
        EXPECT_TRUE(is_within(k, found.initial, expected.initial, terms.of_channels.initial))
            << "initial";
      }
    }
  }
}

TYPED_TEST(ScalarIdentity, EveryGradientIsWithinItsBoundOf50DigitsForEverySize) {
  expect_gradients_in_working_precision<TypeParam, double>();
}

TEST(ScalarIdentityComplex, EveryGradientIsWithinItsBoundOf50DigitsForEverySize) {
  expect_gradients_in_working_precision<zero_order_hold, std::complex<double>>();
}

TEST(ScalarIdentityGradient, ThreadsChangeNoBit) {
  auto const p = random_problem<double>({2, 37, 4, 2, 2, 2}, 860);
  for (direction const order : directions) {
    auto const expected = run_vjp<mamba_hold>(parallel{1, 5}, p, order);
    for (int const threads : {2, 3, 7}) {
      auto const found = run_vjp<mamba_hold>(parallel{threads, 5}, p, order);
      SCOPED_TRACE(text("threads ", threads));
      EXPECT_TRUE(has_same_bits(found.step_size, expected.step_size));
      EXPECT_TRUE(has_same_bits(found.eigenvalue, expected.eigenvalue));
      EXPECT_TRUE(has_same_bits(found.B, expected.B));
      EXPECT_TRUE(has_same_bits(found.x, expected.x));
      EXPECT_TRUE(has_same_bits(found.C, expected.C));
      EXPECT_TRUE(has_same_bits(found.initial, expected.initial));
    }
  }
}

TEST(ScalarIdentityGradient, IsAddedToWhatIsThereAndSummedOverStrideZero) {
  using W = digits50;
  auto const p = random_problem<W>({2, 5, 4, 2, 2, 3}, 870);
  auto const once = run_vjp<bilinear>(parallel{1, 100}, p, direction::forward);
  auto B = once.B;                    // twice the gradient
  tensor<W, 2> step_size({2, 4}, 1);  // 1 and its sum over time
  tensor<W, 1> eigenvalue({1});       // its sum over heads
  auto carry = p.final_cotangent;
  scan_vjp(
      parallel{2, 2}, recurrence_of<bilinear>(p), contract_vjp<W>{p.C, p.y_cotangent, {}},
      p.initial, carry,
      {step_size.view().broadcast(1, 5), tensor_view<W, 1>{eigenvalue.data(), {4}, {0}}, B, {}});
  for_each_position(B.extents(), [&](auto const& position) {
    W const expected = 2 * at(once.B.view(), position);
    EXPECT_LT(magnitude(W(at(B.view(), position) - expected)), 1e-46) << to_string(position);
  });
  tensor<W, 2> expected_step({2, 4}, 1);
  W expected_eigenvalue = 0;
  for_each_position(once.step_size.extents(), [&](auto const& position) {
    auto const [b, t, head] = position.value;
    expected_step(b, head) += once.step_size(b, t, head);
  });
  for (W const& g : once.eigenvalue) expected_eigenvalue += g;
  EXPECT_TRUE(is_near(step_size, expected_step, "1e-46"));
  EXPECT_LT(magnitude(W(eigenvalue(0) - expected_eigenvalue)), 1e-46);
  EXPECT_TRUE(is_near(carry, once.initial, "1e-46"));
}

// Of one head: Y = M X with M = L ∘ (C Bᵀ), L_ts = Π_{k=s+1..t} decay_k (Dao & Gu, eq. 16), B
// times the drive's Δ. All channels of a head share M.
TEST(ScalarIdentityDense, OutputOfAHeadIsTheMaskedProductOfCAndBTimesItsInputs) {
  using T = double;
  index_t const length = 13, states = 4, head_dim = 3;
  auto p = random_problem<T>({1, length, 1, head_dim, 1, states}, 880);
  auto const C = random_tensor<T>({1, length, 1, states}, 881);
  for (T& h : p.initial) h = 0;
  auto y = poisoned<T>({1, length, head_dim});
  contract<T> const readout{C.view().select(2, 0).broadcast(2, head_dim), y};
  scan(parallel{1, 4}, recurrence_of<mamba_hold>(p), readout, p.initial);

  Eigen::MatrixXd mask = Eigen::MatrixXd::Zero(length, length), scores = mask, sizes = mask;
  Eigen::MatrixXd X(length, head_dim);
  for (index_t t = 0; t < length; ++t) {
    for (index_t c = 0; c < head_dim; ++c) X(t, c) = p.x(0, t, c);
    double product = 1;
    for (index_t s = t; s >= 0; --s) {
      mask(t, s) = product * p.step_size(0, s, 0);
      product *= std::exp(p.step_size(0, s, 0) * p.eigenvalue(0));
      for (index_t n = 0; n < states; ++n) {
        scores(t, s) += C(0, t, 0, n) * p.B(0, s, 0, n);
        sizes(t, s) += std::abs(C(0, t, 0, n) * p.B(0, s, 0, n));
      }
    }
  }
  Eigen::MatrixXd const expected = mask.cwiseProduct(scores) * X;
  Eigen::MatrixXd const terms = mask.cwiseProduct(sizes) * X.cwiseAbs();
  // Either way: up to three roundings for each of `length` steps, and the sums over time and state.
  double const bound =
      static_cast<double>(4 * length + states + 4) * std::numeric_limits<T>::epsilon();
  for (index_t t = 0; t < length; ++t)
    for (index_t c = 0; c < head_dim; ++c) {
      EXPECT_NEAR(y(0, t, c), expected(t, c), bound * terms(t, c)) << t << ", " << c;
    }
}

TEST(ScalarIdentityErrors, ViewsThatDisagreeThrowAndAreNamed) {
  using T = double;
  auto const p = random_problem<T>({2, 5, 4, 3, 2, 2}, 890);
  using system = scalar_identity<mamba_hold, T>;
  auto const message = [&](auto const& change) {
    system r = recurrence_of<mamba_hold>(p);
    change(r);
    return message_of<shape_error>([&] { r.shape(); });
  };
  EXPECT_EQ(message([](system&) {}), "no exception");
  EXPECT_EQ(message([](system& r) { r.step_size = r.step_size.slice(1, 0, 4); }),
            "scalar_identity: step_size has shape (2, 4, 4), expected (2, 5, 4) "
            "(batch, time, head)");
  EXPECT_EQ(message([](system& r) { r.B = r.B.slice(0, 0, 1); }),
            "scalar_identity: B has shape (1, 5, 2, 2), expected (2, 5, 2, 2) "
            "(batch, time, group, state)");
  EXPECT_EQ(message([](system& r) { r.x = r.x.slice(2, 0, 11); }),
            "scalar_identity: x has 11 channels, expected a multiple of the 4 heads of eigenvalue");
  EXPECT_EQ(message([](system& r) {
              r.eigenvalue = r.eigenvalue.slice(0, 0, 3);
              r.step_size = r.step_size.slice(2, 0, 3);
            }),
            "scalar_identity: eigenvalue has 3 heads, expected a multiple of the 2 groups of B");
  EXPECT_EQ(message([](system& r) {
              r.eigenvalue = {};
              r.step_size = r.step_size.slice(2, 0, 0);
            }),
            "scalar_identity: x has 12 channels, expected a multiple of the 0 heads of eigenvalue");
  EXPECT_EQ(message([](system& r) { r.B = r.B.slice(2, 0, 0); }),
            "scalar_identity: eigenvalue has 4 heads, expected a multiple of the 0 groups of B");
}

TEST(ScalarIdentityErrors, GradientsOfWrongShapeThrowAreNamedAndNothingIsWritten) {
  using T = double;
  auto const p = random_problem<T>({2, 5, 4, 3, 2, 2}, 900);
  auto of_channels = poisoned<T>({2, 5, 12}), carry = poisoned<T>({2, 12, 2});
  auto of_states = poisoned<T>({2, 5, 12, 2});
  auto wrong_eigenvalue = poisoned<T>({12});
  using gradient = scalar_identity<mamba_hold, T>::gradient;
  auto const message = [&](gradient const& to) {
    auto const found = message_of<shape_error>([&] {
      scan_vjp(parallel{}, recurrence_of<mamba_hold>(p), discard_vjp<T>{}, p.initial, carry, to);
    });
    EXPECT_TRUE(is_poisoned(of_channels)) << found;
    EXPECT_TRUE(is_poisoned(carry)) << found;
    return found;
  };
  EXPECT_EQ(message({of_channels, {}, {}, of_channels}),
            "scalar_identity: gradient.step_size has shape (2, 5, 12), expected (2, 5, 4) "
            "(batch, time, head)");
  EXPECT_EQ(message({{}, wrong_eigenvalue, {}, of_channels}),
            "scalar_identity: gradient.eigenvalue has shape (12), expected (4) (head)");
  EXPECT_EQ(message({{}, {}, of_states, of_channels}),
            "scalar_identity: gradient.B has shape (2, 5, 12, 2), expected (2, 5, 2, 2) "
            "(batch, time, group, state)");
  EXPECT_EQ(message({{}, {}, {}, of_channels.view().slice(2, 0, 4)}),
            "scalar_identity: gradient.x has shape (2, 5, 4), expected (2, 5, 12) "
            "(batch, time, channel)");
}

}  // namespace
