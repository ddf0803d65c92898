#include "moebench/report/result_json.h"

#include <cmath>
#include <set>
#include <type_traits>

#include "moebench/core/error.h"

namespace moebench {
namespace {

using Json = nlohmann::ordered_json;

/// The fields of a result, in the order of the files. `visit(key, member, kind)` is called for
/// each; reading and writing therefore cannot disagree.
enum class FieldKind : std::uint8_t {
  kAlways,    ///< exists for every case
  kCounted,   ///< null unless tokens were routed to experts
  kMeasured,  ///< null unless the case was timed
  kVerified,  ///< null unless an answer was judged
  kSpeedup,   ///< null without a baseline
  kSensed,    ///< null unless a device's sensors were read; files of before may lack it
  kLater,     ///< exists for every case; files of before may lack it
  kRate,      ///< null unless the case was timed and the number is known (not 0); files of before
              ///< may lack it
};

template <typename Result, typename Visit>
void for_each_field(Result& r, const Visit& visit) {
  using enum FieldKind;
  visit("id", r.id, kAlways);
  visit("model", r.model, kAlways);
  visit("num_experts", r.num_experts, kAlways);
  visit("topk", r.topk, kAlways);
  visit("hidden", r.hidden, kAlways);
  visit("intermediate", r.intermediate, kAlways);
  visit("tp", r.tp, kAlways);
  visit("tokens", r.tokens, kAlways);
  visit("scheme", r.scheme, kAlways);
  visit("per_act_token", r.per_act_token, kAlways);
  visit("per_out_ch", r.per_out_ch, kAlways);
  visit("kernel", r.kernel, kAlways);
  visit("kernel_detail", r.kernel_detail, kAlways);
  visit("backend", r.backend, kLater);
  visit("graph", r.graph, kAlways);
  visit("threads", r.threads, kAlways);
  visit("routing", r.routing, kAlways);
  visit("cache", r.cache, kAlways);
  visit("label", r.label, kAlways);
  visit("sub_label", r.sub_label, kAlways);
  visit("status", r.status, kAlways);
  visit("reason", r.reason, kAlways);
  visit("verdict", r.verdict, kAlways);
  visit("rows_checked", r.rows_checked, kVerified);
  visit("worst_row_error", r.worst_row_error, kVerified);
  visit("worst_bound_share", r.worst_bound_share, kVerified);
  visit("format_error", r.format_error, kVerified);
  visit("median_s", r.median_s, kMeasured);
  visit("iqr_s", r.iqr_s, kMeasured);
  visit("ci_low_s", r.ci_low_s, kMeasured);
  visit("ci_high_s", r.ci_high_s, kMeasured);
  visit("noisy", r.noisy, kMeasured);
  visit("noise", r.noise, kAlways);
  visit("calls_per_sample", r.calls_per_sample, kMeasured);
  visit("samples_s", r.samples_s, kAlways);
  visit("active_experts", r.active_experts, kCounted);
  visit("largest_group", r.largest_group, kCounted);
  visit("weight_bytes", r.weight_bytes, kCounted);
  visit("flops", r.flops, kCounted);
  visit("floor_s", r.floor_s, kMeasured);
  visit("floor_bytes_per_s", r.floor_bytes_per_s, kRate);
  visit("floor_low_bytes_per_s", r.floor_low_bytes_per_s, kRate);
  visit("peak_s", r.peak_s, kRate);
  visit("peak_flops_per_s", r.peak_flops_per_s, kRate);
  visit("peak_low_flops_per_s", r.peak_low_flops_per_s, kRate);
  visit("baseline", r.baseline, kAlways);
  visit("speedup", r.speedup, kSpeedup);
  visit("speedup_low", r.speedup_low, kSpeedup);
  visit("speedup_high", r.speedup_high, kSpeedup);
  visit("phases_s", r.phases_s, kAlways);
  visit("sm_clock_mhz", r.sm_clock_mhz, kSensed);
  visit("sm_clock_low_mhz", r.sm_clock_low_mhz, kSensed);
  visit("memory_clock_mhz", r.memory_clock_mhz, kSensed);
  visit("temperature_c", r.temperature_c, kSensed);
  visit("power_w", r.power_w, kSensed);
  visit("throttled", r.throttled, kLater);
  visit("repro", r.repro, kAlways);
}

template <typename Value>
bool known(const Value& value) {
  if constexpr (std::is_same_v<Value, double>) return value > 0.0;
  return true;
}

template <typename Value>
bool exists(const CaseResult& result, FieldKind kind, const Value& value) {
  switch (kind) {
    case FieldKind::kAlways:
    case FieldKind::kLater:
      return true;
    case FieldKind::kSensed:
      return result.sm_clock_mhz > 0.0;
    case FieldKind::kCounted:
      // A timed case without tokens has truly no active expert.
      return result.active_experts > 0 || !result.samples_s.empty();
    case FieldKind::kMeasured:
      return !result.samples_s.empty();
    case FieldKind::kRate:
      return !result.samples_s.empty() && known(value);
    case FieldKind::kVerified:
      return result.verdict == "pass" || result.verdict == "fail";
    case FieldKind::kSpeedup:
      return result.speedup > 0.0;
  }
  return false;
}

using Phases = std::vector<std::pair<std::string, double>>;

/// JSON has no NaN and no infinity: both are null, as a number that does not exist.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json to_value(const std::string& value) { return value; }
Json to_value(bool value) { return value; }
Json to_value(int value) { return value; }
Json to_value(std::int64_t value) { return value; }
Json to_value(double value) { return number(value); }
Json to_value(Status value) { return name_of(value); }
Json to_value(const std::vector<double>& values) {
  Json array = Json::array();
  for (const double value : values) array.push_back(number(value));
  return array;
}
Json to_value(const Phases& phases) {
  Json object = Json::object();
  for (const auto& [name, seconds] : phases) object[name] = number(seconds);
  return object;
}

[[noreturn]] void wrong_type(std::string_view where, const char* key, const char* wanted,
                             const Json& value) {
  fail(ErrorCode::kBadInput,
       "{}: field '{}' is {}, not {}; the file is damaged or not a result of this tool", where, key,
       printable(compact(value), 40), wanted);
}

void from_value(const Json& value, std::string& out, std::string_view where, const char* key) {
  if (!value.is_string()) wrong_type(where, key, "a string", value);
  out = value.get<std::string>();
}
void from_value(const Json& value, bool& out, std::string_view where, const char* key) {
  if (!value.is_boolean()) wrong_type(where, key, "true or false", value);
  out = value.get<bool>();
}
void from_value(const Json& value, std::int64_t& out, std::string_view where, const char* key) {
  // An unsigned beyond the signed range would wrap.
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX)) {
    wrong_type(where, key, "an integer", value);
  }
  out = value.get<std::int64_t>();
}
void from_value(const Json& value, int& out, std::string_view where, const char* key) {
  std::int64_t wide = 0;
  from_value(value, wide, where, key);
  if (wide < INT32_MIN || wide > INT32_MAX) wrong_type(where, key, "a 32-bit integer", value);
  out = static_cast<int>(wide);
}
void from_value(const Json& value, double& out, std::string_view where, const char* key) {
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    wrong_type(where, key, "a finite number", value);
  out = value.get<double>();
}
void from_value(const Json& value, Status& out, std::string_view where, const char* key) {
  for (const Status status : {Status::kOk, Status::kFailed, Status::kSkipped, Status::kError}) {
    if (value == name_of(status)) {
      out = status;
      return;
    }
  }
  wrong_type(where, key, "one of ok, failed, skipped, error", value);
}
void from_value(const Json& value, std::vector<double>& out, std::string_view where,
                const char* key) {
  if (!value.is_array()) wrong_type(where, key, "an array of numbers", value);
  out.clear();
  for (const Json& element : value) {
    out.emplace_back();
    from_value(element, out.back(), where, key);
    if (out.back() < 0.0) wrong_type(where, key, "an array of times", value);
  }
}
void from_value(const Json& value, Phases& out, std::string_view where, const char* key) {
  if (!value.is_object()) wrong_type(where, key, "an object of numbers", value);
  out.clear();
  for (const auto& [name, seconds] : value.items()) {
    out.emplace_back(name, 0.0);
    from_value(seconds, out.back().second, where, key);
  }
}

