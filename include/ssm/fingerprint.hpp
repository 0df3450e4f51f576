// SPDX-License-Identifier: Apache-2.0
// fingerprint.hpp: models and data named by their content, so that a file knows what it is for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ssm/detail/sha256.hpp"
#include "ssm/tensor.hpp"

namespace ssm {

// add_to(hash, value) adds a value: numbers and text as their bytes, arrays after their extents, so
// that no two values of a type are the same bytes. Give your own types one in their namespace,
// which adds its members. SHA-256, since two models that differ must not pass for one, not even
// where someone tries, and any machine can check it with sha256sum; hashing is not what takes time
// here.

class fingerprint : public detail::sha256 {};

template <class T>
requires std::is_arithmetic_v<T> || std::is_enum_v<T>
void add_to(fingerprint& hash, T const& value) {
  hash.add(std::as_bytes(std::span(&value, 1)));
}

inline void add_to(fingerprint& hash, std::string_view text) {
  add_to(hash, static_cast<std::uint64_t>(text.size()));
  hash.add(std::as_bytes(std::span(text)));
}

template <class T, int Rank>
void add_to(fingerprint& hash, tensor<T, Rank> const& values) {
  for (int axis = 0; axis < Rank; ++axis) add_to(hash, values.extent(axis));
  hash.add(std::as_bytes(std::span(values.data(), static_cast<std::size_t>(values.size()))));
}

template <class T>
void add_to(fingerprint& hash, std::vector<T> const& values) {
  add_to(hash, static_cast<std::uint64_t>(values.size()));
  for (T const& value : values) add_to(hash, value);
}

/// 64 hexadecimal digits.
template <class T>
std::string fingerprint_of(T const& value) {
  fingerprint hash;
  add_to(hash, value);
  return hash.hex();
}

}  // namespace ssm
