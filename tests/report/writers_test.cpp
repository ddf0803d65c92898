#include "moebench/report/writers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "moebench/core/error.h"
#include "tests/report/sample_results.h"

namespace moebench {
namespace {

using nlohmann::json;
using testing::HasSubstr;

RunReport report_of(std::vector<CaseResult> results) {
  return {.tool_version = "0.1.0",
          .argv = {"moebench", "--seed", "1"},
          .env = {{"cpu.model", "x"}},
          .results = std::move(results)};
}

TEST(Json, IsOneObjectWithTheDocumentedKeys) {
  const json document = json::parse(to_json(report_of({test::timed_result()})));
  EXPECT_EQ(document.at("schema_version"), kResultSchemaVersion);
  EXPECT_EQ(document.at("tool").at("version"), "0.1.0");
  EXPECT_EQ(document.at("argv").size(), 3U);
  EXPECT_EQ(document.at("env").at("cpu.model"), "x");
  const json& result = document.at("results").at(0);
  for (const char* key : {"id",
                          "model",
                          "num_experts",
                          "topk",
                          "hidden",
                          "intermediate",
                          "tp",
                          "tokens",
                          "scheme",
                          "kernel",
                          "graph",
                          "median_s",
                          "iqr_s",
                          "ci_low_s",
                          "ci_high_s",
                          "samples",
                          "calls_per_sample",
                          "active_experts",
                          "weight_bytes",
                          "floor_s",
                          "verdict",
                          "worst_row_error",
                          "status",
                          "reason",
                          "repro"}) {
    EXPECT_TRUE(result.contains(key)) << key;
  }
  EXPECT_EQ(result.at("samples"), 3);
  EXPECT_EQ(result.at("graph"), false);
}

TEST(Json, HasNullWhereANumberDoesNotExist) {
  const json result = json::parse(to_json(report_of({test::skipped_result()}))).at("results").at(0);
  for (const char* key : {"median_s", "iqr_s", "ci_low_s", "ci_high_s", "floor_s",
                          "worst_row_error", "speedup", "calls_per_sample", "active_experts",
                          "largest_group", "weight_bytes", "flops", "rows_checked"}) {
    EXPECT_TRUE(result.at(key).is_null()) << key;
  }
  EXPECT_EQ(result.at("samples"), 0);
  EXPECT_EQ(result.at("status"), "skipped");
}

TEST(Json, HasZeroWhereACaseRanWithoutTokens) {
  CaseResult r = test::timed_result();
  r.tokens = r.active_experts = r.largest_group = r.weight_bytes = 0;
  const json result = json::parse(to_json(report_of({r}))).at("results").at(0);
  EXPECT_EQ(result.at("active_experts"), 0);
  EXPECT_EQ(result.at("weight_bytes"), 0);
}

TEST(Json, NeverHoldsNan) {
  CaseResult r = test::timed_result();
  r.worst_row_error = NAN;
  r.median_s = INFINITY;
  const json result = json::parse(to_json(report_of({r}))).at("results").at(0);
  EXPECT_TRUE(result.at("worst_row_error").is_null());
  EXPECT_TRUE(result.at("median_s").is_null());
}

TEST(JsonLine, RoundTripsEveryField) {
  for (const CaseResult& r : {test::timed_result(), test::skipped_result()}) {
    const std::string line = result_to_json_line(r);
    EXPECT_EQ(line.find('\n'), std::string::npos);
    EXPECT_EQ(result_to_json_line(result_from_json_line(line)), line);
  }
  const CaseResult back = result_from_json_line(result_to_json_line(test::timed_result()));
  EXPECT_EQ(back.samples_s, test::timed_result().samples_s);
  EXPECT_EQ(back.phases_s, test::timed_result().phases_s);
  EXPECT_EQ(back.peak_s, test::timed_result().peak_s);
  EXPECT_EQ(back.floor_bytes_per_s, test::timed_result().floor_bytes_per_s);
  EXPECT_EQ(back.floor_low_bytes_per_s, test::timed_result().floor_low_bytes_per_s);
  EXPECT_EQ(back.peak_flops_per_s, test::timed_result().peak_flops_per_s);
  EXPECT_EQ(back.peak_low_flops_per_s, test::timed_result().peak_low_flops_per_s);
  EXPECT_EQ(back.status, Status::kOk);
}

TEST(JsonLine, OfBeforeTheRatesAroundACaseIsRead) {
  json line = json::parse(result_to_json_line(test::timed_result()));
  for (const char* key :
       {"floor_bytes_per_s", "floor_low_bytes_per_s", "peak_flops_per_s", "peak_low_flops_per_s"}) {
    line.erase(key);
  }
  const CaseResult back = result_from_json_line(line.dump());
  EXPECT_EQ(back.floor_s, test::timed_result().floor_s);
  EXPECT_EQ(back.floor_bytes_per_s, 0.0);
  EXPECT_TRUE(json::parse(result_to_json_line(back)).at("floor_bytes_per_s").is_null());
}

struct BadLine {
  const char* name;
  const char* from;
  const char* to;
  const char* message;
};
class DamagedLine : public testing::TestWithParam<BadLine> {};

TEST_P(DamagedLine, IsRefusedWithTheCause) {
  std::string line = result_to_json_line(test::timed_result());
  const std::size_t at = line.find(GetParam().from);
  ASSERT_NE(at, std::string::npos);
  line.replace(at, std::string(GetParam().from).size(), GetParam().to);
  try {
    (void)result_from_json_line(line);
    FAIL() << "accepted " << line;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Lines, DamagedLine,
    testing::Values(
        BadLine{"OtherVersion", "\"schema_version\":1", "\"schema_version\":2", "schema version 2"},
        BadLine{"NoVersion", "\"schema_version\":1,", "", "schema version missing"},
        BadLine{"DuplicateKey", "\"topk\":2", "\"topk\":2,\"topk\":3", "'topk' appears twice"},
        BadLine{"EscapedDuplicateKey", "\"topk\":2", "\"topk\":2,\"\\u0074opk\":3",
                "'topk' appears twice"},
        BadLine{"MissingField", "\"topk\":2,", "", "'topk' is missing"},
        BadLine{"WrongType", "\"topk\":2", "\"topk\":\"2\"", "'topk' is \"2\""},
        BadLine{"NullNumber", "\"topk\":2", "\"topk\":null", "'topk' is null"},
        BadLine{"FloatForInteger", "\"topk\":2", "\"topk\":2.5", "'topk' is 2.5"},
        BadLine{"HugeInteger", "\"topk\":2", "\"topk\":18446744073709551615", "'topk'"},
        BadLine{"Nan", "\"flops\":75000000.0", "\"flops\":NaN", "not JSON"},
        BadLine{"InfinityByOverflow", "\"flops\":75000000.0", "\"flops\":1e999", "not JSON"},
        BadLine{"UnknownStatus", "\"status\":\"ok\"", "\"status\":\"great\"",
                "'status' is \"great\""},
        BadLine{"SamplesNotNumbers", "\"samples_s\":[", "\"samples_s\":[\"x\",", "'samples_s'"},
        BadLine{"NegativeSample", "\"samples_s\":[", "\"samples_s\":[-1.0,", "'samples_s'"},
        BadLine{"NanSample", "\"samples_s\":[", "\"samples_s\":[null,", "'samples_s'"},
        BadLine{"OtherSampleCount", "\"samples\":3", "\"samples\":4", "'samples' is 4"},
        BadLine{"NoSampleCount", ",\"samples\":3", "", "'samples' is missing"},
        BadLine{"ByteOrderMark", "{\"schema", "\xEF\xBB\xBF{\"schema", "byte order mark"},
        BadLine{"NotAnObject", "{\"schema_version\"", "[{\"schema_version\"", "not JSON"},
        BadLine{"InvalidUtf8", "\"id\":\"", "\"id\":\"\xFF", "not JSON"},
        BadLine{"DuplicatePhase", "\"route\":", "\"route\":1,\"route\":", "'route' appears twice"},
        BadLine{"TrailingText", "\"samples\":3}", "\"samples\":3} x", "not JSON"},
        BadLine{"CutOff", "\"samples\":3}", "", "not JSON"}),
    [](const auto& param) { return param.param.name; });

std::string hostile_names[] = {"\"quoted\"",
                               "a,b",
                               "line\nbreak\r\n",
                               "=cmd|'/c calc'!A1",
                               "+1",
                               "-1",
                               "@x",
                               "\tx",
                               "<script>alert(1)</script>",
                               "a|b",
                               "back`tick",
                               "\xFF\xFE not utf-8",
                               "\xC3",
                               std::string(1 << 20, 'x'),
                               std::string("nul\0inside", 10)};

class HostileName : public testing::TestWithParam<std::size_t> {};

TEST_P(HostileName, SurvivesJson) {
  CaseResult r = test::timed_result();
  r.model = hostile_names[GetParam()];
  const RunReport report = report_of({r});
  const json document = json::parse(to_json(report));
  EXPECT_EQ(result_from_json_line(result_to_json_line(r)).model,
            document.at("results").at(0).at("model").get<std::string>());
}

TEST(Markdown, OneSampleHasNoInterval) {
  CaseResult r = test::timed_result();
  r.samples_s.resize(1);
  EXPECT_EQ(to_markdown(report_of({r})).find(".."), std::string::npos);
}

TEST(JsonLine, RefusesDeepNestingQuickly) {
  constexpr std::size_t kDepth = 100'000;
  const std::string deep = std::string(kDepth, '[') + std::string(kDepth, ']');
  EXPECT_THROW((void)result_from_json_line(deep), Error);
  EXPECT_THROW((void)result_from_json_line(std::string(kDepth, '[')), Error);
}

/// Cells of one CSV record, by RFC 4180; `at` moves past its line end.
std::vector<std::string> csv_record(const std::string& text, std::size_t& at) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c != '"') {
        cells.back() += c;
      } else if (at + 1 < text.size() && text[at + 1] == '"') {
        cells.back() += text[++at];
      } else {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == ',') {
      cells.emplace_back();
    } else if (c == '\r' && at + 1 < text.size() && text[at + 1] == '\n') {
      at += 2;
      break;
    } else {
      cells.back() += c;
    }
  }
  return cells;
}

