// render_compare against real output of torch.utils.benchmark.Compare:
// tests/golden/compare_cases.json, made by tools/make_golden_tables.py.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "moebench/report/table.h"

namespace moebench {
namespace {

using nlohmann::json;

const json& golden() {
  static const json document = [] {
    std::ifstream in(MOEBENCH_SOURCE_DIR "/tests/golden/compare_cases.json");
    return json::parse(in);
  }();
  return document.at("cases");
}

std::string text_or_empty(const json& value) {
  return value.is_null() ? std::string() : value.get<std::string>();
}

/// [label, sub_label, description, env, num_threads, number_per_run, raw_times]
std::vector<TableEntry> entries_of(const json& golden_case) {
  std::vector<TableEntry> entries;
  for (const json& entry : golden_case.at("entries")) {
    TableEntry out;
    out.label = text_or_empty(entry.at(0));
    out.sub_label = text_or_empty(entry.at(1));
    out.description = entry.at(2);
    if (!entry.at(3).is_null()) out.env = entry.at(3).get<std::string>();
    out.num_threads = entry.at(4);
    out.number_per_run = entry.at(5);
    out.raw_times = entry.at(6).get<std::vector<double>>();
    entries.push_back(std::move(out));
  }
  return entries;
}

TableStyle style_of(const json& golden_case) {
  const json& style = golden_case.at("style");
  TableStyle out;
  out.trim_significant_figures = style.at("trim");
  out.highlight_warnings = style.at("highlight");
  const std::string color = style.at("color");
  if (color == "columnwise") out.color = TableStyle::Color::kColumnwise;
  if (color == "rowwise") out.color = TableStyle::Color::kRowwise;
  return out;
}

class CompareGolden : public testing::TestWithParam<std::size_t> {};

TEST_P(CompareGolden, IsByteIdentical) {
  const json& golden_case = golden().at(GetParam());
  EXPECT_EQ(render_compare(entries_of(golden_case), style_of(golden_case)),
            golden_case.at("expected").get<std::string>());
}

INSTANTIATE_TEST_SUITE_P(Torch, CompareGolden, testing::Range(std::size_t{0}, golden().size()),
                         [](const auto& param) {
                           return golden().at(param.param).at("name").template get<std::string>();
                         });

std::string recorded_session() {
  std::ifstream in(MOEBENCH_SOURCE_DIR "/tests/golden/torch_compare_1.13.txt");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// A section of torch_compare_1.13.txt: what stands between "=== <title>" and `end`.
std::string section(const std::string& title, const std::string& end = "\n=== end") {
  const std::string all = recorded_session();
  const std::string head = "=== " + title + "\n";
  const std::size_t begin = all.find(head);
  if (begin == std::string::npos) return "no section " + title;
  return all.substr(begin + head.size(), all.find(end, begin) - begin - head.size());
}

std::string rendered(const std::string& name) {
  for (const json& golden_case : golden()) {
    if (golden_case.at("name") == name)
      return render_compare(entries_of(golden_case), style_of(golden_case));
  }
  return "no case " + name;
}

/// As Python's repr() writes the text of a table.
std::string python_repr(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\033') {
      out += "\\x1b";
    } else {
      out += c;
    }
  }
  return out + "'";
}

TEST(CompareText, MatchesTheRecordedSessionOfTorch113) {
  EXPECT_EQ(rendered("Seed"), section("A default"));
  EXPECT_EQ(rendered("SeedTrimmed"), section("B trim"));
  EXPECT_EQ(rendered("SeedHighlightWithoutWarnings"), section("C highlight (no warnings)"));
  EXPECT_EQ(rendered("SeedHighlightWithWarningsAndMissingCells"),
            section("D highlight w/ warnings and missing cells"));
  EXPECT_EQ(python_repr(rendered("SeedColumnwise")),
            section("E colorize columnwise (repr)", "\n=== "));
  EXPECT_EQ(python_repr(rendered("SeedRowwise")), section("F colorize rowwise (repr)", "\n=== "));
  EXPECT_EQ(rendered("EnvsAndThreads"), section("G env + threads"));
  EXPECT_EQ(rendered("TwoLabels"), section("H two labels"));
  EXPECT_EQ(rendered("MergedReplicates"), section("I merge replicates"));
  EXPECT_EQ(rendered("DigitsAtPowersOfTen"), section("J value 10.0 / 100 / 9.96"));
  EXPECT_EQ(rendered("OneUnit"), section("K value 1.0 only"));
  EXPECT_EQ(rendered("JustBelowOneUnit"), section("L sub-1 (0.5 unit)"));
}

/// What Compare refuses, and this must print all the same: a clock may stand still.
TEST(CompareText, PrintsZeroTimes) {
  const TableEntry zero{
      .label = "l", .sub_label = "r", .description = "c", .env = {}, .raw_times = {0.0, 0.0}};
  for (const bool trim : {false, true}) {
    const TableStyle style{.trim_significant_figures = trim,
                           .highlight_warnings = true,
                           .color = TableStyle::Color::kRowwise};
    const std::string text = render_compare(std::vector{zero}, style);
    EXPECT_NE(text.find("0.0"), std::string::npos) << text;
    EXPECT_EQ(text.find("nan"), std::string::npos) << text;
  }
}

TEST(CompareText, IsEmptyWithoutMeasurements) {
  EXPECT_EQ(render_compare({}, {}), "");
  const TableEntry without_times{
      .label = "l", .sub_label = "r", .description = "c", .env = {}, .raw_times = {}};
  EXPECT_EQ(render_compare(std::vector{without_times}, {}), "");
}

TEST(CompareText, MeasuresWidthInCharacters) {
  const auto entry = [](const char* row) {
    return TableEntry{
        .label = "l", .sub_label = row, .description = "c", .env = {}, .raw_times = {1e-3}};
  };
  const std::string text = render_compare(std::vector{entry("\xC3\xA4\xC3\xB6"), entry("ab")}, {});
  EXPECT_NE(text.find("      \xC3\xA4\xC3\xB6  |  1.0\n      ab  |  1.0\n"), std::string::npos)
      << text;
}

}  // namespace
}  // namespace moebench
