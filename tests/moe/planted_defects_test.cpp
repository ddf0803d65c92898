// Each way in which a kernel can be wrong, planted into an otherwise right FP32 kernel under every
// scheme: all must fail. And the reason for judging rows: what one global figure would have let
// through.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numeric>

#include "moebench/moe/verify.h"
#include "tests/support/moe_cases.h"
#include "tests/support/naive_moe.h"

namespace moebench {
namespace {

using testing::all_rows;
using testing::all_scheme_cases;
using testing::Defect;
using testing::describe;
using ::testing::HasSubstr;
using testing::LayerCase;
using testing::naive_forward;
using testing::NaiveAnswer;
using testing::SchemeCase;
using testing::synthetic_case;

constexpr int kThreads = 2;
constexpr std::uint64_t kSeed = 21;
constexpr std::int64_t kTokens = 6;
constexpr std::int64_t kTopk = 3;

/// Two FP8 blocks and a part of a third in both directions; not square, so that no transposition is
/// harmless.
MoeShape shape_of(ActType act) {
  return {.num_experts = 6, .topk = kTopk, .hidden = 272, .intermediate = 144, .act = act};
}

ReferenceRows reference_of(const LayerCase& layer, const std::optional<DynamicScaleClaim>& claim) {
  return reference_forward(layer.problem, layer.weights, all_rows(layer.problem), claim, kThreads);
}

/// The layer, its right answer and its reference, made once a scheme.
struct Prepared {
  LayerCase layer;
  NaiveAnswer right;
  ReferenceRows reference;
};
const Prepared& prepared(const SchemeCase& scheme_case) {
  static std::map<std::string, std::unique_ptr<Prepared>> known;
  std::unique_ptr<Prepared>& entry = known[name_of(scheme_case)];
  if (!entry) {
    LayerCase layer = synthetic_case(kSeed, shape_of(scheme_case.act), scheme_case.scheme, kTokens);
    NaiveAnswer right = naive_forward(layer.problem, layer.weights, {});
    ReferenceRows reference = reference_of(layer, right.claim);
    entry = std::make_unique<Prepared>(
        Prepared{std::move(layer), std::move(right), std::move(reference)});
  }
  return *entry;
}

struct PlantedCase {
  SchemeCase scheme_case;
  Defect defect;
};

std::vector<PlantedCase> planted_cases() {
  std::vector<PlantedCase> out;
  for (const SchemeCase& scheme_case : all_scheme_cases()) {
    for (const Defect defect : testing::kAllDefects) {
      if (testing::applies_to(defect, scheme_case.scheme)) out.push_back({scheme_case, defect});
    }
  }
  return out;
}

std::string planted_name(const ::testing::TestParamInfo<PlantedCase>& info) {
  return name_of(info.param.defect) + "_" + name_of(info.param.scheme_case);
}

class PlantedArithmetic : public ::testing::TestWithParam<PlantedCase> {};
INSTANTIATE_TEST_SUITE_P(All, PlantedArithmetic, ::testing::ValuesIn(planted_cases()),
                         planted_name);

TEST_P(PlantedArithmetic, IsCaught) {
  const auto& [scheme_case, defect] = GetParam();
  const Prepared& p = prepared(scheme_case);
  ASSERT_TRUE(judge(p.layer.problem, p.reference, p.right.y, "").passed())
      << "the kernel without the defect must pass";
  const std::int64_t bad_expert = p.layer.problem.routing.topk_ids[0];
  const NaiveAnswer wrong =
      naive_forward(p.layer.problem, p.layer.weights, {.defect = defect, .bad_expert = bad_expert});
  // The kernel's own a2 scale comes with its answer, so the reference follows it as far as it is
  // plausible.
  const ReferenceRows reference = wrong.claim ? reference_of(p.layer, wrong.claim) : p.reference;
  const Verdict verdict = judge(p.layer.problem, reference, wrong.y, "");
  EXPECT_EQ(verdict.kind, Verdict::Kind::kFail) << describe(kSeed, p.layer.problem);
  EXPECT_NE(verdict.reason, "");
}

/// Defects of the output itself, planted into the right answer.
class PlantedOutput : public ::testing::TestWithParam<SchemeCase> {
 protected:
  PlantedOutput()
      : p_(prepared(GetParam())), k_(p_.layer.problem.shape.hidden), output_(kTokens, k_) {
    std::copy(p_.right.y.begin(), p_.right.y.end(), output_.y().begin());
  }
  [[nodiscard]] Verdict verdict() const {
    return judge(p_.layer.problem, p_.reference, output_.y(), output_.guard_damage());
  }
  std::uint16_t& at(std::int64_t row, std::int64_t column) {
    return output_.y()[static_cast<std::size_t>(row * k_ + column)];
  }

