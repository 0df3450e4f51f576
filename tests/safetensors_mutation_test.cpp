// SPDX-License-Identifier: Apache-2.0
// safetensors_mutation_test.cpp: damaged files are read consistently or refused, never otherwise.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>
#include <string_view>

#include "ssm/model/safetensors.hpp"
#include "support/checkpoint_files.hpp"

namespace {

using ssm::model::dtype;
using ssm::model::safetensors_file;
using ssm::test::message_of;
using ssm::test::padded;
using ssm::test::safetensors;
using ssm::test::temporary_directory;
using ssm::test::write;

std::string valid_file() {
  std::string const header = padded(R"({"__metadata__":{"format":"pt"},)"
                                    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                                    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},)"
                                    R"("c":{"dtype":"I64","shape":[],"data_offsets":[32,40]},)"
                                    R"("d":{"dtype":"BOOL","shape":[3,0],"data_offsets":[40,40]},)"
                                    R"("e":{"dtype":"U8","shape":[5,1],"data_offsets":[40,45]}})");
  std::string data(45, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(37 * i + 11);
  return safetensors(header, data);
}

class mutator {
 public:
  explicit mutator(unsigned seed) : random_{seed} {}

  void damage(std::string& bytes) {
    std::size_t const at = below(bytes.size());
    switch (below(8)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.insert(at, 1, any());
        break;
      case 2:
        bytes.erase(at, 1 + below(8));
        break;
      case 3:
        repeat(bytes, at);
        break;
      case 4:
        bytes[below(8)] = any();  // of the header's length
        break;
      case 5:
        bytes[at] = any();
        break;
      default:
        bytes[at] = telling();
        break;
    }
  }

  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : random_() % bound; }

 private:
  void repeat(std::string& bytes, std::size_t at) {
    std::size_t const from = below(bytes.size());
    std::size_t const count = below(80);
    bytes.insert(at, bytes.substr(from, count));
  }

  char any() { return static_cast<char>(random_() & 0xffu); }
  // What means something in a header, so that more of the damaged ones get past the parser.
  char telling() {
    using namespace std::string_view_literals;
    constexpr auto alphabet = "00123456789-,.:[]{}\"eEFIUB \\\0\xff"sv;
    return alphabet[below(alphabet.size())];
  }

  std::mt19937 random_;
};

// Reads a matrix of floats both ways; a damaged header may have moved them off their alignment.
void expect_view_equals_copy(safetensors_file const& file, std::string const& name) {
  auto const copy = file.read<float, 2>(name);
  std::string const refusal = message_of([&] {
    auto const view = file.view<float, 2>(name);
    ASSERT_EQ(view.extents(), copy.extents());
    ASSERT_TRUE(view.empty() ||
                std::memcmp(&view(0, 0), copy.data(), 4 * file.info(name).size()) == 0);
  });
  ASSERT_TRUE(refusal == "nothing thrown" || refusal.find("not a multiple of 4") != refusal.npos)
      << refusal;
}

// Everything a reader may ask of a file that opened.
void expect_consistent(safetensors_file const& file) {
  std::size_t total = 0;
  for (auto const& [name, info] : file.tensors()) {
    SCOPED_TRACE(name);
    ASSERT_LE(info.begin, info.end);
    ASSERT_EQ(info.size() * byte_size(info.type), info.end - info.begin);
    ASSERT_EQ(file.values<double>(name).size(), info.size());
    if (info.shape.size() == 2 && info.type == dtype::f32) expect_view_equals_copy(file, name);
    total += info.end - info.begin;
  }
  ASSERT_LE(8 + total, std::filesystem::file_size(file.path()));
}

TEST(SafetensorsMutation, ADamagedFileIsReadConsistentlyOrRefused) {
  constexpr unsigned seed = 20240607;
  constexpr int trials = 5000;
  temporary_directory const directory;
  std::string const whole = valid_file();
  mutator mutate{seed};
  int accepted = 0;
  for (int trial = 0; trial < trials; ++trial) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", trial " + std::to_string(trial));
    std::string bytes = whole;
    std::size_t const wounds = 1 + mutate.below(3);
    for (std::size_t i = 0; i < wounds && bytes.size() > 8; ++i) mutate.damage(bytes);

    auto const path = write(directory / "damaged.safetensors", bytes);
    std::string const refusal = message_of([&] {
      safetensors_file const file{path};
      expect_consistent(file);
    });
    if (refusal == "nothing thrown") {
      ++accepted;
    } else {
      ASSERT_TRUE(refusal.starts_with(path.string() + ": ")) << refusal;
    }
    if (HasFatalFailure()) return;
  }
  std::cout << "seed " << seed << ": " << accepted << " of " << trials << " accepted\n";
  EXPECT_GT(accepted, trials / 100) << "the damage is too coarse to test the reader";
  EXPECT_LT(accepted, trials / 2) << "the damage is too fine to test the checks";
}

TEST(SafetensorsMutation, EveryTruncationIsRefused) {
  temporary_directory const directory;
  std::string const whole = valid_file();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    auto const path = write(directory / "short.safetensors", whole.substr(0, size));
    EXPECT_NE(message_of([&] { safetensors_file{path}; }), "nothing thrown") << "size " << size;
  }
}

}  // namespace
