// What LayerBench knows of one case while it is on the bench. For layer_bench*.cpp only.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moebench/cli/layer_bench.h"
#include "moebench/core/error.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"

namespace moebench::cli {

/// Only a verified answer has a time.
inline void clear_timing(CaseResult& result) {
  result.samples_s.clear();
  result.calls_per_sample = 1;
  result.median_s = result.iqr_s = result.ci_low_s = result.ci_high_s = 0.0;
  result.noisy = false;
  result.noise.clear();
  result.phases_s.clear();
  result.sm_clock_mhz = result.sm_clock_low_mhz = result.memory_clock_mhz = 0.0;
  result.temperature_c = result.power_w = 0.0;
  result.throttled.clear();
}

/// A device that broke costs its cases, each with the cause.
inline void require_working(const Device* device) {
  if (device == nullptr) return;
  if (const std::string cause = device->lost(); !cause.empty()) {
    fail(ErrorCode::kUnavailable, "{}: the device is lost ({}); run again", device->name(), cause);
  }
}

/// Tokens and routings of one scheme; several with --cache rotate.
struct LayerBench::Input {
  SchemeConfig config;
  std::vector<std::unique_ptr<MoeProblem>> problems;
  /// Of the last answer that was judged, for kernels of the same scheme: dear to compute.
  struct Reference {
    std::size_t variant = 0;
    std::vector<std::int64_t> rows_asked;
    std::optional<DynamicScaleClaim> claim;
    ReferenceRows rows;
  };
  std::optional<Reference> reference;
};

struct LayerBench::Candidate {
  std::size_t column_index = 0;
  const Column* column = nullptr;
  SchemeConfig config;
  CaseResult result;
  std::shared_ptr<Input> input;
  std::vector<std::unique_ptr<PreparedMoe>> prepared;
  std::unique_ptr<GuardedOutput> output;
  std::vector<std::vector<std::uint16_t>> verified;  ///< the answer to each problem
  ErrorCode error = ErrorCode::kInternal;

  [[nodiscard]] bool passed() const { return result.status == Status::kOk; }
  void set_error(ErrorCode code, std::string reason) {
    clear_timing(result);
    result.status = Status::kError;
    result.reason = std::move(reason);
    error = code;
  }
  void set_failed(std::string reason) {
    clear_timing(result);
    result.verdict = name_of(Verdict::Kind::kFail);
    result.status = Status::kFailed;
    result.reason = std::move(reason);
  }
  /// What `step` throws becomes this case's result; an interruption passes through.
  template <typename Step>
  void attempt(Step step) {
    try {
      step();
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error_thrown) {
      set_error(error_thrown.code(), error_thrown.what());
    } catch (const std::bad_alloc&) {
      set_error(ErrorCode::kOutOfMemory, "host memory ran out while the case was prepared or run");
    } catch (const std::exception& unexpected) {
      set_error(ErrorCode::kInternal, printable(unexpected.what()));
    }
  }
};

}  // namespace moebench::cli