TEST_P(HostileName, SurvivesCsvAndIsNoFormula) {
  CaseResult r = test::timed_result();
  r.model = hostile_names[GetParam()];
  const std::string csv = to_csv(report_of({r, test::skipped_result()}));
  std::size_t at = 0;
  const std::vector<std::string> header = csv_record(csv, at);
  const std::vector<std::string> first = csv_record(csv, at);
  const std::vector<std::string> second = csv_record(csv, at);
  EXPECT_EQ(at, csv.size());
  ASSERT_EQ(first.size(), header.size());
  ASSERT_EQ(second.size(), header.size());
  const auto model =
      static_cast<std::size_t>(std::find(header.begin(), header.end(), "model") - header.begin());
  EXPECT_EQ(std::string_view("=+-@\t\r").find(first[model].front()), std::string_view::npos)
      << first[model];
  const std::string& name = hostile_names[GetParam()];
  const bool utf8 = static_cast<unsigned char>(name[0]) < 0x80;
  if (utf8) {
    EXPECT_THAT(first[model], testing::EndsWith(name));
  }
}

TEST_P(HostileName, KeepsMarkdownTablesWhole) {
  CaseResult r = test::timed_result();
  r.sub_label = hostile_names[GetParam()];
  const std::string text = to_markdown(report_of({r}));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << "a header, a rule and one row";
  EXPECT_EQ(text.find("<script>"), std::string::npos);
}

