// Trace files: what is read, and every way in which an untrusted file is refused with its place.
#include "moebench/moe/routing_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "moebench/core/error.h"

namespace moebench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TraceFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "moebench-trace-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(std::string_view text) {
    const std::filesystem::path path = folder_ / "t.trace";
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  Routing read(std::string_view text, std::int64_t tokens, std::int64_t topk = 2,
               bool renormalize = false) {
    return read_routing_trace(write(text), tokens, kExperts, topk, renormalize);
  }
  static std::string rejection_of_path(const std::string& path, std::int64_t tokens = 1) {
    try {
      static_cast<void>(read_routing_trace(path, tokens, kExperts, 2, false));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_THAT(std::string(error.what()), ::testing::Not(HasSubstr("\n")));
      return error.what();
    }
    return "";
  }
  std::string rejection(std::string_view text, std::int64_t tokens = 1) {
    return rejection_of_path(write(text), tokens);
  }

  static constexpr std::int64_t kExperts = 8;
  std::filesystem::path folder_;
};

TEST_F(TraceFile, ReadsIdsAndWeights) {
  const Routing routing = read("3:0.5 1:0.25\n0:1 7:0\n", 2);
  EXPECT_EQ(routing.tokens, 2);
  EXPECT_EQ(routing.topk, 2);
  EXPECT_THAT(routing.topk_ids, ElementsAre(3, 1, 0, 7));
  EXPECT_THAT(routing.topk_weights, ElementsAre(0.5F, 0.25F, 1.0F, 0.0F));
}

TEST_F(TraceFile, IdsAloneGetEqualWeights) {
  const Routing routing = read("3 1\n", 1);
  EXPECT_THAT(routing.topk_ids, ElementsAre(3, 1));
  EXPECT_THAT(routing.topk_weights, ElementsAre(0.5F, 0.5F));
}

TEST_F(TraceFile, RenormalizesGivenWeights) {
  EXPECT_THAT(read("3:3 1:1\n", 1, 2, true).topk_weights, ElementsAre(0.75F, 0.25F));
}

TEST_F(TraceFile, SkipsCommentsBlankLinesAndCarriageReturns) {
  const Routing routing = read("# header\r\n\r\n  \t\n 3\t1 # first\r\n\n0  7", 2);
  EXPECT_THAT(routing.topk_ids, ElementsAre(3, 1, 0, 7));
}

TEST_F(TraceFile, UsesThePrefixThatIsAskedFor) {
  EXPECT_THAT(read("3 1\n0 7\n2 4\n", 2).topk_ids, ElementsAre(3, 1, 0, 7));
  EXPECT_TRUE(read("", 0).topk_ids.empty());
}

TEST_F(TraceFile, IsReachedThroughMakeRouting) {
  const RoutingSpec spec = parse_routing("trace:" + write("5:0.5 2:0.5\n"));
  const Routing routing = make_routing(spec, 1, 1, kExperts, 2, false);
  EXPECT_THAT(routing.topk_ids, ElementsAre(5, 2));
}

TEST_F(TraceFile, ReadsLinesAcrossChunks) {
  std::string text;
  constexpr int kTokens = 30000;
  for (int t = 0; t < kTokens; ++t) {
    text += fmt::format("{}:0.{} {}:0.125\n", t % 7, t % 10, 7);
  }
  const Routing routing = read(text, kTokens);
  for (int t = 0; t < kTokens; ++t) {
    ASSERT_EQ(routing.topk_ids[static_cast<std::size_t>(2 * t)], t % 7) << t;
    ASSERT_EQ(routing.topk_ids[static_cast<std::size_t>(2 * t + 1)], 7) << t;
  }
}

TEST_F(TraceFile, DoesNotDependOnTheLocale) {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  if (std::setlocale(LC_ALL, "de_DE.UTF-8") == nullptr) {
    GTEST_SKIP() << "de_DE.UTF-8, whose decimal separator is a comma, is not installed";
  }
  const Routing routing = read("3:0.5 1:0.25\n", 1);
  const std::string comma = rejection("3:0,5 1:0,25\n");
  std::setlocale(LC_ALL, before.c_str());
  EXPECT_THAT(routing.topk_weights, ElementsAre(0.5F, 0.25F));
  EXPECT_THAT(comma, HasSubstr("is not a weight"));
}

TEST_F(TraceFile, TooFewTokensNamesBothCounts) {
  EXPECT_THAT(rejection("3 1\n0 7\n", 5), HasSubstr("holds 2 tokens, 5 are asked for"));
  EXPECT_THAT(rejection("", 1), HasSubstr("holds 0 tokens, 1 are asked for"));
}

