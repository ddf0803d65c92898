// The library's interface: quantise weights, describe their scales, run a low-precision
// mixture-of-experts (MoE) layer on buffers of the caller. `find_package(moebench)` gives it as
// moebench::moebench; examples/moe_forward.cpp shows its use.
//
// Symbols: m tokens, e experts, topk experts per token, k hidden size, n intermediate size.
//   y[t] = sum_j topk_weights[t,j] * ( w2[x] . ( silu(gate) * up ) ),  [gate, up] = w1[x] . a[t],
//   x = topk_ids[t,j]
// All arrays are row-major, without gaps, and lie in host memory, but for those of a
// DeviceMoeLayer. 16-bit values (a, out) are bit patterns in options.act. Formats, formulas and
// rounding points: docs/NUMERICS.md.
//
// Every function checks all of its arguments before it computes anything and throws
// moebench::Error: kBadInput for values and sizes that cannot be right (one line: which argument,
// which value, what to do), kUnavailable for an ISA that is not here, kOutOfMemory. An output
// buffer is written only by a call that returns.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "moebench/core/dtype.h"
#include "moebench/core/error.h"
#include "moebench/quant/scale_layout.h"

struct CUstream_st;  // *cudaStream_t: a program that never sees CUDA includes this header, too

namespace moebench {

// ---- Quantising ----

/// The global scale of an NVFP4 matrix: 448*6 / max|x|, a divisor (1 where x is all zero). Throws
/// for NaN and infinities.
[[nodiscard]] float nvfp4_global_scale(std::span<const float> x);
[[nodiscard]] float nvfp4_global_scale(std::span<const std::uint16_t> x, ActType type);

/// x [rows, cols] -> payload [rows, cols/2] (E2M1, even column in the low nibble) and one E4M3
/// scale per 16 consecutive columns, in `layout`: nvfp4_scale_bytes(rows, cols, layout) bytes,
/// padding zeroed. A value is e2m1 * scale / global_scale. cols must be a multiple of 16. Throws
/// for NaN and infinities in x, wrong buffer sizes, a global scale that is not positive and finite.
/// Several experts' matrices may be quantised as one of rows = e * rows_per_expert only where they
/// share a global scale and the layout is linear.
void quantize_nvfp4(std::span<const float> x, std::int64_t rows, std::int64_t cols,
                    float global_scale, std::span<std::uint8_t> payload,
                    std::span<std::uint8_t> scales, ScaleLayout layout = ScaleLayout::kLinear);
void quantize_nvfp4(std::span<const std::uint16_t> x, ActType type, std::int64_t rows,
                    std::int64_t cols, float global_scale, std::span<std::uint8_t> payload,
                    std::span<std::uint8_t> scales, ScaleLayout layout = ScaleLayout::kLinear);

/// What one FP32 scale of an FP8 weight [rows, cols] covers.
enum class Fp8WeightScaling : std::uint8_t {
  kPerExpert,      ///< the whole matrix: 1 scale
  kPerOutChannel,  ///< a row: [rows]
  kBlock128x128,   ///< a 128x128 block: [ceil(rows/128), ceil(cols/128)]
};
/// Scales of one [rows, cols] matrix.
[[nodiscard]] std::int64_t fp8_weight_scales(std::int64_t rows, std::int64_t cols,
                                             Fp8WeightScaling scaling);

/// x [rows, cols] -> payload [rows, cols] (E4M3) and scales, amax/448 each (1 where amax is 0). A
/// value is e4m3 * scale. Throws for NaN and infinities in x and for wrong buffer sizes.
void quantize_fp8(std::span<const float> x, std::int64_t rows, std::int64_t cols,
                  Fp8WeightScaling scaling, std::span<std::uint8_t> payload,
                  std::span<float> scales);

// ---- Describing a layer ----

/// The sizes of a layer. For NVFP4, n and k must be multiples of 16.
struct MoeSizes {
  std::int64_t n = 0;     ///< intermediate size, of one tensor-parallel rank
  std::int64_t k = 0;     ///< hidden size
  std::int64_t e = 0;     ///< experts
  std::int64_t topk = 0;  ///< experts of one token, 1..e
};

/// Scales of an NVFP4 layer; the spans are not copied.
/// GEMM1 multiplies its sums by g1_alphas[x] = 1 / (a1_gscale[x] * w1_gs[x]), GEMM2 by g2_alphas[x]
/// = 1 / (a2_gscale[x] * w2_gs[x]), where w1_gs and w2_gs are the global scales that the weights
/// were quantised with. A weight's global scale itself is no alpha: the implied weights would be
/// astronomically large, and the call is refused. The implied w_gs is what is kept; it gives the
/// alpha back to within 3 parts in 2^24. With a1_gscale and a2_gscale both empty, activations stay
/// in 16 bits (W4A16), and alpha = 1 / w_gs.
struct Nvfp4MoeQuantConfig {
  std::span<const float> a1_gscale = {};  ///< [e] 448*6/amax of the tokens that reach the expert
  std::span<const float> a2_gscale = {};  ///< [e] the same of silu(gate)*up
  /// E4M3, [e, nvfp4_scale_bytes(2n, k, scale_layout)] and [e, nvfp4_scale_bytes(k, n, ...)]
  std::span<const std::uint8_t> w1_scale = {};
  std::span<const std::uint8_t> w2_scale = {};
  std::span<const float> g1_alphas = {};  ///< [e]
  std::span<const float> g2_alphas = {};  ///< [e]
  ScaleLayout scale_layout = ScaleLayout::kLinear;
};

/// Scales of an FP8 layer; the spans are not copied. The intermediate activations are always scaled
/// at run time. Activations: kBlock128x128 goes with one run-time scale per token and 128 columns;
/// else one per token with per_act_token; else one per tensor: a1_scale for the tokens, found at
/// run time for the rest.
struct Fp8MoeQuantConfig {
  Fp8WeightScaling scaling = Fp8WeightScaling::kPerExpert;
  std::span<const float> w1_scale = {};  ///< [e, fp8_weight_scales(2n, k, scaling)], multipliers
  std::span<const float> w2_scale = {};  ///< [e, fp8_weight_scales(k, n, scaling)], multipliers
  bool per_act_token = false;            ///< not with kBlock128x128
  float a1_scale = 0.0F;  ///< amax/448 of the tokens, per tensor; 0: taken from each call's tokens
};

struct MoeOptions {
  ActType act = ActType::kFp16;  ///< of a, of the rounding points inside the layer, and of out
  int threads = 0;               ///< CPU threads; 0: all that this process may use
  std::string isa = {};          ///< empty: the fastest here; "portable", "avx2", ...: that one
};

// ---- Running: pack once, run many ----

/// A layer whose weights are packed for this machine. The constructors validate and pack; the
/// weights and scales given to them may be freed afterwards. A layer is used by one thread at a
/// time.
class MoeLayer {
 public:
  /// w1_fp4 [e, 2n, k/2], gate rows before up rows; w2_fp4 [e, k, n/2].
  MoeLayer(std::span<const std::uint8_t> w1_fp4, std::span<const std::uint8_t> w2_fp4,
           const MoeSizes& sizes, const Nvfp4MoeQuantConfig& quant_config,
           const MoeOptions& options = {});
  /// w1_fp8 [e, 2n, k], gate rows before up rows; w2_fp8 [e, k, n].
  MoeLayer(std::span<const std::uint8_t> w1_fp8, std::span<const std::uint8_t> w2_fp8,
           const MoeSizes& sizes, const Fp8MoeQuantConfig& quant_config,
           const MoeOptions& options = {});
  ~MoeLayer();
  MoeLayer(MoeLayer&& other) noexcept;
  MoeLayer& operator=(MoeLayer&& other) noexcept;

