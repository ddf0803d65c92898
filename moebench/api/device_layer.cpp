// A layer on a device through the public interface: weights fetched expert by expert from wherever
// they lie, calls on the caller's arrays and stream.
#include <cmath>
#include <cstdint>
#include <map>
#include <utility>

#include "moebench/api/moebench.h"
#include "moebench/api/stacks.h"
#include "moebench/backend/backend.h"
#include "moebench/core/checked.h"
#include "moebench/moe/problem.h"

namespace moebench {
namespace {

constexpr std::uintptr_t kArrayAlignment = 16;

/// `count` elements of a caller's array from `first` on, in host memory.
template <typename T>
std::vector<T> fetch(const Device& device, std::span<const T> from, std::int64_t first,
                     std::int64_t count) {
  std::vector<T> copy(static_cast<std::size_t>(count));
  device.fetch(copy.data(), from.data() + first, count * static_cast<std::int64_t>(sizeof(T)));
  return copy;
}

template <typename T>
std::vector<T> fetch(const Device& device, std::span<const T> from) {
  return from.empty() ? std::vector<T>{} : fetch(device, from, 0, std::ssize(from));
}

/// One of a caller's stacks, of which one expert at a time is in host memory.
struct RemoteNvfp4Stack {
  const char* name;
  std::int64_t rows, cols;
  std::span<const std::uint8_t> payload, scales;
  ScaleLayout layout;
  std::vector<float> global_scales;

  struct Fetched {
    std::vector<std::uint8_t> payload, scales, linear;
    Nvfp4Stack stack;
  };
  [[nodiscard]] Nvfp4View expert(const Device& device, std::int64_t e, Fetched& kept) const {
    const std::int64_t bytes = rows * (cols / 2);
    const std::int64_t scale_bytes = nvfp4_scale_bytes(rows, cols, layout);
    kept.payload = fetch(device, payload, e * bytes, bytes);
    kept.scales = fetch(device, scales, e * scale_bytes, scale_bytes);
    kept.stack = {name,
                  rows,
                  cols,
                  kept.payload,
                  kept.scales,
                  layout,
                  {global_scales[static_cast<std::size_t>(e)]}};
    const Nvfp4View view = kept.stack.expert(0, kept.linear);
    validate_nvfp4(view, fmt::format("{} of expert {}", name, e));
    return view;
  }
};

struct RemoteFp8Stack {
  const char* name;
  std::int64_t rows, cols;
  Fp8Scaling scaling;
  std::span<const std::uint8_t> payload;
  std::span<const float> scales;

  struct Fetched {
    std::vector<std::uint8_t> payload;
    std::vector<float> scales;
    Fp8Stack stack;
  };
  [[nodiscard]] Fp8View expert(const Device& device, std::int64_t e, Fetched& kept) const {
    const std::int64_t count = fp8_scale_count(rows, cols, scaling);
    kept.payload = fetch(device, payload, e * rows * cols, rows * cols);
    kept.scales = fetch(device, scales, e * count, count);
    kept.stack = {name, rows, cols, scaling, kept.payload, kept.scales};
    const Fp8View view = kept.stack.expert(0);
    validate_fp8(view, fmt::format("{} of expert {}", name, e));
    return view;
  }
};

void require_array(const char* what, const void* pointer) {
  if (pointer == nullptr) fail(ErrorCode::kBadInput, "{}: is null; give device memory", what);
  if (reinterpret_cast<std::uintptr_t>(pointer) % kArrayAlignment != 0) {
    fail(ErrorCode::kBadInput, "{}: is not aligned to {} bytes", what, kArrayAlignment);
  }
}

}  // namespace

struct DeviceMoeLayer::State {
  /// A number of tokens, with its scratch memory.
  struct Prepared {
    MoeProblem problem;
    std::unique_ptr<ResidentMoe> moe;
  };
  std::vector<std::unique_ptr<Backend>> backends;
  Device* device = nullptr;
  std::unique_ptr<Kernel> kernel;
  std::shared_ptr<const PackedWeights> packed;
  MoeProblem blank;  ///< shape, scheme and scales of every call
  std::map<std::int64_t, std::unique_ptr<Prepared>> prepared;

