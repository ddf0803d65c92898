// Runs the NVFP4 pipeline on a device, whole layers of random shapes, against the double-precision
// oracle: with a plain GEMM on any device (Hopper, too), and with every compiled GEMM of CUTLASS
// where the device is theirs; directly and as a graph, twice, for the same bits. Needs a device, so
// it is no part of the test suite: cutlass_pipeline_check [rounds [seed]]; a line for each failure,
// exit status 1 if there was any.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "moebench/backend/cuda/cuda_device.h"
#include "moebench/backend/cuda/prepared.h"
#include "moebench/backend/cutlass/forward.h"
#include "moebench/core/error.h"
#include "moebench/moe/reference.h"
#include "moebench/moe/verify.h"
#include "tests/cutlass/reference_grouped_gemm.h"
#include "tests/support/moe_cases.h"

namespace moebench::cutlass_moe {
namespace {

using moebench::testing::LayerCase;

int failures = 0;

void report(const std::string& what, const std::string& reason) {
  ++failures;
  std::printf("FAILED %s: %s\n", what.c_str(), reason.c_str());
}

/// `pick(low, high)`, both included.
template <typename Pick>
LayerCase random_case(Pick pick, std::uint64_t seed, ActType act) {
  MoeShape shape;
  shape.num_experts = pick(1, 40);
  shape.topk = pick(1, std::min<std::int64_t>(shape.num_experts, 8));
  shape.hidden = 32 * pick(1, 24);
  shape.intermediate = 32 * pick(1, 24);
  shape.act = act;
  const std::int64_t tokens = pick(0, 3) == 0 ? pick(1, 400) : pick(1, 40);
  return moebench::testing::synthetic_case(seed, shape, {.scheme = Scheme::kNvfp4}, tokens);
}

void check(cuda::CudaDevice& device, const LayerCase& layer, const GroupedGemm& gemm,
           std::uint64_t seed) {
  const MoeProblem& problem = layer.problem;
  const std::string what =
      fmt::format("{} {}", gemm.tile, moebench::testing::describe(seed, problem));
  const auto weights = std::make_shared<const CutlassWeights>(
      layer.weights, std::function<void(std::int64_t, std::int64_t)>{});
  const ReferenceRows reference =
      reference_forward(problem, layer.weights, moebench::testing::all_rows(problem), std::nullopt,
                        static_cast<int>(4));
  std::vector<std::uint16_t> first;
  for (const bool graph : {false, true}) {
    cuda::CudaPrepared prepared(
        device, problem,
        std::make_unique<CutlassForward>(problem, weights, gemm, device.hardware().multiprocessors),
        {.graph = graph});
    std::vector<std::uint16_t> y(problem.a.size(), 0);
    prepared.run(y);
    const Verdict verdict = judge(problem, reference, y, prepared.guard_damage());
    if (!verdict.passed()) report(what + (graph ? " (graph)" : ""), verdict.reason);
    if (graph && y != first) report(what, "the graph gives other bits");
    first = y;
    // As it is timed: enqueued without the host in between.
    prepared.enqueue();
    prepared.enqueue();
    if (!prepared.fetch(y) || y != first) report(what, "a second run gives other bits");
  }
}

int run(int rounds, std::uint64_t first_seed) {
  cuda::DeviceChoice choice =
      cuda::choose_device([](const cuda::DeviceFacts&) { return true; }, "any device");
  if (!choice.unusable.empty()) {
    std::printf("no device: %s\n", choice.unusable.c_str());
    return 1;
  }
  const int major = choice.facts.major;
  cuda::CudaDevice device(std::move(choice.facts));
  std::map<const GroupedGemm*, int> checked;
  for (const GroupedGemm* gemm : grouped_gemms()) {
    if (gemm->major == major) checked[gemm] = 0;
  }
  int cases = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t seed = first_seed + static_cast<std::uint64_t>(round);
    std::mt19937_64 random(seed);
    const auto pick = [&](std::int64_t low, std::int64_t high) {
      return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
    };
    const ActType act = pick(0, 1) == 0 ? ActType::kFp16 : ActType::kBf16;
    LayerCase layer = random_case(pick, seed, act);
    // Depths beyond any pipeline's stages, too.
    if (round % 8 == 7) {
      const MoeShape deep{
          .num_experts = 4, .topk = 2, .hidden = 7168, .intermediate = 2048, .act = act};
      layer =
          moebench::testing::synthetic_case(seed, deep, {.scheme = Scheme::kNvfp4}, pick(1, 12));
    }
    check(device, layer, testing::reference_gemm(act), seed);
    ++cases;
    for (auto& [gemm, count] : checked) {
      if (gemm->out != act) continue;
      check(device, layer, *gemm, seed);
      ++count;
      ++cases;
    }
  }
  for (const auto& [gemm, count] : checked) {
    if (count == 0) report(gemm->tile, "not checked; more rounds");
  }
  std::printf("%s, sm_%d%d: %d cases, %d failures\n", device.hardware().name.c_str(),
              device.hardware().major, device.hardware().minor, cases, failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace moebench::cutlass_moe

int main(int argc, char** argv) {
  try {
    return moebench::cutlass_moe::run(argc > 1 ? std::atoi(argv[1]) : 50,
                                      argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
