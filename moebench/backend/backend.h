// The seam between measuring and kernels. A backend offers kernels; a kernel packs weights once per
// layer and prepares cases on them; a prepared case runs. Everything above this header is the same
// for a CPU, a GPU, Triton or CUTLASS.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moebench/backend/device.h"
#include "moebench/core/error.h"
#include "moebench/moe/problem.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/weights.h"

namespace moebench {

struct BackendOptions {
  int threads = 0;         ///< CPU threads; 0 = all that this process may use
  std::string forced_isa;  ///< empty: the fastest here; else as MOEBENCH_ISA ("portable", "avx2",
                           ///< "avx512", "avx512_bf16", ...)
  std::string isa_source = "options.isa";  ///< what gave forced_isa: messages begin with it
  double device_timeout_s = 60.0;  ///< a device that does not answer for so long is taken for hung
  std::string routing =
      "uniform";          ///< of the cases, as --routing names it: a measured choice is for it
  bool autotune = false;  ///< kernels that have a choice of tiles measure it before a case
};

/// How a case is prepared.
struct PrepareOptions {
  bool graph = false;  ///< calls replay a graph that was recorded once; needs Kernel::has_graphs()
  std::string label = {};  ///< in the timelines of profilers
};

/// A layer's weights in a kernel's own layout. Shared by all cases (batch sizes, schemes of one
/// weight format) of a layer.
class PackedWeights {
 public:
  virtual ~PackedWeights() = default;
  [[nodiscard]] virtual std::int64_t bytes() const = 0;
};

/// Seconds per phase of one call, in call order ("route", "permute", "quantize", "gemm1",
/// "activation", "gemm2", "combine").
using PhaseTimes = std::vector<std::pair<std::string, double>>;

/// One case, ready to run: scratch allocated, nothing left to do but the call that is timed.
class PreparedMoe {
 public:
  virtual ~PreparedMoe() = default;
  /// One forward pass: route, permute, quantise, both GEMMs, combine. y: [tokens, hidden], every
  /// element written. Blocks until the answer is in `y`. Never allocates. Reads the problem's
  /// tokens, routing and scales anew on every call: whoever owns the problem may change their
  /// values (not their sizes) between calls.
  virtual void run(std::span<std::uint16_t> y) = 0;
  /// What the last run chose where the layer needs it (kFp8 per tensor); none otherwise.
  [[nodiscard]] virtual std::optional<DynamicScaleClaim> dynamic_scale() const {
    return std::nullopt;
  }
  /// One run with a clock at every phase boundary; empty if the kernel has no such boundaries.
  virtual PhaseTimes run_phases(std::span<std::uint16_t> y) = 0;
  /// Reads or overwrites enough memory that no weight is left in a cache (--cache cold). With a
  /// queue: enqueues that.
  virtual void flush_caches() = 0;
  /// As run(), marked for a profiler: exactly this call is recorded. Seconds of it.
  virtual double run_profiled(std::span<std::uint16_t> y) {
    const auto start = std::chrono::steady_clock::now();
    run(y);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // What runs on a device is timed by the device: calls are enqueued without waiting for each.
  /// The device's queue, the same for all that is prepared on it; null: calls are run(), timed by
  /// the host's clock.
  [[nodiscard]] virtual DeviceQueue* queue() { return nullptr; }
  /// With a queue: enqueues one call on the inputs of the last run(). The answer stays on the
  /// device, where nothing of an earlier run()'s is left.
  virtual void enqueue() { fail(ErrorCode::kInternal, "a kernel without a queue was enqueued"); }
  /// With a queue: waits, and copies what the last enqueued call left as its answer; false where
  /// none was enqueued since the last run().
  [[nodiscard]] virtual bool fetch(std::span<std::uint16_t> /*y*/) { return false; }
  /// Empty, or what the last run() or fetch() found written outside of the answer in memory that
  /// this object owns.
  [[nodiscard]] virtual std::string guard_damage() const { return {}; }

  [[nodiscard]] virtual std::int64_t scratch_bytes() const = 0;
};

/// One way to compute a layer with one scheme, under the name that the table's column carries
/// ("cpu_moe_fp4").
class Kernel {
 public:
  virtual ~Kernel() = default;
  [[nodiscard]] virtual std::string name() const = 0;  ///< column name
  [[nodiscard]] virtual std::string detail()
      const = 0;  ///< what really runs: "avx512_bf16, 2 threads"
  /// The same with what was chosen for one case.
  [[nodiscard]] virtual std::string case_detail(const MoeShape& /*shape*/,
                                                const SchemeConfig& /*scheme*/,
                                                std::int64_t /*tokens*/) const {
    return detail();
  }
  /// The --backend that it is a kernel of.
  [[nodiscard]] virtual std::string backend_name() const {
    return device() != nullptr ? device()->name() : "cpu";
  }
  [[nodiscard]] virtual Scheme scheme() const = 0;
  [[nodiscard]] virtual Support supports(const MoeShape& shape,
                                         const SchemeConfig& scheme) const = 0;
  /// Whether a layer that supports() allows can be run on so many tokens.
  [[nodiscard]] virtual Support supports_tokens(const MoeShape& /*shape*/,
                                                std::int64_t /*tokens*/) const {
    return Support::yes();
  }
  /// Whether cases can be prepared as graphs.
  [[nodiscard]] virtual bool has_graphs() const { return false; }
  /// Where weights and scratch lie and calls run; null: the host. Belongs to the backend.
  [[nodiscard]] virtual Device* device() const { return nullptr; }
  /// Bytes that pack() will hold where the kernel runs, peak included; for the memory estimate
  /// before anything is allocated.
  [[nodiscard]] virtual std::int64_t packed_bytes(const MoeShape& shape,
                                                  const SchemeConfig& scheme) const = 0;
  [[nodiscard]] virtual std::int64_t scratch_bytes(const MoeShape& shape,
                                                   const SchemeConfig& scheme,
                                                   std::int64_t tokens) const = 0;
  /// Kernels on one device that lay out the same WeightFormat in different ways differ in this.
  [[nodiscard]] virtual std::string weight_layout() const { return {}; }
  /// Packs expert by expert on all threads; two kernels on one device (or the host), of one
  /// WeightFormat and of one weight_layout() accept each other's result. `progress` (may be empty)
  /// is called with (experts done, experts).
  [[nodiscard]] virtual std::shared_ptr<const PackedWeights> pack(
      const WeightSource& weights,
      const std::function<void(std::int64_t, std::int64_t)>& progress) const = 0;
  /// The problem must outlive the result.
  [[nodiscard]] virtual std::unique_ptr<PreparedMoe> prepare(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights,
      const PrepareOptions& options) const = 0;
  [[nodiscard]] std::unique_ptr<PreparedMoe> prepare(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights) const {
    return prepare(problem, std::move(weights), {});
  }
  /// For arrays that lie on device(): sizes, scheme and scales are the problem's, its tokens and
  /// routing are not read. The problem must outlive the result. Null where the kernel has no
  /// device.
  [[nodiscard]] virtual std::unique_ptr<ResidentMoe> prepare_resident(
      const MoeProblem& /*problem*/, std::shared_ptr<const PackedWeights> /*weights*/) const {
    return nullptr;
  }
};

struct BackendInfo {
  std::string name;    ///< "cpu", "cuda"
  Support available;   ///< with the cause where not
  std::string detail;  ///< device or ISA
};

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual std::string name() const = 0;  ///< without asking any device
  [[nodiscard]] virtual BackendInfo info() const = 0;
  [[nodiscard]] virtual std::vector<std::unique_ptr<Kernel>> kernels()
      const = 0;  ///< empty where not available
  /// What its kernels run on; null for the host, and where not available.
  [[nodiscard]] virtual Device* device() const { return nullptr; }
  /// Whether that is another backend's, which it then only adds kernels to.
  [[nodiscard]] virtual bool is_companion() const { return false; }
};

/// All backends, fastest first; unavailable ones included (their info says why). Asks no device
/// anything before info() or kernels() does. Throws kUnavailable for a forced ISA that this CPU or
/// build lacks, kBadInput for an unknown one.
[[nodiscard]] std::vector<std::unique_ptr<Backend>> make_backends(const BackendOptions& options);

}  // namespace moebench
