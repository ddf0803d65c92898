// Size arithmetic at the edge of 64 bits.
#include "moebench/core/checked.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace moebench {
namespace {

using ::testing::HasSubstr;
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

template <typename Call>
std::string message_of(ErrorCode code, Call call) {
  try {
    static_cast<void>(call());
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

TEST(CheckedProduct, MultipliesWhatFits) {
  EXPECT_EQ(checked_product("x", {}), 1);
  EXPECT_EQ(checked_product("x", {256, 2 * 2048, 7168}), 7516192768);
  EXPECT_EQ(checked_product("x", {kMax, 1}), kMax);
  EXPECT_EQ(checked_product("x", {std::int64_t{1} << 31, (std::int64_t{1} << 31) - 1, 2}),
            4611686016279904256 * 2);
  EXPECT_EQ(checked_product("x", {0, kMax, 1}), 0);
}

TEST(CheckedProduct, NamesTheQuantityAndItsFactorsOnOverflow) {
  const std::string message = message_of(ErrorCode::kBadInput, [] {
    return checked_product("w1 payload", {std::int64_t{1} << 32, std::int64_t{1} << 31});
  });
  EXPECT_THAT(message, HasSubstr("w1 payload: "));
  EXPECT_THAT(message, HasSubstr("4294967296*2147483648"));
  EXPECT_THAT(message, HasSubstr("2^63-1"));
}

TEST(CheckedProduct, RejectsNegativeFactors) {
  const std::string message = message_of(ErrorCode::kBadInput, [] {
    return checked_product("rows", {4, -3});
  });
  EXPECT_THAT(message, HasSubstr("rows: "));
  EXPECT_THAT(message, HasSubstr("4*-3"));
}

TEST(CheckedSum, AddsWhatFitsAndRejectsTheRest) {
  EXPECT_EQ(checked_sum("x", kMax - 1, 1), kMax);
  const std::string message =
      message_of(ErrorCode::kBadInput, [] { return checked_sum("workspace", kMax, 1); });
  EXPECT_THAT(message, HasSubstr("workspace: 9223372036854775807 + 1 bytes"));
  EXPECT_THROW(static_cast<void>(checked_sum("x", -1, 1)), Error);
}

TEST(CheckedCast, KeepsValuesAndRejectsWrapping) {
  EXPECT_EQ(checked_cast<std::int32_t>(std::int64_t{2147483647}), 2147483647);
  EXPECT_EQ(checked_cast<std::uint8_t>(255), 255);
  EXPECT_EQ(checked_cast<std::int64_t>(std::uint64_t{5}), 5);
  EXPECT_THROW(static_cast<void>(checked_cast<std::int32_t>(std::int64_t{2147483648})), Error);
  EXPECT_THROW(static_cast<void>(checked_cast<std::uint32_t>(-1)), Error);
  EXPECT_THROW(static_cast<void>(checked_cast<std::int64_t>(~std::uint64_t{0})), Error);
  const std::string message =
      message_of(ErrorCode::kInternal, [] { return checked_cast<std::int8_t>(128); });
  EXPECT_THAT(message, HasSubstr("128"));
}

TEST(CeilDiv, RoundsUpOnlyWhereSomethingIsLeft) {
  EXPECT_EQ(ceil_div(0, 128), 0);
  EXPECT_EQ(ceil_div(1, 128), 1);
  EXPECT_EQ(ceil_div(128, 128), 1);
  EXPECT_EQ(ceil_div(129, 128), 2);
  EXPECT_EQ(round_up(129, 128), 256);
  EXPECT_EQ(round_up(256, 128), 256);
}

TEST(CeilDiv, DoesNotOverflowNearTheLargestSize) {
  EXPECT_EQ(ceil_div(kMax, 1), kMax);
  EXPECT_EQ(ceil_div(kMax, 2), (std::int64_t{1} << 62));
}

}  // namespace
}  // namespace moebench
