// The verdict's mechanics: guards, poison, check specs, row sampling, reasons. What it catches is
// planted_defects_test.cpp.
#include "moebench/moe/verify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "moebench/core/error.h"
#include "tests/support/moe_cases.h"

namespace moebench {
namespace {

using ::testing::HasSubstr;

/// A problem of `tokens` x `hidden` whose reference is all `value`, with an exact answer to spoil.
struct Judged {
  MoeProblem problem;
  ReferenceRows reference;
  std::vector<std::uint16_t> y;

  Judged(std::int64_t tokens, std::int64_t hidden, double value, double radius) {
    problem.shape = {.num_experts = 1, .topk = 1, .hidden = hidden, .intermediate = 16};
    problem.tokens = tokens;
    reference.tokens = testing::all_rows(problem);
    const auto elements = static_cast<std::size_t>(tokens * hidden);
    reference.expected.assign(elements, value);
    reference.radius.assign(elements, radius);
    y.assign(elements, encode_act(ActType::kFp16, value));
  }
  [[nodiscard]] Verdict verdict(const std::string& damage = "") const {
    return judge(problem, reference, y, damage);
  }
  std::uint16_t& at(std::int64_t row, std::int64_t column) {
    return y[static_cast<std::size_t>(row * problem.shape.hidden + column)];
  }
};

TEST(Poison, IsANanInBothActivationTypes) {
  EXPECT_TRUE(std::isnan(decode_fp16(kPoison)));
  EXPECT_TRUE(std::isnan(decode_bf16(kPoison)));
}

TEST(GuardedOutput, StartsPoisonedAndIntact) {
  const GuardedOutput output(3, 5);
  EXPECT_EQ(output.y().size(), 15U);
  EXPECT_THAT(output.y(), ::testing::Each(kPoison));
  EXPECT_EQ(output.guard_damage(), "");
}

TEST(GuardedOutput, SeesWritesOnEitherSide) {
  GuardedOutput output(2, 4);
  output.y().data()[8 + 3] = 0;
  output.y().data()[8 + 5] = 0;
  EXPECT_EQ(output.guard_damage(), "wrote 2 elements past the end, first at +3");
  output.y().data()[-1] = 0;
  EXPECT_EQ(
      output.guard_damage(),
      "wrote 1 elements before the start, first at -1; wrote 2 elements past the end, first at +3");
  output.poison();
  EXPECT_EQ(output.guard_damage(), "");
}

TEST(GuardedOutput, ForgetsThePreviousAnswerWhenPoisonedAgain) {
  GuardedOutput output(2, 4);
  output.y()[3] = 1;
  output.poison();
  EXPECT_THAT(output.y(), ::testing::Each(kPoison));
}

TEST(GuardedOutput, GuardsAnEmptyOutput) {
  GuardedOutput output(0, 128);
  EXPECT_TRUE(output.y().empty());
  output.y().data()[0] = 0;
  EXPECT_EQ(output.guard_damage(), "wrote 1 elements past the end, first at +0");
}

TEST(CheckSpec, ReadsBackWhatItPrints) {
  for (const char* text : {"full", "off", "sample:1", "sample:16", "sample:2048"}) {
    EXPECT_EQ(to_string(parse_check(text)), text);
  }
}

TEST(CheckSpec, RejectsOtherTexts) {
  for (const char* text : {"", "Full", "sample", "sample:", "sample:0", "sample:-3", "sample:8x",
                           "sample:+8", "sample: 8", "sample:99999999999999999999", "none"}) {
    EXPECT_THROW(static_cast<void>(parse_check(text)), Error) << text;
  }
}

TEST(RowsToCheck, AreAllForFullAndNoneForOff) {
  EXPECT_THAT(rows_to_check({CheckSpec::Kind::kFull, 0}, 1, 4, std::nullopt),
              ::testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(rows_to_check({CheckSpec::Kind::kOff, 0}, 1, 4, 2), ::testing::IsEmpty());
  EXPECT_THAT(rows_to_check({CheckSpec::Kind::kFull, 0}, 1, 0, std::nullopt), ::testing::IsEmpty());
}

TEST(RowsToCheck, HoldTheEndsAndTheClaimedRowWithoutRepeats) {
  for (const std::int64_t tokens : {1, 2, 3, 8, 9, 40, 2048}) {
    for (const std::int64_t sample : {1, 2, 3, 8}) {
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        const std::int64_t claimed = static_cast<std::int64_t>(seed * 977) % tokens;
        const auto rows = rows_to_check({CheckSpec::Kind::kSample, sample}, seed, tokens, claimed);
        const std::set<std::int64_t> set(rows.begin(), rows.end());
        EXPECT_EQ(set.size(), rows.size());
        EXPECT_TRUE(std::is_sorted(rows.begin(), rows.end()));
        EXPECT_TRUE(set.contains(claimed));
        EXPECT_GE(static_cast<std::int64_t>(rows.size()), std::min(sample, tokens));
        EXPECT_LE(static_cast<std::int64_t>(rows.size()), std::max<std::int64_t>(sample, 3));
        EXPECT_GE(rows.front(), 0);
        EXPECT_LT(rows.back(), tokens);
        if (sample < tokens) {
          EXPECT_TRUE(set.contains(0) && set.contains(tokens - 1));
        }
      }
    }
  }
}

TEST(RowsToCheck, ReachEveryRowOverSeeds) {
  constexpr std::int64_t kTokens = 64;
  std::set<std::int64_t> seen;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const auto rows = rows_to_check({CheckSpec::Kind::kSample, 8}, seed, kTokens, std::nullopt);
    seen.insert(rows.begin(), rows.end());
    EXPECT_EQ(rows, rows_to_check({CheckSpec::Kind::kSample, 8}, seed, kTokens, std::nullopt));
  }
  EXPECT_EQ(static_cast<std::int64_t>(seen.size()), kTokens);
}

TEST(Judge, PassesAnExactAnswer) {
  const Verdict verdict = Judged(3, 8, 1.5, 0.0).verdict();
  EXPECT_TRUE(verdict.passed());
  EXPECT_EQ(verdict.reason, "");
  EXPECT_EQ(verdict.rows_checked, 3);
  EXPECT_EQ(verdict.rows_total, 3);
  EXPECT_EQ(verdict.worst_row_error, 0.0);
  EXPECT_EQ(verdict.worst_bound_share, 0.0);
}

TEST(Judge, ReportsTheWorstRowWithinItsBound) {
  Judged judged(3, 8, 1.0, 0.25);
  judged.at(1, 5) = encode_act(ActType::kFp16, 1.125);
  const Verdict verdict = judged.verdict();
  EXPECT_TRUE(verdict.passed());
  EXPECT_EQ(verdict.worst_token, 1);
  EXPECT_EQ(verdict.worst_column, 5);
  EXPECT_EQ(verdict.worst_got, 1.125);
  EXPECT_EQ(verdict.worst_expected, 1.0);
  EXPECT_EQ(verdict.worst_bound_share, 0.5);
  EXPECT_NEAR(verdict.worst_row_error, 0.125 / std::sqrt(8.0), 1e-12);
}

TEST(Judge, FailsOneElementOutsideItsRadius) {
  Judged judged(20, 256, 0.5, 0.0);
  judged.at(17, 203) = encode_act(ActType::kFp16, 0.515625);
  const Verdict verdict = judged.verdict();
  EXPECT_EQ(verdict.kind, Verdict::Kind::kFail);
  EXPECT_EQ(verdict.reason,
            "row 17: element 203: got 0.515625, expected 0.5 (off by 0.0156, allowed 0); 1 of 256 "
            "elements of the row are off, "
            "row error 0.002; 1 of 20 checked rows");
  EXPECT_TRUE(std::isfinite(verdict.worst_bound_share));
}

TEST(Judge, PrefersAFailingRowOverALouderOneWithinItsBound) {
  Judged judged(2, 4, 1.0, 0.0);
  for (std::size_t i = 0; i < 4; ++i) judged.reference.radius[i] = 1.0;
  judged.at(0, 1) = encode_act(ActType::kFp16, 1.875);
  judged.at(1, 2) = encode_act(ActType::kFp16, 1.0009765625);
  const Verdict verdict = judged.verdict();
  EXPECT_THAT(verdict.reason, HasSubstr("row 1: element 2"));
  EXPECT_NEAR(verdict.worst_row_error, 0.875 / 2.0, 1e-12);
}

TEST(Judge, FailsUnwrittenElementsInAnyRow) {
  Judged judged(4, 16, 1.0, 10.0);
  judged.reference.tokens = {0, 1};
  judged.reference.expected.resize(32);
  judged.reference.radius.resize(32);
  for (std::int64_t c = 0; c < 16; ++c) judged.at(3, c) = kPoison;
  EXPECT_EQ(judged.verdict().reason, "row 3: 16 of 16 elements never written, first at column 0");
  judged.y.assign(judged.y.size(), encode_act(ActType::kFp16, 1.0));
  judged.at(2, 7) = kPoison;
  EXPECT_EQ(judged.verdict().reason, "row 2: 1 of 16 elements never written, first at column 7");
}

TEST(Judge, FailsNanAndInfinityInAnyRow) {
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (const ActType act : {ActType::kFp16, ActType::kBf16}) {
      Judged judged(6, 16, 0.0, std::numeric_limits<double>::infinity());
      judged.problem.shape.act = act;
      judged.reference.tokens = {0};
      judged.reference.expected.resize(16);
      judged.reference.radius.resize(16);
      judged.at(5, 12) = encode_act(act, value);
      const char* name = std::isnan(value) ? "NaN" : value > 0 ? "Inf" : "-Inf";
      EXPECT_EQ(judged.verdict().reason, std::string("row 5: ") + name + " at column 12");
      EXPECT_FALSE(judged.verdict().passed());
    }
  }
}

