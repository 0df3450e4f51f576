// SPDX-License-Identifier: Apache-2.0
// mapped_file.hpp: the bytes of a file, mapped read-only into memory (POSIX).
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "ssm/error.hpp"

namespace ssm::detail {

/// A regular file in memory; pages are read from disk when first touched. Move-only; the bytes
/// stay where they are when it is moved. The file must not shrink while it is mapped.
/// Throws    checkpoint_error, naming the file, if it is missing, unreadable or not regular.
class mapped_file {
 public:
  explicit mapped_file(std::filesystem::path const& path) {
    // O_NONBLOCK: opening a named pipe must fail below, not wait here for a writer.
    int const file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    require_success(file >= 0, path, "cannot be opened");
    try {
      map(file, path);
    } catch (...) {
      ::close(file);
      throw;
    }
    ::close(file);  // the mapping does not need it
  }

  mapped_file(mapped_file&& other) noexcept : bytes_{std::exchange(other.bytes_, {})} {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~mapped_file() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  std::span<std::byte const> bytes() const { return bytes_; }

 private:
  static void require_success(bool holds, std::filesystem::path const& path, char const* what) {
    if (holds) return;
    std::error_code const reason{errno, std::generic_category()};
    require<checkpoint_error>(false, path.string(), ": ", what, ": ", reason.message());
  }

  void map(int file, std::filesystem::path const& path) {
    struct stat status = {};
    require_success(::fstat(file, &status) == 0, path, "cannot be examined");
    require<checkpoint_error>(S_ISREG(status.st_mode), path.string(), ": is not a regular file");
    if (status.st_size == 0) return;  // mmap refuses a length of 0

    auto const size = static_cast<std::size_t>(status.st_size);
    void* const start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    require_success(start != MAP_FAILED, path, "cannot be mapped");
    bytes_ = {static_cast<std::byte const*>(start), size};
  }

  std::span<std::byte const> bytes_;
};

}  // namespace ssm::detail
