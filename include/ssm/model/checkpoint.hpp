// SPDX-License-Identifier: Apache-2.0
// checkpoint.hpp: the tensors of a Hugging Face model directory, in one file or in shards.
#pragma once

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <functional>  // std::less<>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ssm/detail/json.hpp"
#include "ssm/detail/mapped_file.hpp"
#include "ssm/error.hpp"
#include "ssm/model/safetensors.hpp"

namespace ssm::model {

/// All tensors of a directory: those of model.safetensors, or where there is none, of the shards
/// that model.safetensors.index.json names. Opening it checks every file, and that the index and
/// the shards agree on every tensor, so a checkpoint that opens is complete.
/// The other functions are those of the safetensors_file that holds the tensor.
/// Throws    checkpoint_error, naming the file and the tensor.
/// Tested    tests/checkpoint_test.cpp.
class checkpoint {
 public:
  explicit checkpoint(std::filesystem::path const& directory) : directory_{directory} {
    std::filesystem::path const single = directory / "model.safetensors";
    std::filesystem::path const index = directory / "model.safetensors.index.json";
    if (exists(single)) {
      open(single);
    } else {
      require<checkpoint_error>(exists(index), directory.string(),
                                ": holds neither model.safetensors nor ",
                                index.filename().string());
      open_shards(index);
    }
  }

  /// Every name, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (auto const& entry : file_of_) result.push_back(entry.first);
    return result;
  }

  bool contains(std::string_view name) const { return file_of_.find(name) != file_of_.end(); }

  /// The file that holds the tensor.
  safetensors_file const& file(std::string_view name) const {
    auto const found = file_of_.find(name);
    require<checkpoint_error>(found != file_of_.end(), directory_.string(), ": has no tensor \"",
                              name, "\"");
    return files_[found->second];
  }

  tensor_info const& info(std::string_view name) const { return file(name).info(name); }

  template <stored_element T, int Rank>
  tensor_view<T const, Rank> view(std::string_view name) const {
    return file(name).view<T, Rank>(name);
  }

  template <std::floating_point T, int Rank>
  tensor<T, Rank> read(std::string_view name) const {
    return file(name).read<T, Rank>(name);
  }

  template <std::floating_point T, int Rank>
  tensor<T, Rank> read(std::string_view name, index_array<Rank> const& expected) const {
    return file(name).read<T, Rank>(name, expected);
  }

  template <std::floating_point T>
  std::vector<T> values(std::string_view name) const {
    return file(name).values<T>(name);
  }

 private:
  static bool exists(std::filesystem::path const& path) {
    std::error_code unreadable;  // counts as missing
    return std::filesystem::exists(path, unreadable);
  }

  void open(std::filesystem::path const& path) {
    files_.emplace_back(path);
    for (auto const& entry : files_.back().tensors()) {
      auto const [home, is_new] = file_of_.emplace(entry.first, files_.size() - 1);
      require<checkpoint_error>(is_new, path.string(), ": tensor \"", entry.first, "\" is also in ",
                                files_[home->second].path().string());
    }
  }

  void open_shards(std::filesystem::path const& index) {
    std::map<std::string, std::string> const listed = read_weight_map(index);
    std::map<std::string, std::size_t> opened;
    for (auto const& [name, shard] : listed) {
      if (opened.emplace(shard, files_.size()).second) open(directory_ / shard);
    }
    for (auto const& [name, shard] : listed) {
      require<checkpoint_error>(files_[opened.at(shard)].contains(name), index.string(),
                                ": tensor \"", name, "\" is not in ", shard);
    }
    for (auto const& entry : file_of_) {
      require<checkpoint_error>(listed.count(entry.first) == 1, index.string(), ": tensor \"",
                                entry.first, "\" of ", file(entry.first).path().filename().string(),
                                " is not listed");
    }
  }

  static std::map<std::string, std::string> read_weight_map(std::filesystem::path const& index) {
    detail::mapped_file const file{index};
    nlohmann::json const content = detail::parse_json(
        {reinterpret_cast<char const*>(file.bytes().data()), file.bytes().size()},
        index.string() + ": index");
    require<checkpoint_error>(content.is_object() && content.contains("weight_map") &&
                                  content.at("weight_map").is_object(),
                              index.string(), ": index has no object \"weight_map\"");

    std::map<std::string, std::string> result;
    for (auto const& [name, shard] : content.at("weight_map").items()) {
      // A bare file name: an index from elsewhere must not reach out of its directory.
      require<checkpoint_error>(
          shard.is_string() && is_bare_name(shard.template get<std::string>()), index.string(),
          ": tensor \"", name, "\" is in ", shard, ", expected a file name without directories");
      result.emplace(name, shard.template get<std::string>());
    }
    return result;
  }

  static bool is_bare_name(std::filesystem::path const& name) {
    return name == name.filename() && name != "." && name != ".." && !name.empty();
  }

  std::filesystem::path directory_;
  std::vector<safetensors_file> files_;
  std::map<std::string, std::size_t, std::less<>> file_of_;  // tensor → position in files_
};

}  // namespace ssm::model
