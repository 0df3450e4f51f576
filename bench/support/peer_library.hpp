// SPDX-License-Identifier: Apache-2.0
// peer_library.hpp: a shared object that a benchmark loads (--peer FILE), so that another library's
// calls and ours take turns in one process on the same inputs.
#pragma once

#include <dlfcn.h>

#include <stdexcept>
#include <string>

#include "ssm/error.hpp"

namespace ssm::bench {

class peer_library {
 public:
  /// `prefix` is what the names of its functions begin with; PREFIX_name() is what it calls itself.
  /// Throws    std::runtime_error for a file that does not define a function.
  peer_library(std::string const& file, std::string const& prefix)
      : file_{dlopen(file.c_str(), RTLD_NOW)}, prefix_{prefix} {
    require<std::runtime_error>(file_ != nullptr, "--peer: ", file_ == nullptr ? dlerror() : "");
    name_ = find<char const*()>("name")();
  }

  std::string const& name() const { return name_; }

  template <class Function>
  Function* find(std::string const& of) const {
    std::string const name = prefix_ + "_" + of;
    auto* const found = reinterpret_cast<Function*>(dlsym(file_, name.c_str()));
    require<std::runtime_error>(found != nullptr, "--peer: the file has no ", name);
    return found;
  }

  /// `wrong` is what a call returned: null, or what is wrong.
  void check(char const* wrong) const {
    require<std::runtime_error>(wrong == nullptr, name_, ": ", wrong == nullptr ? "" : wrong);
  }

 private:
  void* file_;  // stays loaded until the program ends
  std::string prefix_, name_;
};

}  // namespace ssm::bench
