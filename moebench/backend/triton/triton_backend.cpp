#include "moebench/backend/triton/triton_backend.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "moebench/backend/cuda/cuda_device.h"
#include "moebench/backend/cuda/prepared.h"
#include "moebench/backend/triton/cubin.h"
#include "moebench/backend/triton/forward.h"
#include "moebench/backend/triton/tuned.h"
#include "moebench/core/error.h"

namespace moebench::triton {
namespace {

using cuda::CudaDevice;

/// align keeps a count for each in shared memory.
constexpr std::int64_t kMaxExperts = 8192;
constexpr int kTuningRuns = 5;
/// Row tiles of group_m: one column tile after the other for each, up to all row tiles for each
/// column tile.
constexpr int kTuningGroups[] = {1, 8, 64, 4096};

int arch_of(const CudaDevice& device) {
  return device.hardware().major * 10 + device.hardware().minor;
}

std::string architectures(const EmbeddedSet& set) {
  std::set<int> archs;
  for (const EmbeddedKernel& kernel : set.kernels) archs.insert(kernel.arch);
  return fmt::format("sm_{}", fmt::join(archs, ", sm_"));
}

/// Tries every tile on a case's own data, each GEMM for itself, with cold caches: in the layer
/// neither finds its weights there.
class Tuner {
 public:
  Tuner(CudaDevice& device, KernelCache& kernels, const EmbeddedSet& set)
      : device_(device), kernels_(kernels), set_(set), stream_(device.queue().stream()) {}

  /// Without kernels where none could be run.
  CaseConfig tune(const MoeProblem& problem, const std::shared_ptr<const TritonWeights>& weights) {
    const int arch = arch_of(device_);
    const auto gate_up = usable_kernels(set_, arch, problem.shape.act, problem.shape.hidden);
    const auto down = usable_kernels(set_, arch, problem.shape.act, problem.shape.intermediate);
    std::set<int> heights;
    for (const EmbeddedKernel* kernel : gate_up) heights.insert(kernel->tile.block_m);
    double best_s = std::numeric_limits<double>::infinity();
    CaseConfig best;
    best.origin = "measured here by --autotune";
    for (const int block_m : heights) {
      Timed gate_up_best, down_best;
      // The rows that a GEMM finds are of one kind; which of its kinds is faster does not depend on
      // the other GEMM's.
      for (const bool wide_rows : {false, true}) {
        std::vector<Candidate> gate_ups = candidates(gate_up, block_m, wide_rows);
        std::vector<Candidate> downs = candidates(down, block_m, wide_rows);
        if (gate_ups.empty() || downs.empty()) continue;
        CaseConfig config;
        config.gate_up = gate_ups.front().kernel;
        config.down = downs.front().kernel;
        TritonForward forward(problem, weights, config, kernels_);
        forward.upload(stream_);
        forward.enqueue(stream_, nullptr);
        cuda::wait(stream_, "the MoE layer");
        gate_up_best = faster(gate_up_best, fastest(forward, false, gate_ups));
        down_best = faster(down_best, fastest(forward, true, downs));
      }
      if (gate_up_best.seconds + down_best.seconds >= best_s) continue;
      best_s = gate_up_best.seconds + down_best.seconds;
      best.gate_up = gate_up_best.candidate.kernel;
      best.gate_up_group = gate_up_best.candidate.group_m;
      best.down = down_best.candidate.kernel;
      best.down_group = down_best.candidate.group_m;
    }
    return best;
  }

 private:
  struct Candidate {
    const EmbeddedKernel* kernel = nullptr;
    int group_m = 1;
    std::shared_ptr<const LoadedKernel> loaded;
    std::vector<double> seconds;
  };
  struct Timed {
    double seconds = std::numeric_limits<double>::infinity();
    Candidate candidate;
  };

  /// Those that the driver takes.
  std::vector<Candidate> candidates(const std::vector<const EmbeddedKernel*>& all, int block_m,
                                    bool wide_rows) {
    std::vector<Candidate> out;
    for (const EmbeddedKernel* kernel : all) {
      if (kernel->tile.block_m != block_m || kernel->wide_rows != wide_rows) continue;
      try {
        const auto loaded = kernels_.get(*kernel);
        for (const int group_m : kTuningGroups) out.push_back({kernel, group_m, loaded, {}});
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kUnavailable) throw;
      }
    }
    return out;
  }

