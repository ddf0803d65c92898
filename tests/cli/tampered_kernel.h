// A real kernel whose runs a test may spoil: what the bench must notice before, while and after it
// takes times.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "moebench/backend/backend.h"

namespace moebench::cli {

/// What happens around the inner kernel's work; `run` counts from 1 per prepared case.
struct Tampering {
  std::function<void()> on_pack = [] {};
  std::function<void()> on_prepare = [] {};
  std::function<void(std::span<std::uint16_t> y, int run)> after_run = [](std::span<std::uint16_t>,
                                                                          int) {};
};

class TamperedMoe : public PreparedMoe {
 public:
  TamperedMoe(std::unique_ptr<PreparedMoe> inner, const Tampering& tampering, int& total_runs)
      : inner_(std::move(inner)), tampering_(tampering), total_runs_(total_runs) {}

  void run(std::span<std::uint16_t> y) override {
    inner_->run(y);
    ++total_runs_;
    tampering_.after_run(y, ++runs_);
  }
  [[nodiscard]] std::optional<DynamicScaleClaim> dynamic_scale() const override {
    return inner_->dynamic_scale();
  }
  PhaseTimes run_phases(std::span<std::uint16_t> y) override { return inner_->run_phases(y); }
  void flush_caches() override { inner_->flush_caches(); }
  [[nodiscard]] std::int64_t scratch_bytes() const override { return inner_->scratch_bytes(); }

 private:
  std::unique_ptr<PreparedMoe> inner_;
  const Tampering& tampering_;
  int& total_runs_;
  int runs_ = 0;
};

class TamperedKernel : public Kernel {
 public:
  TamperedKernel(std::unique_ptr<Kernel> inner, std::string name)
      : inner_(std::move(inner)), name_(std::move(name)) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] std::string detail() const override { return inner_->detail(); }
  [[nodiscard]] Scheme scheme() const override { return inner_->scheme(); }
  [[nodiscard]] Support supports(const MoeShape& shape, const SchemeConfig& scheme) const override {
    return inner_->supports(shape, scheme);
  }
  [[nodiscard]] std::int64_t packed_bytes(const MoeShape& shape,
                                          const SchemeConfig& scheme) const override {
    return inner_->packed_bytes(shape, scheme);
  }
  [[nodiscard]] std::int64_t scratch_bytes(const MoeShape& shape, const SchemeConfig& scheme,
                                           std::int64_t tokens) const override {
    return inner_->scratch_bytes(shape, scheme, tokens);
  }
  [[nodiscard]] std::shared_ptr<const PackedWeights> pack(
      const WeightSource& weights,
      const std::function<void(std::int64_t, std::int64_t)>& progress) const override {
    tampering.on_pack();
    return inner_->pack(weights, progress);
  }
  [[nodiscard]] std::unique_ptr<PreparedMoe> prepare(const MoeProblem& problem,
                                                     std::shared_ptr<const PackedWeights> weights,
                                                     const PrepareOptions& options) const override {
    tampering.on_prepare();
    return std::make_unique<TamperedMoe>(inner_->prepare(problem, std::move(weights), options),
                                         tampering, runs);
  }

  Tampering tampering;
  mutable int runs = 0;  ///< of all its prepared cases

 private:
  std::unique_ptr<Kernel> inner_;
  std::string name_;
};

/// The CPU's kernel of `scheme` on its portable path with one thread, under `name`.
inline std::unique_ptr<TamperedKernel> tampered_cpu_kernel(Scheme scheme, const std::string& name) {
  for (const auto& backend : make_backends({.threads = 1, .forced_isa = "portable"})) {
    for (auto& kernel : backend->kernels()) {
      if (kernel->scheme() == scheme)
        return std::make_unique<TamperedKernel>(std::move(kernel), name);
    }
  }
  return nullptr;
}

}  // namespace moebench::cli
