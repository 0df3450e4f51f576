// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_test.cpp: the convolution against its formula in 50 digits, under every policy,
// cut anywhere, packed or apart.
#include "ssm/causal_conv1d.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "support/causal_conv1d_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::test;

template <class T>
void expect_same_bits(conv_outcome<T> const& found, conv_outcome<T> const& expected) {
  EXPECT_TRUE(has_same_bits(found.y, expected.y)) << "y";
  EXPECT_TRUE(has_same_bits(found.carry, expected.carry)) << "carry";
}

/// y within the stated bound, the carry exactly.
template <class T, class W>
void expect_within_bound(conv_outcome<T> const& found, conv_problem<W> const& p,
                         conv_truth<W> const& truth) {
  EXPECT_LE(worst_ratio(found.y, truth.y, conv_rounding(p, truth)), 1) << p.name();
  if (!p.options.carry) return;
  EXPECT_TRUE(has_same_bits(converted<W>(found.carry), truth.carry)) << p.name();
}

TEST(CausalConv1d, ReferenceIsTheFormulaIn50DigitsForEveryWidthAndOption) {
  for (index_t width = 1; width <= 8; ++width) {
    for (conv_options const& options : all_conv_options()) {
      auto const p = random_conv<digits50>({2, 6, 1}, width, options, 100);
      auto found = run_conv(sequential{}, p);
      auto const truth = conv_by_formula(p);
      auto bound = conv_rounding(p, truth);
      for (digits50& element : bound) element *= 2;  // the formula is rounded as well
      EXPECT_LE(worst_ratio(found.y, truth.y, bound), 1) << p.name();
      if (!options.carry) continue;
      EXPECT_TRUE(has_same_bits(found.carry, truth.carry)) << p.name();
    }
  }
}

TEST(CausalConv1d, DoubleIsWithinTheBoundOf50Digits) {
  for (index_t width = 1; width <= 8; ++width) {
    auto const p = random_conv<double>({1, 11, 5}, width, {.packed = width % 2 == 0}, 200);
    auto const exact = converted_problem<digits50>(p);
    auto const truth = conv_by_formula(exact);
    expect_within_bound(run_conv(sequential{}, p), exact, truth);
    expect_within_bound(run_conv(parallel{}, p), exact, truth);
  }
}

TEST(CausalConv1d, FloatIsWithinTheBoundForEveryWidthAndOptionAndInstructionSet) {
  for (index_t width = 1; width <= 8; ++width) {
    for (conv_options const& options : all_conv_options()) {
      auto const p = random_conv<float>({2, 13, 37}, width, options, 300);
      auto const exact = converted_problem<double>(p);
      auto const truth = conv_by_formula(exact);
      expect_within_bound(run_conv(sequential{}, p), exact, truth);
      for (auto const set : {instruction_set::baseline, instruction_set::avx2,
                             instruction_set::avx512, instruction_set::widest}) {
        expect_within_bound(run_conv(parallel{1, 5, set}, p), exact, truth);
      }
    }
  }
}

TEST(CausalConv1d, SeveralBlocksOfChannelsAreWithinTheBound) {
  for (index_t const channels : {255, 256, 257, 600}) {
    auto const p = random_conv<float>({1, 9, channels}, 4, {.packed = true}, 400);
    auto const exact = converted_problem<double>(p);
    expect_within_bound(run_conv(parallel{}, p), exact, conv_by_formula(exact));
  }
}

/// One call for each part of time: [0, cut), [cut, length) or, without a cut, single steps. Where a
/// part begins a sequence, its carry is zeros.
template <class Policy, class T>
conv_outcome<T> run_in_parts(Policy policy, conv_problem<T> const& p, index_t cut) {
  conv_outcome<T> result{tensor<T, 3>(p.shape), p.initial};
  auto const run = [&](index_t first, index_t count) {
    for (index_t b = 0; b < p.shape[0]; ++b) {
      if (p.options.packed && count > 0 && starts_sequence(p.sequence, b, first)) {
        for (index_t c = 0; c < p.shape[2]; ++c)
          for (index_t j = 0; j + 1 < p.width; ++j) result.carry(b, c, j) = T(0);
      }
    }
    auto part = p.inputs();
    part.x = part.x.slice(1, first, count);
    if (p.options.packed) part.sequence = part.sequence.slice(1, first, count);
    causal_conv1d(policy, part, result.carry, result.y.view().slice(1, first, count));
  };
  index_t const length = p.shape[1];
  if (cut >= 0) {
    run(0, cut);
    run(cut, length - cut);
  } else {
    for (index_t t = 0; t < length; ++t) run(t, 1);
  }
  return result;
}