/// A cell ends at a pipe that no backslash protects, and a backslash may itself be protected: no
/// name may bring either. Nor may it bring bytes that are no UTF-8 or a link.
TEST_P(HostileName, BringsNoMarkdownMarkup) {
  CaseResult r = test::timed_result();
  r.sub_label = hostile_names[GetParam()];
  r.noise = "[click](javascript:1) \\| *b*";
  const std::string text = to_markdown(report_of({r}));
  const std::size_t row = text.rfind('\n', text.size() - 2) + 1;
  EXPECT_EQ(
      std::count(text.begin() + static_cast<std::ptrdiff_t>(row), text.end(), '|'),
      std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(text.find('\n')), '|'));
  EXPECT_EQ(text.find_first_of("\\*[]<>`", row), std::string::npos);
  EXPECT_NO_THROW((void)json(text).dump()) << "valid UTF-8";
}

INSTANTIATE_TEST_SUITE_P(Names, HostileName,
                         testing::Range(std::size_t{0}, std::size(hostile_names)));

TEST(Jsonl, IsOneParsableLinePerResult) {
  const std::string text = to_jsonl(report_of({test::timed_result(), test::skipped_result()}));
  const std::size_t first = text.find('\n');
  EXPECT_EQ(result_from_json_line(text.substr(0, first)).id, test::timed_result().id);
  EXPECT_EQ(result_from_json_line(text.substr(first + 1, text.size() - first - 2)).id,
            test::skipped_result().id);
}

TEST(Writers, WorkWithoutResults) {
  EXPECT_EQ(json::parse(to_json(report_of({}))).at("results").size(), 0U);
  EXPECT_EQ(to_jsonl(report_of({})), "");
  const std::string csv = to_csv(report_of({}));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1);
}

}  // namespace
}  // namespace moebench
