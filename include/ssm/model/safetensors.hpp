// SPDX-License-Identifier: Apache-2.0
// safetensors.hpp: the named tensors of one .safetensors file, checked, mapped and read.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>  // std::less<>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "ssm/detail/json.hpp"
#include "ssm/detail/mapped_file.hpp"
#include "ssm/error.hpp"
#include "ssm/model/dtype.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::model {

static_assert(std::endian::native == std::endian::little,
              "safetensors stores little-endian numbers, which are read without swapping bytes");

/// What the header says of one tensor; checked, so that end - begin = size · byte_size(type).
struct tensor_info {
  dtype type;
  std::vector<index_t> shape;  // empty: a scalar
  std::size_t begin;           // bytes [begin, end) of the data that follow the header
  std::size_t end;

  std::size_t size() const { return (end - begin) / byte_size(type); }
};

/// "(2, 3)"; "()" for a scalar.
inline std::string to_string(std::vector<index_t> const& shape) {
  std::string text = "(";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  }
  return text + ")";
}

/// One .safetensors file, mapped into memory. The whole header is checked when it is opened; the
/// numbers themselves are not looked at. Elements are row-major, the last axis fastest.
/// Views last as long as the object they came from, or the one it was moved to. The file must not
/// be changed meanwhile: replace a checkpoint by renaming a new file over it.
/// Throws    checkpoint_error, naming the file and the tensor, from every function: a file that
///           breaks the format, a name it does not hold, another dtype or shape than asked for.
/// Source    github.com/huggingface/safetensors, README.md, "Format". As there, keys of a tensor
///           beyond dtype, shape and data_offsets are ignored. Stricter: extents may not overflow
///           even next to an extent of 0, "__metadata__" may not be null, and only the types listed
///           in dtype are known.
/// Tested    tests/safetensors_test.cpp; refusals in safetensors_format_test.cpp, damaged files in
///           safetensors_mutation_test.cpp.
class safetensors_file {
 public:
  explicit safetensors_file(std::filesystem::path path) : path_{std::move(path)}, file_{path_} {
    constexpr std::uint64_t longest_header = 100'000'000;  // as in the reference implementation
    std::span<std::byte const> const bytes = file_.bytes();
    std::uint64_t length = 0;
    demand(bytes.size() >= sizeof(length), "holds ", bytes.size(),
           " bytes, expected at least the 8 of the header length");
    std::memcpy(&length, bytes.data(), sizeof(length));
    demand(length <= longest_header, "header length ", length, " exceeds ", longest_header);
    demand(length <= bytes.size() - sizeof(length), "header length ", length,
           " exceeds the file of ", bytes.size(), " bytes");

    std::span<std::byte const> const header = bytes.subspan(sizeof(length), length);
    data_ = bytes.subspan(sizeof(length) + length);
    read_header({reinterpret_cast<char const*>(header.data()), header.size()});
    require_full_coverage();
  }

  std::filesystem::path const& path() const { return path_; }
  std::map<std::string, tensor_info, std::less<>> const& tensors() const { return tensors_; }
  /// The free text under "__metadata__"; empty if there is none.
  std::map<std::string, std::string> const& metadata() const { return metadata_; }

  bool contains(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }

  tensor_info const& info(std::string_view name) const {
    auto const found = tensors_.find(name);
    demand(found != tensors_.end(), "has no tensor \"", name, "\"");
    return found->second;
  }

  /// The elements where they lie, without a copy. The dtype must be that of T, the rank Rank.
  /// Throws    checkpoint_error also where the file does not align them for T, as writers that do
  ///           not pad the header leave them; read() has no such needs.
  template <stored_element T, int Rank>
  tensor_view<T const, Rank> view(std::string_view name) const {
    tensor_info const& found = info(name);
    demand(found.type == dtype_of<T>, "tensor \"", name, "\" has dtype ", to_string(found.type),
           ", expected ", to_string(dtype_of<T>));
    index_array<Rank> const extents = extents_of<Rank>(name, found);
    std::byte const* const start = data_.data() + found.begin;
    auto const position = static_cast<std::size_t>(start - file_.bytes().data());
    // A mapping starts at a page, so the position in the file decides.
    demand(position % alignof(T) == 0, "tensor \"", name, "\" starts at byte ", position,
           " of the file, not a multiple of ", alignof(T), ": it can be read but not viewed");
    return {reinterpret_cast<T const*>(start), extents};
  }

  /// The elements converted to T, which rounds to nearest where T is narrower; BOOL gives 0 and 1.
  template <std::floating_point T, int Rank>
  tensor<T, Rank> read(std::string_view name) const {
    tensor_info const& found = info(name);
    tensor<T, Rank> result{extents_of<Rank>(name, found)};
    convert(found, result.data());
    return result;
  }

  /// The same, for a tensor whose shape must be `expected`.
  template <std::floating_point T, int Rank>
  tensor<T, Rank> read(std::string_view name, index_array<Rank> const& expected) const {
    tensor_info const& found = info(name);
    demand(
        std::equal(found.shape.begin(), found.shape.end(), expected.value, expected.value + Rank),
        "tensor \"", name, "\" has shape ", to_string(found.shape), ", expected ",
        to_string(expected));
    return read<T, Rank>(name);
  }

  /// The elements converted as read() does, of any rank, in a row.
  template <std::floating_point T>
  std::vector<T> values(std::string_view name) const {
    tensor_info const& found = info(name);
    std::vector<T> result(found.size());
    convert(found, result.data());
    return result;
  }

