// SPDX-License-Identifier: Apache-2.0
// safetensors_format_test.cpp: every way to break the format is refused, and the reason is named.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "ssm/model/safetensors.hpp"
#include "support/checkpoint_files.hpp"

namespace {

using ssm::model::safetensors_file;
using ssm::test::bytes_of;
using ssm::test::entry;
using ssm::test::message_of;
using ssm::test::safetensors;
using ssm::test::temporary_directory;
using ssm::test::write;

// Why a file of these bytes is refused; checked to begin with its path.
std::string refusal_of_bytes(std::string const& bytes) {
  temporary_directory const directory;
  auto const path = write(directory / "model.safetensors", bytes);
  std::string const message = message_of([&] { safetensors_file{path}; });
  std::string const prefix = path.string() + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

std::string refusal(std::string const& header, std::string const& data = "") {
  return refusal_of_bytes(safetensors(header, data));
}

TEST(SafetensorsFormat, RefusesBadHeaderLengths) {
  EXPECT_EQ(refusal_of_bytes(""), "holds 0 bytes, expected at least the 8 of the header length");
  EXPECT_EQ(refusal_of_bytes("1234567"),
            "holds 7 bytes, expected at least the 8 of the header length");
  EXPECT_EQ(refusal_of_bytes(bytes_of<std::uint64_t>({3}) + "{}"),
            "header length 3 exceeds the file of 10 bytes");
  EXPECT_EQ(refusal_of_bytes(bytes_of<std::uint64_t>({100'000'001}) + "{}"),
            "header length 100000001 exceeds 100000000");
  EXPECT_EQ(refusal_of_bytes(bytes_of<std::uint64_t>({~std::uint64_t{0}}) + "{}"),
            "header length 18446744073709551615 exceeds 100000000");
}

TEST(SafetensorsFormat, RefusesHeadersThatAreNotOneJsonObject) {
  std::string const not_begun = "header does not begin with '{'";
  EXPECT_EQ(refusal(""), not_begun);
  EXPECT_EQ(refusal("[]"), not_begun);
  EXPECT_EQ(refusal(" {}"), not_begun);
  EXPECT_EQ(refusal("\xef\xbb\xbf{}"), not_begun);  // a byte order mark

  for (std::string const& header :
       {std::string("{"), std::string("{}x"), std::string("{} {}"), std::string("{\"a\":}"),
        std::string("{\"\xff\":{}}"), std::string("{\"a\":1e999}"), std::string("{/**/}")}) {
    std::string const message = refusal(header);
    EXPECT_TRUE(message.starts_with("header is not valid JSON: ")) << header << ": " << message;
  }
  EXPECT_EQ(refusal(std::string("{}\0{", 4)), "header is not valid JSON: it holds a NUL byte");
  EXPECT_EQ(refusal("{\"a\":" + std::string(100000, '[')), "header nests deeper than 64 levels");
}

TEST(SafetensorsFormat, RefusesDuplicateNames) {
  std::string const a = entry("a", "U8", "[1]", "[0,1]");
  EXPECT_EQ(refusal("{" + a + "," + a + "}", "x"), "header names key \"a\" twice");
  std::string const escaped = entry("\\u0061", "U8", "[1]", "[1,2]");
  EXPECT_EQ(refusal("{" + a + "," + escaped + "}", "xy"), "header names key \"a\" twice");
  EXPECT_EQ(refusal("{\"__metadata__\":{},\"__metadata__\":{}}"),
            "header names key \"__metadata__\" twice");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "x"),
            "header names key \"dtype\" twice");
}

TEST(SafetensorsFormat, RefusesMetadataThatIsNotText) {
  EXPECT_EQ(refusal(R"({"__metadata__":null})"), "__metadata__ is not an object");
  EXPECT_EQ(refusal(R"({"__metadata__":["pt"]})"), "__metadata__ is not an object");
  EXPECT_EQ(refusal(R"({"__metadata__":{"epoch":3}})"), "__metadata__ \"epoch\" is not a string");
}

TEST(SafetensorsFormat, RefusesIncompleteEntries) {
  EXPECT_EQ(refusal(R"({"a":7})"), "tensor \"a\" has no dtype");
  EXPECT_EQ(refusal(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", "x"),
            "tensor \"a\" has no dtype");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", "x"),
            "tensor \"a\" has no shape");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"U8","shape":[1]}})", "x"),
            "tensor \"a\" has no data_offsets");
}

