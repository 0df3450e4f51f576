// SPDX-License-Identifier: Apache-2.0
// checkpoint_files.hpp: safetensors files written byte by byte, and where tests put them.
#pragma once

#include <stdlib.h>  // mkdtemp

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <system_error>

#include "ssm/error.hpp"

namespace ssm::test {

/// A new, empty directory, removed with all it holds at the end of the scope.
class temporary_directory {
 public:
  temporary_directory() {
    std::string name = (std::filesystem::temp_directory_path() / "ssm-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + name);
    path_ = name;
  }
  temporary_directory(temporary_directory const&) = delete;
  temporary_directory& operator=(temporary_directory const&) = delete;
  ~temporary_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  std::filesystem::path operator/(std::string const& name) const { return path_ / name; }
  std::filesystem::path const& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path write(std::filesystem::path const& path, std::string const& bytes) {
  std::ofstream{path, std::ios::binary} << bytes;
  return path;
}

/// The memory of some numbers, as the format stores them.
template <class T>
std::string bytes_of(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), std::data(values), bytes.size());
  return bytes;
}

/// A file of the format: the header's length, the header, the data.
inline std::string safetensors(std::string const& header, std::string const& data) {
  return bytes_of<std::uint64_t>({header.size()}) + header + data;
}

/// The header with spaces after it, so that the data starts at a multiple of 8.
inline std::string padded(std::string header) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

/// One tensor of the header: "a":{"dtype":...}.
inline std::string entry(std::string const& name, std::string const& type, std::string const& shape,
                         std::string const& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

/// What the checkpoint_error thrown by `call` says; "nothing thrown" if it returns.
template <class Call>
std::string message_of(Call const& call) {
  try {
    call();
  } catch (checkpoint_error const& error) {
    return error.what();
  }
  return "nothing thrown";
}

}  // namespace ssm::test