TEST(Judge, FailsGuardDamageFirst) {
  Judged judged(2, 4, 1.0, 0.0);
  judged.at(0, 0) = kPoison;
  EXPECT_EQ(judged.verdict("wrote 1 elements past the end, first at +0").reason,
            "wrote 1 elements past the end, first at +0");
}

TEST(Judge, FailsAReferenceThatNothingCanMatch) {
  Judged judged(2, 4, 1.0, 0.0);
  judged.reference.defect = "a2 scale: the kernel reports nan";
  EXPECT_FALSE(judged.verdict().passed());
  EXPECT_EQ(judged.verdict().reason, "a2 scale: the kernel reports nan");
}

TEST(Judge, MeasuresARowThatShouldBeZero) {
  Judged judged(2, 4, 0.0, 0.0);
  EXPECT_TRUE(judged.verdict().passed());
  EXPECT_EQ(judged.verdict().worst_row_error, 0.0);
  judged.at(1, 1) = encode_act(ActType::kFp16, 0.001);
  EXPECT_FALSE(judged.verdict().passed());
  EXPECT_EQ(judged.verdict().worst_row_error, 1.0);
}

TEST(Judge, TakesMinusZeroForZero) {
  Judged judged(1, 4, 0.0, 0.0);
  judged.at(0, 2) = 0x8000;
  EXPECT_TRUE(judged.verdict().passed());
}

