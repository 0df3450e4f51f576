// SPDX-License-Identifier: Apache-2.0
#include "ssm/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <set>
#include <thread>
#include <vector>

namespace {

using ssm::index_t;
using ssm::random_stream;

constexpr random_stream stream{.seed = 0x243F6A8885A308D3, .id = 0x13198A2E03707344};
// ---- the same bits everywhere -----------------------------------------------------------------

// Random123 1.14, tests/kat_vectors: counter, key, 10 rounds.
TEST(Philox, GivesTheKnownAnswersOfRandom123) {
  EXPECT_EQ(ssm::philox4x32({{0, 0, 0, 0}}, 0),
            (ssm::philox_block{{0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}}));
  EXPECT_EQ(ssm::philox4x32({{0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF}}, 0xFFFFFFFFFFFFFFFF),
            (ssm::philox_block{{0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}}));
  EXPECT_EQ(ssm::philox4x32({{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}}, 0x299F31D0A4093822),
            (ssm::philox_block{{0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}}));
}

// Bits, uniforms and children come from an independent program of a few lines (Python integers);
// normals are this library's own, and agree with Box-Muller at 40 digits.
TEST(RandomStream, GivesTheRecordedNumbersBitForBit) {
  struct record {
    index_t i;
    std::uint64_t bits;
    double uniform;
    double normal;
  };
  for (record const& expected : {
           record{0, 0xEF40F2ECAA21CE3F, 0x1.de81e5d954439p-1, 0x1.bda71bb443dep-3},
           record{1, 0x19CA84AE4298618C, 0x1.9ca84ae429868p-4, -0x1.2fb05273073e3p-2},
           record{2, 0xA0211DC56D1E75FD, 0x1.40423b8ada3cfp-1, 0x1.81c93c3deb99cp-5},
           record{3, 0x7E04BBD5B42922A7, 0x1.f812ef56d0a4ap-2, 0x1.ef6414126a2d6p-1},
           record{1000000007, 0xDB34A62D44936287, 0x1.b6694c5a8926dp-1, -0x1.64c6d520db0e6p-1},
           record{(index_t{1} << 40) + 1, 0x9F1E121B8117490A, 0x1.3e3c2437022e9p-1,
                  0x1.1fc57e39d7a73p+0},
           record{(index_t{1} << 62) + 1, 0x2F812441F81DE2A6, 0x1.7c09220fc0ef4p-3,
                  -0x1.e8058dae823a1p-2},
           record{std::numeric_limits<index_t>::max(), 0x7A204C11B2732C36, 0x1.e8813046c9ccap-2,
                  0x1.35aa47f3cdb87p+1},
       }) {
    EXPECT_EQ(stream.bits(expected.i), expected.bits) << expected.i;
    EXPECT_EQ(stream.uniform(expected.i), expected.uniform) << expected.i;
    EXPECT_EQ(stream.normal(expected.i), expected.normal) << expected.i;
    EXPECT_EQ(stream.sign(expected.i), expected.bits >> 63 ? -1 : 1) << expected.i;
  }
  EXPECT_EQ(stream.child(0), (random_stream{0xB416DCB84B832EB1, 0xA7DDE1A45B8C6600}));
  EXPECT_EQ(stream.child(1), (random_stream{0x77FB774CC189BF89, 0x367952B0C90E145F}));
  EXPECT_EQ(stream.child(index_t{1} << 62),
            (random_stream{0x2F9415D93B925A52, 0x060AAD79C0472470}));
}

TEST(RandomStream, GivesTheRecordedHashOfAHundredThousandNormals) {
  std::vector<double> sample(100'000);
  stream.fill_normal(sample);
  std::uint64_t hash = 0;
  for (double x : sample) hash = hash * 6364136223846793005 + ssm::detail::bits_of_double(x);
  EXPECT_EQ(hash, 7971044766340766356u);
}

TEST(RandomStream, FillersGiveTheNumbersOfElementAccess) {
  double const poison = -123.0;
  for (index_t start : {0, 1, 2, 3, 127, 128, 1001})
    for (std::size_t length : {0u, 1u, 2u, 3u, 4u, 127u, 128u, 129u, 130u, 257u, 1000u}) {
      std::vector<double> normal(length + 1, poison);
      std::vector<double> uniform = normal;
      std::vector<double> sign = normal;
      std::vector<std::uint64_t> bits(length + 1, 77);
      stream.fill_normal({normal.data(), length}, start);
      stream.fill_uniform({uniform.data(), length}, start);
      stream.fill_sign({sign.data(), length}, start);
      stream.fill_bits({bits.data(), length}, start);
      for (std::size_t k = 0; k < length; ++k) {
        index_t const i = start + static_cast<index_t>(k);
        ASSERT_EQ(normal[k], stream.normal(i)) << "start " << start << ", length " << length;
        ASSERT_EQ(uniform[k], stream.uniform(i)) << "start " << start << ", length " << length;
        ASSERT_EQ(sign[k], stream.sign(i)) << "start " << start << ", length " << length;
        ASSERT_EQ(bits[k], stream.bits(i)) << "start " << start << ", length " << length;
      }
      EXPECT_EQ(normal[length], poison);
      EXPECT_EQ(uniform[length], poison);
      EXPECT_EQ(sign[length], poison);
      EXPECT_EQ(bits[length], 77u);
    }
}

TEST(RandomStream, GivesTheSameNumbersForAnyNumberOfThreads) {
  constexpr std::size_t length = 10'007;
  std::vector<double> expected(length);
  stream.fill_normal(expected);
  for (std::size_t threads : {1u, 2u, 3u, 7u}) {
    std::vector<double> found(length);
    {
      std::vector<std::jthread> workers;
      for (std::size_t worker = 0; worker < threads; ++worker)
        workers.emplace_back(
            [&, first = length * worker / threads, last = length * (worker + 1) / threads] {
              stream.fill_normal({found.data() + first, last - first}, static_cast<index_t>(first));
            });
    }
    EXPECT_EQ(found, expected) << threads << " threads";
  }
}

// ---- accuracy ---------------------------------------------------------------------------------

TEST(RandomStream, NormalsAreTheBoxMullerValuesTo4EpsOfTheRadius) {
  constexpr long double pi = std::numbers::pi_v<long double>;
  double worst = 0;
  for (index_t i = 0; i < 200'000; i += 2) {
    long double const radius =
        std::sqrt(-2 * std::log(static_cast<long double>(stream.uniform(i))));
    std::uint64_t const bits = stream.bits(i + 1);
    long double const half_turns =
        static_cast<long double>(ssm::detail::uniform_of_bits(bits << 1)) - 0.5L +
        static_cast<long double>(bits >> 63);
    long double const error =
        std::max(std::fabs(stream.normal(i) - radius * std::cos(pi * half_turns)),
                 std::fabs(stream.normal(i + 1) - radius * std::sin(pi * half_turns)));
    worst = std::max(worst, static_cast<double>(error / radius));
  }
  EXPECT_LE(worst, 4 * std::numeric_limits<double>::epsilon());
}

TEST(RandomStream, RadiusIsRightWhereTheUniformsEndAndTheLogarithmChangesBranch) {
  for (double u : {0x1p-53, 0x3p-53, 0x1.6a09e667f3bcap-1, 0x1.6a09e667f3bcdp-1, 0.5,
                   0x1.fffffffffffffp-2, 1 - 0x1p-52, 1 - 0x1p-53}) {
    long double const expected = -2 * std::log(static_cast<long double>(u));
    EXPECT_NEAR(static_cast<double>(ssm::detail::squared_radius(u) / expected), 1,
                3 * std::numeric_limits<double>::epsilon())
        << "u = " << u;
  }
  EXPECT_NEAR(std::sqrt(ssm::detail::squared_radius(0x1p-53)), 8.5716, 1e-4);
}

TEST(RandomStream, UniformsLieInTheOpenIntervalAndAreSymmetric) {
  constexpr std::uint64_t ones = ~std::uint64_t{0};
  EXPECT_EQ(ssm::detail::uniform_of_bits(0), 0x1p-53);
  EXPECT_EQ(ssm::detail::uniform_of_bits(ones), 1 - 0x1p-53);
  for (index_t i = 0; i < 1000; ++i)
    EXPECT_EQ(ssm::detail::uniform_of_bits(~stream.bits(i)), 1 - stream.uniform(i));
}

TEST(RandomStream, StreamsShareNoWord) {
  std::set<std::uint64_t> words;
  std::size_t drawn = 0;
  for (random_stream const& from : {stream, random_stream{stream.seed, stream.id + 1},
                                    random_stream{stream.seed + 1, stream.id}, stream.child(0),
                                    stream.child(1), stream.child(0).child(0)})
    for (index_t i = 0; i < 20'000; ++i, ++drawn) words.insert(from.bits(i));
  EXPECT_EQ(words.size(), drawn);  // by chance two of 120000 are equal once in 2.5e9 times
}

}  // namespace
