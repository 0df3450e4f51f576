// SPDX-License-Identifier: Apache-2.0
// recurrent_state_test.cpp: a decoder that is saved, restored or rolled back at any token goes on
// with the same bits.
#include "ssm/recurrent_state.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <limits>
#include <utility>
#include <vector>

#include "ssm/causal_conv1d.hpp"

#include "compiled/selective_scan.hpp"
#include "compiled/state_space_dual.hpp"
#include "support/random_tensor.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;
using ssm::detail::same_bits;

using bytes = std::vector<std::byte>;

template <class T, int Rank>
tensor<T, Rank> stored(tensor<accumulator_t<T>, Rank> const& from) {
  tensor<T, Rank> result(from.extents());
  for (index_t i = 0; i < from.size(); ++i) result.data()[i] = static_cast<T>(from.data()[i]);
  return result;
}

constexpr index_t batch = 2, length = 60, channels = 6, states = 5, width = 4;
constexpr index_t heads = 3, head_dim = 2;  // of Mamba-2: heads · head_dim = channels

/// A block of Mamba-1 (StateRank 3) or Mamba-2 (4) without its projections, and its tokens.
template <class T, int StateRank>
struct block {
  using real = accumulator_t<T>;
  using state = recurrent_state<T, StateRank>;
  static constexpr bool is_dual = StateRank == 4;
  static constexpr index_t steps = is_dual ? heads : channels;

  tensor<T, 3> x = stored<T>(random_tensor<real>({batch, length, channels}, 1, -2, 2));
  tensor<T, 3> step_size = stored<T>(random_tensor<real>({batch, length, steps}, 2, -3, 1));
  tensor<T, 4> B = stored<T>(random_tensor<real>({batch, length, 1, states}, 3));
  tensor<T, 4> C = stored<T>(random_tensor<real>({batch, length, 1, states}, 4));
  tensor<real, 2> weight = random_tensor<real>({channels, width}, 5);
  tensor<real, 2> eigenvalue = random_tensor<real>({channels, states}, 6, -2, -0.1);

  state start() const {
    if constexpr (is_dual) {
      return {tensor<T, 3>({batch, channels, width - 1}),
              tensor<real, 4>({batch, heads, head_dim, states})};
    } else {
      return {tensor<T, 3>({batch, channels, width - 1}),
              tensor<real, 3>({batch, channels, states})};
    }
  }

  /// y of the `count` tokens from the state's position on.
  template <class Policy>
  tensor<T, 3> advance(Policy policy, state& at, index_t count) const {
    auto const cut = [&](auto const& from) { return from.view().slice(1, at.position, count); };
    tensor<T, 3> u({batch, count, channels}), y({batch, count, channels});
    causal_conv1d(
        policy,
        causal_conv1d_inputs<T>{.x = cut(x), .weight = weight, .activation = activation::silu},
        at.conv, u);
    if constexpr (is_dual) {
      index_array<4> const shape{batch, count, heads, head_dim};
      state_space_dual(policy,
                       state_space_dual_inputs<T>{.x = {u.data(), shape},
                                                  .step_size = cut(step_size),
                                                  .eigenvalue = {eigenvalue.data(), {heads}},
                                                  .B = cut(B),
                                                  .C = cut(C)},
                       at.ssm, {y.data(), shape});
    } else {
      selective_scan(policy,
                     selective_scan_inputs<T>{.x = u,
                                              .step_size = cut(step_size),
                                              .eigenvalue = eigenvalue,
                                              .B = cut(B),
                                              .C = cut(C)},
                     at.ssm, y);
    }
    at.position += count;
    return y;
  }
};

template <class T, int StateRank, class Policy>
void expect_saving_changes_nothing(Policy policy) {
  block<T, StateRank> const model;
  auto whole = model.start();
  auto parts = model.start();
  for (index_t const count : {31, 0, 17, 1, 1, 1, 2, 1, 1}) {
    bytes const saved = to_bytes(parts);
    parts = {};
    auto restored = from_bytes<recurrent_state<T, StateRank>>(saved);
    auto const y = model.advance(policy, restored, count);
    parts = std::move(restored);
    EXPECT_TRUE(same_bits(y, model.advance(policy, whole, count))) << "at " << whole.position;
    EXPECT_TRUE(parts == whole) << "at " << whole.position;
  }
  EXPECT_EQ(parts.position, 55);
  EXPECT_FALSE(parts == model.start());
}

TEST(RecurrentState, SavedAndRestoredBetweenAnyTwoCallsItDecodesTheSameBits) {
  expect_saving_changes_nothing<float, 3>(sequential{});
  expect_saving_changes_nothing<float, 3>(parallel{.threads = 2});
  expect_saving_changes_nothing<bfloat16, 4>(parallel{.threads = 2});
  expect_saving_changes_nothing<double, 4>(chunked{.length = 4});
}

