// SPDX-License-Identifier: Apache-2.0
// files.hpp: text to files that are either complete or not there.
#pragma once

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

namespace ssm::theory::report {

namespace detail {

inline std::filesystem::path beside(std::filesystem::path path) {
  return path += ".part";
}

/// The file itself where `path` is a link to it: to be replaced, not the link.
inline std::filesystem::path target(std::filesystem::path const& path) {
  std::error_code error;
  auto const real = std::filesystem::canonical(path, error);
  return error ? path : real;
}

[[noreturn]] inline void cannot_write(std::filesystem::path const& path, std::string const& why) {
  throw std::runtime_error(path.string() + ": cannot be written" + (why.empty() ? "" : ": " + why));
}

}  // namespace detail

/// Throw now, before a long run, where write_file() could not write later.
/// Throws    std::runtime_error, naming the file.
inline void require_writable(std::filesystem::path const& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) detail::cannot_write(path, "is a directory");
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    detail::cannot_write(path, "is not a file");  // a device, which a file must not replace
  }
  auto const part = detail::beside(detail::target(path));
  bool const opened = std::ofstream(part, std::ios::app).is_open();
  std::filesystem::remove(part, error);
  if (!opened) detail::cannot_write(path, "its directory is missing or closed to you");
}

/// Written beside its place and then put there, so that no reader ever finds a part of it.
/// Throws    std::runtime_error, naming the file.
inline void write_file(std::filesystem::path const& path, std::string const& text) {
  auto const place = detail::target(path);
  auto const part = detail::beside(place);
  std::ofstream file(part, std::ios::binary);
  file << text;
  file.close();
  std::error_code failed;
  if (file) std::filesystem::rename(part, place, failed);
  if (file && !failed) return;
  std::error_code ignored;
  std::filesystem::remove(part, ignored);
  detail::cannot_write(path, failed ? failed.message() : "");
}

}  // namespace ssm::theory::report