TEST(CausalConv1d, EqualsItsPartsBitForBitWhereverItIsCut) {
  for (bool const packed : {false, true}) {
    for (index_t const width : {1, 2, 4, 8}) {
      auto const p = random_conv<float>({2, 11, 19}, width, {.packed = packed}, 500);
      auto const whole = run_conv(sequential{}, p), fast = run_conv(parallel{}, p);
      for (index_t cut = -1; cut <= 11; ++cut) {
        SCOPED_TRACE(p.name() + ", cut at " + std::to_string(cut));
        expect_same_bits(run_in_parts(sequential{}, p, cut), whole);
        expect_same_bits(run_in_parts(parallel{}, p, cut), fast);
      }
    }
  }
}

template <class Policy>
void expect_packed_equals_apart(Policy policy) {
  auto p = random_conv<float>({1, 12, 19}, 4, {.packed = true}, 600);
  index_t const ends[] = {2, 3, 9, 12};
  for (index_t t = 0, i = 0; t < 12; ++t) {
    if (t == ends[i]) ++i;
    p.sequence(0, t) = static_cast<std::int32_t>(i * i);
  }
  auto const packed = run_conv(policy, p);
  conv_outcome<float> apart{tensor<float, 3>(p.shape), p.initial};
  auto part = p.inputs();
  part.sequence = {};
  for (index_t first = 0; index_t const end : ends) {
    if (first > 0) apart.carry = tensor<float, 3>(p.carry_shape());
    part.x = p.x.view().slice(1, first, end - first);
    causal_conv1d(policy, part, apart.carry, apart.y.view().slice(1, first, end - first));
    first = end;
  }
  expect_same_bits(packed, apart);
}

TEST(CausalConv1d, PackedSequencesAreTheBitsOfSeparateCalls) {
  expect_packed_equals_apart(sequential{});
  expect_packed_equals_apart(parallel{});
}

TEST(CausalConv1d, ThreadsAndChunksChangeNoBit) {
  auto const p = random_conv<float>({2, 301, 300}, 4, {.packed = true}, 700);
  auto const expected = run_conv(parallel{1, 0}, p);
  for (int const threads : {1, 2, 3, 7}) {
    for (index_t const chunk : {0, 1, 50}) {
      SCOPED_TRACE("threads " + std::to_string(threads) + ", chunk " + std::to_string(chunk));
      expect_same_bits(run_conv(parallel{threads, chunk}, p), expected);
    }
  }
  expect_same_bits(run_conv(chunked{64}, p), expected);
}

template <class T, class Policy>
void expect_same_bits_from_any_strides(Policy policy) {
  auto const p = random_conv<T>({2, 9, 33}, 4, {.packed = true}, 800);
  auto const expected = run_conv(policy, p);
  scattered<T, 3> const x(p.x), y(tensor<T, 3>(p.shape, not_a_number<T>())), carry(p.initial);
  scattered<T, 2> const weight(p.weight);
  scattered<T, 1> const bias(p.bias);
  auto mirrored = materialized(p.sequence.view().reversed(1));
  causal_conv1d(policy,
                causal_conv1d_inputs<T>{.x = x,
                                        .weight = weight,
                                        .bias = bias,
                                        .sequence = mirrored.const_view().reversed(1),
                                        .activation = p.options.kind},
                carry, y);
  expect_same_bits(conv_outcome<T>{materialized(y.view()), materialized(carry.view())}, expected);
  EXPECT_EQ(y.overwritten(), 0);
  EXPECT_EQ(carry.overwritten(), 0);
}

TEST(CausalConv1d, StridesChangeNoBit) {
  expect_same_bits_from_any_strides<float>(sequential{});
  expect_same_bits_from_any_strides<float>(parallel{});
  expect_same_bits_from_any_strides<double>(parallel{});
}

// As the x half of an in_proj output, and with B broadcast over the batch.
TEST(CausalConv1d, ColumnsOfAWiderTensorAndBroadcastInputsChangeNoBit) {
  auto p = random_conv<float>({2, 9, 64}, 4, {}, 850);
  for (index_t i = 0; i < 9 * 64; ++i) p.x.data()[9 * 64 + i] = p.x.data()[i];
  auto const expected = run_conv(parallel{}, p);
  tensor<float, 3> wide({1, 9, 200});
  for (index_t t = 0; t < 9; ++t)
    for (index_t c = 0; c < 64; ++c) wide(0, t, 67 + c) = p.x(0, t, c);
  auto inputs = p.inputs();
  inputs.x = wide.const_view().slice(2, 67, 64).select(0, 0).broadcast(0, 2);
  conv_outcome<float> found{tensor<float, 3>(p.shape), p.initial};
  causal_conv1d(parallel{}, inputs, found.carry, found.y);
  expect_same_bits(found, expected);
}