  /// One forward pass. a [m, k]; topk_weights and topk_ids [m, topk]; out [m, k], which must not
  /// overlap a. Throws for NaN or infinite tokens or weights, an id outside 0..e-1, an expert twice
  /// in one row. m = 0 is fine. A call with another m than the call before it allocates scratch
  /// memory first.
  void run(std::span<const std::uint16_t> a, std::span<const float> topk_weights,
           std::span<const std::int32_t> topk_ids, std::int64_t m, std::span<std::uint16_t> out);

  /// What runs: "cpu_moe_fp4 (avx512, 2 threads)".
  [[nodiscard]] std::string kernel() const;
  [[nodiscard]] std::int64_t packed_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// ---- Running: one call ----

/// A MoeLayer's life in one call, with topk = topk_ids.size() / m. Packs the weights every time:
/// for more than one call keep a MoeLayer.
void moe_forward_nvfp4(std::span<const std::uint16_t> a, std::span<const std::uint8_t> w1_fp4,
                       std::span<const std::uint8_t> w2_fp4, std::span<const float> topk_weights,
                       std::span<const std::int32_t> topk_ids, std::int64_t m, std::int64_t n,
                       std::int64_t k, std::int64_t e, const Nvfp4MoeQuantConfig& quant_config,
                       std::span<std::uint16_t> out, const MoeOptions& options = {});

/// The same for FP8 weights.
void moe_forward_fp8(std::span<const std::uint16_t> a, std::span<const std::uint8_t> w1_fp8,
                     std::span<const std::uint8_t> w2_fp8, std::span<const float> topk_weights,
                     std::span<const std::int32_t> topk_ids, std::int64_t m, std::int64_t n,
                     std::int64_t k, std::int64_t e, const Fp8MoeQuantConfig& quant_config,
                     std::span<std::uint16_t> out, const MoeOptions& options = {});

// ---- Running on a device: arrays in its memory, calls on a stream ----

/// A cudaStream_t.
using DeviceStream = CUstream_st*;

/// A layer whose weights are packed in a device's memory, for a program whose arrays lie there.
/// Calls are enqueued on a stream of the program and may be captured in a CUDA graph; nothing is
/// copied to the host. Throws kUnavailable, with the cause, where there is no device for it or the
/// library was built without CUDA. The device is the first that the kernels run on; options.threads
/// is for packing, options.isa is not looked at.
class DeviceMoeLayer {
 public:
  /// As MoeLayer's, but each array, those of quant_config included, may lie in host or in device
  /// memory. Packing takes one expert after the other through host memory; the arrays may be freed
  /// afterwards.
  DeviceMoeLayer(std::span<const std::uint8_t> w1_fp4, std::span<const std::uint8_t> w2_fp4,
                 const MoeSizes& sizes, const Nvfp4MoeQuantConfig& quant_config,
                 const MoeOptions& options = {});
  /// An FP8 layer with one activation scale per tensor needs a1_scale: the tokens' own is not
  /// looked for on the device.
  DeviceMoeLayer(std::span<const std::uint8_t> w1_fp8, std::span<const std::uint8_t> w2_fp8,
                 const MoeSizes& sizes, const Fp8MoeQuantConfig& quant_config,
                 const MoeOptions& options = {});
  /// Waits for calls that still run.
  ~DeviceMoeLayer();
  DeviceMoeLayer(DeviceMoeLayer&& other) noexcept;
  DeviceMoeLayer& operator=(DeviceMoeLayer&& other) noexcept;