 private:
  template <class... Parts>
  void demand(bool holds, Parts const&... parts) const {
    require<checkpoint_error>(holds, path_.string(), ": ", parts...);
  }

  void read_header(std::string_view text) {
    demand(text.starts_with('{'), "header does not begin with '{'");
    nlohmann::json const header = detail::parse_json(text, path_.string() + ": header");
    for (auto const& [name, value] : header.items()) {
      if (name == "__metadata__") {
        read_metadata(value);
      } else {
        tensors_.emplace(name, parse_info(name, value));
      }
    }
  }

  void read_metadata(nlohmann::json const& entries) {
    demand(entries.is_object(), "__metadata__ is not an object");
    for (auto const& [key, text] : entries.items()) {
      demand(text.is_string(), "__metadata__ \"", key, "\" is not a string");
      metadata_.emplace(key, text.template get<std::string>());
    }
  }

  tensor_info parse_info(std::string const& name, nlohmann::json const& entry) const {
    auto const demand_here = [&](bool holds, auto const&... parts) {
      demand(holds, "tensor \"", name, "\" ", parts...);
    };
    auto const member = [&](char const* key) -> nlohmann::json const& {
      demand_here(entry.is_object() && entry.contains(key), "has no ", key);
      return entry.at(key);
    };
    nlohmann::json const& type = member("dtype");
    nlohmann::json const& shape = member("shape");
    nlohmann::json const& offsets = member("data_offsets");

    auto const known = std::find_if(
        detail::dtype_names.begin(), detail::dtype_names.end(),
        [&](std::string_view dtype_name) { return type == nlohmann::json(dtype_name); });
    demand_here(known != detail::dtype_names.end(), "has unknown dtype ", type);
    tensor_info result{static_cast<dtype>(known - detail::dtype_names.begin()), {}, 0, 0};

    // An extent of 0 counts as 1 here: strides are products of the other extents and must fit.
    constexpr auto largest = static_cast<std::uint64_t>(std::numeric_limits<index_t>::max());
    std::uint64_t bytes = byte_size(result.type);
    bool is_empty = false;
    demand_here(shape.is_array(), "has shape ", shape, ", expected an array");
    for (nlohmann::json const& extent : shape) {
      // Unsigned to the parser: an integer from 0 to 2^64 - 1, written without sign or fraction.
      demand_here(extent.is_number_unsigned(), "has shape ", shape,
                  ", expected non-negative integers");
      auto const count = extent.get<std::uint64_t>();
      demand_here(count <= largest / bytes, "has shape ", shape, ", whose size overflows");
      bytes *= std::max<std::uint64_t>(count, 1);
      is_empty = is_empty || count == 0;
      result.shape.push_back(static_cast<index_t>(count));
    }
    if (is_empty) bytes = 0;

    demand_here(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
                    offsets[1].is_number_unsigned(),
                "has data_offsets ", offsets, ", expected two non-negative integers");
    result.begin = offsets[0].get<std::size_t>();
    result.end = offsets[1].get<std::size_t>();
    demand_here(result.begin <= result.end, "has data_offsets ", offsets, ", which run backward");
    demand_here(result.end <= data_.size(), "has data_offsets ", offsets, " in data of ",
                data_.size(), " bytes");
    demand_here(result.end - result.begin == bytes, "has ", result.end - result.begin,
                " bytes, expected ", bytes, " for ", to_string(result.type), " of shape ",
                to_string(result.shape));
    return result;
  }

  // The format allows neither overlaps nor bytes that belong to no tensor.
  void require_full_coverage() const {
    std::vector<std::tuple<std::size_t, std::size_t, std::string_view>> ranges;
    for (auto const& [name, info] : tensors_) ranges.emplace_back(info.begin, info.end, name);
    std::sort(ranges.begin(), ranges.end());
    std::size_t covered = 0;
    for (auto const& [begin, end, name] : ranges) {
      demand(begin >= covered, "tensor \"", name, "\" overlaps another, at byte ", begin,
             " of the data");
      demand(begin == covered, "bytes ", covered, " to ", begin,
             " of the data belong to no tensor");
      covered = end;
    }
    demand(covered == data_.size(), "bytes ", covered, " to ", data_.size(),
           " of the data belong to no tensor");
  }

  template <int Rank>
  index_array<Rank> extents_of(std::string_view name, tensor_info const& found) const {
    demand(found.shape.size() == Rank, "tensor \"", name, "\" has shape ", to_string(found.shape),
           ", expected rank ", Rank);
    index_array<Rank> extents{};
    for (int axis = 0; axis < Rank; ++axis) {
      extents[axis] = found.shape[static_cast<std::size_t>(axis)];
    }
    return extents;
  }

  template <class T>
  void convert(tensor_info const& found, T* result) const {
    std::byte const* const from = data_.data() + found.begin;
    std::size_t const count = found.size();
    detail::with_element(found.type, [&](auto element) {
      using stored = decltype(element);
      for (std::size_t i = 0; i < count; ++i) {
        std::memcpy(&element, from + i * sizeof(stored), sizeof(stored));  // may be unaligned
        result[i] = static_cast<T>(static_cast<accumulator_t<stored>>(element));
      }
    });
  }

  std::filesystem::path path_;
  detail::mapped_file file_;
  std::span<std::byte const> data_;  // what follows the header
  std::map<std::string, tensor_info, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace ssm::model
