// The bound that MOEBENCH_ISA puts on run-time dispatch.
#include "moebench/core/vector_isa.h"

#include <gtest/gtest.h>

namespace moebench {
namespace {

TEST(VectorIsa, BoundIsTheNamedLevel) {
  for (const VectorIsa isa : kVectorIsas) EXPECT_EQ(vector_isa_bound(name_of(isa)), isa);
}

TEST(VectorIsa, FinerAndUnknownNamesBoundNothing) {
  for (const char* name : {"", "avx512_bf16", "amx", "AVX2", "neon"}) {
    EXPECT_EQ(vector_isa_bound(name), VectorIsa::kAvx512) << name;
  }
}

TEST(VectorIsa, EveryCpuHasThePortableLevelAndNoGaps) {
  EXPECT_TRUE(cpu_has(VectorIsa::kPortable));
  EXPECT_TRUE(cpu_has(VectorIsa::kAvx2) || !cpu_has(VectorIsa::kAvx512));
}

}  // namespace
}  // namespace moebench
