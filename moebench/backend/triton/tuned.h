// What --autotune found on this machine, kept from run to run: one line a case in a file of the
// user's cache folder.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "moebench/backend/triton/configs.h"

namespace moebench::triton {

/// All that a measured choice depends on.
struct TuningKey {
  std::string device;  ///< its name
  int arch = 0;
  MoeShape shape;
  SchemeConfig scheme;
  std::int64_t tokens = 0;
  std::string routing;  ///< as --routing names it
  std::string cubins;   ///< digest of all machine code
};
[[nodiscard]] std::string to_string(const TuningKey& key);

/// "<XDG_CACHE_HOME or ~/.cache>/moebench/triton-tuned"; empty where neither is set.
[[nodiscard]] std::string tuned_file_path();

/// The last line for `key` that names kernels of the set that can run it. A file that is absent or
/// has other lines is no error.
[[nodiscard]] std::optional<CaseConfig> find_tuned(const std::string& path, const EmbeddedSet& set,
                                                   const TuningKey& key);
/// Appends a line, in one write; false where the file cannot be written.
[[nodiscard]] bool append_tuned(const std::string& path, const TuningKey& key,
                                const CaseConfig& config);

}  // namespace moebench::triton
