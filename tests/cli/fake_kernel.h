// Kernels that exist for planning only: sizes and support are what a test says.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "moebench/backend/backend.h"

namespace moebench::cli {

class FakeKernel : public Kernel {
 public:
  FakeKernel(std::string name, Scheme scheme) : name_(std::move(name)), scheme_(scheme) {}

  std::string name() const override { return name_; }
  std::string detail() const override { return "fake"; }
  Scheme scheme() const override { return scheme_; }
  Support supports(const MoeShape&, const SchemeConfig&) const override { return support; }
  Support supports_tokens(const MoeShape&, std::int64_t tokens) const override {
    return tokens <= most_tokens ? Support::yes() : Support::no("too many tokens");
  }
  bool has_graphs() const override { return on_device != nullptr; }
  Device* device() const override { return on_device; }
  std::int64_t packed_bytes(const MoeShape& shape, const SchemeConfig& config) const override {
    return layer_weight_bytes(shape, weight_format(config));
  }
  std::int64_t scratch_bytes(const MoeShape&, const SchemeConfig&,
                             std::int64_t tokens) const override {
    return tokens * scratch_per_token;
  }
  std::shared_ptr<const PackedWeights> pack(
      const WeightSource&, const std::function<void(std::int64_t, std::int64_t)>&) const override {
    throw std::logic_error("a fake kernel packs nothing");
  }
  std::unique_ptr<PreparedMoe> prepare(const MoeProblem&, std::shared_ptr<const PackedWeights>,
                                       const PrepareOptions&) const override {
    throw std::logic_error("a fake kernel runs nothing");
  }

  Support support;
  std::int64_t most_tokens = std::numeric_limits<std::int64_t>::max();
  std::int64_t scratch_per_token = 0;
  Device* on_device = nullptr;  ///< has graphs, too

 private:
  std::string name_;
  Scheme scheme_;
};

/// cpu_moe_fp8, cpu_moe_fp4, cpu_moe_fp4_w4a16, cpu_moe_fp8_block: one per scheme, as a backend has
/// them.
inline std::vector<std::unique_ptr<Kernel>> fake_kernels() {
  std::vector<std::unique_ptr<Kernel>> kernels;
  kernels.push_back(std::make_unique<FakeKernel>("cpu_moe_fp4", Scheme::kNvfp4));
  kernels.push_back(std::make_unique<FakeKernel>("cpu_moe_fp4_w4a16", Scheme::kNvfp4W4A16));
  kernels.push_back(std::make_unique<FakeKernel>("cpu_moe_fp8", Scheme::kFp8));
  kernels.push_back(std::make_unique<FakeKernel>("cpu_moe_fp8_block", Scheme::kFp8Block));
  return kernels;
}

}  // namespace moebench::cli
