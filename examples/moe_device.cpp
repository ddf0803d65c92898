// A mixture-of-experts layer in NVFP4 on a GPU: weights, tokens and routing in device memory,
// called on a stream, then the same call captured in a CUDA graph and replayed. Compares both with
// the library's CPU kernels; exits 4 where there is no device for it, 1 if an answer differs by
// more than the order of additions allows.
#include <cuda_runtime_api.h>
#include <moebench/api/moebench.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <span>
#include <vector>

namespace {

constexpr std::int64_t kExperts = 16;  // e
constexpr std::int64_t kTopk = 4;
constexpr std::int64_t kHidden = 1024;       // k
constexpr std::int64_t kIntermediate = 512;  // n
constexpr std::int64_t kTokens = 128;        // m
constexpr int kReplays = 20;

constexpr std::int64_t kW1Rows = 2 * kIntermediate;  // gate rows, then up rows

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  std::exit(1);
}

/// An array in device memory.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(std::int64_t count) : count_(count) {
    check(cudaMalloc(&data_, size(count) * sizeof(T)), "cudaMalloc");
  }
  explicit OnDevice(const std::vector<T>& from) : OnDevice(static_cast<std::int64_t>(from.size())) {
    check(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice),
          "cudaMemcpy");
  }
  ~OnDevice() { cudaFree(data_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  T* get() const { return static_cast<T*>(data_); }
  std::span<const T> span() const { return {get(), size(count_)}; }
  std::vector<T> to_host() const {
    std::vector<T> copy(size(count_));
    check(cudaMemcpy(copy.data(), data_, copy.size() * sizeof(T), cudaMemcpyDeviceToHost),
          "cudaMemcpy");
    return copy;
  }
  void clear() const { check(cudaMemset(data_, 0xFF, size(count_) * sizeof(T)), "cudaMemset"); }

 private:
  void* data_ = nullptr;
  std::int64_t count_;
};

/// A stack of e matrices [rows, cols] in NVFP4, with what the layer needs to know of it.
struct Nvfp4Stack {
  std::vector<std::uint8_t> payload, scales;
  std::vector<float> alphas;
};

Nvfp4Stack random_stack(std::int64_t rows, std::int64_t cols, float a_gscale,
                        std::mt19937& random) {
  std::normal_distribution<float> normal;
  const std::int64_t scale_bytes =
      moebench::nvfp4_scale_bytes(rows, cols, moebench::ScaleLayout::kLinear);
  Nvfp4Stack stack;
  stack.payload.resize(size(kExperts * rows * cols / 2));
  stack.scales.resize(size(kExperts * scale_bytes));
  std::vector<float> weights(size(rows * cols));
  for (std::int64_t e = 0; e < kExperts; ++e) {
    for (float& w : weights) w = normal(random) / std::sqrt(static_cast<float>(cols));
    const float w_gs = moebench::nvfp4_global_scale(weights);
    moebench::quantize_nvfp4(
        weights, rows, cols, w_gs,
        std::span(stack.payload).subspan(size(e * rows * cols / 2), size(rows * cols / 2)),
        std::span(stack.scales).subspan(size(e * scale_bytes), size(scale_bytes)));
    stack.alphas.push_back(1.0F / (a_gscale * w_gs));
  }
  return stack;
}

/// Largest difference of a row, relative to the row.
double worst_row(const std::vector<std::uint16_t>& got,
                 const std::vector<std::uint16_t>& expected) {
  double worst = 0.0;
  for (std::int64_t token = 0; token < kTokens; ++token) {
    double error = 0.0;
    double norm = 0.0;
    for (std::int64_t i = 0; i < kHidden; ++i) {
      const double a = double{moebench::decode_fp16(got[size(token * kHidden + i)])};
      const double b = double{moebench::decode_fp16(expected[size(token * kHidden + i)])};
      error += (a - b) * (a - b);
      norm += b * b;
    }
    worst = std::isfinite(error) ? std::max(worst, std::sqrt(error / norm)) : INFINITY;
  }
  return worst;
}

int run() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> a(size(kTokens * kHidden));
  for (std::uint16_t& bits : a) bits = moebench::encode_fp16(normal(random));
  std::vector<float> topk_weights;
  std::vector<std::int32_t> topk_ids;
  for (std::int64_t token = 0; token < kTokens; ++token) {
    for (std::int64_t slot = 0; slot < kTopk; ++slot) {  // a token's experts must differ
      topk_ids.push_back(static_cast<std::int32_t>((5 * token + 3 * slot) % kExperts));
      topk_weights.push_back(0.25F);
    }
  }
  const std::vector<float> a1_gscale(size(kExperts),
                                     moebench::nvfp4_global_scale(a, moebench::ActType::kFp16));
  const std::vector<float> a2_gscale(size(kExperts),
                                     448.0F * 6.0F / 4.0F);  // silu(gate)*up stays below 4
  const Nvfp4Stack w1 = random_stack(kW1Rows, kHidden, a1_gscale[0], random);
  const Nvfp4Stack w2 = random_stack(kHidden, kIntermediate, a2_gscale[0], random);
  const moebench::MoeSizes sizes{.n = kIntermediate, .k = kHidden, .e = kExperts, .topk = kTopk};

  if (int count = 0; cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::fprintf(stderr, "no device: this example needs a CUDA driver and a GPU\n");
    return 4;
  }
  const OnDevice<std::uint8_t> w1_fp4(w1.payload), w2_fp4(w2.payload);
  const OnDevice<std::uint8_t> w1_scale(w1.scales), w2_scale(w2.scales);
  const OnDevice<float> g1_alphas(w1.alphas), g2_alphas(w2.alphas), a1(a1_gscale), a2(a2_gscale);
  const OnDevice<std::uint16_t> tokens(a), out(kTokens * kHidden);
  const OnDevice<float> weights(topk_weights);
  const OnDevice<std::int32_t> ids(topk_ids);

  moebench::DeviceMoeLayer layer(w1_fp4.span(), w2_fp4.span(), sizes,
                                 {.a1_gscale = a1.span(),
                                  .a2_gscale = a2.span(),
                                  .w1_scale = w1_scale.span(),
                                  .w2_scale = w2_scale.span(),
                                  .g1_alphas = g1_alphas.span(),
                                  .g2_alphas = g2_alphas.span()});
  std::printf("%s\n", layer.kernel().c_str());

  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  const auto call = [&] {
    moebench::moe_forward_nvfp4(layer, tokens.get(), weights.get(), ids.get(), kTokens, out.get(),
                                stream);
  };
  call();
  check(cudaStreamSynchronize(stream), "the layer");
  const std::vector<std::uint16_t> direct = out.to_host();

  // The same call as a graph: captured once, replayed as often as wanted.
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  call();
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  check(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  out.clear();
  cudaEvent_t start = nullptr;
  cudaEvent_t stop = nullptr;
  check(cudaEventCreate(&start), "cudaEventCreate");
  check(cudaEventCreate(&stop), "cudaEventCreate");
  check(cudaGraphLaunch(replay, stream), "cudaGraphLaunch");
  check(cudaEventRecord(start, stream), "cudaEventRecord");
  for (int i = 0; i < kReplays; ++i) check(cudaGraphLaunch(replay, stream), "cudaGraphLaunch");
  check(cudaEventRecord(stop, stream), "cudaEventRecord");
  check(cudaStreamSynchronize(stream), "the graph");
  float milliseconds = 0.0F;
  check(cudaEventElapsedTime(&milliseconds, start, stop), "cudaEventElapsedTime");
  const std::vector<std::uint16_t> replayed = out.to_host();
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);

  std::vector<std::uint16_t> on_cpu(size(kTokens * kHidden));
  moebench::MoeLayer(w1.payload, w2.payload, sizes,
                     {.a1_gscale = a1_gscale,
                      .a2_gscale = a2_gscale,
                      .w1_scale = w1.scales,
                      .w2_scale = w2.scales,
                      .g1_alphas = w1.alphas,
                      .g2_alphas = w2.alphas},
                     {.isa = "portable"})
      .run(a, topk_weights, topk_ids, kTokens, on_cpu);
  const double error = worst_row(direct, on_cpu);
  std::printf("graph replay: %.1f us per call\n", double{milliseconds} * 1e3 / kReplays);
  std::printf("replay gives the bits of the direct call: %s\n", replayed == direct ? "yes" : "no");
  std::printf("largest relative difference of a row to the CPU: %.1e\n", error);
  // Sums in another order move a few values of the quantised intermediate to their neighbour.
  constexpr double kAllowed = 0.02;
  return replayed == direct && error < kAllowed ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const moebench::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