  const Prepared& p_;
  std::int64_t k_;
  GuardedOutput output_;
};
INSTANTIATE_TEST_SUITE_P(AllSchemes, PlantedOutput, ::testing::ValuesIn(all_scheme_cases()),
                         testing::param_name<::testing::TestParamInfo<SchemeCase>>);

TEST_P(PlantedOutput, NothingPlantedPasses) { EXPECT_TRUE(verdict().passed()) << verdict().reason; }

TEST_P(PlantedOutput, ZeroRowIsCaught) {
  for (std::int64_t c = 0; c < k_; ++c) at(2, c) = 0;
  EXPECT_THAT(verdict().reason, HasSubstr("row 2: element"));
  EXPECT_NEAR(verdict().worst_row_error, 1.0, 1e-9);
}

TEST_P(PlantedOutput, UnwrittenElementIsCaught) {
  at(4, 11) = kPoison;
  EXPECT_THAT(verdict().reason,
              HasSubstr("row 4: 1 of 272 elements never written, first at column 11"));
}

TEST_P(PlantedOutput, NanIsCaught) {
  at(1, 200) = encode_act(GetParam().act, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(verdict().reason, "row 1: NaN at column 200");
}

TEST_P(PlantedOutput, InfinityIsCaught) {
  at(5, 0) = encode_act(GetParam().act, std::numeric_limits<float>::infinity());
  EXPECT_EQ(verdict().reason, "row 5: Inf at column 0");
}

TEST_P(PlantedOutput, WriteOutOfBoundsIsCaught) {
  output_.y().data()[kTokens * k_] = 0;
  EXPECT_THAT(verdict().reason, HasSubstr("past the end"));
}

TEST_P(PlantedOutput, StaleAnswerIsCaught) {
  const LayerCase previous =
      synthetic_case(kSeed + 1, p_.layer.problem.shape, GetParam().scheme, kTokens);
  const NaiveAnswer stale = naive_forward(previous.problem, p_.layer.weights, {});
  std::copy(stale.y.begin(), stale.y.end(), output_.y().begin());
  EXPECT_EQ(verdict().kind, Verdict::Kind::kFail);
}

TEST_P(PlantedOutput, RowsOfTwoTokensExchangedAreCaught) {
  for (std::int64_t c = 0; c < k_; ++c) std::swap(at(0, c), at(3, c));
  EXPECT_EQ(verdict().kind, Verdict::Kind::kFail);
}

TEST_P(PlantedOutput, FlippedSignOfOneElementIsCaught) {
  std::int64_t column = 0;
  while (std::abs(p_.reference.expected[static_cast<std::size_t>(column)]) <
         4.0 * p_.reference.radius[static_cast<std::size_t>(column)]) {
    ++column;
  }
  at(0, column) ^= 0x8000;
  EXPECT_THAT(verdict().reason, HasSubstr("row 0: element " + std::to_string(column)));
}

class OneExpertAmongEight : public ::testing::TestWithParam<SchemeCase> {};
INSTANTIATE_TEST_SUITE_P(AllSchemes, OneExpertAmongEight, ::testing::ValuesIn(all_scheme_cases()),
                         testing::param_name<::testing::TestParamInfo<SchemeCase>>);

// The uncertainty of eight experts adds up in the radius, the error of one does not: the hardest
// case for the bound.
TEST_P(OneExpertAmongEight, ThreePercentTooLargeIsCaughtAtARealisticShape) {
  const MoeShape shape{
      .num_experts = 8, .topk = 8, .hidden = 1024, .intermediate = 512, .act = GetParam().act};
  const LayerCase layer = synthetic_case(kSeed, shape, GetParam().scheme, 1);
  const NaiveAnswer wrong = naive_forward(
      layer.problem, layer.weights, {.defect = Defect::kScaleErrorOneExpert, .bad_expert = 5});
  const Verdict verdict = judge(layer.problem, reference_of(layer, wrong.claim), wrong.y, "");
  EXPECT_THAT(verdict.reason, HasSubstr("row 0: element")) << describe(kSeed, layer.problem);
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  const double ab = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  const double aa = std::inner_product(a.begin(), a.end(), a.begin(), 0.0);
  const double bb = std::inner_product(b.begin(), b.end(), b.begin(), 0.0);
  return ab / std::sqrt(aa * bb);
}

/// A batch large enough that one row is a thousandth of it.
class LargeBatch : public ::testing::Test {
 protected:
  LargeBatch() {
    const MoeShape shape{.num_experts = 4, .topk = 2, .hidden = 64, .intermediate = 16};
    layer_ = synthetic_case(kSeed, shape, {Scheme::kNvfp4}, kRows);
    y_ = naive_forward(layer_.problem, layer_.weights, {}).y;
    reference_ = reference_of(layer_, std::nullopt);
  }
  [[nodiscard]] double global_cosine() const {
    std::vector<double> values;
    for (const std::uint16_t bits : y_)
      values.push_back(decode_act(layer_.problem.shape.act, bits));
    return cosine(values, reference_.expected);
  }
  static constexpr std::int64_t kRows = 1024;
  LayerCase layer_;
  std::vector<std::uint16_t> y_;
  ReferenceRows reference_;
};

TEST_F(LargeBatch, ZeroRowPassesAGlobalCosineButNotTheRows) {
  std::fill_n(y_.begin() + 700 * 64, 64, std::uint16_t{0});
  EXPECT_GT(global_cosine(), 0.998) << "the usual threshold of such checks";
  const Verdict verdict = judge(layer_.problem, reference_, y_, "");
  EXPECT_THAT(verdict.reason, HasSubstr("row 700: element"));
  EXPECT_EQ(verdict.worst_token, 700);
}

TEST_F(LargeBatch, OneWrongElementIsCaught) {
  std::size_t element = 333 * 64;
  while (std::abs(reference_.expected[element]) < 4.0 * reference_.radius[element]) ++element;
  y_[element] = encode_act(ActType::kFp16, 1.03F * decode_act(ActType::kFp16, y_[element]));
  EXPECT_GT(global_cosine(), 0.99999);
  EXPECT_THAT(judge(layer_.problem, reference_, y_, "").reason,
              HasSubstr("row " + std::to_string(element / 64)));
}

}  // namespace
}  // namespace moebench
