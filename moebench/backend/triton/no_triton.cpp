// Stands in where this build has no Triton kernels: says why.
#include "moebench/backend/triton/embedded.h"
#include "moebench/backend/triton/triton_backend.h"

namespace moebench::triton {
namespace {

class NoTriton final : public Backend {
 public:
  [[nodiscard]] std::string name() const override { return "triton"; }
  [[nodiscard]] bool is_companion() const override { return true; }
  [[nodiscard]] BackendInfo info() const override {
    return {
        .name = name(), .available = Support::no(std::string(embedded_set().absent)), .detail = ""};
  }
  [[nodiscard]] std::vector<std::unique_ptr<Kernel>> kernels() const override { return {}; }
};

}  // namespace

std::unique_ptr<Backend> make_triton_backend(const BackendOptions& /*options*/,
                                             std::vector<const Backend*> /*hosts*/) {
  return std::make_unique<NoTriton>();
}

}  // namespace moebench::triton
