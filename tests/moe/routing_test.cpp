// Top-k softmax, the generators' distributions, what is refused, and the permutation by expert.
#include "moebench/moe/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "moebench/core/error.h"
#include "moebench/moe/layer.h"

namespace moebench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kSeed = 77;

template <typename Call>
std::string rejection(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(std::string(error.what()), ::testing::Not(HasSubstr("\n")));
    return error.what();
  }
  return "";
}

Routing make(const char* spec, std::int64_t tokens, std::int64_t experts, std::int64_t topk,
             bool renormalize = false, std::uint64_t seed = kSeed) {
  return make_routing(parse_routing(spec), seed, tokens, experts, topk, renormalize);
}

std::vector<std::int64_t> tokens_per_expert(const Routing& routing, std::int64_t experts) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(experts), 0);
  for (const std::int32_t id : routing.topk_ids) {
    ++counts[static_cast<std::size_t>(id)];
  }
  return counts;
}

TEST(TopkSoftmax, ChoosesTheLargestWithTheirSoftmax) {
  const std::vector<float> logits = {0.0F, std::log(3.0F), std::log(4.0F), -100.0F};
  const Routing plain = topk_softmax(logits, 1, 4, 2, false);
  EXPECT_THAT(plain.topk_ids, ElementsAre(2, 1));
  EXPECT_NEAR(plain.topk_weights[0], 4.0 / 8.0, 1e-6);
  EXPECT_NEAR(plain.topk_weights[1], 3.0 / 8.0, 1e-6);
  const Routing normed = topk_softmax(logits, 1, 4, 2, true);
  EXPECT_THAT(normed.topk_ids, ElementsAre(2, 1));
  EXPECT_NEAR(normed.topk_weights[0], 4.0 / 7.0, 1e-6);
  EXPECT_NEAR(normed.topk_weights[1], 3.0 / 7.0, 1e-6);
}

TEST(TopkSoftmax, TiesGoToTheLowerId) {
  EXPECT_THAT(topk_softmax(std::vector<float>(5, 1.0F), 1, 5, 3, false).topk_ids,
              ElementsAre(0, 1, 2));
}

TEST(TopkSoftmax, SurvivesExtremeLogits) {
  constexpr float kMax = std::numeric_limits<float>::max();
  const Routing routing = topk_softmax(std::vector<float>{kMax, -kMax, 0.0F}, 1, 3, 3, true);
  EXPECT_THAT(routing.topk_ids, ElementsAre(0, 2, 1));
  EXPECT_THAT(routing.topk_weights, ElementsAre(1.0F, 0.0F, 0.0F));
}