/// What follows from phases_s; not read back.
void add_phase_sums(Json& object, const CaseResult& result) {
  const double sum = phases_sum_s(result);
  Json shares = Json::object();
  for (const auto& [name, seconds] : result.phases_s) shares[name] = number(seconds / sum);
  object["phases_share"] = std::move(shares);
  object["phases_sum_s"] = result.phases_s.empty() ? Json(nullptr) : number(sum);
  object["phases_difference_s"] =
      result.phases_s.empty() ? Json(nullptr) : number(sum - result.median_s);
}

}  // namespace

Json json_of(const CaseResult& result) {
  Json object = Json::object();
  object["schema_version"] = kResultSchemaVersion;
  for_each_field(result, [&](const char* key, const auto& member, FieldKind kind) {
    object[key] = exists(result, kind, member) ? to_value(member) : Json(nullptr);
  });
  add_phase_sums(object, result);
  object["samples"] = result.samples_s.size();
  return object;
}

std::string compact(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json parse_object(std::string_view text, std::string_view where) {
  // The DOM keeps the last of two equal keys silently; the callback sees both.
  std::vector<std::set<std::string>> keys_of_open_objects;
  std::string duplicate;
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
        keys_of_open_objects.emplace_back();
        break;
      case Json::parse_event_t::object_end:
        keys_of_open_objects.pop_back();
        break;
      case Json::parse_event_t::key:
        if (!keys_of_open_objects.back().insert(parsed.get<std::string>()).second &&
            duplicate.empty()) {
          duplicate = parsed.get<std::string>();
        }
        break;
      default:
        break;
    }
    return true;
  };
  Json object;
  try {
    // The library skips a byte order mark, which RFC 8259 forbids to write.
    if (text.starts_with("\xEF\xBB\xBF")) {
      fail(ErrorCode::kBadInput, "{}: begins with a byte order mark; remove it", where);
    }
    object = Json::parse(text, watch);
  } catch (const Json::exception&) {
    fail(ErrorCode::kBadInput, "{}: not JSON: {}; the line is damaged", where, printable(text, 60));
  }
  if (!duplicate.empty()) {
    fail(ErrorCode::kBadInput, "{}: key '{}' appears twice; the file is ambiguous", where,
         printable(duplicate));
  }
  if (!object.is_object()) {
    fail(ErrorCode::kBadInput, "{}: {} is not a JSON object; the file is not a result of this tool",
         where, printable(text, 60));
  }
  return object;
}