  static const Timed& faster(const Timed& a, const Timed& b) {
    return b.seconds < a.seconds ? b : a;
  }

  /// By the median, and in turns, so that a change of clocks meets all of them.
  Timed fastest(const TritonForward& forward, bool down, std::vector<Candidate>& all) {
    for (int run = 0; run <= kTuningRuns; ++run) {
      for (Candidate& candidate : all) {
        const double seconds = time(forward, down, candidate);
        if (run > 0) candidate.seconds.push_back(seconds);  // a first launch is no measurement
      }
    }
    Timed best;
    for (Candidate& candidate : all) {
      const auto middle = candidate.seconds.begin() + kTuningRuns / 2;
      std::nth_element(candidate.seconds.begin(), middle, candidate.seconds.end());
      best = faster(best, {*middle, candidate});
    }
    return best;
  }
  double time(const TritonForward& forward, bool down, const Candidate& candidate) {
    device_.flush_cache();
    cuda::cuda_check(cudaEventRecord(start_.get(), stream_), "starting the device's clock");
    forward.enqueue_gemm(down, *candidate.loaded, candidate.group_m, stream_);
    cuda::cuda_check(cudaEventRecord(stop_.get(), stream_), "stopping the device's clock");
    cuda::wait(stop_.get(), "trying a tile configuration", 1);
    return cuda::seconds_between(start_.get(), stop_.get());
  }

  CudaDevice& device_;
  KernelCache& kernels_;
  const EmbeddedSet& set_;
  cudaStream_t stream_;
  cuda::Event start_ = cuda::make_event();
  cuda::Event stop_ = cuda::make_event();
};

/// What the kernels of one backend share.
struct Shared {
  explicit Shared(CudaDevice& owner) : device(owner), kernels(embedded_set()) {}
  CudaDevice& device;
  KernelCache kernels;
  /// By TuningKey. One choice for all that is prepared of a case, whether or not a file can keep
  /// it: other tiles sum in another order.
  std::map<std::string, CaseConfig> tuned;
};

class TritonKernel final : public Kernel {
 public:
  TritonKernel(CudaDevice& owner, const BackendOptions& options)
      : shared_(std::make_shared<Shared>(owner)),
        autotune_(options.autotune),
        routing_(options.routing) {}

  [[nodiscard]] std::string name() const override { return "triton_moe"; }
  [[nodiscard]] std::string detail() const override {
    const cuda::DeviceFacts& facts = device_ref().hardware();
    return fmt::format("Triton {}, sm_{}, {} products, {}, {} SMs", set_.triton_version,
                       arch_of(device_ref()), set_.accumulation, facts.name, facts.multiprocessors);
  }
  [[nodiscard]] std::string case_detail(const MoeShape& shape, const SchemeConfig& config,
                                        std::int64_t tokens) const override {
    const auto chosen = known_config(shape, config, tokens);
    if (!chosen) return detail();
    return fmt::format("{}; tiles {} and {}, {}", detail(), name_of(chosen->gate_up->tile),
                       name_of(chosen->down->tile), chosen->origin);
  }
  [[nodiscard]] Scheme scheme() const override { return Scheme::kFp8; }
  [[nodiscard]] bool has_graphs() const override { return true; }
  [[nodiscard]] Device* device() const override { return &device_ref(); }
  [[nodiscard]] std::string backend_name() const override { return "triton"; }
  [[nodiscard]] std::string weight_layout() const override { return "canonical"; }

