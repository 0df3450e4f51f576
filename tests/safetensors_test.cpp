// SPDX-License-Identifier: Apache-2.0
// safetensors_test.cpp: files built by hand, and a real one, are read as written.
#include "ssm/model/safetensors.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>  // mkfifo

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/checkpoint_files.hpp"

namespace {

using ssm::bfloat16;
using ssm::float16;
using ssm::model::dtype;
using ssm::model::safetensors_file;
using ssm::model::to_string;
using ssm::test::bytes_of;
using ssm::test::entry;
using ssm::test::message_of;
using ssm::test::padded;
using ssm::test::safetensors;
using ssm::test::temporary_directory;
using ssm::test::write;

TEST(Safetensors, ListsWhatTheHeaderSays) {
  temporary_directory const directory;
  std::string const header = padded(
      "{\"__metadata__\":{\"format\":\"pt\",\"origin\":\"a test\"}," +
      entry("b", "BF16", "[3]", "[8,14]") + "," + entry("a", "F32", "[2,1]", "[0,8]") + "," +
      entry("empty", "I64", "[4,0]", "[8,8]") + "," + entry("one", "U8", "[]", "[14,15]") + "}");
  safetensors_file const file{
      write(directory / "model.safetensors", safetensors(header, std::string(15, '\1')))};

  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.metadata().at("origin"), "a test");
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_TRUE(file.contains("a"));
  EXPECT_FALSE(file.contains("__metadata__"));
  EXPECT_EQ(file.info("b").type, dtype::bf16);
  EXPECT_EQ(file.info("b").begin, 8u);
  EXPECT_EQ(file.info("b").end, 14u);
  EXPECT_EQ(to_string(file.info("a").shape), "(2, 1)");
  EXPECT_EQ(to_string(file.info("one").shape), "()");
  EXPECT_EQ(file.info("one").size(), 1u);
  EXPECT_EQ(file.values<double>("one"), std::vector<double>{1.0});
  EXPECT_EQ((file.read<float, 2>("empty").size()), 0);
}

TEST(Safetensors, AFileWithoutTensorsIsValid) {
  temporary_directory const directory;
  safetensors_file const file{write(directory / "none.safetensors", safetensors("{}", ""))};
  EXPECT_TRUE(file.tensors().empty());
  EXPECT_TRUE(file.metadata().empty());
}

template <class T>
void expect_values(std::string const& name, std::initializer_list<T> stored,
                   std::vector<double> const& expected) {
  temporary_directory const directory;
  std::string const data = bytes_of(stored);
  std::string const count = std::to_string(stored.size());
  std::string const offsets = "[0," + std::to_string(data.size()) + "]";
  std::string const header = "{" + entry("x", name, "[" + count + "]", offsets) + "}";
  safetensors_file const file{
      write(directory / "x.safetensors", safetensors(padded(header), data))};

  EXPECT_EQ(to_string(file.info("x").type), name);
  EXPECT_EQ(byte_size(file.info("x").type), sizeof(T));
  EXPECT_EQ(file.info("x").type, ssm::model::dtype_of<T>);
  EXPECT_EQ(file.values<double>("x"), expected) << name;
  auto const view = file.view<T, 1>("x");
  auto const doubles = file.read<double, 1>("x");
  auto const floats = file.read<float, 1>("x");
  for (ssm::index_t i = 0; i < view.size(); ++i) {
    EXPECT_EQ(std::memcmp(&view(i), stored.begin() + i, sizeof(T)), 0) << name << " at " << i;
    EXPECT_EQ(doubles(i), expected[static_cast<std::size_t>(i)]) << name << " at " << i;
    EXPECT_EQ(floats(i), static_cast<float>(doubles(i))) << name << " at " << i;
  }
}

TEST(Safetensors, EveryDtypeConvertsToItsValue) {
  expect_values<ssm::model::boolean>("BOOL", {{0}, {1}, {2}}, {0, 1, 1});
  expect_values<std::uint8_t>("U8", {0, 200, 255}, {0, 200, 255});
  expect_values<std::int8_t>("I8", {-128, -1, 127}, {-128, -1, 127});
  expect_values<std::uint16_t>("U16", {1, 65535}, {1, 65535});
  expect_values<std::int16_t>("I16", {-32768, 5}, {-32768, 5});
  expect_values<float16>("F16", {float16::from_bits(1), float16(-65504.0f)}, {0x1p-24, -65504});
  expect_values<bfloat16>("BF16", {bfloat16(1.5f), bfloat16(-0x1p-126f)}, {1.5, -0x1p-126});
  expect_values<std::uint32_t>("U32", {7, 4294967295u}, {7, 4294967295.0});
  expect_values<std::int32_t>("I32", {-2147483647, 7}, {-2147483647, 7});
  expect_values<float>("F32", {0.1f, -3.5f}, {static_cast<double>(0.1f), -3.5});
  expect_values<std::uint64_t>("U64", {3, ~std::uint64_t{0}}, {3, 0x1p64});
  expect_values<std::int64_t>("I64", {-3, (std::int64_t{1} << 53) + 1}, {-3, 0x1p53});
  expect_values<double>("F64", {0.1, 1.0 + 0x1p-24, -1e300}, {0.1, 1.0 + 0x1p-24, -1e300});
}

TEST(Safetensors, NanAndInfinityPassThrough) {
  temporary_directory const directory;
  std::string const header = padded("{" + entry("x", "F16", "[3]", "[0,6]") + "}");
  safetensors_file const file{
      write(directory / "x.safetensors",
            safetensors(header, bytes_of<std::uint16_t>({0x7c00, 0xfc00, 0x7e01})))};
  auto const found = file.values<float>("x");
  EXPECT_EQ(found[0], std::numeric_limits<float>::infinity());
  EXPECT_EQ(found[1], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(found[2]));
}

