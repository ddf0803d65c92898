// The list of backends and the names that tables carry.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "moebench/backend/backend.h"

namespace moebench {
namespace {

TEST(Registry, CudaIsNamedAndSaysWhyItIsNotThere) {
  for (const auto& backend : make_backends({})) {
    if (backend->info().name != "cuda") continue;
    EXPECT_FALSE(backend->info().available.ok);
    EXPECT_THAT(backend->info().available.reason, ::testing::HasSubstr("built without CUDA"));
    EXPECT_TRUE(backend->kernels().empty());
    return;
  }
  FAIL() << "no cuda entry";
}

TEST(Registry, CpuOffersOneKernelPerScheme) {
  std::set<std::string> names;
  std::set<Scheme> schemes;
  for (const auto& backend : make_backends({})) {
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
