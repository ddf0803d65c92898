// See kernel_runner.h.
#include "tests/backend/cpu/kernel_runner.h"

#include <algorithm>
#include <array>
#include <ostream>
#include <random>
#include <stdexcept>

#include "moebench/backend/cpu/cpu_backend.h"
#include "tests/backend/cpu/amx_emulated.h"

namespace moebench::testing {
namespace {

template <std::size_t kCount>
std::int64_t pick(std::mt19937_64& random, const std::array<std::int64_t, kCount>& values) {
  return values[random() % kCount];
}

constexpr const char* kAmxEmulated = "amx_emulated";

/// Multiply-adds of one case: the oracle's double-precision pass over it takes some 10 ms.
constexpr std::int64_t kMaxMacs = 2'000'000;

MoeShape random_shape(std::mt19937_64& random, const SchemeCase& scheme_case) {
  static constexpr std::array<std::int64_t, 11> kGroups16 = {16,  16,  32,  48,  64, 80,
                                                             112, 128, 144, 256, 272};
  static constexpr std::array<std::int64_t, 20> kAnySize = {
      1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 96, 127, 128, 129, 200, 255, 257};
  static constexpr std::array<std::int64_t, 6> kExperts = {1, 2, 3, 5, 8, 9};
  const bool nvfp4 = weight_format(scheme_case.scheme) == WeightFormat::kNvfp4;
  const auto size = [&] { return nvfp4 ? pick(random, kGroups16) : pick(random, kAnySize); };
  MoeShape shape{.num_experts = pick(random, kExperts),
                 .hidden = size(),
                 .intermediate = size(),
                 .act = scheme_case.act};
  shape.topk =
      1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(shape.num_experts));
  return shape;
}

}  // namespace

std::string isa_absence(const std::string& isa) {
  if (isa == kAmxEmulated) {
    if (!cpu::detect_cpu_features().avx512_vnni) return "this CPU has no avx512_vnni";
    return amx_emulated_kernels() == nullptr ? "this build leaves amx out" : "";
  }
  for (const cpu::IsaChoice& choice : cpu::isa_choices(cpu::detect_cpu_features())) {
    if (choice.name == isa) return choice.support.ok ? "" : choice.support.reason;
  }
  throw std::invalid_argument("no ISA " + isa);
}

const cpu::CpuKernels& kernels_of(const std::string& isa) {
  if (isa == kAmxEmulated) return *amx_emulated_kernels();
  return cpu::select_kernels(cpu::isa_choices(cpu::detect_cpu_features()), isa, "test");
}

std::unique_ptr<Kernel> cpu_kernel(Scheme scheme, const std::string& isa, int threads) {
  if (isa == kAmxEmulated) {
    for (auto& kernel : cpu::make_cpu_backend(*amx_emulated_kernels(), threads)->kernels()) {
      if (kernel->scheme() == scheme) return std::move(kernel);
    }
  }
  for (auto& backend : make_backends({.threads = threads, .forced_isa = isa})) {
    if (backend->info().name != "cpu") continue;
    for (auto& kernel : backend->kernels()) {
      if (kernel->scheme() == scheme) return std::move(kernel);
    }
  }
  throw std::logic_error("no CPU kernel for the scheme");
}

KernelAnswer run_kernel(const LayerCase& layer, const std::string& isa, int threads) {
  const auto kernel = cpu_kernel(layer.problem.scheme.scheme, isa, threads);
  const auto prepared = kernel->prepare(layer.problem, kernel->pack(layer.weights, {}));
  GuardedOutput output(layer.problem.tokens, layer.problem.shape.hidden);
  output.poison();
  prepared->run(output.y());
  return {{output.y().begin(), output.y().end()}, prepared->dynamic_scale(), output.guard_damage()};
}

Verdict check_answer(const LayerCase& layer, const KernelAnswer& answer) {
  const ReferenceRows reference =
      reference_forward(layer.problem, layer.weights, all_rows(layer.problem), answer.claim, 1);
  return judge(layer.problem, reference, answer.y, answer.guard_damage);
}

LayerCase random_case(std::uint64_t seed, const SchemeCase& scheme_case) {
  static constexpr std::array<std::int64_t, 16> kTokens = {0,  1,  1,  2,  3,  5,  6,  7,
                                                           11, 12, 13, 24, 25, 33, 70, 257};
  static constexpr std::array<const char*, 5> kRoutings = {"uniform", "uniform", "zipf:1.5",
                                                           "hot:1@0.9", "single"};
  std::mt19937_64 random(seed);
  for (;;) {
    const MoeShape shape = random_shape(random, scheme_case);
    const std::int64_t tokens = pick(random, kTokens);
    if (tokens * shape.topk * 3 * shape.hidden * shape.intermediate > kMaxMacs) continue;
    const RoutingSpec spec = parse_routing(kRoutings[random() % kRoutings.size()]);
    Routing routing = make_routing(spec, seed, tokens, shape.num_experts, shape.topk, true);
    return {synthetic_problem(seed, shape, scheme_case.scheme, tokens, std::move(routing),
                              calibrate(seed, shape)),
            synthetic_weights(seed, shape, weight_format(scheme_case.scheme))};
  }
}

std::vector<IsaScheme> all_isa_schemes() {
  std::vector<IsaScheme> out;
  for (const char* isa : kIsas) {
    for (const SchemeCase& scheme_case : all_scheme_cases()) out.push_back({isa, scheme_case});
  }
  return out;
}

std::string name_of(const IsaScheme& isa_scheme) {
  return isa_scheme.isa + "_" + name_of(isa_scheme.scheme_case);
}

void PrintTo(const IsaScheme& isa_scheme, std::ostream* out) { *out << name_of(isa_scheme); }

}  // namespace moebench::testing