CaseResult result_from_json(const Json& object, std::string_view where) {
  const auto version = object.find("schema_version");
  if (version == object.end() || *version != kResultSchemaVersion) {
    fail(ErrorCode::kBadInput,
         "{}: schema version {}, this tool reads version {}; use the tool that wrote it", where,
         version == object.end() ? "missing" : printable(compact(*version), 40),
         kResultSchemaVersion);
  }
  CaseResult result;
  for_each_field(result, [&](const char* key, auto& member, FieldKind kind) {
    const auto value = object.find(key);
    if (value == object.end()) {
      if (kind == FieldKind::kSensed || kind == FieldKind::kLater || kind == FieldKind::kRate) {
        return;
      }
      fail(ErrorCode::kBadInput,
           "{}: field '{}' is missing; the file is damaged or not a result of this tool", where,
           key);
    }
    const bool nullable = kind != FieldKind::kAlways && kind != FieldKind::kLater;
    if (value->is_null() && nullable) return;
    from_value(*value, member, where, key);
  });
  const auto samples = object.find("samples");
  if (samples == object.end() || *samples != result.samples_s.size()) {
    fail(ErrorCode::kBadInput,
         "{}: field 'samples' is {}, but 'samples_s' has {}; the file is damaged", where,
         samples == object.end() ? "missing" : printable(compact(*samples), 40),
         result.samples_s.size());
  }
  return result;
}

}  // namespace moebench
