// The CUDA backend as the rest of the program sees it.
#include "moebench/backend/cuda/cuda_backend.h"

#include "moebench/backend/cuda/device.h"

namespace moebench::cuda {
namespace {

class CudaBackend final : public Backend {
 public:
  [[nodiscard]] BackendInfo info() const override {
    const DeviceChoice& device = choice();
    if (!device.unusable.empty()) {
      return {.name = "cuda", .available = Support::no(device.unusable), .detail = ""};
    }
    return {.name = "cuda",
            .available = Support::yes(),
            .detail = fmt::format("{}, sm_{}{}", device.facts.name, device.facts.major,
                                  device.facts.minor)};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override { return {}; }

 private:
  /// Asked for once, and only if somebody wants to know: the driver takes a while to start.
  [[nodiscard]] const DeviceChoice& choice() const {
    if (!choice_) choice_ = choose_device();
    return *choice_;
  }
  mutable std::optional<DeviceChoice> choice_;
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& /*options*/) {
  return std::make_unique<CudaBackend>();
}

}  // namespace moebench::cuda