TEST(Judge, SaysUncheckedWithoutRowsAndStillSeesNan) {
  Judged judged(2, 4, 1.0, 0.0);
  judged.reference = {};
  EXPECT_EQ(judged.verdict().kind, Verdict::Kind::kUnchecked);
  EXPECT_FALSE(judged.verdict().passed());
  judged.at(1, 3) = kPoison;
  EXPECT_EQ(judged.verdict().kind, Verdict::Kind::kFail);
}

TEST(Judge, PassesZeroTokens) { EXPECT_TRUE(Judged(0, 16, 0.0, 0.0).verdict().passed()); }

TEST(Judge, RefusesSizesThatDoNotFit) {
  Judged judged(2, 4, 1.0, 0.0);
  judged.y.pop_back();
  EXPECT_THROW(static_cast<void>(judged.verdict()), Error);
}

TEST(FormatError, IsTheRelativeRootMeanSquare) {
  EXPECT_NEAR(format_error({3.0, 4.0}, {3.0, 4.5}), 0.1, 1e-12);
  EXPECT_EQ(format_error({}, {}), 0.0);
  EXPECT_EQ(format_error({0.0}, {0.0}), 0.0);
  EXPECT_EQ(format_error({0.0}, {1.0}), 1.0);
  EXPECT_THROW(static_cast<void>(format_error({1.0}, {})), Error);
}

TEST(VerdictKind, HasAName) {
  EXPECT_STREQ(name_of(Verdict::Kind::kPass), "pass");
  EXPECT_STREQ(name_of(Verdict::Kind::kFail), "fail");
  EXPECT_STREQ(name_of(Verdict::Kind::kUnchecked), "unchecked");
}

}  // namespace
}  // namespace moebench
