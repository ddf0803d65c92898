// How this binary was made. The values are written by CMake (BuildInfo.cmake) into a generated
// source file that changes only when one of them does.
#pragma once

namespace moebench {

struct BuildInfo {
  const char* version;   ///< of the project
  const char* commit;    ///< 12 hex digits, "-dirty" behind them where tracked files differ;
                         ///< "unknown" outside its own git tree
  const char* compiler;  ///< "GNU 12.2.0"
  const char* flags;     ///< of the whole project; a kernel's own ISA flags are added per file
  const char* type;      ///< CMake build type
  const char* sanitizers;
  const char* thread_library;
  const char* cuda;  ///< "nvcc 13.0.88, sm_90a"; "none"
};
[[nodiscard]] const BuildInfo& build_info();

}  // namespace moebench
