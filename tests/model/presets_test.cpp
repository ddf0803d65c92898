// The table of models: complete, plausible, findable, and honest about what the kernels compute.
#include "moebench/model/presets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace moebench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string message_of(std::string_view name) {
  try {
    static_cast<void>(find_model(name));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "no error";
}

struct Row {
  const char* name;
  std::int64_t experts, topk, hidden, intermediate;
};
class Presets : public ::testing::TestWithParam<Row> {};

TEST_P(Presets, HasTheModelsShape) {
  const ModelPreset& preset = find_model(GetParam().name);
  EXPECT_EQ(preset.num_experts, GetParam().experts);
  EXPECT_EQ(preset.topk, GetParam().topk);
  EXPECT_EQ(preset.hidden, GetParam().hidden);
  EXPECT_EQ(preset.intermediate, GetParam().intermediate);
}

constexpr Row kRows[] = {
    {"nvidia/DeepSeek-R1-FP4", 256, 8, 2048, 7168},
    {"deepseek-r1", 256, 8, 7168, 2048},
    {"deepseek-v2-lite", 64, 6, 2048, 1408},
    {"kimi-k2", 384, 8, 7168, 2048},
    {"qwen3-30b-a3b", 128, 8, 2048, 768},
    {"qwen3-235b-a22b", 128, 8, 4096, 1536},
    {"qwen3-next-80b-a3b", 512, 10, 2048, 512},
    {"qwen3.5-397b-a17b", 512, 10, 4096, 1024},
    {"qwen3.6-35b-a3b", 256, 8, 2048, 512},
    {"mixtral-8x7b", 8, 2, 4096, 14336},
    {"mixtral-8x22b", 8, 2, 6144, 16384},
    {"gpt-oss-120b", 128, 4, 2880, 2880},
    {"gpt-oss-20b", 32, 4, 2880, 2880},
    {"llama-4-scout", 16, 1, 5120, 8192},
    {"llama-4-maverick", 128, 1, 5120, 8192},
    {"glm-4.5-air", 128, 8, 4096, 1408},
    {"glm-4.7", 160, 8, 5120, 1536},
    {"minimax-m2", 256, 8, 3072, 1536},
    {"gemma-4-26b-a4b", 128, 8, 2816, 704},
    {"nemotron-3-nano", 128, 6, 2688, 1856},
};
INSTANTIATE_TEST_SUITE_P(Models, Presets, ::testing::ValuesIn(kRows), [](const auto& param_info) {
  std::string name = param_info.param.name;
  for (char& c : name) {
    c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return name;
});

TEST(PresetTable, HoldsNoOtherModels) { EXPECT_EQ(model_presets().size(), std::size(kRows)); }

TEST(PresetTable, HasUniqueNamesAndCompleteRows) {
  std::set<std::string_view> names;
  for (const ModelPreset& preset : model_presets()) {
    SCOPED_TRACE(preset.name);
    EXPECT_TRUE(names.insert(preset.name).second);
    EXPECT_GE(preset.topk, 1);
    EXPECT_LE(preset.topk, preset.num_experts);
    EXPECT_FALSE(preset.routing_note.empty());
    EXPECT_FALSE(preset.activation.empty());
    EXPECT_FALSE(preset.formats.empty());
    EXPECT_THAT(std::string("ABC"), HasSubstr(std::string(1, preset.confidence)));
  }
}

TEST(PresetTable, OriginalRowNamesTheTrueOne) {
  const ModelPreset& original = find_model("nvidia/DeepSeek-R1-FP4");
  EXPECT_THAT(std::string(original.note), HasSubstr("swapped"));
  EXPECT_THAT(std::string(original.note), HasSubstr("deepseek-r1"));
  const ModelPreset& true_one = find_model("deepseek-r1");
  EXPECT_EQ(original.hidden, true_one.intermediate);
  EXPECT_EQ(original.intermediate, true_one.hidden);
}

TEST(PresetTable, SigmoidRoutersSayThatSoftmaxStandsIn) {
  for (const ModelPreset& preset : model_presets()) {
    if (preset.routing_note.find("sigmoid") != std::string_view::npos) {
      EXPECT_THAT(std::string(preset.note), HasSubstr("softmax")) << preset.name;
    }
  }
}

TEST(FindModel, IgnoresCase) {
  EXPECT_EQ(find_model("NVIDIA/deepseek-R1-fp4").name, "nvidia/DeepSeek-R1-FP4");
}
TEST(FindModel, SuggestsTheClosest) {
  EXPECT_THAT(message_of("mixtral-8x7"), HasSubstr("did you mean mixtral-8x7b"));
}
TEST(FindModel, SuggestsModelsThatContainTheText) {
  EXPECT_THAT(message_of("scout"), HasSubstr("llama-4-scout"));
}
TEST(FindModel, SuggestsNothingForAStrangeName) {
  EXPECT_THAT(message_of("zzzzzzzzzzzz"), HasSubstr("moebench list models"));
  EXPECT_THAT(message_of("zzzzzzzzzzzz"), Not(HasSubstr("did you mean")));
}
TEST(FindModel, SurvivesEmptyHostileAndEnormousNames) {
  EXPECT_THAT(message_of(""), HasSubstr("no model \"\""));
  EXPECT_THAT(message_of("a\nb"), Not(HasSubstr("\n")));
  EXPECT_LT(message_of(std::string(1 << 20, 'x')).size(), 400U);
}

TEST(Computable, IsTrueForGatedSiluOnly) {
  for (const ModelPreset& preset : model_presets()) {
    const Support support = computable(preset);
    EXPECT_EQ(support.ok, preset.activation == "silu") << preset.name;
    EXPECT_EQ(support.reason.empty(), support.ok) << preset.name;
  }
}
TEST(Computable, NamesTheCause) {
  EXPECT_THAT(computable(find_model("nemotron-3-nano")).reason, HasSubstr("without a gate"));
  EXPECT_THAT(computable(find_model("gemma-4-26b-a4b")).reason, HasSubstr("gelu_tanh"));
  EXPECT_THAT(computable(find_model("gpt-oss-20b")).reason, HasSubstr("clamped SwiGLU"));
}

TEST(ClosestName, FindsATypoAndNothingFarAway) {
  const std::vector<std::string> flags = {"--models", "--tp-sizes", "--batch-sizes"};
  EXPECT_EQ(closest_name("--modles", flags), "--models");
  EXPECT_EQ(closest_name("--batchsizes", flags), "--batch-sizes");
  EXPECT_EQ(closest_name("--colour", flags), "");
  EXPECT_EQ(closest_name("--models", {}), "");
}

}  // namespace
}  // namespace moebench
