// The CPU kernels as the rest of the program sees them: names, what they support, packing,
// preparing.
#include "moebench/backend/cpu/cpu_backend.h"

#include <omp.h>

#include <cstdlib>

#include "moebench/backend/cpu/cpu_features.h"
#include "moebench/backend/cpu/forward.h"
#include "moebench/backend/cpu/pack.h"

namespace moebench::cpu {
namespace {

/// More threads than any machine has; a larger number is a slip and would only exhaust memory.
constexpr int kMaxThreads = 4096;

const char* kernel_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::kNvfp4:
      return "cpu_moe_fp4";
    case Scheme::kNvfp4W4A16:
      return "cpu_moe_fp4_w4a16";
    case Scheme::kFp8:
      return "cpu_moe_fp8";
    case Scheme::kFp8Block:
      return "cpu_moe_fp8_block";
  }
  return "cpu_moe";
}

class CpuKernel final : public Kernel {
 public:
  CpuKernel(Scheme scheme, const CpuKernels& kernels, int threads)
      : scheme_(scheme), kernels_(kernels), threads_(threads) {}

  [[nodiscard]] std::string name() const override { return kernel_name(scheme_); }
  [[nodiscard]] std::string detail() const override {
    return fmt::format("{}, {} thread{}", kernels_.isa, threads_, threads_ == 1 ? "" : "s");
  }
  [[nodiscard]] Scheme scheme() const override { return scheme_; }

  [[nodiscard]] Support supports(const MoeShape& shape, const SchemeConfig& config) const override {
    if (config.scheme != scheme_) {
      return Support::no(
          fmt::format("{} computes {}, not {}", name(), name_of(scheme_), name_of(config.scheme)));
    }
    if (shape.topk < 1 || shape.topk > shape.num_experts) {
      return Support::no(
          fmt::format("topk {} is not in 1..{} experts", shape.topk, shape.num_experts));
    }
    const bool nvfp4 = weight_format(config) == WeightFormat::kNvfp4;
    if (nvfp4 &&
        (shape.hidden % kNvfp4BlockSize != 0 || shape.intermediate % kNvfp4BlockSize != 0)) {
      return Support::no(fmt::format("NVFP4 needs K and N to be multiples of {}; K={}, N={}",
                                     kNvfp4BlockSize, shape.hidden, shape.intermediate));
    }
    return Support::yes();
  }

  [[nodiscard]] std::int64_t packed_bytes(const MoeShape& shape,
                                          const SchemeConfig& config) const override {
    return PackedGeometry(shape, weight_format(config)).total_bytes();
  }
  [[nodiscard]] std::int64_t scratch_bytes(const MoeShape& shape, const SchemeConfig& config,
                                           std::int64_t tokens) const override {
    return ForwardSizes(shape, config, tokens, kernels_, threads_).total();
  }
  [[nodiscard]] std::shared_ptr<const PackedWeights> pack(
      const WeightSource& weights,
      const std::function<void(std::int64_t, std::int64_t)>& progress) const override {
    return pack_layer(weights, threads_, progress);
  }
  [[nodiscard]] std::unique_ptr<PreparedMoe> prepare(
      const MoeProblem& problem, std::shared_ptr<const PackedWeights> weights,
      const PrepareOptions& /*options*/) const override {
    auto packed = std::dynamic_pointer_cast<const PackedCpuWeights>(std::move(weights));
    if (packed == nullptr) fail(ErrorCode::kInternal, "{}: weights of another backend", name());
    const PackedGeometry& geometry = packed->geometry();
    if (geometry.shape.num_experts != problem.shape.num_experts ||
        geometry.shape.hidden != problem.shape.hidden ||
        geometry.shape.intermediate != problem.shape.intermediate ||
        geometry.format != weight_format(problem.scheme)) {
      fail(ErrorCode::kInternal, "{}: weights of another layer or format", name());
    }
    const Support support = supports(problem.shape, problem.scheme);
    if (!support.ok) fail(ErrorCode::kBadInput, "{}: {}", name(), support.reason);
    return std::make_unique<CpuForward>(problem, std::move(packed), kernels_, threads_);
  }

 private:
  Scheme scheme_;
  const CpuKernels& kernels_;
  int threads_;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(const CpuKernels& kernels, int threads) : kernels_(kernels), threads_(threads) {}

  [[nodiscard]] std::string name() const override { return "cpu"; }
  [[nodiscard]] BackendInfo info() const override {
    std::string detail = kernels_.isa;
    return {.name = name(), .available = Support::yes(), .detail = std::move(detail)};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override {
    std::vector<std::unique_ptr<Kernel>> result;
    for (const Scheme scheme :
         {Scheme::kFp8, Scheme::kNvfp4, Scheme::kNvfp4W4A16, Scheme::kFp8Block}) {
      result.push_back(std::make_unique<CpuKernel>(scheme, kernels_, threads_));
    }
    return result;
  }

 private:
  const CpuKernels& kernels_;
  int threads_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > kMaxThreads) {
    fail(ErrorCode::kBadInput, "--threads: {} is not in 0..{}; 0 takes all", options.threads,
         kMaxThreads);
  }
  std::string forced = options.forced_isa;
  std::string source = options.isa_source;
  const char* variable = std::getenv("MOEBENCH_ISA");
  if (forced.empty() && variable != nullptr) {
    forced = variable;
    source = "MOEBENCH_ISA";
  }
  const CpuKernels& kernels = select_kernels(isa_choices(detect_cpu_features()), forced, source);
  const int threads = options.threads > 0 ? options.threads : omp_get_max_threads();
  return make_cpu_backend(kernels, threads);
}

std::unique_ptr<Backend> make_cpu_backend(const CpuKernels& kernels, int threads) {
  return std::make_unique<CpuBackend>(kernels, threads);
}

}  // namespace moebench::cpu
