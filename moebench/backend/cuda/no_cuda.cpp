// Stands in for the CUDA backend in a build without it: named, not available, with the reason.
#include "moebench/backend/cuda/cuda_backend.h"

namespace moebench::cuda {
namespace {

class NoCuda final : public Backend {
 public:
  [[nodiscard]] std::string name() const override { return "cuda"; }
  [[nodiscard]] BackendInfo info() const override {
    return {.name = name(), .available = Support::no("built without CUDA"), .detail = ""};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override { return {}; }
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& /*options*/) {
  return std::make_unique<NoCuda>();
}

}  // namespace moebench::cuda
