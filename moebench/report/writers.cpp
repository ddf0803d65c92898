#include "moebench/report/writers.h"

#include "moebench/core/error.h"
#include "moebench/report/result_json.h"

namespace moebench {
namespace {

using Json = nlohmann::ordered_json;

/// A JSON scalar as the text of a CSV or Markdown cell; null is an empty cell.
std::string plain(const Json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  return compact(value);
}

/// A spreadsheet takes a cell that starts with one of these for a formula; the apostrophe makes it
/// text.
bool looks_like_formula(std::string_view text) {
  return !text.empty() && std::string_view("=+-@\t\r").find(text.front()) != std::string_view::npos;
}

/// RFC 4180.
std::string csv_cell(const Json& value) {
  std::string text = plain(value);
  if (value.is_string() && looks_like_formula(text)) text.insert(text.begin(), '\'');
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

/// As JSON does it: what is no UTF-8 becomes U+FFFD.
std::string valid_utf8(std::string_view text) {
  return Json::parse(compact(Json(text))).get<std::string>();
}

/// Markup of every kind as character references, which no Markdown dialect takes for markup; line
/// ends and other control characters would end the row.
std::string markdown_cell(std::string_view text) {
  constexpr std::string_view kMarkup = "|\\`*[]<>&~";
  std::string out;
  for (const char c : valid_utf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (kMarkup.find(c) != std::string_view::npos) {
      out += fmt::format("&#{};", byte);
    } else if (byte < 0x20 || byte == 0x7F) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out;
}

std::string milliseconds(double seconds) { return fmt::format("{:.4g}", seconds * 1e3); }

std::string markdown_row(const CaseResult& r) {
  std::string line = fmt::format("| {} | {} | {} | {} |", markdown_cell(r.sub_label), r.tokens,
                                 markdown_cell(r.kernel), markdown_cell(r.kernel_detail));
  if (r.samples_s.empty()) {
    line += " | | | |";
  } else {
    const double share = r.floor_s > 0 ? r.floor_s / r.median_s : 0.0;
    const std::string interval =
        shows_spread(r) ? fmt::format("{}..{}", milliseconds(r.ci_low_s), milliseconds(r.ci_high_s))
                        : "";
    line += fmt::format(" {}{} | {} | {:.1f} | {} |", milliseconds(r.median_s),
                        r.noisy ? " (noisy)" : "", interval,
                        static_cast<double>(r.weight_bytes) / r.median_s * 1e-9,
                        r.floor_s > 0 ? fmt::format("{:.0f} %", share * 100) : "");
  }
  line += !(r.speedup > 0) ? " |"
          : shows_spread(r)
              ? fmt::format(" {:.2f} ({:.2f}..{:.2f}) |", r.speedup, r.speedup_low, r.speedup_high)
              : fmt::format(" {:.2f} |", r.speedup);
  return line + fmt::format(" {} | {} |\n",
                            r.verdict.empty() ? name_of(r.status) : markdown_cell(r.verdict),
                            markdown_cell(r.status == Status::kOk ? r.noise : r.reason));
}

}  // namespace

std::string to_json(const RunReport& report) {
  Json document = Json::object();
  document["schema_version"] = kResultSchemaVersion;
  document["tool"] = {{"name", "moebench"}, {"version", report.tool_version}};
  document["argv"] = report.argv;
  document["env"] = Json::object();
  for (const auto& [key, value] : report.env) document["env"][key] = value;
  document["results"] = Json::array();
  for (const CaseResult& result : report.results) document["results"].push_back(json_of(result));
  return document.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string to_jsonl(const RunReport& report) {
  std::string out;
  for (const CaseResult& result : report.results) out += result_to_json_line(result) + "\n";
  return out;
}

std::string to_csv(const RunReport& report) {
  std::string out;
  const Json columns = json_of(CaseResult{});
  const auto in_table = [](const std::string& key) {
    return key != "samples_s" && key != "phases_s" && key != "phases_share";
  };
  std::string separator;
  for (const auto& [key, unused] : columns.items()) {
    if (!in_table(key)) continue;
    out += separator + key;
    separator = ",";
  }
  out += "\r\n";
  for (const CaseResult& result : report.results) {
    separator.clear();
    const Json row = Json::parse(compact(json_of(result)));  // invalid UTF-8 replaced once, here
    for (const auto& [key, value] : row.items()) {
      if (!in_table(key)) continue;
      out += separator + csv_cell(value);
      separator = ",";
    }
    out += "\r\n";
  }
  return out;
}

std::string to_markdown(const RunReport& report) {
  std::string out =
      "| case | tokens | kernel | runs as | median, ms | 95 % interval | GB/s | share of memory "
      "floor | speed-up | verdict | note "
      "|\n|---|--:|---|---|--:|--:|--:|--:|--:|---|---|\n";
  for (const CaseResult& result : report.results) out += markdown_row(result);
  return out;
}

std::string result_to_json_line(const CaseResult& result) { return compact(json_of(result)); }

CaseResult result_from_json_line(std::string_view line) {
  return result_from_json(parse_object(line, "result"), "result");
}

}  // namespace moebench
