// A mixture-of-experts layer from the library: float weights, quantised to NVFP4 and to FP8, run on
// 16-bit tokens, and compared with the same layer in plain float. Prints the error of each format;
// exits 1 if one is larger than it can be.
#include <moebench/api/moebench.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

namespace {

constexpr std::int64_t kExperts = 8;
constexpr std::int64_t kTopk = 2;
constexpr std::int64_t kHidden = 512;        // k
constexpr std::int64_t kIntermediate = 256;  // n
constexpr std::int64_t kTokens = 16;         // m

constexpr std::int64_t kW1Rows = 2 * kIntermediate;  // gate rows, then up rows
constexpr std::int64_t kW1Size = kW1Rows * kHidden;  // of one expert
constexpr std::int64_t kW2Size = kHidden * kIntermediate;

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

struct Layer {
  std::vector<float> w1;            // [experts, 2n, k]
  std::vector<float> w2;            // [experts, k, n]
  std::vector<std::uint16_t> a;     // [m, k], FP16
  std::vector<float> topk_weights;  // [m, topk]
  std::vector<std::int32_t> topk_ids;

  std::span<const float> w1_of(std::int64_t e) const {
    return std::span(w1).subspan(size(e * kW1Size), size(kW1Size));
  }
  std::span<const float> w2_of(std::int64_t e) const {
    return std::span(w2).subspan(size(e * kW2Size), size(kW2Size));
  }
};

Layer make_layer() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  Layer layer;
  layer.w1.resize(size(kExperts * kW1Size));
  layer.w2.resize(size(kExperts * kW2Size));
  layer.a.resize(size(kTokens * kHidden));
  std::ranges::generate(layer.w1, [&] { return normal(random) / std::sqrt(float{kHidden}); });
  std::ranges::generate(layer.w2, [&] { return normal(random) / std::sqrt(float{kIntermediate}); });
  std::ranges::generate(layer.a, [&] { return moebench::encode_fp16(normal(random)); });
  for (std::int64_t token = 0; token < kTokens; ++token) {
    for (std::int64_t slot = 0; slot < kTopk; ++slot) {  // a token's experts must differ
      layer.topk_ids.push_back(static_cast<std::int32_t>((3 * token + slot) % kExperts));
      layer.topk_weights.push_back(slot == 0 ? 0.7F : 0.3F);
    }
  }
  return layer;
}

float dot(std::span<const float> row, std::span<const float> x) {
  float sum = 0.0F;
  for (std::size_t i = 0; i < x.size(); ++i) sum += row[i] * x[i];
  return sum;
}

struct FloatForward {
  std::vector<float> y;      // [m, k]
  float hidden_amax = 0.0F;  // of silu(gate) * up: what calibration needs for a2
};

FloatForward float_forward(const Layer& layer) {
  FloatForward out;
  out.y.assign(size(kTokens * kHidden), 0.0F);
  std::vector<float> x(size(kHidden));
  std::vector<float> h(size(kIntermediate));
  for (std::int64_t pair = 0; pair < kTokens * kTopk; ++pair) {
    const std::int64_t token = pair / kTopk;
    const std::int64_t expert = layer.topk_ids[size(pair)];
    for (std::int64_t i = 0; i < kHidden; ++i) {
      x[size(i)] = moebench::decode_fp16(layer.a[size(token * kHidden + i)]);
    }
    for (std::int64_t i = 0; i < kIntermediate; ++i) {
      const float gate = dot(layer.w1_of(expert).subspan(size(i * kHidden)), x);
      const float up = dot(layer.w1_of(expert).subspan(size((kIntermediate + i) * kHidden)), x);
      h[size(i)] = gate / (1.0F + std::exp(-gate)) * up;
      out.hidden_amax = std::max(out.hidden_amax, std::abs(h[size(i)]));
    }
    for (std::int64_t i = 0; i < kHidden; ++i) {
      out.y[size(token * kHidden + i)] +=
          layer.topk_weights[size(pair)] *
          dot(layer.w2_of(expert).subspan(size(i * kIntermediate)), h);
    }
  }
  return out;
}

