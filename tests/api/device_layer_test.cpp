// The device's layer as far as no device is needed: what is refused, and what is said where there
// is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "moebench/backend/backend.h"
#include "tests/api/caller_layer.h"

namespace moebench::testing {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kSeed = 5;
constexpr MoeShape kShape = {.num_experts = 3, .topk = 2, .hidden = 64, .intermediate = 32};

CallerLayer layer_of(Scheme scheme) {
  return caller_layer(synthetic_case(kSeed, kShape, {.scheme = scheme}, 4), ScaleLayout::kLinear);
}

bool device_here() {
  for (const auto& backend : make_backends({})) {
    if (backend->device() != nullptr) return true;
  }
  return false;
}

template <typename Make>
std::string refusal(ErrorCode code, Make make) {
  try {
    make();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return {};
}

TEST(DeviceMoeLayer, WithoutADeviceTheCauseIsSaid) {
  if (device_here()) GTEST_SKIP() << "there is a device";
  const CallerLayer fp4 = layer_of(Scheme::kNvfp4);
  EXPECT_THAT(refusal(ErrorCode::kUnavailable,
                      [&] { DeviceMoeLayer(fp4.w1, fp4.w2, fp4.sizes, fp4.nvfp4()); }),
              HasSubstr("cuda: "));
  const CallerLayer fp8 = layer_of(Scheme::kFp8Block);
  EXPECT_THAT(refusal(ErrorCode::kUnavailable,
                      [&] { DeviceMoeLayer(fp8.w1, fp8.w2, fp8.sizes, fp8.fp8()); }),
              HasSubstr("cuda: "));
}

TEST(DeviceMoeLayer, SizesAreCheckedBeforeADeviceIsLookedFor) {
  const CallerLayer fp4 = layer_of(Scheme::kNvfp4);
  MoeSizes sizes = fp4.sizes;
  ++sizes.e;
  EXPECT_THAT(
      refusal(ErrorCode::kBadInput, [&] { DeviceMoeLayer(fp4.w1, fp4.w2, sizes, fp4.nvfp4()); }),
      HasSubstr("w1_fp4"));
  sizes = fp4.sizes;
  sizes.k = 72;
  EXPECT_THAT(
      refusal(ErrorCode::kBadInput, [&] { DeviceMoeLayer(fp4.w1, fp4.w2, sizes, fp4.nvfp4()); }),
      HasSubstr("72"));
}

TEST(DeviceMoeLayer, ATokensOwnScaleIsNotLookedForOnADevice) {
  const CallerLayer fp8 = layer_of(Scheme::kFp8);
  Fp8MoeQuantConfig config = fp8.fp8();
  config.a1_scale = 0.0F;
  EXPECT_THAT(
      refusal(ErrorCode::kBadInput, [&] { DeviceMoeLayer(fp8.w1, fp8.w2, fp8.sizes, config); }),
      HasSubstr("a1_scale"));
}

TEST(DeviceMoeLayer, PacksArraysOfTheHostWhereThereIsADevice) {
  if (!device_here()) GTEST_SKIP() << "no device";
  const CallerLayer fp4 = layer_of(Scheme::kNvfp4);
  DeviceMoeLayer layer(fp4.w1, fp4.w2, fp4.sizes, fp4.nvfp4());
  EXPECT_GT(layer.packed_bytes(), 0);
  layer.prepare(4);
  EXPECT_THAT(refusal(ErrorCode::kBadInput,
                      [&] { layer.run(nullptr, nullptr, nullptr, 4, nullptr, nullptr); }),
              HasSubstr("a: is null"));
}

}  // namespace
}  // namespace moebench::testing
