// SPDX-License-Identifier: Apache-2.0
// dtype.hpp: the element types a checkpoint may hold, and the C++ types they are in memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "ssm/detail/half.hpp"

namespace ssm::model {

/// How a file stores BOOL: one byte. Not bool itself, which may hold no byte but 0 and 1.
struct boolean {
  std::uint8_t byte;
  constexpr operator bool() const { return byte != 0; }
};

/// The element types of the safetensors format that this library reads.
enum class dtype { boolean, u8, i8, u16, i16, f16, bf16, u32, i32, f32, u64, i64, f64 };

}  // namespace ssm::model

namespace ssm::detail {

// In the order of dtype: what one element is in memory, and the format's name for it.
using dtype_elements =
    std::tuple<model::boolean, std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, float16,
               bfloat16, std::uint32_t, std::int32_t, float, std::uint64_t, std::int64_t, double>;
inline constexpr std::array<std::string_view, 13> dtype_names = {
    "BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64"};
static_assert(std::tuple_size_v<dtype_elements> == dtype_names.size());

// The position of T among the elements; their number if it is not one of them.
template <class T>
constexpr std::size_t dtype_index() {
  std::size_t index = 0;
  std::size_t found = dtype_names.size();
  std::apply(
      [&](auto... element) {
        ((found = std::is_same_v<T, decltype(element)> ? index : found, ++index), ...);
      },
      dtype_elements{});
  return found;
}

// Call visit(element) with a zero of the type that belongs to `type`.
template <class Visitor>
void with_element(model::dtype type, Visitor const& visit) {
  std::size_t index = 0;
  std::apply(
      [&](auto... element) {
        ((index++ == static_cast<std::size_t>(type) ? visit(element) : void()), ...);
      },
      dtype_elements{});
}

}  // namespace ssm::detail

namespace ssm::model {

/// A C++ type that is, bit for bit, an element of some dtype.
template <class T>
concept stored_element = detail::dtype_index<T>()
< detail::dtype_names.size();

/// The dtype whose elements are T.
template <stored_element T>
inline constexpr dtype dtype_of = static_cast<dtype>(detail::dtype_index<T>());

/// The format's name: "BOOL", "BF16", "F32".
inline std::string_view to_string(dtype type) {
  return detail::dtype_names[static_cast<std::size_t>(type)];
}

/// Bytes of one element.
inline std::size_t byte_size(dtype type) {
  std::size_t size = 0;
  detail::with_element(type, [&](auto element) { size = sizeof(element); });
  return size;
}

}  // namespace ssm::model
