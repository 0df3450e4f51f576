// SPDX-License-Identifier: Apache-2.0
// picture.hpp: a picture and what to see in it.
#pragma once

#include <string>

namespace ssm::theory {

struct picture {
  std::string name;  ///< of its file, without extension
  std::string svg;
  std::string caption;
};

}  // namespace ssm::theory
