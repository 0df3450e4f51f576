// SPDX-License-Identifier: Apache-2.0
// machine.hpp: where and from what a program was built and run, for its report.
#pragma once

#include <fstream>
#include <string>

#include "ssm/detail/instruction_set.hpp"
#include "support/floors.hpp"

namespace ssm::bench {

inline std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    auto const colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

inline std::string name_of(instruction_set instructions) {
  switch (std::min(instructions, ssm::detail::machine_instruction_set())) {
    case instruction_set::baseline:
      return "baseline";
    case instruction_set::avx2:
      return "avx2";
    default:
      return "avx512";
  }
}

struct provenance {
  std::string program;
  std::string processor = processor_name();
  std::string instructions = name_of(instruction_set::widest);
  int threads = all_threads();
#if defined(__clang__)
  std::string compiler = "clang " __clang_version__;
#else
  std::string compiler = "g++ " __VERSION__;
#endif
  std::string flags = SSM_BENCH_FLAGS;    // of the build, from CMake
  std::string commit = SSM_BENCH_COMMIT;  // when it was configured
};

}  // namespace ssm::bench
