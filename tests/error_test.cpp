// SPDX-License-Identifier: Apache-2.0
// error_test.cpp: when require throws, what it says, and what catches it.
#include "ssm/error.hpp"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "support/oracle.hpp"

namespace {

using namespace ssm;
using ssm::test::message_of;

TEST(Error, RequireThrowsNothingWhereItHolds) {
  EXPECT_NO_THROW(require<shape_error>(true, "never said"));
}

TEST(Error, RequireThrowsExactlyTheErrorAskedFor) {
  EXPECT_THROW(require<shape_error>(false, "x"), shape_error);
  EXPECT_THROW(require<ssm::domain_error>(false, "x"), ssm::domain_error);
  EXPECT_THROW(require<checkpoint_error>(false, "x"), checkpoint_error);
}

TEST(Error, MessageIsThePartsOneAfterAnother) {
  std::string const name = "carry";
  EXPECT_EQ(message_of<shape_error>([&] {
              require<shape_error>(false, "scan: ", name, " has ", 3, " states, expected ", 4L);
            }),
            "scan: carry has 3 states, expected 4");
}

TEST(Error, NumberInAMessageIsNotRoundedToWhatWasExpected) {
  double const above = 1 + 1e-9;
  EXPECT_NE(message_of<ssm::domain_error>([&] { require<ssm::domain_error>(false, above); }), "1");
  EXPECT_EQ(message_of<ssm::domain_error>([] { require<ssm::domain_error>(false, -0.5); }), "-0.5");
}

TEST(Error, EveryErrorIsCaughtAsItsStandardKind) {
  EXPECT_TRUE((std::is_base_of_v<std::invalid_argument, shape_error>));
  EXPECT_TRUE((std::is_base_of_v<std::domain_error, ssm::domain_error>));
  EXPECT_TRUE((std::is_base_of_v<std::runtime_error, checkpoint_error>));
}

}  // namespace