  explicit State(const MoeOptions& options) {
    backends = make_backends({.threads = options.threads, .forced_isa = {}});
    std::string reasons;
    for (const std::unique_ptr<Backend>& backend : backends) {
      if (backend->name() == "cpu") continue;
      device = backend->device();
      if (device != nullptr) return;
      reasons += fmt::format(" {}: {}.", backend->name(), backend->info().available.reason);
    }
    fail(ErrorCode::kUnavailable, "device: there is none for this layer; see the reasons:{}",
         reasons);
  }

  void pick_kernel() {
    std::string reasons;
    for (const std::unique_ptr<Backend>& backend : backends) {
      if (backend->device() != device) continue;
      for (std::unique_ptr<Kernel>& candidate : backend->kernels()) {
        if (candidate->scheme() != blank.scheme.scheme) continue;
        const Support support = candidate->supports(blank.shape, blank.scheme);
        if (support.ok) {
          kernel = std::move(candidate);
          return;
        }
        reasons += fmt::format(" {}: {}.", candidate->name(), support.reason);
      }
    }
    fail(ErrorCode::kUnavailable, "scheme {}: no kernel of the device computes this layer;{}",
         name_of(blank.scheme.scheme), reasons);
  }

  Prepared& prepared_for(std::int64_t m) {
    std::unique_ptr<Prepared>& entry = prepared[m];
    if (!entry) {
      auto made = std::make_unique<Prepared>();
      made->problem = blank;
      made->problem.tokens = m;
      made->moe = kernel->prepare_resident(made->problem, packed);
      entry = std::move(made);
    }
    return *entry;
  }
};

DeviceMoeLayer::DeviceMoeLayer(std::span<const std::uint8_t> w1_fp4,
                               std::span<const std::uint8_t> w2_fp4, const MoeSizes& sizes,
                               const Nvfp4MoeQuantConfig& quant_config, const MoeOptions& options) {
  const auto [n, k, e, topk] = sizes;
  const MoeShape shape = shape_of(sizes, options.act);
  validate(shape, WeightFormat::kNvfp4);
  require_layout(w1_fp4, w2_fp4, sizes, quant_config);
  state_ = std::make_unique<State>(options);
  const Device& device = *state_->device;
  MoeProblem& blank = state_->blank;
  blank.shape = shape;
  blank.scheme = scheme_of(quant_config);
  blank.scales.a1_global_scale = fetch(device, quant_config.a1_gscale);
  blank.scales.a2_global_scale = fetch(device, quant_config.a2_gscale);
  require_positive("a1_gscale", blank.scales.a1_global_scale);
  require_positive("a2_gscale", blank.scales.a2_global_scale);
  const ScaleLayout layout = quant_config.scale_layout;
  const RemoteNvfp4Stack w1{
      "w1_fp4",
      2 * n,
      k,
      w1_fp4,
      quant_config.w1_scale,
      layout,
      implied_weight_scales("g1_alphas", fetch(device, quant_config.g1_alphas),
                            blank.scales.a1_global_scale)};
  const RemoteNvfp4Stack w2{
      "w2_fp4",
      k,
      n,
      w2_fp4,
      quant_config.w2_scale,
      layout,
      implied_weight_scales("g2_alphas", fetch(device, quant_config.g2_alphas),
                            blank.scales.a2_global_scale)};
  state_->pick_kernel();
  WeightSource source;
  source.shape = shape;
  source.format = WeightFormat::kNvfp4;
  source.with_expert = [&](std::int64_t expert, const WithExpert& use) {
    RemoteNvfp4Stack::Fetched first;
    RemoteNvfp4Stack::Fetched second;
    ExpertWeightsView weights;
    weights.format = WeightFormat::kNvfp4;
    weights.nvfp4_w1 = w1.expert(device, expert, first);
    weights.nvfp4_w2 = w2.expert(device, expert, second);
    use(weights);
  };
  state_->packed = state_->kernel->pack(source, {});
}

DeviceMoeLayer::DeviceMoeLayer(std::span<const std::uint8_t> w1_fp8,
                               std::span<const std::uint8_t> w2_fp8, const MoeSizes& sizes,
                               const Fp8MoeQuantConfig& quant_config, const MoeOptions& options) {
  const auto [n, k, e, topk] = sizes;
  const MoeShape shape = shape_of(sizes, options.act);
  const SchemeConfig scheme = scheme_of(quant_config);
  const WeightFormat format = weight_format(scheme);
  validate(shape, format);
  require_layout(w1_fp8, w2_fp8, sizes, quant_config);
  const bool per_tensor = scheme.scheme == Scheme::kFp8 && !scheme.per_act_token;
  if (per_tensor && quant_config.a1_scale == 0.0F) {
    fail(ErrorCode::kBadInput,
         "a1_scale: is 0; on a device give amax/448 of the tokens, or per_act_token");
  }
  state_ = std::make_unique<State>(options);
  const Device& device = *state_->device;
  MoeProblem& blank = state_->blank;
  blank.shape = shape;
  blank.scheme = scheme;
  if (quant_config.a1_scale > 0.0F) blank.scales.a1_scale = quant_config.a1_scale;
  const RemoteFp8Stack w1{"w1_fp8", 2 * n, k, fp8_scaling(format), w1_fp8, quant_config.w1_scale};
  const RemoteFp8Stack w2{"w2_fp8", k, n, fp8_scaling(format), w2_fp8, quant_config.w2_scale};
  state_->pick_kernel();
  WeightSource source;
  source.shape = shape;
  source.format = format;
  source.with_expert = [&](std::int64_t expert, const WithExpert& use) {
    RemoteFp8Stack::Fetched first;
    RemoteFp8Stack::Fetched second;
    ExpertWeightsView weights;
    weights.format = format;
    weights.fp8_w1 = w1.expert(device, expert, first);
    weights.fp8_w2 = w2.expert(device, expert, second);
    use(weights);
  };
  state_->packed = state_->kernel->pack(source, {});
}

DeviceMoeLayer::~DeviceMoeLayer() = default;
DeviceMoeLayer::DeviceMoeLayer(DeviceMoeLayer&& other) noexcept = default;
DeviceMoeLayer& DeviceMoeLayer::operator=(DeviceMoeLayer&& other) noexcept = default;

void DeviceMoeLayer::prepare(std::int64_t m) {
  if (m < 0) fail(ErrorCode::kBadInput, "m: is {}; give 0 tokens or more", m);
  (void)checked_product("a", {m, state_->blank.shape.hidden});
  (void)checked_product("topk_ids", {m, state_->blank.shape.topk});
  if (m > 0) (void)state_->prepared_for(m);
}

void DeviceMoeLayer::run(const std::uint16_t* a, const float* topk_weights,
                         const std::int32_t* topk_ids, std::int64_t m, std::uint16_t* out,
                         DeviceStream stream) {
  if (m == 0) return;
  if (m > 0 && state_->prepared.count(m) == 0 && state_->device->is_capturing(stream)) {
    fail(ErrorCode::kBadInput,
         "m: {} tokens were not prepared before the capture; call prepare({}) first", m, m);
  }
  prepare(m);
  require_array("a", a);
  require_array("out", out);
  if (topk_weights == nullptr || topk_ids == nullptr) {
    fail(ErrorCode::kBadInput, "topk_ids, topk_weights: null; give device memory");
  }
  state_->prepared_for(m).moe->enqueue(
      {.tokens = a, .topk_ids = topk_ids, .topk_weights = topk_weights, .y = out}, stream);
}

std::string DeviceMoeLayer::kernel() const {
  return fmt::format("{} ({})", state_->kernel->name(), state_->kernel->detail());
}

std::int64_t DeviceMoeLayer::packed_bytes() const { return state_->packed->bytes(); }

bool DeviceMoeLayer::is_nvfp4() const {
  return weight_format(state_->blank.scheme) == WeightFormat::kNvfp4;
}

void moe_forward_nvfp4(DeviceMoeLayer& layer, const std::uint16_t* a, const float* topk_weights,
                       const std::int32_t* topk_ids, std::int64_t m, std::uint16_t* out,
                       DeviceStream stream) {
  if (!layer.is_nvfp4()) fail(ErrorCode::kBadInput, "layer: is FP8; call moe_forward_fp8");
  layer.run(a, topk_weights, topk_ids, m, out, stream);
}

void moe_forward_fp8(DeviceMoeLayer& layer, const std::uint16_t* a, const float* topk_weights,
                     const std::int32_t* topk_ids, std::int64_t m, std::uint16_t* out,
                     DeviceStream stream) {
  if (layer.is_nvfp4()) fail(ErrorCode::kBadInput, "layer: is NVFP4; call moe_forward_nvfp4");
  layer.run(a, topk_weights, topk_ids, m, out, stream);
}

}  // namespace moebench
