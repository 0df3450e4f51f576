// SPDX-License-Identifier: Apache-2.0
// readout_test.cpp: what each readout makes of the states, and the cotangent it hands back.
#include "ssm/readout.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstdint>
#include <string>
#include <type_traits>

#include "support/oracle.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

/// Hand every state to the readout, as scan does.
template <class Readout, scalar T>
void read_all(Readout const& readout, tensor<T, 4> const& states) {
  for (index_t b = 0; b < states.extent(0); ++b)
    for (index_t t = 0; t < states.extent(1); ++t)
      for (index_t c = 0; c < states.extent(2); ++c) {
        auto collect = readout.at(b, t, c);
        for (index_t n = 0; n < states.extent(3); ++n) collect(n, states(b, t, c, n));
        collect.finish();
      }
}

struct no_finish {
  void require_shape_for(index_t, index_t, index_t, index_t) const {}
  struct collector {
    void operator()(index_t, double) const {}
  };
  collector at(index_t, index_t, index_t) const { return {}; }
};

TEST(Readout, NeedsACollectorThatFinishes) {
  EXPECT_TRUE((readout<discard, float>));
  EXPECT_TRUE((readout<discard, complex50>));
  EXPECT_TRUE((readout<store_states<double>, double>));
  EXPECT_TRUE((readout<contract<std::complex<float>>, std::complex<float>>));
  EXPECT_TRUE((readout<squared_norm<double>, double>));
  EXPECT_FALSE((readout<no_finish, double>));
  EXPECT_FALSE((readout_vjp<discard, double>));
  EXPECT_TRUE((readout_vjp<discard_vjp<double>, double>));
  EXPECT_FALSE((readout_vjp<discard_vjp<double>, float>));
}

TEST(Readout, KernelsMayTakeThemByValue) {
  EXPECT_TRUE((std::is_trivially_copyable_v<contract<float, memory::device>>));
  EXPECT_TRUE((std::is_trivially_copyable_v<store_states<float>>));
  EXPECT_TRUE((std::is_trivially_copyable_v<squared_norm<float>>));
}

template <class T>
class Readouts : public ::testing::Test {
 public:
  tensor<T, 4> states = random_tensor<T>({2, 5, 3, 7}, 1);
  tensor<T, 4> C = random_tensor<T>({2, 5, 3, 7}, 2);
  tensor<T, 4> states_cotangent = random_tensor<T>({2, 5, 3, 7}, 3);
  tensor<real_t<T>, 3> cotangent = random_tensor<real_t<T>>({2, 5, 3}, 4);
};
using scalars = ::testing::Types<float, double, std::complex<double>>;
TYPED_TEST_SUITE(Readouts, scalars);

TYPED_TEST(Readouts, StoreStatesKeepsEveryStateAsItIs) {
  auto kept = poisoned<TypeParam>({2, 5, 3, 7});
  read_all(store_states<TypeParam>{kept}, this->states);
  EXPECT_EQ(kept, this->states);
}

// A product and a sum over n: n roundings of half an eps, a few more in a complex product.
TYPED_TEST(Readouts, ContractIsTheRealPartOfTheSumOverStates) {
  using T = TypeParam;
  auto y = poisoned<real_t<T>>({2, 5, 3});
  read_all(contract<T>{this->C, y}, this->states);
  tensor<digits50, 3> expected({2, 5, 3}), terms({2, 5, 3});
  for_each_position(this->states.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    wide<T> const factor = widened(this->C(b, t, c, n)), h = widened(this->states(b, t, c, n));
    expected(b, t, c) += real_part(wide<T>(factor * h));
    terms(b, t, c) += magnitude(factor) * magnitude(h);
  });
  EXPECT_TRUE(is_within(7 / 2.0 + 1, y, expected, terms));
}

TYPED_TEST(Readouts, ContractWithBroadcastCEqualsTheMaterializedOneBitForBit) {
  using T = TypeParam;
  auto const shared = this->C.view().select(2, 1).broadcast(2, 3);
  auto const repeated = materialized(shared);
  auto y = poisoned<real_t<T>>({2, 5, 3}), expected = y;
  read_all(contract<T>{shared, y}, this->states);
  read_all(contract<T>{repeated, expected}, this->states);
  EXPECT_TRUE(has_same_bits(y, expected));
}

