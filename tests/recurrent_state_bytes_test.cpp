// SPDX-License-Identifier: Apache-2.0
// recurrent_state_bytes_test.cpp: a saved state has every bit of the original; bytes that are
// damaged or made up are refused.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ssm/random.hpp"
#include "ssm/recurrent_state.hpp"

namespace {

using namespace ssm;

using bytes = std::vector<std::byte>;

/// Random bits: every third element is NaN, every third a denormal number or zero.
template <class T, int Rank>
tensor<T, Rank> random_patterns(index_array<Rank> const& extents, std::uint64_t seed) {
  tensor<T, Rank> result(extents);
  random_stream const random{seed};
  auto const infinity = static_cast<T>(std::numeric_limits<accumulator_t<T>>::infinity());
  std::uint64_t exponent = 0;
  std::memcpy(&exponent, &infinity, sizeof infinity);
  for (index_t i = 0; i < result.size(); ++i) {
    std::uint64_t bits = random.bits(i);
    if (i % 3 == 1) bits |= exponent;
    if (i % 3 == 2) bits &= ~exponent;
    std::memcpy(result.data() + i, &bits, sizeof(T));
  }
  return result;
}

template <class T, int StateRank>
void expect_round_trip(index_array<3> const& conv, index_array<StateRank> const& ssm) {
  using state = recurrent_state<T, StateRank>;
  state const original{random_patterns<T>(conv, 1), random_patterns<accumulator_t<T>>(ssm, 2),
                       std::numeric_limits<index_t>::max()};
  bytes const saved = to_bytes(original);
  auto const restored = from_bytes<state>(saved);
  EXPECT_TRUE(restored == original) << to_string(conv) << ' ' << to_string(ssm);
  EXPECT_EQ(to_bytes(restored), saved);
}

TEST(RecurrentStateBytes, BytesKeepEveryBitOfNansDenormalsAndEmptyTensors) {
  expect_round_trip<float, 3>({2, 3, 3}, {2, 3, 5});
  expect_round_trip<double, 4>({2, 7, 3}, {2, 3, 2, 5});
  expect_round_trip<bfloat16, 3>({1, 3, 1}, {1, 3, 1});  // elements end within a word
  expect_round_trip<float16, 4>({3, 5, 7}, {3, 1, 5, 1});
  expect_round_trip<float, 3>({1, 3, 0}, {1, 3, 2});  // width 1
  expect_round_trip<float, 3>({0, 0, 0}, {0, 0, 0});
}

TEST(RecurrentStateBytes, BytesAreThoseOfVersion1) {
  recurrent_state<bfloat16, 3> const state{tensor<bfloat16, 3>({1, 1, 2}, bfloat16(1.0f)),
                                           tensor<float, 3>({1, 1, 1}, -2.0f), 1000};
  std::uint64_t const expected[] = {0x6574'6174'736d'7373,  // "ssmstate"
                                    1,                      // version
                                    2,                      // bfloat16
                                    3,                      // rank of ssm
                                    1000,                   // position
                                    1,
                                    1,
                                    2,  // shape of conv
                                    1,
                                    1,
                                    1,                      // shape of ssm
                                    0xc000'0000'3f80'3f80,  // the elements
                                    0x560e'8019'dec3'a7bc};
  bytes const found = to_bytes(state);
  ASSERT_EQ(found.size(), sizeof expected);
  EXPECT_EQ(std::memcmp(found.data(), expected, sizeof expected), 0);
}

using small = recurrent_state<float, 3>;

small small_state() {
  return {random_patterns<float>(index_array<3>{1, 2, 3}, 3),
          random_patterns<float>(index_array<3>{1, 2, 4}, 4), 12};
}

TEST(RecurrentStateBytes, EveryTruncationAndEveryFlippedBitIsRefused) {
  bytes const saved = to_bytes(small_state());
  for (std::size_t size = 0; size < saved.size(); ++size) {
    bytes const cut(saved.begin(), saved.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_THROW(from_bytes<small>(cut), checkpoint_error) << size;
  }
  bytes longer = saved;
  longer.push_back(std::byte{0});
  EXPECT_THROW(from_bytes<small>(longer), checkpoint_error);
  for (std::size_t bit = 0; bit < 8 * saved.size(); ++bit) {
    bytes damaged = saved;
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_THROW(from_bytes<small>(damaged), checkpoint_error) << bit;
  }
}

/// The bytes with one word of the header replaced, and a checksum that fits.
bytes forged(bytes from, std::size_t index, std::uint64_t word) {
  std::memcpy(from.data() + 8 * index, &word, sizeof word);
  std::span<std::byte> const all(from);
  std::uint64_t const sum = ssm::detail::checksum(all.first(all.size() - sizeof sum));
  std::memcpy(all.last(sizeof sum).data(), &sum, sizeof sum);
  return from;
}

TEST(RecurrentStateBytes, ForgedHeadersAreRefusedOrAreThoseOfAnotherState) {
  std::uint64_t const seed = 20250611;
  random_stream const random{seed};
  std::uint64_t const extremes[] = {0,
                                    1,
                                    2,
                                    3,
                                    1u << 31,
                                    std::uint64_t{1} << 32,
                                    std::uint64_t{1} << 61,
                                    std::uint64_t{1} << 62,
                                    ~std::uint64_t{0} >> 1,
                                    std::uint64_t{1} << 63,
                                    ~std::uint64_t{0}};
  bytes const whole = to_bytes(small_state());
  bytes const empty = to_bytes(small{tensor<float, 3>({0, 2, 3}), tensor<float, 3>({2, 0, 4})});
  index_t accepted = 0, refused = 0;
  auto const word = [&](index_t i) { return extremes[random.bits(i) % std::size(extremes)]; };
  for (index_t i = 0; i < 40000; i += 4) {
    bytes candidate = i % 8 == 0 ? whole : empty;
    for (index_t change = 0; change < 2; ++change) {
      candidate =
          forged(candidate, random.bits(2 * i + 2 * change) % 11, word(2 * i + 2 * change + 1));
    }
    try {
      EXPECT_EQ(to_bytes(from_bytes<small>(candidate)), candidate) << "seed " << seed << ", " << i;
      ++accepted;
    } catch (checkpoint_error const&) {
      ++refused;
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
}

template <class State>
std::string refusal(bytes const& from) {
  try {
    from_bytes<State>(from);
  } catch (checkpoint_error const& error) {
    return error.what();
  }
  return "accepted";
}

TEST(RecurrentStateBytes, ShapesWhoseSizeOverflowsAreRefused) {
  std::uint64_t const wraps = (std::uint64_t{1} << 61) + 1;  // · 2 · 3 · 4 bytes = 24 modulo 2^64
  bytes const whole = to_bytes(small_state());
  EXPECT_EQ(refusal<small>(forged(whole, 5, wraps)),
            "from_bytes: conv has shape (2305843009213693953, 2, 3), expected extents of 0 or more "
            "and less than 2^63 bytes");
  bytes const empty = to_bytes(small{tensor<float, 3>({0, 2, 3}), tensor<float, 3>({2, 0, 4})});
  EXPECT_EQ(refusal<small>(empty), "accepted");
  EXPECT_EQ(refusal<small>(forged(empty, 10, wraps - 1)),
            "from_bytes: ssm has shape (2, 0, 2305843009213693952), expected extents of 0 or more "
            "and less than 2^63 bytes");
}

TEST(RecurrentStateBytes, RefusalsNameWhatWasFoundAndExpected) {
  bytes const saved = to_bytes(small_state());
  EXPECT_EQ(refusal<small>({}), "from_bytes: found 0 bytes, expected at least 96");
  EXPECT_EQ(refusal<small>(forged(saved, 0, 5)),
            "from_bytes: bytes begin with the word 0x5, expected 0x65746174736d7373 (ssmstate)");
  EXPECT_EQ(refusal<small>(forged(saved, 1, 2)), "from_bytes: version is 2, expected 1");
  EXPECT_EQ((refusal<recurrent_state<double, 3>>(saved)),
            "from_bytes: elements are float, expected double");
  EXPECT_EQ(refusal<small>(forged(saved, 2, 9)),
            "from_bytes: elements are of an unknown type, expected float");
  EXPECT_EQ((refusal<recurrent_state<float, 4>>(saved)), "from_bytes: ssm has rank 3, expected 4");
  EXPECT_EQ(refusal<small>(forged(saved, 4, ~std::uint64_t{0})),
            "from_bytes: position is -1, expected 0 or more");
  EXPECT_EQ(refusal<small>(forged(saved, 5, ~std::uint64_t{0})),
            "from_bytes: conv has shape (-1, 2, 3), expected extents of 0 or more and less than "
            "2^63 bytes");
  EXPECT_EQ(refusal<small>(forged(saved, 10, 5)),
            "from_bytes: found 56 bytes of elements, expected 64 for conv (1, 2, 3) and ssm "
            "(1, 2, 5)");
  bytes damaged = saved;
  damaged[100] ^= std::byte{1};
  EXPECT_TRUE(refusal<small>(damaged).starts_with("from_bytes: checksum is "));
  EXPECT_THROW(to_bytes(small{.position = -1}), domain_error);
}

}  // namespace
