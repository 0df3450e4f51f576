// SPDX-License-Identifier: Apache-2.0
// write_file.hpp: text to a file that is either complete or as it was.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include "ssm/error.hpp"

namespace ssm::detail {

/// Written beside its place, then put there, so that no reader ever finds a part of it.
/// Throws    checkpoint_error, naming the file, which then is as it was.
inline void write_file(std::filesystem::path const& path, std::string_view text) {
  auto part = path;
  part += ".part";
  std::error_code failed;
  {
    std::ofstream file(part, std::ios::binary);
    file << text;
    file.close();
    if (!file) failed = std::make_error_code(std::errc::io_error);
  }
  if (!failed) std::filesystem::rename(part, path, failed);
  if (!failed) return;
  std::error_code ignored;
  std::filesystem::remove(part, ignored);
  throw checkpoint_error(path.string() + ": cannot be written: " + failed.message());
}

}  // namespace ssm::detail