struct BadLine {
  const char* name;
  std::string_view line;
  const char* message;
};
class BadTraceLine : public TraceFile, public ::testing::WithParamInterface<BadLine> {};
TEST_P(BadTraceLine, IsRefusedWithFileAndLine) {
  const std::string text = "0 1\n# comment\n" + std::string(GetParam().line) + "\n";
  const std::string message = rejection(text, 2);
  EXPECT_THAT(message, HasSubstr("t.trace:3: "));
  EXPECT_THAT(message, HasSubstr(GetParam().message));
}
using namespace std::string_view_literals;
INSTANTIATE_TEST_SUITE_P(
    Lines, BadTraceLine,
    ::testing::Values(BadLine{"Negative", "-1 2", "expert -1 is not in 0..7"},
                      BadLine{"TooLarge", "2 8", "expert 8 is not in 0..7"},
                      BadLine{"IntMax", "2147483647 1", "expert 2147483647"},
                      BadLine{"Overflow", "99999999999999999999 1", "out of range"},
                      BadLine{"Twice", "3 3", "expert 3 a second time"},
                      BadLine{"TooFew", "3", "1 experts, topk is 2"},
                      BadLine{"TooMany", "3 1 2", "more than 2 experts"},
                      BadLine{"Word", "a b", "is not an expert id"},
                      BadLine{"Hex", "0x1 2", "is not an expert id"},
                      BadLine{"Plus", "+1 2", "is not an expert id"},
                      BadLine{"Float", "1.5 2", "is not an expert id"},
                      BadLine{"NoId", ":0.5 2:0.5", "is not an expert id"},
                      BadLine{"NoWeight", "1: 2:0.5", "is not a weight"},
                      BadLine{"TwoColons", "1:2:3 2:0.5", "is not a weight"},
                      BadLine{"NanWeight", "1:nan 2:0.5", "weight nan"},
                      BadLine{"InfiniteWeight", "1:inf 2:0.5", "weight inf"},
                      BadLine{"NegativeWeight", "1:-0.5 2:0.5", "weight -0.5"},
                      BadLine{"HugeWeight", "1:5000 2:0.5", "weight 5000"},
                      BadLine{"WeightOverflow", "1:1e999 2:0.5", "out of range"},
                      BadLine{"Mixed", "1:0.5 2", "all or none"},
                      BadLine{"DecimalComma", "1:0,5 2:0,5", "is not a weight"},
                      BadLine{"Comma", "1,2", "is not an expert id"},
                      BadLine{"Nul", "1\0 2"sv, "is not an expert id"},
                      BadLine{"Escape", "\x1b[31m 2", "is not an expert id"},
                      BadLine{"Bom",
                              "\xEF\xBB\xBF"
                              "1 2",
                              "is not an expert id"},
                      BadLine{"LoneCarriageReturn", "1\r2 3", "is not an expert id"}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

TEST_F(TraceFile, ZeroWeightsCannotBeRenormalized) {
  EXPECT_THROW(static_cast<void>(read("1:0 2:0\n", 1, 2, true)), Error);
  EXPECT_NO_THROW(static_cast<void>(read("1:0 2:0\n", 1, 2, false)));
}

TEST_F(TraceFile, AnEndlessLineIsRefused) {
  EXPECT_THAT(rejection(std::string(kMaxTraceLineBytes + 1, '1')),
              HasSubstr("t.trace:1: the line is longer than"));
}

TEST_F(TraceFile, WhatIsNoRegularFileIsRefused) {
  EXPECT_THAT(rejection_of_path(folder_.string()), HasSubstr("not a regular file"));
  EXPECT_THAT(rejection_of_path("/dev/zero"), HasSubstr("not a regular file"));
  const std::string fifo = (folder_ / "fifo").string();
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(rejection_of_path(fifo), HasSubstr("not a regular file"));
}

TEST_F(TraceFile, AMissingFileIsRefused) {
  EXPECT_THAT(rejection_of_path((folder_ / "none").string()), HasSubstr("cannot be opened"));
}

TEST_F(TraceFile, AnUnreadableFileIsRefused) {
  if (::geteuid() == 0) {
    GTEST_SKIP() << "root reads files without permission";
  }
  const std::string path = write("1 2\n");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  EXPECT_THAT(rejection_of_path(path), HasSubstr("cannot be opened"));
}

TEST_F(TraceFile, AFilePastTheSizeLimitIsRefusedUnread) {
  const std::string path = write("1 2\n");
  std::filesystem::resize_file(path, static_cast<std::uintmax_t>(kMaxTraceBytes) + 1);  // sparse
  EXPECT_THAT(rejection_of_path(path), HasSubstr("1073741825 bytes, more than 1073741824"));
}

}  // namespace
}  // namespace moebench
