// SPDX-License-Identifier: Apache-2.0
// random.hpp: random numbers addressed by position, the same for any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ssm/config.hpp"
#include "ssm/numerics.hpp"

namespace ssm {

/// Four 32-bit words: what Philox takes as counter and returns.
struct philox_block {
  std::uint32_t word[4];
  friend constexpr bool operator==(philox_block const&, philox_block const&) = default;
};

/// Philox4x32-10: a bijection of 128-bit counters, chosen by a 64-bit key, whose values pass as
/// random numbers.
/// Source    Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
/// Tested    tests/random_test.cpp, with the known answers published with Random123.
SSM_HD constexpr philox_block philox4x32(philox_block counter, std::uint64_t key) {
  auto const low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  auto const high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  std::uint32_t key0 = low(key);
  std::uint32_t key1 = high(key);
  auto& [c0, c1, c2, c3] = counter.word;
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const even = std::uint64_t{0xD2511F53} * c0;
    std::uint64_t const odd = std::uint64_t{0xCD9E8D57} * c2;
    c0 = high(odd) ^ c1 ^ key0;
    c1 = low(odd);
    c2 = high(even) ^ c3 ^ key1;
    c3 = low(even);
    key0 += 0x9E3779B9;  // the golden ratio
    key1 += 0xBB67AE85;  // sqrt(3) - 1
  }
  return counter;
}

/// An endless sequence of random numbers with random access: element i is a pure function of
/// (seed, id, i), so any thread may compute any part of it.
struct random_stream {
  std::uint64_t seed = 0;
  std::uint64_t id = 0;

  /// 64 random bits, for i >= 0.
  SSM_HD constexpr std::uint64_t bits(index_t i) const {
    auto const pair = block(static_cast<std::uint64_t>(i) / 2);
    return i % 2 == 0 ? first(pair) : second(pair);
  }

  /// Uniform in the open interval (0, 1): the odd multiples of 2^-53, all equally likely.
  SSM_HD constexpr double uniform(index_t i) const { return to_uniform(bits(i)); }

  /// -1 or +1, equally likely.
  SSM_HD constexpr double sign(index_t i) const { return bits(i) >> 63 == 0 ? 1.0 : -1.0; }

  /// Standard normal, by the method of Box and Muller.
  SSM_HD double normal(index_t i) const {
    auto const pair = normal_pair(static_cast<std::uint64_t>(i) / 2);
    return i % 2 == 0 ? pair.even : pair.odd;
  }

  /// out[k] = normal(start + k), at one block and one logarithm a pair.
  void fill_normal(std::span<double> out, index_t start = 0) const {
    std::size_t k = 0;
    if (start % 2 != 0 && !out.empty()) out[k++] = normal(start++);
    auto pair_index = static_cast<std::uint64_t>(start) / 2;
    for (; k + 1 < out.size(); k += 2, ++pair_index) {
      auto const pair = normal_pair(pair_index);
      out[k] = pair.even;
      out[k + 1] = pair.odd;
    }
    if (k < out.size()) out[k] = normal_pair(pair_index).even;
  }

  /// out[k] = uniform(start + k).
  void fill_uniform(std::span<double> out, index_t start = 0) const {
    for (double& u : out) u = uniform(start++);
  }

  /// out[k] = sign(start + k).
  void fill_sign(std::span<double> out, index_t start = 0) const {
    for (double& s : out) s = sign(start++);
  }

  /// The k-th stream derived from this one, k >= 0: its seed and id are 128 bits of this stream
  /// that no element reaches.
  SSM_HD constexpr random_stream child(index_t k) const {
    auto const fresh = block(static_cast<std::uint64_t>(k) | std::uint64_t{1} << 63);
    return {first(fresh), second(fresh)};
  }

  friend constexpr bool operator==(random_stream const&, random_stream const&) = default;

 private:
  struct pair_of_normals {
    double even;
    double odd;
  };

  SSM_HD constexpr philox_block block(std::uint64_t number) const {
    return philox4x32(
        {{static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32),
          static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32)}},
        seed);
  }

  SSM_HD static constexpr std::uint64_t first(philox_block const& b) {
    return std::uint64_t{b.word[1]} << 32 | b.word[0];
  }
  SSM_HD static constexpr std::uint64_t second(philox_block const& b) {
    return std::uint64_t{b.word[3]} << 32 | b.word[2];
  }

  SSM_HD static constexpr double to_uniform(std::uint64_t bits) {
    return static_cast<double>(bits >> 11 | 1) * 0x1p-53;
  }

  SSM_HD pair_of_normals normal_pair(std::uint64_t number) const {
    auto const random = block(number);
    double const radius = ssm::sqrt(-2.0 * ssm::log(to_uniform(first(random))));
    double const angle = 0x1.921fb54442d18p+2 * to_uniform(second(random));  // 2 π u
    return {radius * ssm::cos(angle), radius * ssm::sin(angle)};
  }
};

}  // namespace ssm
