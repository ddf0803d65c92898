// Strict numbers, lists and ranges, choices and shell words.
#include "moebench/cli/values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <locale>

#include "moebench/core/error.h"

namespace moebench::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

std::vector<std::int64_t> list(const std::vector<std::string>& words, std::int64_t low = 0) {
  return parse_integer_list("--n", words, low, kMax);
}

/// The message of the kBadInput that `call` must throw.
template <typename Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return {};
}

class BadInteger : public testing::TestWithParam<std::string> {};

TEST_P(BadInteger, IsRefusedWithItsFlagAndValue) {
  const std::string message = refusal([] { (void)parse_integer("--seed", GetParam(), 0, kMax); });
  EXPECT_THAT(message, HasSubstr("--seed: '"));
  EXPECT_THAT(message, HasSubstr(printable(GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Values, BadInteger,
                         testing::Values("", " ", "1 ", " 1", "+1", "-1", "1.0", "1e3", "0x10",
                                         "1,5", "1'000", "٣", "9223372036854775808",
                                         "18446744073709551616", "99999999999999999999999999",
                                         "1\n2", "one", "NaN"));

TEST(Values, TakesTheWholeRangeOfIntegers) {
  EXPECT_EQ(parse_integer("--n", "9223372036854775807", 0, kMax), kMax);
  EXPECT_EQ(parse_integer("--n", "-5", -5, 5), -5);
  EXPECT_EQ(parse_unsigned("--seed", "18446744073709551615"),
            std::numeric_limits<std::uint64_t>::max());
  EXPECT_THAT(refusal([] { (void)parse_unsigned("--seed", "18446744073709551616"); }),
              HasSubstr("18446744073709551616"));
  EXPECT_THAT(refusal([] { (void)parse_unsigned("--seed", "-1"); }), HasSubstr("'-1'"));
}

/// Thousands with a point, decimals with a comma, as de_DE has them; no installed locale is needed.
class GermanPunctuation : public std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

TEST(Values, NumbersMeanTheSameInAnyLocale) {
  const std::locale before =
      std::locale::global(std::locale(std::locale::classic(), new GermanPunctuation));
  EXPECT_EQ(parse_integer("--n", "12345", 0, kMax), 12345);
  EXPECT_THAT(refusal([] { (void)parse_integer("--n", "12.345", 0, kMax); }),
              HasSubstr("'12.345'"));
  EXPECT_THAT(refusal([] { (void)parse_integer("--n", "x", 0, 12345); }),
              HasSubstr("from 0 to 12345"));
  std::locale::global(before);
}

TEST(Values, ListsAreSeparatedByWordsSpacesAndCommas) {
  EXPECT_THAT(list({"16", "32"}), ElementsAre(16, 32));
  EXPECT_THAT(list({"16 32", "64,128"}), ElementsAre(16, 32, 64, 128));
  EXPECT_THAT(list({" 1 ,, 2\t3 "}), ElementsAre(1, 2, 3));
}

TEST(Values, RepeatedValuesAreKeptOnceInTheirFirstPlace) {
  EXPECT_THAT(list({"4", "2", "4", "1:4"}), ElementsAre(4, 2, 1, 3));
}

TEST(Values, RangesStepAndMultiply) {
  EXPECT_THAT(list({"1:4"}), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(list({"1:20:8"}), ElementsAre(1, 9, 17));
  EXPECT_THAT(list({"8:64:x2"}), ElementsAre(8, 16, 32, 64));
  EXPECT_THAT(list({"1:100:x10"}), ElementsAre(1, 10, 100));
  EXPECT_THAT(list({"5:5:x3"}), ElementsAre(5));
  EXPECT_THAT(list({"0:8:4"}), ElementsAre(0, 4, 8));
  EXPECT_EQ(list({"1:4096:x2"}).size(), 13U);
}

TEST(Values, RangesEndAtTheLargestIntegerWithoutOverflow) {
  EXPECT_THAT(list({"9223372036854775806:9223372036854775807"}), ElementsAre(kMax - 1, kMax));
  EXPECT_THAT(list({"4611686018427387904:9223372036854775807:x3"}), ElementsAre(kMax / 2 + 1));
}

class BadList : public testing::TestWithParam<std::string> {};

TEST_P(BadList, IsRefused) {
  EXPECT_THAT(refusal([] { (void)list({GetParam()}); }), HasSubstr("--n: "));
}

INSTANTIATE_TEST_SUITE_P(Values, BadList,
                         testing::Values("", ",", "4:1", "1:4:0", "1:4:x1", "1:4:x0", "0:4:x2",
                                         "1:4:-1", "1:", ":4", "1:4:", "1:4:x", "1:4:8:2", "1:4:2x",
                                         "a:b", "-1:4", "1:18446744073709551616"));

TEST(Values, ALongRangeIsRefusedBeforeItIsBuilt) {
  EXPECT_EQ(list({"1:100000"}).size(), 100'000U);
  EXPECT_THAT(refusal([] { (void)list({"1:1000000"}); }),
              HasSubstr("'1:1000000' makes more than 100000 values"));
  EXPECT_THAT(refusal([] { (void)list({"1:9223372036854775807"}); }),
              HasSubstr("more than 100000 values"));
  EXPECT_THAT(refusal([] {
                (void)list({"1:60000", "100000:160000"});
              }),
              HasSubstr("more than 100000 values"));
}

TEST(Values, SwitchesTakeTheUsualWords) {
  for (const char* yes : {"1", "true", "on", "yes"}) EXPECT_TRUE(parse_switch("--x", yes));
  for (const char* no : {"0", "false", "off", "no"}) EXPECT_FALSE(parse_switch("--x", no));
  EXPECT_THAT(refusal([] { (void)parse_switch("MOEBENCH_X", "maybe"); }),
              HasSubstr("MOEBENCH_X: 'maybe'"));
}

TEST(Values, AWrongChoiceListsTheRightOnes) {
  const std::vector<std::string> choices = {"table", "json", "csv"};
  EXPECT_EQ(parse_choice("--format", "csv", choices), 2U);
  EXPECT_THAT(refusal([&] { (void)parse_choice("--format", "jsn", choices); }),
              testing::AllOf(HasSubstr("'jsn'"), HasSubstr("table, json, csv"),
                             HasSubstr("did you mean json?")));
}

TEST(Values, ShellWordsAreQuotedOnlyWhereTheyNeedIt) {
  EXPECT_EQ(shell_quote("nvidia/DeepSeek-R1-FP4"), "nvidia/DeepSeek-R1-FP4");
  EXPECT_EQ(shell_quote("hot:2@0.8"), "hot:2@0.8");
  EXPECT_EQ(shell_quote(""), "''");
  EXPECT_EQ(shell_quote("trace:my file"), "'trace:my file'");
  EXPECT_EQ(shell_quote("it's; $(rm)"), "'it'\\''s; $(rm)'");
}

}  // namespace
}  // namespace moebench::cli
