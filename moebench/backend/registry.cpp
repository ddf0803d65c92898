// The ordered list of backends, fastest first: a new backend is one line here.
#include "moebench/backend/backend.h"
#include "moebench/backend/cpu/cpu_backend.h"
#include "moebench/backend/cuda/cuda_backend.h"
#include "moebench/backend/cutlass/cutlass_backend.h"
#include "moebench/backend/triton/triton_backend.h"

namespace moebench {

std::vector<std::unique_ptr<Backend>> make_backends(const BackendOptions& options) {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(cuda::make_cuda_backend(options));
  backends.push_back(cutlass_moe::make_cutlass_backend(options));
  // Triton's kernels run on whichever device one of these has opened.
  backends.push_back(triton::make_triton_backend(options, {backends[0].get(), backends[1].get()}));
  backends.push_back(cpu::make_cpu_backend(options));
  return backends;
}

}  // namespace moebench
