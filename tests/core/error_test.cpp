// Error: its code, its formatted message, and texts made safe to print.
#include "moebench/core/error.h"

#include <gtest/gtest.h>

#include <string>

namespace moebench {
namespace {

TEST(Error, CarriesItsCodeAndFormattedMessage) {
  try {
    fail(ErrorCode::kUnavailable, "--isa: {} is {} bits wide", "avx512", 512);
    FAIL() << "fail() returned";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_EQ(error.exit_code(), 4);
    EXPECT_STREQ(error.what(), "--isa: avx512 is 512 bits wide");
  }
}

TEST(Error, DoesNotTakeItsArgumentsForAFormat) {
  try {
    fail(ErrorCode::kBadInput, "{}: odd name", "{0} {}");
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "{0} {}: odd name");
  }
}

TEST(Support, SaysYesWithoutAndNoWithAReason) {
  EXPECT_TRUE(Support::yes().ok);
  EXPECT_TRUE(Support::yes().reason.empty());
  EXPECT_FALSE(Support::no("needs AVX-512").ok);
  EXPECT_EQ(Support::no("needs AVX-512").reason, "needs AVX-512");
}

TEST(Printable, EscapesControlCharacters) {
  EXPECT_EQ(printable("a\nb\x1b[31m\x7F"), "a\\x0ab\\x1b[31m\\x7f");
  EXPECT_EQ(printable(std::string_view("\0x", 2)), "\\x00x");
}

TEST(Printable, KeepsUtf8AndOrdinaryText) { EXPECT_EQ(printable("Grüße 1"), "Grüße 1"); }

TEST(Printable, CutsLongTextAndSaysHowLongItWas) {
  EXPECT_EQ(printable(std::string(120, 'x')), std::string(120, 'x'));
  EXPECT_EQ(printable(std::string(121, 'x')), std::string(120, 'x') + "... (121 bytes)");
  EXPECT_EQ(printable("abcdef", 3), "abc... (6 bytes)");
  EXPECT_EQ(printable(""), "");
}

}  // namespace
}  // namespace moebench
