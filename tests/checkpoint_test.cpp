// SPDX-License-Identifier: Apache-2.0
// checkpoint_test.cpp: model directories of one file and of shards, complete and not.
#include "ssm/model/checkpoint.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "support/checkpoint_files.hpp"

namespace {

using ssm::model::checkpoint;
using ssm::test::bytes_of;
using ssm::test::message_of;
using ssm::test::padded;
using ssm::test::safetensors;
using ssm::test::temporary_directory;
using ssm::test::write;

// A file of tensors with one float each, of shape (1).
std::string floats(std::vector<std::pair<std::string, float>> const& tensors) {
  std::string header;
  std::string data;
  for (auto const& [name, value] : tensors) {
    std::string const begin = std::to_string(data.size());
    data += bytes_of<float>({value});
    header += (header.empty() ? "{\"" : ",\"") + name +
              R"(":{"dtype":"F32","shape":[1],"data_offsets":[)" + begin + "," +
              std::to_string(data.size()) + "]}";
  }
  return safetensors(padded(header + "}"), data);
}

// Two shards, a and b in the first, c in the second, and the given index.
class sharded {
 public:
  explicit sharded(std::string const& weight_map) {
    write(directory / "1.safetensors", floats({{"a", 1.0f}, {"b", 2.0f}}));
    write(directory / "2.safetensors", floats({{"c", 3.0f}}));
    write(directory / "model.safetensors.index.json", weight_map);
  }

  // Without the directory in front.
  std::string refusal() const {
    std::string const message = message_of([&] { checkpoint{directory.path()}; });
    std::string const prefix = directory.path().string() + "/";
    return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
  }

  temporary_directory directory;
};

constexpr char const* complete =
    R"({"metadata":{"total_size":12},)"
    R"("weight_map":{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}})";

TEST(Checkpoint, ReadsTensorsFromEveryShard) {
  sharded const files{complete};
  checkpoint opened{files.directory.path()};
  checkpoint const model{std::move(opened)};
  EXPECT_EQ(model.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(model.contains("c"));
  EXPECT_FALSE(model.contains("d"));
  EXPECT_EQ(model.values<double>("b"), std::vector<double>{2.0});
  EXPECT_EQ((model.read<double, 1>("a")(0)), 1.0);
  EXPECT_EQ((model.read<float, 1>("c", {{1}})(0)), 3.0f);
  EXPECT_EQ((model.view<float, 1>("c")(0)), 3.0f);
  EXPECT_EQ(model.info("c").type, ssm::model::dtype::f32);
  EXPECT_EQ(model.file("c").path(), files.directory / "2.safetensors");
}

TEST(Checkpoint, ErrorsNameTheShard) {
  sharded const files{complete};
  checkpoint const model{files.directory.path()};
  EXPECT_EQ(
      message_of([&] { model.read<float, 1>("c", {{2}}); }),
      (files.directory / "2.safetensors").string() + ": tensor \"c\" has shape (1), expected (2)");
  EXPECT_EQ(message_of([&] { model.info("d"); }),
            files.directory.path().string() + ": has no tensor \"d\"");
}

TEST(Checkpoint, PrefersTheSingleFile) {
  sharded const files{"not even JSON"};
  write(files.directory / "model.safetensors", floats({{"z", 9.0f}}));
  checkpoint const model{files.directory.path()};
  EXPECT_EQ(model.names(), std::vector<std::string>{"z"});
}

TEST(Checkpoint, RefusesADirectoryWithoutTensors) {
  temporary_directory const directory;
  std::string const neither = ": holds neither model.safetensors nor model.safetensors.index.json";
  EXPECT_EQ(message_of([&] { checkpoint{directory.path()}; }), directory.path().string() + neither);
  EXPECT_EQ(message_of([&] { checkpoint{directory / "missing"}; }),
            (directory / "missing").string() + neither);
}

TEST(Checkpoint, RefusesAMalformedIndex) {
  std::string const at = "model.safetensors.index.json: ";
  EXPECT_TRUE(sharded{""}.refusal().starts_with(at + "index is not valid JSON: "));
  EXPECT_EQ(sharded{"[]"}.refusal(), at + "index has no object \"weight_map\"");
  EXPECT_EQ(sharded{R"({"weight_map":[]})"}.refusal(), at + "index has no object \"weight_map\"");
  EXPECT_EQ(sharded{R"({"weight_map":{"a":"1.safetensors","a":"2.safetensors"}})"}.refusal(),
            at + "index names key \"a\" twice");
  for (std::string const shard : {"3", "\"\"", "\".\"", "\"..\"", "\"../1.safetensors\"",
                                  "\"/etc/passwd\"", "\"sub/1.safetensors\"", "\"sub/\""}) {
    EXPECT_EQ(sharded{R"({"weight_map":{"a":)" + shard + "}}"}.refusal(),
              at + "tensor \"a\" is in " + shard + ", expected a file name without directories");
  }
}

TEST(Checkpoint, RefusesShardsThatDisagreeWithTheIndex) {
  std::string const at = "model.safetensors.index.json: ";
  EXPECT_EQ(sharded{R"({"weight_map":{"a":"3.safetensors"}})"}.refusal(),
            "3.safetensors: cannot be opened: No such file or directory");
  EXPECT_EQ(sharded{R"({"weight_map":{"a":"1.safetensors","c":"2.safetensors"}})"}.refusal(),
            at + "tensor \"b\" of 1.safetensors is not listed");
  EXPECT_EQ(sharded{R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})"}.refusal(),
            at + "tensor \"b\" is not in 2.safetensors");
  EXPECT_EQ(sharded{R"({"weight_map":{"a":"1.safetensors","b":"1.safetensors",)"
                    R"("d":"2.safetensors"}})"}
                .refusal(),
            at + "tensor \"d\" is not in 2.safetensors");
}

TEST(Checkpoint, RefusesATensorThatIsInTwoShards) {
  sharded const files{complete};
  write(files.directory / "2.safetensors", floats({{"b", 2.0f}, {"c", 3.0f}}));
  EXPECT_EQ(files.refusal(), "2.safetensors: tensor \"b\" is also in " +
                                 (files.directory / "1.safetensors").string());
}

TEST(Checkpoint, ChecksEveryShardBeforeAnyIsUsed) {
  sharded const files{complete};
  write(files.directory / "2.safetensors", "cut");
  EXPECT_EQ(files.refusal(),
            "2.safetensors: holds 3 bytes, expected at least the 8 of the header length");
}

TEST(Checkpoint, OpensARealDirectory) {
  checkpoint const model{SSM_TEST_DATA "/tiny-mamba"};
  EXPECT_EQ(model.names().size(), 22u);
  EXPECT_EQ(model.values<float>("backbone.layers.0.mixer.D")[0], 0x1.46c3bap+0f);
}

}  // namespace
