// CaseResult to and from JSON: shared by the writers and the journal. Includes nlohmann, so only
// .cpp files include it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "moebench/report/result.h"

namespace moebench {

/// Numbers that do not exist for a case (it never ran) are null.
[[nodiscard]] nlohmann::ordered_json json_of(const CaseResult& result);

/// Compact text; invalid UTF-8 becomes U+FFFD.
[[nodiscard]] std::string compact(const nlohmann::ordered_json& value);

/// Strict: duplicate keys, NaN, trailing text and anything but an object are kBadInput; `where`
/// opens the message.
[[nodiscard]] nlohmann::ordered_json parse_object(std::string_view text, std::string_view where);
/// Strict: missing fields and wrong types are kBadInput, with the key.
[[nodiscard]] CaseResult result_from_json(const nlohmann::ordered_json& object,
                                          std::string_view where);

}  // namespace moebench