// Root-mean-square error over the root mean square of the float layer.
double relative_error(std::span<const std::uint16_t> y, std::span<const float> expected) {
  double error = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    error += std::pow(double{moebench::decode_fp16(y[i])} - double{expected[i]}, 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(error / norm);
}

// NVFP4 weights with the scales that nvfp4 layers travel with.
struct Nvfp4Weights {
  static constexpr auto kLayout = moebench::ScaleLayout::kSwizzled128x4;
  std::vector<std::uint8_t> w1_fp4, w2_fp4, w1_scale, w2_scale;
  std::vector<float> a1_gscale, a2_gscale, g1_alphas, g2_alphas;

  Nvfp4Weights(const Layer& layer, float hidden_amax) {
    const std::int64_t w1_scales = moebench::nvfp4_scale_bytes(kW1Rows, kHidden, kLayout);
    const std::int64_t w2_scales = moebench::nvfp4_scale_bytes(kHidden, kIntermediate, kLayout);
    w1_fp4.resize(size(kExperts * kW1Size / 2));
    w2_fp4.resize(size(kExperts * kW2Size / 2));
    w1_scale.resize(size(kExperts * w1_scales));
    w2_scale.resize(size(kExperts * w2_scales));
    const float a1 = moebench::nvfp4_global_scale(layer.a, moebench::ActType::kFp16);
    const float a2 = moebench::nvfp4_global_scale(std::vector<float>{hidden_amax});
    for (std::int64_t e = 0; e < kExperts; ++e) {
      const float w1_gs = moebench::nvfp4_global_scale(layer.w1_of(e));
      const float w2_gs = moebench::nvfp4_global_scale(layer.w2_of(e));
      moebench::quantize_nvfp4(layer.w1_of(e), kW1Rows, kHidden, w1_gs,
                               std::span(w1_fp4).subspan(size(e * kW1Size / 2), size(kW1Size / 2)),
                               std::span(w1_scale).subspan(size(e * w1_scales), size(w1_scales)),
                               kLayout);
      moebench::quantize_nvfp4(layer.w2_of(e), kHidden, kIntermediate, w2_gs,
                               std::span(w2_fp4).subspan(size(e * kW2Size / 2), size(kW2Size / 2)),
                               std::span(w2_scale).subspan(size(e * w2_scales), size(w2_scales)),
                               kLayout);
      a1_gscale.push_back(a1);
      a2_gscale.push_back(a2);
      g1_alphas.push_back(1.0F / (a1 * w1_gs));
      g2_alphas.push_back(1.0F / (a2 * w2_gs));
    }
  }

  moebench::Nvfp4MoeQuantConfig quant_config() const {
    return {.a1_gscale = a1_gscale,
            .a2_gscale = a2_gscale,
            .w1_scale = w1_scale,
            .w2_scale = w2_scale,
            .g1_alphas = g1_alphas,
            .g2_alphas = g2_alphas,
            .scale_layout = kLayout};
  }
};

// One call on the caller's buffers.
std::vector<std::uint16_t> run_nvfp4(const Layer& layer, float hidden_amax) {
  const Nvfp4Weights weights(layer, hidden_amax);
  std::vector<std::uint16_t> y(layer.a.size());
  moebench::moe_forward_nvfp4(layer.a, weights.w1_fp4, weights.w2_fp4, layer.topk_weights,
                              layer.topk_ids, kTokens, kIntermediate, kHidden, kExperts,
                              weights.quant_config(), y);
  return y;
}

// Packed once, run many times: what an engine does with a layer.
std::vector<std::uint16_t> run_packed_nvfp4(const Layer& layer, float hidden_amax) {
  const Nvfp4Weights weights(layer, hidden_amax);
  moebench::MoeLayer packed(weights.w1_fp4, weights.w2_fp4,
                            {.n = kIntermediate, .k = kHidden, .e = kExperts, .topk = kTopk},
                            weights.quant_config());
  std::vector<std::uint16_t> y(layer.a.size());
  constexpr int kCalls = 20;
  packed.run(layer.a, layer.topk_weights, layer.topk_ids, kTokens, y);
  const auto started = std::chrono::steady_clock::now();
  for (int call = 0; call < kCalls; ++call) {
    packed.run(layer.a, layer.topk_weights, layer.topk_ids, kTokens, y);
  }
  const std::chrono::duration<double, std::micro> elapsed =
      std::chrono::steady_clock::now() - started;
  std::printf("%s: %.1f us per call\n", packed.kernel().c_str(), elapsed.count() / kCalls);
  return y;
}

std::vector<std::uint16_t> run_fp8(const Layer& layer) {
  constexpr auto kScaling = moebench::Fp8WeightScaling::kPerOutChannel;
  const std::int64_t w1_scales = moebench::fp8_weight_scales(kW1Rows, kHidden, kScaling);
  const std::int64_t w2_scales = moebench::fp8_weight_scales(kHidden, kIntermediate, kScaling);
  std::vector<std::uint8_t> w1_fp8(layer.w1.size());
  std::vector<std::uint8_t> w2_fp8(layer.w2.size());
  std::vector<float> w1_scale(size(kExperts * w1_scales));
  std::vector<float> w2_scale(size(kExperts * w2_scales));
  for (std::int64_t e = 0; e < kExperts; ++e) {
    moebench::quantize_fp8(layer.w1_of(e), kW1Rows, kHidden, kScaling,
                           std::span(w1_fp8).subspan(size(e * kW1Size), size(kW1Size)),
                           std::span(w1_scale).subspan(size(e * w1_scales), size(w1_scales)));
    moebench::quantize_fp8(layer.w2_of(e), kHidden, kIntermediate, kScaling,
                           std::span(w2_fp8).subspan(size(e * kW2Size), size(kW2Size)),
                           std::span(w2_scale).subspan(size(e * w2_scales), size(w2_scales)));
  }
  std::vector<std::uint16_t> y(layer.a.size());
  moebench::moe_forward_fp8(
      layer.a, w1_fp8, w2_fp8, layer.topk_weights, layer.topk_ids, kTokens, kIntermediate, kHidden,
      kExperts,
      {.scaling = kScaling, .w1_scale = w1_scale, .w2_scale = w2_scale, .per_act_token = true}, y);
  return y;
}

// Each of the two GEMMs has two rounded operands. A rounded value is off by about 10 % of its size
// in NVFP4 and 2.6 % in FP8 (root mean square), and the four add up in quadrature; a wrong scale or
// nibble order is off by more than 50 %.
constexpr double kNvfp4Limit = 0.3;
constexpr double kFp8Limit = 0.1;

}  // namespace

int main() {
  try {
    const Layer layer = make_layer();
    const FloatForward expected = float_forward(layer);
    const std::vector<std::uint16_t> nvfp4 = run_nvfp4(layer, expected.hidden_amax);
    const bool repeats = run_packed_nvfp4(layer, expected.hidden_amax) == nvfp4;
    const double nvfp4_error = relative_error(nvfp4, expected.y);
    const double fp8_error = relative_error(run_fp8(layer), expected.y);
    std::printf("error against float: NVFP4 %.2f %%, FP8 %.2f %%\n", 100 * nvfp4_error,
                100 * fp8_error);
    std::printf("packed layer gives the same bits as the single call: %s\n",
                repeats ? "yes" : "no");
    return nvfp4_error < kNvfp4Limit && fp8_error < kFp8Limit && repeats ? 0 : 1;
  } catch (const moebench::Error& error) {
    std::fprintf(stderr, "moe_forward: %s\n", error.what());
    return error.exit_code();
  }
}
