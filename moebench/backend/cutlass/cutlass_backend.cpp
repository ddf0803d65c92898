#include "moebench/backend/cutlass/cutlass_backend.h"

#include "moebench/backend/cuda/cuda_device.h"
#include "moebench/backend/cuda/pair_limit.h"
#include "moebench/backend/cuda/prepared.h"
#include "moebench/backend/cutlass/forward.h"
#include "moebench/core/error.h"

namespace moebench::cutlass_moe {
namespace {

using cuda::CudaDevice;
using cuda::DeviceFacts;

constexpr int kDataCentre = 10, kWorkstation = 12;

/// What the GEMMs' machine code is for: 10.0 and 10.3, 12.0 and 12.1.
bool is_blackwell(const DeviceFacts& facts) {
  return (facts.major == kDataCentre && (facts.minor == 0 || facts.minor == 3)) ||
         (facts.major == kWorkstation && (facts.minor == 0 || facts.minor == 1));
}
/// Routing counts pairs by expert in shared memory, of which 12.x has 99 KB.
constexpr std::int64_t kWorkstationExperts = 512;

std::string architecture(const DeviceFacts& facts) {
  return fmt::format("sm_{}{}", facts.major, facts.minor);
}

class CutlassKernel final : public Kernel {
 public:
  explicit CutlassKernel(CudaDevice& owner) : owner_(owner) {}

  [[nodiscard]] std::string name() const override { return "cutlass_moe_fp4"; }
  [[nodiscard]] std::string detail() const override {
    const DeviceFacts& facts = owner_.hardware();
    return fmt::format("CUTLASS {}, sm_{}0f, {}, {} SMs; {}", MOEBENCH_CUTLASS_VERSION, facts.major,
                       facts.name, facts.multiprocessors, kNeverRun);
  }
  [[nodiscard]] Scheme scheme() const override { return Scheme::kNvfp4; }
  [[nodiscard]] bool has_graphs() const override { return true; }
  [[nodiscard]] Device* device() const override { return &owner_; }
  [[nodiscard]] std::string backend_name() const override { return "cutlass"; }

  [[nodiscard]] Support supports(const MoeShape& shape, const SchemeConfig& config) const override {
    if (config.scheme != scheme()) {
      return Support::no(
          fmt::format("{} computes {}, not {}", name(), name_of(scheme()), name_of(config.scheme)));
    }
    if (shape.topk < 1 || shape.topk > shape.num_experts) {
      return Support::no(
          fmt::format("topk {} is not in 1..{} experts", shape.topk, shape.num_experts));
    }
    if (gemm_for(shape, 1) == nullptr) {
      return Support::no(fmt::format("no GEMM is compiled for {} and {}",
                                     architecture(owner_.hardware()), name_of(shape.act)));
    }
    if (owner_.hardware().major == kWorkstation && shape.num_experts > kWorkstationExperts) {
      return Support::no(fmt::format("{} experts, on {} at most {}", shape.num_experts,
                                     architecture(owner_.hardware()), kWorkstationExperts));
    }
    return forward_supports(shape);
  }
  [[nodiscard]] Support supports_tokens(const MoeShape& shape, std::int64_t tokens) const override {
    return cuda::supports_pairs(tokens, shape.topk);
  }

  [[nodiscard]] std::int64_t packed_bytes(const MoeShape& shape,
                                          const SchemeConfig& /*config*/) const override {
    return CutlassWeights::bytes_of(shape);
  }
  [[nodiscard]] std::int64_t scratch_bytes(const MoeShape& shape, const SchemeConfig& /*config*/,
                                           std::int64_t tokens) const override {
    const GroupedGemm* gemm = gemm_for(shape, tokens);
    if (gemm == nullptr) return 0;
    return ForwardSizes(shape, tokens, *gemm, owner_.hardware().multiprocessors).total();
  }
  [[nodiscard]] std::shared_ptr<const PackedWeights> pack(
      const WeightSource& weights,
      const std::function<void(std::int64_t, std::int64_t)>& progress) const override {
    cuda::require_device();
    return std::make_shared<CutlassWeights>(weights, progress);
  }
  [[nodiscard]] std::unique_ptr<PreparedMoe> prepare(const MoeProblem& problem,
                                                     std::shared_ptr<const PackedWeights> weights,
                                                     const PrepareOptions& options) const override {
    return std::make_unique<cuda::CudaPrepared>(owner_, problem,
                                                forward(problem, std::move(weights)), options);
  }
  [[nodiscard]] std::unique_ptr<ResidentMoe> prepare_resident(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights) const override {
    return std::make_unique<cuda::CudaResident>(owner_, forward(problem, std::move(weights)));
  }

 private:
  [[nodiscard]] const GroupedGemm* gemm_for(const MoeShape& shape, std::int64_t tokens) const {
    const std::int64_t pairs = tokens * shape.topk;
    return choose_gemm(grouped_gemms(), owner_.hardware().major, shape.act, pairs,
                       max_groups(pairs, shape.num_experts));
  }
  [[nodiscard]] std::unique_ptr<cuda::DeviceForward> forward(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights) const {
    auto packed = std::dynamic_pointer_cast<const CutlassWeights>(std::move(weights));
    if (packed == nullptr) fail(ErrorCode::kInternal, "{}: weights of another backend", name());
    Support support = supports(problem.shape, problem.scheme);
    if (support.ok) support = supports_tokens(problem.shape, problem.tokens);
    if (!support.ok) fail(ErrorCode::kBadInput, "{}: {}", name(), support.reason);
    return std::make_unique<CutlassForward>(problem, std::move(packed),
                                            *gemm_for(problem.shape, problem.tokens),
                                            owner_.hardware().multiprocessors);
  }

  CudaDevice& owner_;
};

class CutlassBackend final : public Backend {
 public:
  [[nodiscard]] std::string name() const override { return "cutlass"; }
  [[nodiscard]] BackendInfo info() const override {
    const CudaDevice* const device = device_.get();
    if (device == nullptr) {
      return {.name = name(), .available = Support::no(device_.unusable()), .detail = kNeverRun};
    }
    const DeviceFacts& facts = device->hardware();
    return {.name = name(),
            .available = Support::yes(),
            .detail = fmt::format("{}, {}", facts.name, architecture(facts))};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override {
    std::vector<std::unique_ptr<Kernel>> kernels;
    if (CudaDevice* const device = device_.get()) {
      kernels.push_back(std::make_unique<CutlassKernel>(*device));
    }
    return kernels;
  }
  [[nodiscard]] Device* device() const override { return device_.get(); }

 private:
  cuda::DeviceOnDemand device_{[] {
    return cuda::choose_device(is_blackwell, "compute capability 10.x or 12.x (Blackwell)");
  }};
};

}  // namespace

std::unique_ptr<Backend> make_cutlass_backend(const BackendOptions& options) {
  cuda::set_wait_timeout(options.device_timeout_s);
  return std::make_unique<CutlassBackend>();
}

}  // namespace moebench::cutlass_moe
