// SPDX-License-Identifier: Apache-2.0
// random.hpp: random numbers addressed by position, the same bits on every machine.
#pragma once

#include <algorithm>
#include <cmath>  // sqrt
#include <cstddef>
#include <cstdint>
#include <cstring>  // memcpy, the cast between a double and its bits that kernels may use
#include <span>

#include "ssm/config.hpp"

namespace ssm {

/// Four 32-bit words: what Philox takes as counter and returns.
struct philox_block {
  std::uint32_t word[4];
  friend constexpr bool operator==(philox_block const&, philox_block const&) = default;
};

/// Philox4x32-10, a bijection of 128-bit counters chosen by a 64-bit key: its values at the
/// counters 0, 1, 2, … pass as random numbers.
/// Source    Salmon, Moraes, Dror & Shaw 2011, Parallel random numbers: as easy as 1, 2, 3.
/// Tested    tests/random_test.cpp, with the known answers published with Random123.
SSM_HD constexpr philox_block philox4x32(philox_block counter, std::uint64_t key) {
  auto& [c0, c1, c2, c3] = counter.word;
  auto key0 = static_cast<std::uint32_t>(key);
  auto key1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const a = std::uint64_t{0xD2511F53} * c0;
    std::uint64_t const b = std::uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ key0;
    c1 = static_cast<std::uint32_t>(b);
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ key1;
    c3 = static_cast<std::uint32_t>(a);
    key0 += 0x9E3779B9;  // the golden ratio
    key1 += 0xBB67AE85;  // √3 - 1
  }
  return counter;
}