TEST(SafetensorsFormat, RefusesUnknownDtypes) {
  EXPECT_EQ(refusal("{" + entry("a", "F8_E4M3", "[1]", "[0,1]") + "}", "x"),
            "tensor \"a\" has unknown dtype \"F8_E4M3\"");
  EXPECT_EQ(refusal("{" + entry("a", "f32", "[1]", "[0,4]") + "}", "wxyz"),
            "tensor \"a\" has unknown dtype \"f32\"");
  EXPECT_EQ(refusal(R"({"a":{"dtype":9,"shape":[1],"data_offsets":[0,4]}})", "wxyz"),
            "tensor \"a\" has unknown dtype 9");
}

TEST(SafetensorsFormat, RefusesBadShapes) {
  auto const with_shape = [](std::string const& shape) {
    return refusal("{" + entry("a", "U16", shape, "[0,2]") + "}", "xy");
  };
  EXPECT_EQ(with_shape("1"), "tensor \"a\" has shape 1, expected an array");
  for (std::string const shape :
       {"[-1]", "[1.5]", "[1.0]", "[\"1\"]", "[null]", "[[1]]", "[true]", "[-0]"}) {
    std::string const message = with_shape(shape);
    EXPECT_TRUE(message.ends_with(", expected non-negative integers")) << shape << ": " << message;
  }
  for (std::string const shape :
       {"[9223372036854775808]", "[18446744073709551615]", "[4611686018427387904]",
        "[4294967296,4294967296]", "[0,4294967296,4294967296]", "[4294967296,4294967296,0]"}) {
    std::string const message = with_shape(shape);
    EXPECT_TRUE(message.ends_with(", whose size overflows")) << shape << ": " << message;
  }
}

TEST(SafetensorsFormat, RefusesBadOffsets) {
  auto const with_offsets = [](std::string const& offsets) {
    return refusal("{" + entry("a", "U8", "[2]", offsets) + "}", "xy");
  };
  for (std::string const offsets :
       {"[0]", "[0,1,2]", "2", "[-1,1]", "[0,2.0]", "[\"0\",2]", "[0,18446744073709551616]"}) {
    std::string const message = with_offsets(offsets);
    EXPECT_TRUE(message.ends_with(", expected two non-negative integers"))
        << offsets << ": " << message;
  }
  EXPECT_EQ(with_offsets("[2,0]"), "tensor \"a\" has data_offsets [2,0], which run backward");
  EXPECT_EQ(with_offsets("[1,3]"), "tensor \"a\" has data_offsets [1,3] in data of 2 bytes");
  EXPECT_EQ(with_offsets("[0,18446744073709551615]"),
            "tensor \"a\" has data_offsets [0,18446744073709551615] in data of 2 bytes");
  EXPECT_EQ(with_offsets("[0,1]"), "tensor \"a\" has 1 bytes, expected 2 for U8 of shape (2)");
  EXPECT_EQ(refusal("{" + entry("a", "F64", "[0]", "[0,2]") + "}", "xy"),
            "tensor \"a\" has 2 bytes, expected 0 for F64 of shape (0)");
}

TEST(SafetensorsFormat, RefusesOverlapsAndHoles) {
  auto const two = [](std::string const& a, std::string const& b, std::string const& data) {
    return refusal("{" + entry("a", "U8", "[2]", a) + "," + entry("b", "U8", "[2]", b) + "}", data);
  };
  EXPECT_EQ(two("[0,2]", "[2,4]", "wxyz"), "nothing thrown");
  EXPECT_EQ(two("[2,4]", "[0,2]", "wxyz"), "nothing thrown");
  EXPECT_EQ(two("[0,2]", "[1,3]", "xyz"), "tensor \"b\" overlaps another, at byte 1 of the data");
  EXPECT_EQ(two("[0,2]", "[0,2]", "xy"), "tensor \"b\" overlaps another, at byte 0 of the data");
  EXPECT_EQ(two("[0,2]", "[3,5]", "vwxyz"), "bytes 2 to 3 of the data belong to no tensor");
  EXPECT_EQ(two("[1,3]", "[3,5]", "vwxyz"), "bytes 0 to 1 of the data belong to no tensor");
  EXPECT_EQ(two("[0,2]", "[2,4]", "vwxyz"), "bytes 4 to 5 of the data belong to no tensor");
  EXPECT_EQ(refusal("{}", "z"), "bytes 0 to 1 of the data belong to no tensor");
}

}  // namespace
