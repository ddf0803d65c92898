// The CUDA backend as the rest of the program sees it: whether a device is there, and its kernels.
#include "moebench/backend/cuda/cuda_backend.h"

#include "moebench/backend/cuda/cuda_device.h"
#include "moebench/backend/cuda/cuda_kernels.h"

namespace moebench::cuda {
namespace {

class CudaBackend final : public Backend {
 public:
  [[nodiscard]] std::string name() const override { return "cuda"; }
  [[nodiscard]] BackendInfo info() const override {
    const CudaDevice* const device = device_.get();
    if (device == nullptr) {
      return {.name = name(), .available = Support::no(device_.unusable()), .detail = ""};
    }
    const DeviceFacts& facts = device->hardware();
    return {.name = name(),
            .available = Support::yes(),
            .detail = fmt::format("{}, sm_{}{}", facts.name, facts.major, facts.minor)};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override {
    CudaDevice* const device = device_.get();
    return device != nullptr ? make_cuda_kernels(*device) : std::vector<std::unique_ptr<Kernel>>{};
  }
  [[nodiscard]] Device* device() const override { return device_.get(); }

 private:
  DeviceOnDemand device_{[] { return choose_device(); }};
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  set_wait_timeout(options.device_timeout_s);
  return std::make_unique<CudaBackend>();
}

}  // namespace moebench::cuda
