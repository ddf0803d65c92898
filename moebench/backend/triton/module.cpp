#include "moebench/backend/triton/module.h"

#include <cuda.h>

#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/layout.h"
#include "moebench/backend/triton/cubin.h"
#include "moebench/core/error.h"

namespace moebench::triton {
namespace {

constexpr int kWarpThreads = 32;
/// Above this a function must be told that it may have so much dynamic shared memory.
constexpr int kSharedBytesUnasked = 48 << 10;

/// The driver's functions: the binary is not linked with the driver, which may not be there.
struct Driver {
  decltype(&cuModuleLoadData) module_load_data;
  decltype(&cuModuleUnload) module_unload;
  decltype(&cuModuleGetFunction) module_get_function;
  decltype(&cuFuncSetAttribute) func_set_attribute;
  decltype(&cuFuncSetCacheConfig) func_set_cache_config;
  decltype(&cuLaunchKernel) launch_kernel;
  decltype(&cuGetErrorName) get_error_name;
};

template <typename Function>
void find(const char* name, Function& function) {
  // Versions of these functions that every driver of this runtime has.
  constexpr unsigned kVersion = 12000;
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion(name, &found, kVersion, cudaEnableDefault, &result);
  if (status != cudaSuccess || result != cudaDriverEntryPointSuccess || found == nullptr) {
    (void)cudaGetLastError();
    fail(ErrorCode::kUnavailable, "triton: the driver has no {}", name);
  }
  function = reinterpret_cast<Function>(found);
}

const Driver& driver() {
  static const Driver found = [] {
    Driver out{};
    find("cuModuleLoadData", out.module_load_data);
    find("cuModuleUnload", out.module_unload);
    find("cuModuleGetFunction", out.module_get_function);
    find("cuFuncSetAttribute", out.func_set_attribute);
    find("cuFuncSetCacheConfig", out.func_set_cache_config);
    find("cuLaunchKernel", out.launch_kernel);
    find("cuGetErrorName", out.get_error_name);
    return out;
  }();
  return found;
}

std::string describe(CUresult result) {
  const char* name = nullptr;
  if (driver().get_error_name(result, &name) != CUDA_SUCCESS || name == nullptr) {
    return fmt::format("error {}", static_cast<int>(result));
  }
  return name;
}

/// A refusal at loading is the piece's fault, not the device's.
void require(CUresult result, const EmbeddedKernel& kernel, const char* what) {
  if (result == CUDA_SUCCESS) return;
  fail(ErrorCode::kUnavailable, "triton: {}: {}: {}", kernel.name, what, describe(result));
}

}  // namespace

LoadedKernel::LoadedKernel(const EmbeddedSet& set, const EmbeddedKernel& kernel) : kernel_(kernel) {
  if (const std::string defect = cubin_defect(kernel, set.cubins); !defect.empty()) {
    fail(ErrorCode::kUnavailable, "triton: {}", defect);
  }
  cuda::require_device();
  // The runtime's context is made by its first call that needs one; the driver loads into it.
  cuda::cuda_check(cudaFree(nullptr), "starting the device");
  require(driver().module_load_data(&module_, set.cubins.data() + kernel.offset), kernel,
          "loading");
  try {
    require(driver().module_get_function(&function_, module_, std::string(kernel.symbol).c_str()),
            kernel, "finding its function");
    if (kernel.shared_bytes > kSharedBytesUnasked) {
      require(driver().func_set_attribute(
                  function_, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kernel.shared_bytes),
              kernel, "asking for shared memory");
      // Several blocks of this size fit only where the first-level cache leaves them the memory.
      require(driver().func_set_cache_config(function_, CU_FUNC_CACHE_PREFER_SHARED), kernel,
              "preferring shared memory");
    }
  } catch (...) {
    (void)driver().module_unload(module_);
    throw;
  }
}

LoadedKernel::~LoadedKernel() {
  // Like memory, modules of a lost device are left to the end of the process.
  if (cuda::lost_cause().empty()) (void)driver().module_unload(module_);
}

void LoadedKernel::enqueue(const GemmArguments& arguments, std::int64_t row_tiles,
                           cudaStream_t stream) const {
  const std::int64_t programs =
      row_tiles * cuda::divide_up(arguments.columns, kernel_.tile.block_n);
  if (programs == 0) return;
  if (programs > INT32_MAX) fail(ErrorCode::kInternal, "triton: {} programs", programs);
  GemmArguments a = arguments;
  void* scratch = nullptr;  // Triton's own: these kernels ask for none
  void* profile_scratch = nullptr;
  void* parameters[] = {&a.operand,
                        &a.weights,
                        &a.output,
                        &a.operand_scale,
                        &a.weight_scale,
                        &a.routing_weights,
                        &a.sorted_pairs,
                        &a.tile_experts,
                        &a.padded_rows,
                        &a.columns,
                        &a.depth,
                        &a.num_pairs,
                        &a.rows_per_operand,
                        &a.operand_scale_stride,
                        &a.weight_scale_stride,
                        &a.group_m,
                        &scratch,
                        &profile_scratch};
  const CUresult result = driver().launch_kernel(
      function_, static_cast<unsigned>(programs), 1, 1,
      static_cast<unsigned>(kernel_.tile.warps * kWarpThreads), 1, 1,
      static_cast<unsigned>(kernel_.shared_bytes), stream, parameters, nullptr);
  if (result != CUDA_SUCCESS) {
    fail(ErrorCode::kInternal, "triton: launching {}: {}", kernel_.name, describe(result));
  }
}

std::shared_ptr<const LoadedKernel> KernelCache::get(const EmbeddedKernel& kernel) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<const LoadedKernel>& loaded = loaded_[&kernel];
  if (loaded == nullptr) loaded = std::make_shared<LoadedKernel>(set_, kernel);
  return loaded;
}

}  // namespace moebench::triton
