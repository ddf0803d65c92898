// Stands in for the CUTLASS backend in a build without it: named, not available, with the reason.
#include "moebench/backend/cutlass/cutlass_backend.h"

namespace moebench::cutlass_moe {
namespace {

class NoCutlass final : public Backend {
 public:
  [[nodiscard]] std::string name() const override { return "cutlass"; }
  [[nodiscard]] BackendInfo info() const override {
    return {.name = name(), .available = Support::no(MOEBENCH_CUTLASS_REASON), .detail = ""};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override { return {}; }
};

}  // namespace

std::unique_ptr<Backend> make_cutlass_backend(const BackendOptions& /*options*/) {
  return std::make_unique<NoCutlass>();
}

}  // namespace moebench::cutlass_moe