TEST(TopkSoftmax, RefusesNanLogitsAndWrongSizes) {
  std::vector<float> logits(6, 0.0F);
  logits[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(rejection([&] { static_cast<void>(topk_softmax(logits, 2, 3, 1, false)); }),
              HasSubstr("nan at token 1, expert 1"));
  EXPECT_THAT(rejection([&] { static_cast<void>(topk_softmax(logits, 3, 3, 1, false)); }),
              HasSubstr("6 values"));
  EXPECT_THAT(rejection([&] { static_cast<void>(topk_softmax(logits, 2, 3, 4, false)); }),
              HasSubstr("topk is 4"));
}

struct Generator {
  const char* name;
  const char* spec;
};
class Generators : public ::testing::TestWithParam<Generator> {};

TEST_P(Generators, RouteValidlyForAllSizes) {
  for (const std::int64_t tokens : {0, 1, 7, 257}) {
    for (const std::int64_t experts : {8, 9, 64}) {
      for (const std::int64_t topk : {std::int64_t{1}, std::int64_t{8}, experts}) {
        for (const bool renormalize : {false, true}) {
          const Routing routing = make(GetParam().spec, tokens, experts, topk, renormalize);
          ASSERT_EQ(routing.tokens, tokens);
          ASSERT_EQ(routing.topk, topk);
          ASSERT_NO_THROW(validate(routing, experts))
              << tokens << " tokens, " << topk << " of " << experts;
          for (std::int64_t token = 0; token < tokens; ++token) {
            const auto begin = routing.topk_weights.begin() + token * topk;
            const double sum = std::accumulate(begin, begin + topk, 0.0);
            ASSERT_GT(sum, 0.0);
            ASSERT_LE(sum, 1.0 + 1e-5);
            if (renormalize || topk == experts) {
              ASSERT_NEAR(sum, 1.0, 1e-5) << "token " << token;
            }
          }
        }
      }
    }
  }
}

TEST_P(Generators, ArePureFunctionsOfTheSeed) {
  const Routing a = make(GetParam().spec, 50, 64, 6);
  const Routing b = make(GetParam().spec, 50, 64, 6);
  const Routing other = make(GetParam().spec, 50, 64, 6, false, kSeed + 1);
  EXPECT_EQ(a.topk_ids, b.topk_ids);
  EXPECT_EQ(a.topk_weights, b.topk_weights);
  EXPECT_NE(a.topk_ids, other.topk_ids);
}

TEST_P(Generators, GiveATokenTheSameExpertsAtEveryBatchSize) {
  Routing many = make(GetParam().spec, 200, 64, 6);
  const Routing few = make(GetParam().spec, 30, 64, 6);
  many.topk_ids.resize(few.topk_ids.size());
  many.topk_weights.resize(few.topk_weights.size());
  EXPECT_EQ(few.topk_ids, many.topk_ids);
  EXPECT_EQ(few.topk_weights, many.topk_weights);
}

TEST_P(Generators, RenormalizeDividesTheWeightsByTheirSum) {
  const Routing plain = make(GetParam().spec, 20, 64, 6, false);
  const Routing normed = make(GetParam().spec, 20, 64, 6, true);
  EXPECT_EQ(plain.topk_ids, normed.topk_ids);
  for (std::size_t i = 0; i < plain.topk_weights.size(); ++i) {
    const auto begin = plain.topk_weights.begin() + static_cast<std::ptrdiff_t>(i / 6 * 6);
    const double sum = std::accumulate(begin, begin + 6, 0.0);
    EXPECT_NEAR(normed.topk_weights[i], plain.topk_weights[i] / sum, 1e-6) << "pair " << i;
  }
}

TEST_P(Generators, RefuseImpossibleSizes) {
  EXPECT_THAT(rejection([] { static_cast<void>(make(GetParam().spec, 1, 8, 0)); }),
              HasSubstr("topk is 0"));
  EXPECT_THAT(rejection([] { static_cast<void>(make(GetParam().spec, 1, 8, 9)); }),
              HasSubstr("topk is 9"));
  EXPECT_THAT(rejection([] { static_cast<void>(make(GetParam().spec, -1, 8, 2)); }),
              HasSubstr("-1 tokens"));
  EXPECT_THAT(rejection([] { static_cast<void>(make(GetParam().spec, 1, 0, 1)); }),
              HasSubstr("num_experts is 0"));
  EXPECT_THAT(
      rejection([] { static_cast<void>(make(GetParam().spec, std::int64_t{1} << 61, 8, 8)); }),
      HasSubstr("tokens must lie in"));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, Generators,
    ::testing::Values(Generator{"Uniform", "uniform"}, Generator{"Balanced", "balanced"},
                      Generator{"Zipf", "zipf:1.2"}, Generator{"ZipfFlat", "zipf:0"},
                      Generator{"ZipfSteep", "zipf:100"}, Generator{"Hot", "hot:1@0.8"},
                      Generator{"HotNever", "hot:1@0"}, Generator{"HotAlways", "hot:1@1"},
                      Generator{"Single", "single"}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

TEST(UniformRouting, ReachesEachExpertEquallyOften) {
  constexpr std::int64_t kTokens = 20000;
  constexpr std::int64_t kExperts = 64;
  const double p = 8.0 / kExperts;
  const double sigma = std::sqrt(kTokens * p * (1.0 - p));
  const auto counts = tokens_per_expert(make("uniform", kTokens, kExperts, 8), kExperts);
  for (std::size_t e = 0; e < counts.size(); ++e) {
    EXPECT_NEAR(static_cast<double>(counts[e]), kTokens * p, 5.0 * sigma) << "expert " << e;
  }
}

TEST(UniformRouting, DrawsPairsOfExpertsEquallyOften) {
  constexpr std::int64_t kTokens = 30000;
  std::map<std::pair<std::int32_t, std::int32_t>, int> pairs;
  const Routing routing = make("uniform", kTokens, 6, 2);
  for (std::size_t i = 0; i < routing.topk_ids.size(); i += 2) {
    ++pairs[std::minmax(routing.topk_ids[i], routing.topk_ids[i + 1])];
  }
  ASSERT_EQ(pairs.size(), 15U);
  const double expected = kTokens / 15.0;
  for (const auto& [pair, count] : pairs) {
    EXPECT_NEAR(count, expected, 5.0 * std::sqrt(expected)) << pair.first << "," << pair.second;
  }
}

TEST(UniformRouting, SlotsAreOrderedByWeight) {
  const Routing routing = make("uniform", 100, 64, 6);
  for (std::size_t i = 0; i < routing.topk_weights.size(); i += 6) {
    const auto begin = routing.topk_weights.begin() + static_cast<std::ptrdiff_t>(i);
    EXPECT_TRUE(std::is_sorted(begin, begin + 6, std::greater<>())) << "token " << i / 6;
  }
}

TEST(UniformRouting, ActivatesAsManyExpertsAsTheFormulaSays) {
  // E * (1 - (1 - topk/E)^M), the figure that the memory floors are computed from.
  const double expected = 256.0 * (1.0 - std::pow(1.0 - 8.0 / 256.0, 64.0));
  double sum = 0.0;
  constexpr int kSeeds = 40;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    sum += static_cast<double>(
        permute_by_expert(make("uniform", 64, 256, 8, false, seed), 256).active_experts.size());
  }
  EXPECT_NEAR(sum / kSeeds, expected, 3.0);
}

TEST(BalancedRouting, CountsDifferByOneAtMost) {
  for (const std::int64_t tokens : {1, 7, 32, 100, 257}) {
    for (const auto& [experts, topk] : {std::pair{64, 8}, {9, 8}, {10, 3}, {5, 5}, {7, 1}}) {
      const auto counts = tokens_per_expert(make("balanced", tokens, experts, topk), experts);
      const auto [low, high] = std::minmax_element(counts.begin(), counts.end());
      EXPECT_LE(*high - *low, 1) << tokens << " tokens, " << topk << " of " << experts;
    }
  }
}

TEST(ZipfRouting, FirstSlotFollowsThePowerLaw) {
  constexpr std::int64_t kTokens = 40000;
  constexpr std::int64_t kExperts = 16;
  constexpr double kS = 1.2;
  const Routing routing = make("zipf:1.2", kTokens, kExperts, 4);
  std::vector<double> first(kExperts, 0.0);
  for (std::size_t i = 0; i < routing.topk_ids.size(); i += 4) {
    ++first[static_cast<std::size_t>(routing.topk_ids[i])];
  }
  std::sort(first.begin(), first.end(), std::greater<>());
  double norm = 0.0;
  for (int rank = 0; rank < kExperts; ++rank) {
    norm += std::pow(rank + 1.0, -kS);
  }
  for (int rank = 0; rank < kExperts; ++rank) {
    const double p = std::pow(rank + 1.0, -kS) / norm;
    EXPECT_NEAR(first[static_cast<std::size_t>(rank)], kTokens * p, 6.0 * std::sqrt(kTokens * p))
        << "rank " << rank;
  }
}

TEST(ZipfRouting, RanksAreShuffledOverIds) {
  std::set<std::int64_t> busiest;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const auto counts = tokens_per_expert(make("zipf:2", 300, 64, 1, false, seed), 64);
    busiest.insert(std::max_element(counts.begin(), counts.end()) - counts.begin());
  }
  EXPECT_GT(busiest.size(), 4U);
}

TEST(HotRouting, GivesTheFractionToTheHotExpertsFirst) {
  for (const auto& [tokens, hot] : {std::pair{4, 3}, {100, 80}, {257, 205}}) {
    const Routing routing = make("hot:2@0.8", tokens, 64, 6);
    std::map<std::pair<std::int32_t, std::int32_t>, int> leading;
    for (std::size_t i = 0; i < routing.topk_ids.size(); i += 6) {
      ++leading[{routing.topk_ids[i], routing.topk_ids[i + 1]}];
    }
    const auto most =
        std::max_element(leading.begin(), leading.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    EXPECT_EQ(most->second, hot) << tokens << " tokens";
  }
}

TEST(HotRouting, FillsTheOtherSlotsUniformly) {
  constexpr std::int64_t kTokens = 10000;
  auto counts = tokens_per_expert(make("hot:2@1", kTokens, 32, 6), 32);
  std::sort(counts.begin(), counts.end(), std::greater<>());
  EXPECT_EQ(counts[0], kTokens);
  EXPECT_EQ(counts[1], kTokens);
  const double p = 4.0 / 30.0;
  for (std::size_t e = 2; e < counts.size(); ++e) {
    EXPECT_NEAR(static_cast<double>(counts[e]), kTokens * p, 5.0 * std::sqrt(kTokens * p));
  }
}

TEST(HotRouting, RefusesMoreHotExpertsThanSlots) {
  EXPECT_THAT(rejection([] { static_cast<void>(make("hot:3@0.5", 4, 8, 2)); }),
              HasSubstr("hot:3@0.5: 3 hot experts; they must lie in 1..2"));
}

TEST(SingleRouting, SendsEveryTokenToTheSameExperts) {
  const Routing routing = make("single", 100, 64, 6);
  for (std::size_t i = 6; i < routing.topk_ids.size(); ++i) {
    ASSERT_EQ(routing.topk_ids[i], routing.topk_ids[i % 6]);
  }
  EXPECT_EQ(permute_by_expert(routing, 64).active_experts.size(), 6U);
}

class RoutingText : public ::testing::TestWithParam<const char*> {};
TEST_P(RoutingText, GoesBothWays) { EXPECT_EQ(to_string(parse_routing(GetParam())), GetParam()); }
INSTANTIATE_TEST_SUITE_P(Good, RoutingText,
                         ::testing::Values("uniform", "balanced", "zipf:1.2", "zipf:0", "hot:2@0.8",
                                           "hot:1@1", "single", "trace:/some/file.txt",
                                           "trace:a:b@c"));

class BadRoutingText : public ::testing::TestWithParam<const char*> {};
TEST_P(BadRoutingText, IsRefusedWithTheValue) {
  const std::string message = rejection([] { static_cast<void>(parse_routing(GetParam())); });
  EXPECT_THAT(message, HasSubstr(printable(GetParam())));
}
INSTANTIATE_TEST_SUITE_P(Bad, BadRoutingText,
                         ::testing::Values("", "Uniform", "uniform:1", "zipf", "zipf:", "zipf:x",
                                           "zipf:1,2", "zipf:-1", "zipf:nan", "zipf:inf",
                                           "zipf:1e9", "zipf:1.2x", "hot", "hot:2", "hot:@",
                                           "hot:0@0.5", "hot:-1@0.5", "hot:2@1.5", "hot:2@nan",
                                           "hot:2@-0.1", "hot:1.5@0.5",
                                           "hot:99999999999999999999@0.5", "trace",
                                           "trace:", "single:1", "random", "zi\npf:1"));

TEST(RoutingRules, AcceptNoTokens) { EXPECT_NO_THROW(validate(Routing{0, 2, {}, {}}, 4)); }

struct BadPair {
  const char* name;
  std::int32_t id;
  float weight;
  const char* message;
};
class BadPairs : public ::testing::TestWithParam<BadPair> {};
TEST_P(BadPairs, AreRefusedWithTokenAndSlot) {
  Routing routing = make("uniform", 5, 8, 3);
  routing.topk_ids[3 * 3] = 5;  // what the duplicate repeats
  routing.topk_ids[3 * 3 + 1] = 6;
  routing.topk_ids[3 * 3 + 2] = GetParam().id;
  routing.topk_weights[3 * 3 + 2] = GetParam().weight;
  const std::string message = rejection([&] { validate(routing, 8); });
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr("token 3, slot 2"));
}
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
INSTANTIATE_TEST_SUITE_P(Values, BadPairs,
                         ::testing::Values(BadPair{"MinusOne", -1, 0.5F, "expert -1"},
                                           BadPair{"E", 8, 0.5F, "expert 8"},
                                           BadPair{"IntMax", 2147483647, 0.5F, "expert 2147483647"},
                                           BadPair{"IntMin",
                                                   std::numeric_limits<std::int32_t>::min(), 0.5F,
                                                   "expert -2147483648"},
                                           BadPair{"Duplicate", 5, 0.5F, "expert 5 a second time"},
                                           BadPair{"NanWeight", 7, kNan, "nan"},
                                           BadPair{"InfiniteWeight", 7, -kInfinity, "-inf"}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

TEST(RoutingRules, AllowTheSameExpertInNeighbouringTokens) {
  EXPECT_NO_THROW(validate(Routing{2, 2, {0, 1, 1, 0}, {1, 1, 1, 1}}, 2));
}

TEST(RoutingRules, RefuseSizesThatDoNotMatch) {
  EXPECT_THAT(rejection([] {
                validate(Routing{2, 2, {0, 1, 2}, {1, 1, 1, 1}}, 4);
              }),
              HasSubstr("3 ids and 4 weights"));
  EXPECT_THAT(rejection([] {
                validate(Routing{2, 2, {0, 1, 2, 3}, {1, 1, 1}}, 4);
              }),
              HasSubstr("4 ids and 3 weights"));
  EXPECT_THAT(rejection([] { validate(Routing{-1, 2, {}, {}}, 4); }), HasSubstr("-1 tokens"));
  EXPECT_THAT(rejection([] {
                validate(Routing{std::int64_t{1} << 62, 2, {}, {}}, 4);
              }),
              HasSubstr("tokens must lie in"));
}

void expect_stable_bijection(const Routing& routing, std::int64_t experts,
                             const ExpertPermutation& permutation) {
  ASSERT_EQ(permutation.offsets.size(), static_cast<std::size_t>(experts) + 1);
  ASSERT_EQ(permutation.offsets.front(), 0);
  ASSERT_EQ(permutation.offsets.back(), static_cast<std::int64_t>(routing.topk_ids.size()));
  std::vector<bool> seen(routing.topk_ids.size(), false);
  std::vector<std::int32_t> active;
  std::int64_t largest = 0;
  for (std::size_t e = 0; e < static_cast<std::size_t>(experts); ++e) {
    const std::int64_t begin = permutation.offsets[e];
    const std::int64_t end = permutation.offsets[e + 1];
    ASSERT_LE(begin, end);
    largest = std::max(largest, end - begin);
    if (end > begin) {
      active.push_back(static_cast<std::int32_t>(e));
    }
    for (std::int64_t i = begin; i < end; ++i) {
      const auto pair =
          static_cast<std::size_t>(permutation.sorted_pairs[static_cast<std::size_t>(i)]);
      ASSERT_LT(pair, seen.size());
      ASSERT_FALSE(seen[pair]) << "pair " << pair << " twice";
      seen[pair] = true;
      ASSERT_EQ(routing.topk_ids[pair], static_cast<std::int32_t>(e));
      ASSERT_TRUE(i == begin || permutation.sorted_pairs[static_cast<std::size_t>(i - 1)] <
                                    static_cast<std::int32_t>(pair));
    }
  }
  EXPECT_EQ(permutation.active_experts, active);
  EXPECT_EQ(permutation.largest_group, largest);
}

TEST(Permutation, IsAStableBijectionGroupedByExpert) {
  for (const char* spec : {"uniform", "single", "zipf:2", "hot:1@0.9", "balanced"}) {
    for (const std::int64_t tokens : {0, 1, 7, 257}) {
      for (const std::int64_t experts : {8, 64}) {
        SCOPED_TRACE(fmt::format("{} {} tokens {} experts", spec, tokens, experts));
        const Routing routing = make(spec, tokens, experts, 3);
        expect_stable_bijection(routing, experts, permute_by_expert(routing, experts));
      }
    }
  }
}

TEST(Permutation, ReusesItsBuffers) {
  ExpertPermutation permutation;
  const Routing large = make("uniform", 300, 64, 6);
  permute_by_expert(large.topk_ids, 64, permutation);
  const auto* offsets = permutation.offsets.data();
  const auto* pairs = permutation.sorted_pairs.data();
  const auto* active = permutation.active_experts.data();
  for (const std::int64_t tokens : {300, 5, 0, 200}) {
    const Routing routing = make("zipf:1", tokens, 64, 6);
    permute_by_expert(routing.topk_ids, 64, permutation);
    expect_stable_bijection(routing, 64, permutation);
    EXPECT_EQ(permutation.offsets.data(), offsets);
    EXPECT_EQ(permutation.sorted_pairs.data(), pairs);
    EXPECT_EQ(permutation.active_experts.data(), active);
  }
}

}  // namespace
}  // namespace moebench
