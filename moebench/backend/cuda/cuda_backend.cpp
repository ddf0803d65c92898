// The CUDA backend as the rest of the program sees it: whether a device is there, and its kernels.
#include "moebench/backend/cuda/cuda_backend.h"

#include "moebench/backend/cuda/cuda_device.h"
#include "moebench/backend/cuda/cuda_kernels.h"
#include "moebench/core/error.h"

namespace moebench::cuda {
namespace {

class CudaBackend final : public Backend {
 public:
  [[nodiscard]] std::string name() const override { return "cuda"; }
  [[nodiscard]] BackendInfo info() const override {
    open();
    if (opened_ == nullptr) {
      return {.name = name(), .available = Support::no(unusable_), .detail = ""};
    }
    const DeviceFacts& facts = opened_->hardware();
    return {.name = name(),
            .available = Support::yes(),
            .detail = fmt::format("{}, sm_{}{}", facts.name, facts.major, facts.minor)};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override {
    open();
    return opened_ != nullptr ? make_cuda_kernels(*opened_)
                              : std::vector<std::unique_ptr<Kernel>>{};
  }
  [[nodiscard]] Device* device() const override {
    open();
    return opened_.get();
  }

 private:
  /// Once, and only if somebody wants to know: the driver takes a while to start.
  void open() const {
    if (asked_) return;
    asked_ = true;
    DeviceChoice choice = choose_device();
    unusable_ = choice.unusable;
    if (!unusable_.empty()) return;
    try {
      opened_ = std::make_unique<CudaDevice>(std::move(choice.facts));
    } catch (const Error& error) {
      unusable_ = error.what();
    }
  }
  mutable bool asked_ = false;
  mutable std::string unusable_;
  mutable std::unique_ptr<CudaDevice> opened_;
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
  set_wait_timeout(options.device_timeout_s);
  return std::make_unique<CudaBackend>();
}

}  // namespace moebench::cuda