/// Storage in 16 bits rounds y once more, by at most `unit` of it or half the least positive
/// number.
template <class T>
void expect_storage_rounds_once(double unit, double least) {
  for (index_t const channels : {5, 64, 70}) {
    auto const p = random_conv<T>({2, 9, channels}, 4, {.packed = true}, 900);
    auto const exact = converted_problem<double>(p);
    auto const truth = conv_by_formula(exact);
    auto bound = conv_rounding(exact, truth);
    double const eps = std::numeric_limits<float>::epsilon();
    for (index_t i = 0; i < bound.size(); ++i) {
      bound.data()[i] =
          bound.data()[i] * (1 + unit) + (unit * std::abs(truth.y.data()[i]) + least / 2) / eps;
    }
    auto const check = [&](conv_outcome<T> const& found) {
      EXPECT_LE(worst_ratio(converted<float>(found.y), truth.y, bound), 1) << p.name();
      EXPECT_TRUE(has_same_bits(converted<double>(converted<float>(found.carry)), truth.carry));
    };
    check(run_conv(sequential{}, p));
    check(run_conv(parallel{}, p));
  }
}

TEST(CausalConv1d, SixteenBitsRoundOnlyWhatIsStored) {
  expect_storage_rounds_once<bfloat16>(0x1p-8, 0x1p-133);
  expect_storage_rounds_once<float16>(0x1p-11, 0x1p-24);
}

template <class Policy>
void expect_empty_is_nothing(Policy policy) {
  for (index_array<3> const& shape : {index_array<3>{2, 0, 3}, {0, 4, 3}, {2, 4, 0}}) {
    auto const p = random_conv<float>(shape, 4, {.packed = true}, 950);
    auto const found = run_conv(policy, p);
    EXPECT_TRUE(has_same_bits(found.carry, p.initial)) << p.name();
  }
}

TEST(CausalConv1d, NothingToDoLeavesTheCarry) {
  expect_empty_is_nothing(sequential{});
  expect_empty_is_nothing(parallel{});
}

TEST(CausalConv1d, NamesWhatIsWrongBeforeItWrites) {
  auto const p = random_conv<float>({2, 4, 3}, 3, {.packed = true}, 960);
  tensor<float, 3> const longer({2, 5, 3});
  tensor<float, 2> const wide({3, 9}), none({3, 0}), other({4, 3});
  tensor<float, 1> const bias({2});
  tensor<std::int32_t, 2> const short_index({2, 3});
  auto falling = p.sequence;
  falling(1, 2) = -8;
  tensor<float, 3> y = poisoned<float>({2, 4, 3}), carry = poisoned<float>({2, 3, 2});
  auto const message = [&](auto const& change) {
    auto in = p.inputs();
    tensor_view<float, 3> to_y = y, to_carry = carry;
    change(in, to_carry, to_y);
    auto const found =
        message_of<shape_error>([&] { causal_conv1d(parallel{}, in, to_carry, to_y); });
    EXPECT_TRUE(is_poisoned(y) && is_poisoned(carry)) << found;
    return found;
  };
  std::string const weight = ", expected (3, 1 to 8) (channel, width)";
  EXPECT_EQ(message([&](auto& in, auto&, auto&) { in.weight = wide; }),
            "causal_conv1d: weight has shape (3, 9)" + weight);
  EXPECT_EQ(message([&](auto& in, auto&, auto&) { in.weight = none; }),
            "causal_conv1d: weight has shape (3, 0)" + weight);
  EXPECT_EQ(message([&](auto& in, auto&, auto&) { in.weight = other; }),
            "causal_conv1d: weight has shape (4, 3)" + weight);
  EXPECT_EQ(message([&](auto& in, auto&, auto&) { in.bias = bias; }),
            "causal_conv1d: bias has shape (2), expected (3) (channel)");
  EXPECT_EQ(message([&](auto& in, auto&, auto&) { in.sequence = short_index; }),
            "causal_conv1d: sequence has shape (2, 3), expected (2, 4) (batch, time)");
  EXPECT_EQ(
      message([&](auto& in, auto&, auto&) { in.sequence = falling; }),
      "causal_conv1d: sequence falls from -1 to -8 at (1, 2), expected never less than before");
  EXPECT_EQ(message([&](auto& in, auto&, auto&) { in.x = longer; }),
            "causal_conv1d: sequence has shape (2, 4), expected (2, 5) (batch, time)");
  EXPECT_EQ(message([&](auto&, auto&, auto& to) { to = to.slice(1, 0, 3); }),
            "causal_conv1d: y has shape (2, 3, 3), expected (2, 4, 3) (batch, time, channel)");
  EXPECT_EQ(message([&](auto&, auto& to, auto&) { to = to.slice(2, 0, 1); }),
            "causal_conv1d: carry has shape (2, 3, 1), expected (2, 3, 2) "
            "(batch, channel, width - 1)");
  EXPECT_EQ(message([&](auto&, auto&, auto& to) { to = to.select(0, 0).broadcast(0, 2); }),
            "causal_conv1d: y has stride 0 along axis 0 of extent 2, expected elements of its own "
            "at every position");
  EXPECT_EQ(message([&](auto&, auto& to, auto&) { to = to.select(2, 0).broadcast(2, 2); }),
            "causal_conv1d: carry has stride 0 along axis 2 of extent 2, expected elements of its "
            "own at every position");
}

}  // namespace
