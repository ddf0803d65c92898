// Which ISA runs: the fastest that CPU and build have, or the one that was asked for, or an error
// that names the choices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "moebench/backend/cpu/cpu_features.h"
#include "tests/backend/cpu/kernel_runner.h"

namespace moebench::cpu {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ScopedIsaVariable {
 public:
  explicit ScopedIsaVariable(const char* value) { setenv("MOEBENCH_ISA", value, 1); }
  ~ScopedIsaVariable() { unsetenv("MOEBENCH_ISA"); }
};

Error error_of(const std::vector<IsaChoice>& choices, std::string_view forced) {
  try {
    static_cast<void>(select_kernels(choices, forced, "MOEBENCH_ISA"));
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::kInternal, "no error"};
}

std::string cpu_detail(const BackendOptions& options) {
  for (const auto& backend : make_backends(options)) {
    if (backend->info().name == "cpu") return backend->info().detail;
  }
  return "no cpu backend";
}

TEST(CpuDispatch, ACpuWithoutVectorUnitsRunsPortable) {
  EXPECT_STREQ(select_kernels(isa_choices(CpuFeatures{}), "", "").isa, "portable");
}

/// The tables of absent ISAs are not even asked for: filling one may take instructions that the CPU
/// lacks.
TEST(CpuDispatch, TablesOfAbsentIsasAreNotTouched) {
  for (const IsaChoice& choice : isa_choices(CpuFeatures{})) {
    EXPECT_EQ(choice.kernels != nullptr, choice.name == "portable") << choice.name;
  }
}

TEST(CpuDispatch, ForcedIsaThatTheCpuLacksIsUnavailable) {
  const Error error = error_of(isa_choices(CpuFeatures{}), "avx512");
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("MOEBENCH_ISA: "), HasSubstr("CPU has no avx512"),
                                  HasSubstr("portable")));
}

TEST(CpuDispatch, ForcedIsaThatTheBuildLacksIsUnavailable) {
  const std::vector<IsaChoice> choices = {
      {"avx512", nullptr, Support::no("this build leaves avx512 out")},
      {"portable", portable_kernels(), Support::yes()}};
  const Error error = error_of(choices, "avx512");
  EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
  EXPECT_THAT(error.what(), HasSubstr("build leaves avx512 out"));
}

TEST(CpuDispatch, UnknownIsaIsBadInputAndListsTheNames) {
  const Error error = error_of(isa_choices(detect_cpu_features()), "sse9\n");
  EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  EXPECT_THAT(error.what(), AllOf(HasSubstr("sse9"), HasSubstr("portable"), HasSubstr("avx2"),
                                  HasSubstr("avx512"), HasSubstr("avx512_bf16")));
  EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
}

std::string fastest_of(const CpuFeatures& features) {
  for (const IsaChoice& choice : isa_choices(features)) {
    if (choice.kernels != nullptr) return std::string(choice.name);
  }
  return "none";
}

/// As a CPU that lacks all that this one lacks, so that no table is made that it could not run.
TEST(CpuDispatch, HalfRateBf16ComesAfterIntegersAndFp32) {
  CpuFeatures features = detect_cpu_features();
  if (!features.avx512_bf16) GTEST_SKIP() << "this CPU has no avx512_bf16";
  features.amx = false;
  features.half_rate_bf16 = false;
  EXPECT_EQ(fastest_of(features), "avx512_bf16");
  features.half_rate_bf16 = true;
  EXPECT_EQ(fastest_of(features), "avx512_vnni");
  features.avx512_vnni = false;
  features.avx512_bf16 = false;
  EXPECT_EQ(fastest_of(features), "avx512");
}

TEST(CpuDispatch, AmxGoesBeforeEverything) {
  EXPECT_EQ(isa_choices(CpuFeatures{}).front().name, "amx");
  CpuFeatures features;
  features.half_rate_bf16 = true;
  EXPECT_EQ(isa_choices(features).front().name, "amx");
}

TEST(CpuDispatch, EnvironmentForcesAnIsa) {
  const ScopedIsaVariable variable("portable");
  EXPECT_EQ(cpu_detail({}), "portable");
}

TEST(CpuDispatch, OptionGoesBeforeTheEnvironment) {
  const ScopedIsaVariable variable("no_such_isa");
  EXPECT_EQ(cpu_detail({.threads = 0, .forced_isa = "portable"}), "portable");
  EXPECT_THROW(static_cast<void>(make_backends({})), Error);
}

TEST(CpuDispatch, EachSupportedIsaRunsUnderItsOwnName) {
  for (const IsaChoice& choice : isa_choices(detect_cpu_features())) {
    if (!choice.support.ok) continue;
    EXPECT_EQ(choice.kernels->isa, choice.name);
    EXPECT_THAT(cpu_detail({.threads = 1, .forced_isa = std::string(choice.name)}),
                ::testing::StartsWith(std::string(choice.name)));
  }
}

TEST(CpuDispatch, KernelsNameWhatRuns) {
  EXPECT_EQ(moebench::testing::cpu_kernel(Scheme::kNvfp4, "portable", 3)->detail(),
            "portable, 3 threads");
}

TEST(CpuDispatch, NegativeThreadsAreBadInput) {
  try {
    static_cast<void>(make_backends({.threads = -1, .forced_isa = ""}));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
  }
}

}  // namespace
}  // namespace moebench::cpu
