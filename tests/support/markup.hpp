// SPDX-License-Identifier: Apache-2.0
// markup.hpp: is an HTML or SVG text well formed?
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace ssm::test {

/// What is wrong with its tags or with a number in them; empty where nothing is.
inline std::string complaint(std::string const& text) {
  std::vector<std::string> open;
  std::vector<std::string> const single{"meta", "br", "!DOCTYPE"};
  for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
    std::size_t const end = text.find('>', at);
    if (end == std::string::npos) return "a tag does not end";
    std::string const tag = text.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos) return "a tag in the tag " + tag;
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "an odd quote in " + tag;
    for (char const* word : {"nan", "inf"}) {
      if (tag.find(word) != std::string::npos) return tag;
    }
    std::string const name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag.starts_with('/')) {
      if (open.empty() || open.back() != tag.substr(1)) return "closes what is not open: " + tag;
      open.pop_back();
    } else if (!tag.ends_with('/') &&
               std::find(single.begin(), single.end(), name) == single.end()) {
      open.push_back(name);
    }
  }
  return open.empty() ? "" : "does not close " + open.back();
}

}  // namespace ssm::test
