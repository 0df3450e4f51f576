// SPDX-License-Identifier: Apache-2.0
// sha256.hpp: the hash of FIPS 180-4, to name tensors and data by their content.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace ssm::detail {

/// Takes bytes in any number of calls; hex() is what sha256sum prints of all of them.
/// Source    FIPS 180-4, sections 5.1.1 and 6.2
class sha256 {
 public:
  void add(std::span<std::byte const> bytes) {
    length_ += bytes.size();
    while (!bytes.empty()) {
      std::size_t const part = std::min(bytes.size(), block_.size() - filled_);
      std::copy_n(bytes.begin(), part, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
      filled_ += part;
      bytes = bytes.subspan(part);
      if (filled_ == block_.size()) {
        fold();
        filled_ = 0;
      }
    }
  }

  std::string hex() const {
    sha256 padded = *this;  // by a bit 1, zeros, and the length in bits
    std::array<std::byte, 72> tail{std::byte{0x80}};
    std::size_t const zeros = (119 - filled_) % 64;
    for (std::size_t i = 0; i < 8; ++i) {
      tail[1 + zeros + i] = static_cast<std::byte>(8 * length_ >> (56 - 8 * i));
    }
    padded.add(std::span(tail).first(9 + zeros));
    std::string text;
    for (std::uint32_t const word : padded.state_) {
      for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
    }
    return text;
  }

 private:
  void fold() {
    // the first 32 bits of the fractions of the cube roots of the first 64 primes
    static constexpr std::uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    using std::rotr;
    std::uint32_t w[64];
    for (std::size_t t = 0; t < 16; ++t) {
      w[t] = 0;
      for (std::size_t i = 0; i < 4; ++i) {
        w[t] = w[t] << 8 | std::to_integer<std::uint32_t>(block_[4 * t + i]);
      }
    }
    for (std::size_t t = 16; t < 64; ++t) {
      std::uint32_t const a = w[t - 15], b = w[t - 2];
      w[t] = (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10) + w[t - 7] +
             (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[t - 16];
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t t = 0; t < 64; ++t) {
      std::uint32_t const t1 =
          h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & f) ^ (~e & g)) + k[t] + w[t];
      std::uint32_t const t2 =
          (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    std::size_t i = 0;
    for (std::uint32_t const word : {a, b, c, d, e, f, g, h}) state_[i++] += word;
  }

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> block_{};
  std::size_t filled_ = 0;
  std::uint64_t length_ = 0;
};

}  // namespace ssm::detail