TYPED_TEST(Readouts, SquaredNormIsTheSumOfSquaredMagnitudes) {
  using T = TypeParam;
  auto found = poisoned<real_t<T>>({2, 5, 3});
  read_all(squared_norm<T>{found}, this->states);
  tensor<digits50, 3> expected({2, 5, 3});
  for_each_position(this->states.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    expected(b, t, c) += squared_magnitude(widened(this->states(b, t, c, n)));
  });
  EXPECT_TRUE(is_within(7 / 2.0 + 1, found, expected, expected));
}

TYPED_TEST(Readouts, NoStatesGiveZeroRatherThanNothing) {
  using T = TypeParam;
  tensor<T, 4> const none({2, 5, 3, 0});
  auto y = poisoned<real_t<T>>({2, 5, 3}), e = y;
  read_all(contract<T>{none, y}, none);
  read_all(squared_norm<T>{e}, none);
  for (auto const& value : y) EXPECT_EQ(value, 0);
  for (auto const& value : e) EXPECT_EQ(value, 0);
}

TYPED_TEST(Readouts, CotangentsOfAStateAreThoseOfTheDefinition) {
  using T = TypeParam;
  for_each_position(this->states.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    T const h = this->states(b, t, c, n);
    real_t<T> const g = this->cotangent(b, t, c);
    contract_vjp<T> const of_contract{this->C, this->cotangent, {}};
    squared_norm_vjp<T> const of_norm{this->cotangent};
    store_states_vjp<T> const of_states{this->states_cotangent};
    EXPECT_EQ(of_contract.at(b, t, c)(n, h), conjugate(this->C(b, t, c, n)) * g);
    EXPECT_EQ(of_norm.at(b, t, c)(n, h), h * (real_t<T>(2) * g));
    EXPECT_EQ(of_states.at(b, t, c)(n, h), this->states_cotangent(b, t, c, n));
    EXPECT_EQ(discard_vjp<T>{}.at(b, t, c)(n, h), T(0));
  });
}

TYPED_TEST(Readouts, ContractPullsItsCotangentBackToC) {
  using T = TypeParam;
  auto const start = random_tensor<T>({2, 5, 3, 7}, 5);
  auto found = start;
  contract_vjp<T>{this->C, this->cotangent, found}.pull_back(2, whole(5, direction::backward),
                                                             this->states);
  for_each_position(start.extents(), [&](auto const& position) {
    auto const [b, t, c, n] = position.value;
    wide<T> const there = widened(start(b, t, c, n)), h = widened(this->states(b, 4 - t, c, n));
    digits50 const g = widened(this->cotangent(b, t, c));
    EXPECT_TRUE(is_within(1, found(b, t, c, n), wide<T>(there + conjugate(h) * g),
                          digits50(magnitude(there) + magnitude(h) * magnitude(g))))
        << to_string(position);
  });
}

TEST(ReadoutErrors, ViewsThatDoNotFitTheRecurrenceThrowAndAreNamed) {
  using T = double;
  tensor<T, 4> four({2, 5, 3, 7});
  tensor<T, 3> three({2, 5, 3});
  auto const message = [](auto const& readout, index_t channels, index_t states) {
    return message_of<shape_error>([&] { readout.require_shape_for(2, 5, channels, states); });
  };
  contract<T> const c{four, three};
  EXPECT_EQ(message(c, 3, 7), "no exception");
  EXPECT_EQ(message(c, 3, 6),
            "contract: C has shape (2, 5, 3, 7), expected (2, 5, 3, 6) "
            "(batch, time, channel, state)");
  EXPECT_EQ(message(contract<T>{four.view().slice(2, 0, 2), three}, 2, 7),
            "contract: y has shape (2, 5, 3), expected (2, 5, 2) (batch, time, channel)");
  EXPECT_EQ(message(squared_norm<T>{three}, 4, 7),
            "squared_norm: energy has shape (2, 5, 3), expected (2, 5, 4) (batch, time, channel)");
  EXPECT_EQ(message(squared_norm<T>{three}, 3, 99), "no exception");
  EXPECT_EQ(message(store_states<T>{four}, 3, 8),
            "store_states: states has shape (2, 5, 3, 7), expected (2, 5, 3, 8) "
            "(batch, time, channel, state)");
  EXPECT_EQ(message(contract_vjp<T>{four, three, {}}, 3, 7), "no exception");
  EXPECT_EQ(message(contract_vjp<T>{four, three, {}}, 3, 6),
            "contract_vjp: C has shape (2, 5, 3, 7), expected (2, 5, 3, 6) "
            "(batch, time, channel, state)");
  EXPECT_EQ(message(discard{}, 1, 1), "no exception");
}

}  // namespace
