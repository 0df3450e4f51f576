// SPDX-License-Identifier: Apache-2.0
// calibrate_data.hpp: examples that may choose factors, and examples that may judge them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/fingerprint.hpp"
#include "ssm/random.hpp"

namespace ssm {

/// What selection sees. Two types and no way from one to the other: calibrate() takes this one,
/// held_out_loss() takes only held_out_set, which keeps its examples to itself.
template <class Example>
class calibration_set {
 public:
  /// Throws    domain_error for no examples.
  explicit calibration_set(std::vector<Example> examples) : examples_{std::move(examples)} {
    require<domain_error>(!examples_.empty(),
                          "calibration_set: there are no examples, expected at least one");
  }

  std::span<Example const> examples() const { return examples_; }

 private:
  std::vector<Example> examples_;
};

template <class Example>
void add_to(fingerprint& hash, calibration_set<Example> const& data) {
  for (Example const& example : data.examples()) add_to(hash, example);
}

/// The mean loss of examples that took no part in choosing, and its standard error.
struct judgement {
  double loss = 0;
  double standard_error = 0;  ///< over the examples; NaN for one
  index_t examples = 0;
};

template <class Example>
class held_out_set {
 public:
  /// Throws    domain_error for no examples.
  explicit held_out_set(std::vector<Example> examples) : examples_{std::move(examples)} {
    require<domain_error>(!examples_.empty(),
                          "held_out_set: there are no examples, expected at least one");
  }

  index_t size() const { return static_cast<index_t>(examples_.size()); }

 private:
  template <class Model, class E, class Loss, class Factors>
  friend judgement held_out_loss(Model const&, held_out_set<E> const&, Loss const&, Factors const&,
                                 int);

  std::vector<Example> examples_;
};

template <class Example>
struct data_split {
  calibration_set<Example> calibration;
  held_out_set<Example> held_out;
};

/// Put `held_out` of the examples aside, drawn without replacement from the stream of the seed;
/// both parts keep their order.
/// Throws    domain_error unless each part gets an example.
template <class Example>
data_split<Example> split(std::vector<Example> examples, index_t held_out, std::uint64_t seed) {
  index_t const count = std::ssize(examples);
  require<domain_error>(held_out >= 1 && held_out < count, "split: ", held_out,
                        " held-out examples of ", count, ", expected 1 to ", count - 1);
  random_stream const stream{seed};
  std::vector<index_t> order(examples.size());
  std::iota(order.begin(), order.end(), index_t{0});
  std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
    return std::pair(stream.bits(a), a) < std::pair(stream.bits(b), b);
  });
  std::vector<bool> is_aside(examples.size());
  for (index_t i = 0; i < held_out; ++i) {
    is_aside[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = true;
  }
  std::vector<Example> here, aside;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    (is_aside[i] ? aside : here).push_back(std::move(examples[i]));
  }
  return {calibration_set<Example>(std::move(here)), held_out_set<Example>(std::move(aside))};
}

}  // namespace ssm