  [[nodiscard]] Support supports(const MoeShape& shape, const SchemeConfig& config) const override {
    constexpr std::int64_t kMultiple = 16;
    if (config.scheme != scheme()) {
      return Support::no(
          fmt::format("{} computes {}, not {}", name(), name_of(scheme()), name_of(config.scheme)));
    }
    if (shape.topk < 1 || shape.topk > shape.num_experts) {
      return Support::no(
          fmt::format("topk {} is not in 1..{} experts", shape.topk, shape.num_experts));
    }
    if (shape.hidden % kMultiple != 0 || shape.intermediate % kMultiple != 0) {
      return Support::no("K and N must be multiples of 16");
    }
    if (shape.num_experts > kMaxExperts) return Support::no("more than 8192 experts");
    if (std::max(shape.hidden, 2 * shape.intermediate) > std::numeric_limits<std::int32_t>::max()) {
      return Support::no("K and 2 N must be less than 2^31");
    }
    if (!choose_config(set_, arch_of(device_ref()), shape, 1)) {
      return Support::no(
          fmt::format("no kernel for sm_{} and {}", arch_of(device_ref()), name_of(shape.act)));
    }
    return Support::yes();
  }

  [[nodiscard]] std::int64_t packed_bytes(const MoeShape& shape,
                                          const SchemeConfig& config) const override {
    return triton_weight_bytes(shape, weight_format(config));
  }
  [[nodiscard]] std::int64_t scratch_bytes(const MoeShape& shape, const SchemeConfig& config,
                                           std::int64_t tokens) const override {
    // Which tiles are taken is not known before --autotune. FP16 rows need the most; the lowest
    // tiles take the most rows' worth of tile numbers, the tallest the most padding, both small
    // beside the rest.
    const bool wide_rows = std::any_of(set_.kernels.begin(), set_.kernels.end(),
                                       [](const EmbeddedKernel& k) { return k.wide_rows; });
    std::int64_t bytes = 0;
    for (const EmbeddedKernel& kernel : set_.kernels) {
      const ForwardSizes sizes(shape, config, tokens, kernel.tile.block_m, wide_rows, wide_rows);
      bytes = std::max(bytes, sizes.total());
    }
    return bytes;
  }
  [[nodiscard]] std::shared_ptr<const PackedWeights> pack(
      const WeightSource& weights, const PackProgress& progress) const override {
    cuda::require_device();
    return pack_triton(weights, progress);
  }
  [[nodiscard]] std::unique_ptr<PreparedMoe> prepare(const MoeProblem& problem,
                                                     std::shared_ptr<const PackedWeights> weights,
                                                     const PrepareOptions& options) const override {
    return std::make_unique<cuda::CudaPrepared>(device_ref(), problem,
                                                forward(problem, std::move(weights)), options);
  }
  [[nodiscard]] std::unique_ptr<ResidentMoe> prepare_resident(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights) const override {
    return std::make_unique<cuda::CudaResident>(device_ref(), forward(problem, std::move(weights)));
  }

 private:
  [[nodiscard]] CudaDevice& device_ref() const { return shared_->device; }

  [[nodiscard]] TuningKey key_of(const MoeShape& shape, const SchemeConfig& config,
                                 std::int64_t tokens) const {
    return {device_ref().hardware().name,
            arch_of(device_ref()),
            shape,
            config,
            tokens,
            routing_,
            cubins_digest()};
  }
  [[nodiscard]] const std::string& cubins_digest() const {
    static const std::string digest = hex(sha256(set_.cubins)).substr(0, 16);
    return digest;
  }

  /// Without measuring: what was measured here before, if asked for, or the table's.
  [[nodiscard]] std::optional<CaseConfig> known_config(const MoeShape& shape,
                                                       const SchemeConfig& config,
                                                       std::int64_t tokens) const {
    if (autotune_) {
      if (auto tuned = tuned_before(key_of(shape, config, tokens))) return tuned;
    }
    return choose_config(set_, arch_of(device_ref()), shape, tokens);
  }

  [[nodiscard]] std::optional<CaseConfig> tuned_before(const TuningKey& key) const {
    const auto known = shared_->tuned.find(to_string(key));
    if (known != shared_->tuned.end()) return known->second;
    auto kept = find_tuned(tuned_file_path(), set_, key);
    if (kept) shared_->tuned.emplace(to_string(key), *kept);
    return kept;
  }

