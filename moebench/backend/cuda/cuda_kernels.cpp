#include "moebench/backend/cuda/cuda_kernels.h"

#include "moebench/backend/cuda/forward.h"
#include "moebench/backend/cuda/pair_limit.h"
#include "moebench/backend/cuda/prepared.h"
#include "moebench/core/error.h"

namespace moebench::cuda {
namespace {

const char* kernel_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::kNvfp4:
      return "hopper_moe_fp4";
    case Scheme::kNvfp4W4A16:
      return "hopper_moe_fp4_w4a16";
    case Scheme::kFp8:
      return "hopper_moe_fp8";
    case Scheme::kFp8Block:
      return "hopper_moe_fp8_block";
  }
  return "hopper_moe";
}

class CudaKernel final : public Kernel {
 public:
  CudaKernel(Scheme scheme, CudaDevice& owner) : scheme_(scheme), owner_(owner) {}

  [[nodiscard]] std::string name() const override { return kernel_name(scheme_); }
  [[nodiscard]] std::string detail() const override {
    const DeviceFacts& facts = owner_.hardware();
    return fmt::format("sm_90a, {}, {} SMs", facts.name, facts.multiprocessors);
  }
  [[nodiscard]] Scheme scheme() const override { return scheme_; }
  [[nodiscard]] bool has_graphs() const override { return true; }
  [[nodiscard]] Device* device() const override { return &owner_; }

  [[nodiscard]] Support supports(const MoeShape& shape, const SchemeConfig& config) const override {
    const DeviceFacts& facts = owner_.hardware();
    if (facts.major != 9) {
      return Support::no(fmt::format("needs sm_90a, device is sm_{}{}", facts.major, facts.minor));
    }
    if (config.scheme != scheme_) {
      return Support::no(
          fmt::format("{} computes {}, not {}", name(), name_of(scheme_), name_of(config.scheme)));
    }
    if (shape.topk < 1 || shape.topk > shape.num_experts) {
      return Support::no(
          fmt::format("topk {} is not in 1..{} experts", shape.topk, shape.num_experts));
    }
    return forward_supports(shape);
  }
  [[nodiscard]] Support supports_tokens(const MoeShape& shape, std::int64_t tokens) const override {
    return supports_pairs(tokens, shape.topk);
  }

  [[nodiscard]] std::int64_t packed_bytes(const MoeShape& shape,
                                          const SchemeConfig& config) const override {
    return device_weight_bytes(shape, weight_format(config));
  }
  [[nodiscard]] std::int64_t scratch_bytes(const MoeShape& shape, const SchemeConfig& config,
                                           std::int64_t tokens) const override {
    return Forward::scratch_bytes(shape, config, tokens);
  }
  [[nodiscard]] std::shared_ptr<const PackedWeights> pack(
      const WeightSource& weights,
      const std::function<void(std::int64_t, std::int64_t)>& progress) const override {
    require_device();
    return pack_device(weights, progress);
  }
  [[nodiscard]] std::unique_ptr<PreparedMoe> prepare(const MoeProblem& problem,
                                                     std::shared_ptr<const PackedWeights> weights,
                                                     const PrepareOptions& options) const override {
    return std::make_unique<CudaPrepared>(
        owner_, problem, std::make_unique<Forward>(problem, checked(problem, std::move(weights))),
        options);
  }
  [[nodiscard]] std::unique_ptr<ResidentMoe> prepare_resident(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights) const override {
    return std::make_unique<CudaResident>(
        owner_, std::make_unique<Forward>(problem, checked(problem, std::move(weights))));
  }

 private:
  /// The weights, if they are this problem's.
  [[nodiscard]] std::shared_ptr<const DeviceWeights> checked(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights) const {
    auto packed = std::dynamic_pointer_cast<const DeviceWeights>(std::move(weights));
    if (packed == nullptr) fail(ErrorCode::kInternal, "{}: weights of another backend", name());
    const MoeShape& of = packed->shape();
    if (of.num_experts != problem.shape.num_experts || of.hidden != problem.shape.hidden ||
        of.intermediate != problem.shape.intermediate || of.act != problem.shape.act ||
        packed->format() != weight_format(problem.scheme)) {
      fail(ErrorCode::kInternal, "{}: weights of another layer or format", name());
    }
    Support support = supports(problem.shape, problem.scheme);
    if (support.ok) support = supports_tokens(problem.shape, problem.tokens);
    if (!support.ok) fail(ErrorCode::kBadInput, "{}: {}", name(), support.reason);
    return packed;
  }

  Scheme scheme_;
  CudaDevice& owner_;
};

}  // namespace

std::vector<std::unique_ptr<Kernel>> make_cuda_kernels(CudaDevice& device) {
  std::vector<std::unique_ptr<Kernel>> kernels;
  for (const Scheme scheme :
       {Scheme::kFp8, Scheme::kNvfp4, Scheme::kNvfp4W4A16, Scheme::kFp8Block}) {
    kernels.push_back(std::make_unique<CudaKernel>(scheme, device));
  }
  return kernels;
}

}  // namespace moebench::cuda