  /// Allocates the scratch memory of calls with m tokens, which stays for the lifetime of the
  /// layer. run() does it at the first call with an m, but cannot while the stream is captured.
  void prepare(std::int64_t m);

  /// Enqueues one forward pass on `stream`: a [m, k], topk_weights and topk_ids [m, topk], out [m,
  /// k], all in device memory; a and out aligned to 16 bytes and apart. Returns at once. Values on
  /// the device cannot be checked here: an id outside 0..e-1 or an expert twice in one row is
  /// undefined behaviour. Calls of one layer share scratch memory: enqueue them on one stream, or
  /// order them.
  void run(const std::uint16_t* a, const float* topk_weights, const std::int32_t* topk_ids,
           std::int64_t m, std::uint16_t* out, DeviceStream stream);

  [[nodiscard]] std::string kernel() const;  ///< "hopper_moe_fp4 (sm_90a, NVIDIA H100 ...)"
  [[nodiscard]] std::int64_t packed_bytes() const;
  [[nodiscard]] bool is_nvfp4() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// layer.run() by the names of the calls above; kBadInput for a layer of the other format.
/// Capturable.
void moe_forward_nvfp4(DeviceMoeLayer& layer, const std::uint16_t* a, const float* topk_weights,
                       const std::int32_t* topk_ids, std::int64_t m, std::uint16_t* out,
                       DeviceStream stream);
void moe_forward_fp8(DeviceMoeLayer& layer, const std::uint16_t* a, const float* topk_weights,
                     const std::int32_t* topk_ids, std::int64_t m, std::uint16_t* out,
                     DeviceStream stream);

}  // namespace moebench