  [[nodiscard]] CaseConfig config_for(const MoeProblem& problem,
                                      const std::shared_ptr<const TritonWeights>& weights) const {
    const TuningKey key = key_of(problem.shape, problem.scheme, problem.tokens);
    if (autotune_ && problem.tokens > 0 && !tuned_before(key)) {
      CaseConfig tuned = Tuner(device_ref(), shared_->kernels, set_).tune(problem, weights);
      if (tuned.gate_up != nullptr) {
        shared_->tuned.emplace(to_string(key), tuned);
        // Without a file the next process measures again.
        (void)append_tuned(tuned_file_path(), key, tuned);
      }
    }
    return *known_config(problem.shape, problem.scheme, problem.tokens);
  }

  [[nodiscard]] std::unique_ptr<cuda::DeviceForward> forward(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights) const {
    auto packed = std::dynamic_pointer_cast<const TritonWeights>(std::move(weights));
    if (packed == nullptr) fail(ErrorCode::kInternal, "{}: weights of another kernel", name());
    const MoeShape& of = packed->shape();
    if (of.num_experts != problem.shape.num_experts || of.hidden != problem.shape.hidden ||
        of.intermediate != problem.shape.intermediate ||
        packed->format() != weight_format(problem.scheme)) {
      fail(ErrorCode::kInternal, "{}: weights of another layer or format", name());
    }
    const Support support = supports(problem.shape, problem.scheme);
    if (!support.ok) fail(ErrorCode::kBadInput, "{}: {}", name(), support.reason);
    const CaseConfig config = config_for(problem, packed);
    return std::make_unique<TritonForward>(problem, std::move(packed), config, shared_->kernels);
  }

  const EmbeddedSet& set_ = embedded_set();
  std::shared_ptr<Shared> shared_;
  bool autotune_;
  std::string routing_;
};

class TritonBackend final : public Backend {
 public:
  TritonBackend(const BackendOptions& options, std::vector<const Backend*> hosts)
      : options_(options), hosts_(std::move(hosts)) {}

  [[nodiscard]] std::string name() const override { return "triton"; }
  [[nodiscard]] bool is_companion() const override { return true; }
  [[nodiscard]] BackendInfo info() const override {
    const std::string detail = fmt::format("Triton {}, {} kernels for {}", set_.triton_version,
                                           set_.kernels.size(), architectures(set_));
    const std::string reason = unavailable();
    return {.name = name(),
            .available = reason.empty() ? Support::yes() : Support::no(reason),
            .detail = detail};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override {
    std::vector<std::unique_ptr<Kernel>> kernels;
    if (unavailable().empty())
      kernels.push_back(std::make_unique<TritonKernel>(*opened(), options_));
    return kernels;
  }
  [[nodiscard]] Device* device() const override {
    return unavailable().empty() ? opened() : nullptr;
  }

 private:
  [[nodiscard]] CudaDevice* opened() const {
    for (const Backend* host : hosts_) {
      if (auto* const device = dynamic_cast<CudaDevice*>(host->device())) return device;
    }
    return nullptr;
  }

  /// Empty where the kernels can run here. A defect of the machine code first: it is there without
  /// a device, too.
  [[nodiscard]] const std::string& unavailable() const {
    if (!reason_) reason_ = find_reason();
    return *reason_;
  }
  [[nodiscard]] std::string find_reason() const {
    for (const EmbeddedKernel& kernel : set_.kernels) {
      if (std::string defect = cubin_defect(kernel, set_.cubins); !defect.empty()) return defect;
    }
    const CudaDevice* const device = opened();
    if (device == nullptr) return hosts_.front()->info().available.reason;
    const auto fits = [&](const EmbeddedKernel& kernel) { return kernel.arch == arch_of(*device); };
    if (!std::any_of(set_.kernels.begin(), set_.kernels.end(), fits)) {
      return fmt::format("compiled for {}, device is sm_{}", architectures(set_), arch_of(*device));
    }
    return {};
  }

  const EmbeddedSet& set_ = embedded_set();
  BackendOptions options_;
  std::vector<const Backend*> hosts_;
  mutable std::optional<std::string> reason_;
};

}  // namespace

std::unique_ptr<Backend> make_triton_backend(const BackendOptions& options,
                                             std::vector<const Backend*> hosts) {
  return std::make_unique<TritonBackend>(options, std::move(hosts));
}

}  // namespace moebench::triton
