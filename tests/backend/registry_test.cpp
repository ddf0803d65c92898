// The list of backends and the names that tables carry.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "moebench/backend/backend.h"

namespace moebench {
namespace {

TEST(Registry, CudaIsNamedAndSaysWhyItIsNotThere) {
  for (const auto& backend : make_backends({})) {
    const BackendInfo info = backend->info();
    if (info.name != "cuda") continue;
    EXPECT_NE(info.available.ok, backend->kernels().empty());
    EXPECT_EQ(info.available.ok, info.available.reason.empty()) << info.available.reason;
    return;
  }
  FAIL() << "no cuda entry";
}

TEST(Registry, CutlassIsNamedAndSaysWhyItIsNotThere) {
  for (const auto& backend : make_backends({})) {
    const BackendInfo info = backend->info();
    if (info.name != "cutlass") continue;
    EXPECT_NE(info.available.ok, backend->kernels().empty());
    EXPECT_EQ(info.available.ok, info.available.reason.empty()) << info.available.reason;
    return;
  }
  FAIL() << "no cutlass entry";
}

TEST(Registry, TritonIsNamedAndSharesTheDeviceOfCuda) {
  const auto backends = make_backends({});
  const auto named = [&](const std::string& name) {
    return std::find_if(backends.begin(), backends.end(),
                        [&](const auto& backend) { return backend->name() == name; });
  };
  ASSERT_NE(named("triton"), backends.end());
  const Backend& triton = **named("triton");
  const BackendInfo info = triton.info();
  EXPECT_EQ(info.available.ok, info.available.reason.empty()) << info.available.reason;
  EXPECT_NE(info.available.ok, triton.kernels().empty());
  EXPECT_TRUE(triton.is_companion());
  if (info.available.ok) {
    EXPECT_EQ(triton.device(), (*named("cuda"))->device());
  }
}

TEST(Registry, CpuOffersOneKernelPerScheme) {
  std::set<std::string> names;
  std::set<Scheme> schemes;
  for (const auto& backend : make_backends({})) {
    if (backend->info().name != "cpu") continue;
    for (const auto& kernel : backend->kernels()) {
      names.insert(kernel->name());
      schemes.insert(kernel->scheme());
    }
  }
  EXPECT_EQ(names, (std::set<std::string>{"cpu_moe_fp4", "cpu_moe_fp4_w4a16", "cpu_moe_fp8",
                                          "cpu_moe_fp8_block"}));
  EXPECT_EQ(schemes.size(), std::size(kAllSchemes));
}

}  // namespace
}  // namespace moebench