TEST(Safetensors, ReadsRowMajor) {
  temporary_directory const directory;
  std::string const header = padded("{" + entry("x", "F32", "[2,3]", "[0,24]") + "}");
  safetensors_file const file{write(directory / "x.safetensors",
                                    safetensors(header, bytes_of<float>({0, 1, 2, 10, 11, 12})))};
  auto const copy = file.read<double, 2>("x", {{2, 3}});
  auto const view = file.view<float, 2>("x");
  for (int row = 0; row < 2; ++row) {
    for (int column = 0; column < 3; ++column) {
      EXPECT_EQ(copy(row, column), 10 * row + column);
      EXPECT_EQ(view(row, column), static_cast<float>(10 * row + column));
    }
  }
}

TEST(Safetensors, WrongRequestsNameTensorFoundAndExpected) {
  temporary_directory const directory;
  std::string const header = padded("{" + entry("x", "F32", "[2,3]", "[0,24]") + "}");
  auto const path = write(directory / "x.safetensors", safetensors(header, std::string(24, '\0')));
  safetensors_file const file{path};
  std::string const at = path.string() + ": ";
  EXPECT_EQ(message_of([&] { file.info("y"); }), at + "has no tensor \"y\"");
  EXPECT_EQ(message_of([&] { file.values<float>("y"); }), at + "has no tensor \"y\"");
  EXPECT_EQ(message_of([&] { file.view<bfloat16, 2>("x"); }),
            at + "tensor \"x\" has dtype F32, expected BF16");
  EXPECT_EQ(message_of([&] { file.view<float, 1>("x"); }),
            at + "tensor \"x\" has shape (2, 3), expected rank 1");
  EXPECT_EQ(message_of([&] { file.read<float, 3>("x"); }),
            at + "tensor \"x\" has shape (2, 3), expected rank 3");
  EXPECT_EQ(message_of([&] {
              file.read<float, 2>("x", {{3, 2}});
            }),
            at + "tensor \"x\" has shape (2, 3), expected (3, 2)");
  EXPECT_EQ(message_of([&] { file.read<float, 1>("x", {{6}}); }),
            at + "tensor \"x\" has shape (2, 3), expected (6)");
}

TEST(Safetensors, UnalignedElementsAreReadButNotViewed) {
  temporary_directory const directory;
  std::string header = padded("{" + entry("x", "F32", "[2]", "[0,8]") + "}") + " ";
  auto const path =
      write(directory / "x.safetensors", safetensors(header, bytes_of<float>({2.5f, -1.0f})));
  safetensors_file const file{path};
  EXPECT_EQ(file.values<double>("x"), (std::vector<double>{2.5, -1.0}));
  EXPECT_EQ(message_of([&] { file.view<float, 1>("x"); }),
            path.string() + ": tensor \"x\" starts at byte " + std::to_string(8 + header.size()) +
                " of the file, not a multiple of 4: it can be read but not viewed");
}

TEST(Safetensors, ViewsOutliveAMove) {
  static_assert(!std::is_copy_constructible_v<safetensors_file>);
  static_assert(std::is_nothrow_move_constructible_v<safetensors_file>);
  temporary_directory const directory;
  std::string const header = padded("{" + entry("x", "F32", "[2]", "[0,8]") + "}");
  safetensors_file first{
      write(directory / "x.safetensors", safetensors(header, bytes_of<float>({2.5f, -1.0f})))};
  auto const view = first.view<float, 1>("x");
  safetensors_file second{std::move(first)};
  EXPECT_EQ(view(1), -1.0f);
  safetensors_file third{write(directory / "none.safetensors", safetensors("{}", ""))};
  third = std::move(second);
  EXPECT_EQ(view(1), -1.0f);
  EXPECT_EQ(third.values<float>("x"), (std::vector<float>{2.5f, -1.0f}));
}

TEST(Safetensors, RefusesWhatIsNotARegularFile) {
  temporary_directory const directory;
  std::string const missing = (directory / "missing").string();
  EXPECT_EQ(message_of([&] { safetensors_file{missing}; }),
            missing + ": cannot be opened: No such file or directory");
  EXPECT_EQ(message_of([&] { safetensors_file{directory.path()}; }),
            directory.path().string() + ": is not a regular file");
  auto const pipe = directory / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(message_of([&] { safetensors_file{pipe}; }), pipe.string() + ": is not a regular file");
}

TEST(Safetensors, ARealFileHoldsTheNumbersAnotherReaderFinds) {
  safetensors_file const mamba{SSM_TEST_DATA "/tiny-mamba/model.safetensors"};
  EXPECT_EQ(mamba.tensors().size(), 22u);
  EXPECT_EQ(mamba.metadata().at("format"), "pt");
  auto const eigenvalue = mamba.view<float, 2>("backbone.layers.0.mixer.A_log");
  EXPECT_EQ(to_string(eigenvalue.extents()), "(64, 8)");
  EXPECT_EQ(eigenvalue(0, 0), -0x1.38ac24p-1f);
  auto const taps = mamba.read<double, 3>("backbone.layers.0.mixer.conv1d.weight", {{64, 1, 4}});
  EXPECT_EQ(taps(0, 0, 0), -0x1.401668p-4);

  safetensors_file const mamba2{SSM_TEST_DATA "/tiny-mamba2/model.safetensors"};
  EXPECT_EQ(mamba2.tensors().size(), 20u);
  EXPECT_EQ(mamba2.values<float>("backbone.layers.0.mixer.dt_bias")[0], -0x1.5319c6p+2f);
  EXPECT_EQ(to_string(mamba2.info("backbone.layers.0.mixer.in_proj.weight").shape), "(196, 32)");
}

}  // namespace