template <class T, int StateRank>
void expect_tokens_repeat_after_roll_back() {
  block<T, StateRank> const model;
  parallel const policy{.threads = 1};
  auto at = model.start();
  model.advance(policy, at, 37);
  index_t const capacity = 5;
  state_history<decltype(at)> history{capacity};
  for (index_t rejected = 1; rejected <= capacity; ++rejected) {
    auto const before = at;
    auto const draft = [&] {
      std::vector<tensor<T, 3>> y;
      for (index_t k = 0; k < rejected; ++k) {
        history.remember(at);
        y.push_back(model.advance(policy, at, 1));
      }
      return y;
    };
    auto const first = draft();
    auto const after = at;
    history.roll_back(at, rejected);
    EXPECT_TRUE(at == before) << rejected;
    auto const second = draft();
    for (std::size_t k = 0; k < first.size(); ++k) EXPECT_TRUE(same_bits(first[k], second[k])) << k;
    EXPECT_TRUE(at == after) << rejected;
  }
}

TEST(StateHistory, RejectedTokensDecodedAgainHaveTheSameBits) {
  expect_tokens_repeat_after_roll_back<float, 3>();
  expect_tokens_repeat_after_roll_back<bfloat16, 4>();
}

TEST(RecurrentState, CopiesAreIndependentAndEqualBitForBit) {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  recurrent_state<float, 3> const original{tensor<float, 3>({1, 2, 3}, 0.0f),
                                           tensor<float, 3>({1, 2, 2}, nan), 7};
  auto const differs_after = [&](auto const& change) {
    auto copy = original;
    EXPECT_TRUE(copy == original);  // though NaN is not NaN
    change(copy);
    return !(copy == original);
  };
  EXPECT_TRUE(differs_after([](auto& s) { s.conv(0, 1, 2) = -0.0f; }));
  EXPECT_TRUE(differs_after([](auto& s) { s.ssm(0, 0, 1) = 0; }));
  EXPECT_TRUE(differs_after([](auto& s) { ++s.position; }));
  EXPECT_TRUE(differs_after([](auto& s) { s.conv = tensor<float, 3>({1, 3, 2}); }));
  EXPECT_FALSE(differs_after([](auto&) {}));
}

TEST(StateHistory, IsAStackThatForgetsItsOldest) {
  std::uint64_t const seed = 7;
  random_stream const random{seed};
  for (index_t capacity = 1; capacity <= 4; ++capacity) {
    state_history<index_t> history{capacity};
    std::deque<index_t> expected;  // the newest last
    for (index_t i = 0; i < 400; ++i) {
      if (random.bits(2 * i) % 3 != 0) {
        history.remember(i);
        expected.push_back(i);
        if (static_cast<index_t>(expected.size()) > capacity) expected.pop_front();
      } else {
        std::size_t const steps = random.bits(2 * i + 1) % (expected.size() + 1);
        index_t state = -1;
        history.roll_back(state, static_cast<index_t>(steps));
        EXPECT_EQ(state, steps == 0 ? -1 : expected[expected.size() - steps]) << seed << ' ' << i;
        expected.resize(expected.size() - steps);
      }
      ASSERT_EQ(history.size(), static_cast<index_t>(expected.size())) << seed << ' ' << i;
    }
  }
}

TEST(StateHistory, RefusesStepsItDoesNotHaveAndChangesNothing) {
  EXPECT_THROW(state_history<index_t>{0}, shape_error);
  state_history<index_t> history{std::numeric_limits<index_t>::max()};
  for (index_t state : {10, 11, 12}) history.remember(state);
  index_t state = 13;
  EXPECT_THROW(history.roll_back(state, -1), shape_error);
  try {
    history.roll_back(state, 4);
    ADD_FAILURE() << "rolled back 4 of 3";
  } catch (shape_error const& error) {
    EXPECT_STREQ(error.what(),
                 "state_history: steps to roll back are 4, expected 0 to the 3 that are kept");
  }
  EXPECT_EQ(state, 13);
  history.roll_back(state, 3);
  EXPECT_EQ(state, 10);
  EXPECT_EQ(history.size(), 0);
}

TEST(StateHistory, ViewsIntoAStateThatIsRolledBackStayValid) {
  recurrent_state<float, 3> state{random_tensor<float>({1, 2, 3}, 1),
                                  random_tensor<float>({1, 2, 4}, 2)};
  auto const before = state;
  float const* const elements = state.ssm.data();
  state_history<decltype(state)> history{2};
  history.remember(state);
  for (float& element : state.ssm) element = 5;
  history.roll_back(state, 1);
  EXPECT_TRUE(state == before);
  EXPECT_EQ(state.ssm.data(), elements);
}

}  // namespace
