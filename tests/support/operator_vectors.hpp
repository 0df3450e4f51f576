// SPDX-License-Identifier: Apache-2.0
// operator_vectors.hpp: tests/data/operators.safetensors, cases of both selective operators with
// their results, all computed in float64 from inputs that are exact in float.
#pragma once

#include <algorithm>
#include <concepts>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "ssm/detail/json.hpp"
#include "ssm/model/safetensors.hpp"
#include "ssm/numerics.hpp"
#include "ssm/tensor.hpp"

namespace ssm::test {

/// One case of the file: its tensors by their names without the case's own, and its options.
class operator_case {
 public:
  operator_case(model::safetensors_file const& file, std::string name)
      : file_{&file},
        name_{std::move(name)},
        options_(ssm::detail::parse_json(file.metadata().at(name_), name_)) {}

  std::string const& name() const { return name_; }
  std::string kind() const { return options_.at("kind").get<std::string>(); }
  bool softplus() const { return options_.at("softplus").get<bool>(); }
  index_t extent(char const* axis) const { return options_.at(axis).get<index_t>(); }
  /// The two step limits; empty where there are none.
  std::vector<double> limits() const {
    return options_.contains("lim") ? options_.at("lim").get<std::vector<double>>()
                                    : std::vector<double>{};
  }

  bool contains(std::string const& tensor_name) const { return file_->contains(full(tensor_name)); }
  /// A tensor of the case; an empty one where the case has none of that name.
  template <std::floating_point T, int Rank>
  tensor<T, Rank> read(std::string const& tensor_name) const {
    if (!contains(tensor_name)) return {};
    return file_->read<T, Rank>(full(tensor_name));
  }

 private:
  std::string full(std::string const& tensor_name) const { return name_ + "." + tensor_name; }

  model::safetensors_file const* file_;
  std::string name_;
  nlohmann::json options_;
};

/// The cases whose operator is `kind`: "selective_scan" or "ssd".
inline std::vector<operator_case> operator_cases(model::safetensors_file const& file,
                                                 std::string_view kind) {
  std::vector<operator_case> cases;
  for (auto const& [name, options] : file.metadata()) {
    operator_case each(file, name);
    if (each.kind() == kind) cases.push_back(each);
  }
  return cases;
}

inline model::safetensors_file operator_vectors() {
  return model::safetensors_file(std::filesystem::path(SSM_TEST_DATA) / "operators.safetensors");
}

/// The largest error, relative to the largest of the expected magnitudes; infinite for NaN.
template <int Rank>
double relative_error(tensor<double, Rank> const& found, tensor<double, Rank> const& expected) {
  double worst = 0, largest = 0;
  bool const fits = found.extents() == expected.extents();
  for (index_t i = 0; fits && i < found.size(); ++i) {
    double const error = ssm::abs(found.data()[i] - expected.data()[i]);
    worst = error >= 0 ? std::max(worst, error) : std::numeric_limits<double>::infinity();
    largest = std::max(largest, ssm::abs(expected.data()[i]));
  }
  return fits && largest > 0 ? worst / largest : std::numeric_limits<double>::infinity();
}

}  // namespace ssm::test