namespace detail {

SSM_HD inline double double_of_bits(std::uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

SSM_HD inline std::uint64_t bits_of_double(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

// The four functions below must give the same bits wherever they run: on any compiler, vector
// unit or GPU, and whatever mathematics library is installed. So they use + - * / and the square
// root, which IEEE 754 rounds correctly, and leave a compiler nothing to contract to a fused
// multiply-add: no rounded product is added to anything, here or, since the numbers handed out
// are quotients and differences, by the caller. Continued fractions allow that, Horner's rule
// would not.

/// The upper 52 bits as a uniform number: (k + 1/2) / 2^52, an odd multiple of 2^-53.
SSM_HD inline double uniform_of_bits(std::uint64_t bits) {
  // 1 + k 2^-52 is the double with mantissa k; the difference is exact.
  return double_of_bits(bits >> 12 | 0x3FF0000000000000) - 0x1.fffffffffffffp-1;
}

/// -2 log u for 2^-53 <= u < 1, to 3 eps.
SSM_HD inline double squared_radius(double u) {
  // u = m 2^-k with m in [√½, √2)
  std::uint64_t const bits = bits_of_double(u);
  std::uint64_t const one = 0x3FF0000000000000;
  std::uint64_t const root_half = 0x3FE6A09E667F3BCD;
  std::uint64_t const k = 1023 - ((bits - root_half + one) >> 52);
  double const m = double_of_bits(bits + (k << 52));
  // -log m = 2 atanh s, and atanh s = s / (1 - s²/(3 - 4s²/(5 - 9s²/(7 - …)))) (Gauss); s² < 0.03
  double const s = (1.0 - m) / (1.0 + m);
  double fraction = 15.0;
  for (int j = 7; j > 0; --j) fraction = (2 * j - 1) - j * j * (s * s) / fraction;
  double const two_log2e = 0x1.71547652b82fep+1;
  double const two_ln2 = 0x1.62e42fefa39efp+0;
  return two_ln2 * (static_cast<int>(k) + two_log2e * s / fraction);
}

struct normal_pair {
  double even;
  double odd;
};

/// radius · (cos θ, sin θ) with θ uniform on the circle, to 3 eps of the radius.
SSM_HD inline normal_pair point_on_circle(double radius, std::uint64_t bits) {
  // θ/2 in (-π/4, π/4), never 0, and one bit that turns the point by π
  double const half_pi = 0x1.921fb54442d18p+0;
  double const x = half_pi * (uniform_of_bits(bits << 1) - 0.5);
  double const signed_radius = bits >> 63 == 0 ? radius : -radius;
  // tan x = x / (1 - x²/(3 - x²/(5 - …))) (Lambert); x² < 0.62
  double fraction = 17.0;
  for (int odd = 15; odd > 0; odd -= 2) fraction = odd - x * x / fraction;
  double const tangent = x / fraction;
  double const cotangent = fraction / x;
  // cos 2x = (cot x - tan x)/(cot x + tan x),  sin 2x = 2/(cot x + tan x)
  double const scale = (cotangent + tangent) / signed_radius;
  return {(cotangent - tangent) / scale, 2.0 / scale};
}

}  // namespace detail

/// An endless sequence of random numbers with random access: element i >= 0 is a pure function of
/// (seed, id, i), so any thread may compute any part in any order, and a test names one number.
/// Every bit is the same for any number of threads, compiler, machine and GPU (with IEEE
/// arithmetic: not under -ffast-math).
///
/// Elements 2j and 2j+1 come from one Philox block: key = seed, counter words = (j low, j high,
/// id low, id high). Streams of one seed with different ids therefore never share a block, and
/// another seed is another bijection. bits(i), uniform(i), sign(i) and normal(i) read the same
/// block: draw different kinds from different streams if they are to be independent.
/// Tested    tests/random_test.cpp.
struct random_stream {
  std::uint64_t seed = 0;
  std::uint64_t id = 0;

  /// 64 random bits.
  SSM_HD constexpr std::uint64_t bits(index_t i) const {
    bit_pair const pair = pair_at(static_cast<std::uint64_t>(i) / 2);
    return i % 2 == 0 ? pair.even : pair.odd;
  }

  /// Uniform on the odd multiples of 2^-53: never 0 or 1, and 1 - u is as likely as u.
  SSM_HD double uniform(index_t i) const { return detail::uniform_of_bits(bits(i)); }

  /// -1 or 1, equally likely.
  SSM_HD constexpr double sign(index_t i) const { return sign_of_bits(bits(i)); }

  /// Standard normal.
  /// Accuracy  The exact Box-Muller value of the block, to 4 eps of the pair's radius. The radius
  ///           is at most √(106 ln 2) = 8.57, which one normal in 10^17 exceeds; beyond 7.7 it
  ///           takes only 512 values.
  /// Source    Box & Muller 1958, A note on the generation of random normal deviates.
  SSM_HD double normal(index_t i) const {
    bit_pair const pair = pair_at(static_cast<std::uint64_t>(i) / 2);
    double const radius = std::sqrt(detail::squared_radius(detail::uniform_of_bits(pair.even)));
    detail::normal_pair const point = detail::point_on_circle(radius, pair.odd);
    return i % 2 == 0 ? point.even : point.odd;
  }

  /// The k-th stream derived from this one, k >= 0. Its seed and id are the 128 bits of a block
  /// that no element reaches (j = 2^63 + k), so among n streams derived in any way two are equal
  /// with a probability below n² 2^-129.
  SSM_HD constexpr random_stream child(index_t k) const {
    bit_pair const fresh = pair_at(static_cast<std::uint64_t>(k) + (std::uint64_t{1} << 63));
    return {fresh.even, fresh.odd};
  }

  // The fillers give the numbers of element access, faster: one block per pair, and loops that
  // vectorize.

  /// out[k] = bits(start + k).
  void fill_bits(std::span<std::uint64_t> out, index_t start = 0) const {
    std::size_t k = 0;
    if (start % 2 != 0 && !out.empty()) out[k++] = bits(start++);
    std::uint64_t const first = static_cast<std::uint64_t>(start) / 2;
    std::size_t const pairs = (out.size() - k) / 2;
    for (std::size_t p = 0; p < pairs; ++p) {
      bit_pair const pair = pair_at(first + p);
      out[k + 2 * p] = pair.even;
      out[k + 2 * p + 1] = pair.odd;
    }
    k += 2 * pairs;
    if (k < out.size()) out[k] = pair_at(first + pairs).even;
  }

  /// out[k] = uniform(start + k).
  void fill_uniform(std::span<double> out, index_t start = 0) const {
    fill_from_bits(out, start, [](std::span<double> part, std::uint64_t const* bits) {
      for (std::size_t k = 0; k < part.size(); ++k) part[k] = detail::uniform_of_bits(bits[k]);
    });
  }

  /// out[k] = sign(start + k).
  void fill_sign(std::span<double> out, index_t start = 0) const {
    fill_from_bits(out, start, [](std::span<double> part, std::uint64_t const* bits) {
      for (std::size_t k = 0; k < part.size(); ++k) part[k] = sign_of_bits(bits[k]);
    });
  }

  /// out[k] = normal(start + k).
  void fill_normal(std::span<double> out, index_t start = 0) const {
    if (start % 2 != 0 && !out.empty()) {
      out[0] = normal(start++);
      out = out.subspan(1);
    }
    if (out.size() % 2 != 0) {
      out.back() = normal(start + static_cast<index_t>(out.size()) - 1);
      out = out.first(out.size() - 1);
    }
    fill_from_bits(out, start, [](std::span<double> part, std::uint64_t const* bits) {
      std::size_t const pairs = part.size() / 2;
      double radius[chunk_length / 2];
      for (std::size_t p = 0; p < pairs; ++p)
        radius[p] = detail::squared_radius(detail::uniform_of_bits(bits[2 * p]));
      // Apart, because a square root that may set errno is not vectorized.
      for (std::size_t p = 0; p < pairs; ++p) radius[p] = std::sqrt(radius[p]);
      for (std::size_t p = 0; p < pairs; ++p) {
        detail::normal_pair const point = detail::point_on_circle(radius[p], bits[2 * p + 1]);
        part[2 * p] = point.even;
        part[2 * p + 1] = point.odd;
      }
    });
  }

  friend constexpr bool operator==(random_stream const&, random_stream const&) = default;

 private:
  struct bit_pair {
    std::uint64_t even;
    std::uint64_t odd;
  };

  static constexpr std::size_t chunk_length = 128;

  SSM_HD static constexpr double sign_of_bits(std::uint64_t bits) {
    return bits >> 63 == 0 ? 1.0 : -1.0;
  }

  SSM_HD constexpr bit_pair pair_at(std::uint64_t j) const {
    auto const low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
    philox_block const b = philox4x32({{low(j), low(j >> 32), low(id), low(id >> 32)}}, seed);
    return {std::uint64_t{b.word[1]} << 32 | b.word[0], std::uint64_t{b.word[3]} << 32 | b.word[2]};
  }

  template <class Map>
  void fill_from_bits(std::span<double> out, index_t start, Map map) const {
    std::uint64_t buffer[chunk_length];
    while (!out.empty()) {
      std::span<double> const part = out.first(std::min(chunk_length, out.size()));
      fill_bits({buffer, part.size()}, start);
      map(part, buffer);
      out = out.subspan(part.size());
      start += static_cast<index_t>(part.size());
    }
  }
};

}  // namespace ssm
