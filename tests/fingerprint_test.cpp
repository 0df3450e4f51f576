// SPDX-License-Identifier: Apache-2.0
// fingerprint_test.cpp: SHA-256 against published digests; what differs has another fingerprint.
#include "ssm/fingerprint.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ssm {
namespace {

std::string sha256_of(std::string_view text, std::size_t cut) {
  detail::sha256 hash;
  auto const bytes = std::as_bytes(std::span(text));
  hash.add(bytes.first(std::min(cut, bytes.size())));
  hash.add(bytes.subspan(std::min(cut, bytes.size())));
  return hash.hex();
}

// FIPS 180-4 examples (csrc.nist.gov, SHA256.pdf), and lengths around a block from sha256sum.
TEST(Fingerprint, HashIsSha256HoweverItIsFed) {
  struct {
    std::string text;
    char const* digest;
  } const known[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(1000000, 'a'),
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
      {std::string(55, 'x'), "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072"},
      {std::string(56, 'x'), "04c26261370ee7541549d16dee320c723e3fd14671e66a099afe0a377c16888e"},
      {std::string(63, 'x'), "75220b47218278e656f2013bb8f0c455a25eaf01e86c64924e9d48d89776d6f2"},
      {std::string(64, 'x'), "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c"},
      {std::string(119, 'x'), "000b48d4edf0fa7bee3c6236ecd2785baa5db4eeb8bb54341b029e0d9fa5fb0c"},
      {std::string(120, 'x'), "13f05a0b594787f5ecd315edc96141bd3243203d1b7d4f0836f37308b276ba98"},
  };
  for (auto const& [text, digest] : known) {
    for (std::size_t const cut : {0u, 1u, 55u, 56u, 63u, 64u, 65u}) {
      EXPECT_EQ(sha256_of(text, cut), digest) << text.size() << " in two at " << cut;
    }
  }
}

TEST(Fingerprint, WhatDiffersHasAnother) {
  using texts = std::vector<std::string>;
  EXPECT_NE(fingerprint_of(texts{"ab", "c"}), fingerprint_of(texts{"a", "bc"}));
  EXPECT_NE(fingerprint_of(std::vector<double>{0.5}), fingerprint_of(std::vector<double>{-0.5}));
  EXPECT_NE(fingerprint_of(tensor<float, 2>({2, 3})), fingerprint_of(tensor<float, 2>({3, 2})));
  tensor<float, 2> a({2, 3}, 1), b = a;
  EXPECT_EQ(fingerprint_of(a), fingerprint_of(b));
  b(1, 2) = 1.0000001f;
  EXPECT_NE(fingerprint_of(a), fingerprint_of(b));
}

}  // namespace
}  // namespace ssm
