// Buffer: alignment, zero fill, ownership, and what happens when memory is out.
#include "moebench/core/buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "moebench/core/error.h"

namespace moebench {
namespace {

using ::testing::HasSubstr;
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

class BufferOfSize : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(BufferOfSize, IsAlignedZeroedAndWritableToItsLastByte) {
  Buffer buffer(GetParam());
  ASSERT_EQ(buffer.size(), GetParam());
  const auto address = reinterpret_cast<std::uintptr_t>(buffer.data());
  EXPECT_EQ(address % Buffer::kAlignment, 0U);
  if (GetParam() >= Buffer::kHugePageBytes) {
    EXPECT_EQ(address % Buffer::kHugePageBytes, 0U);
  }
  const auto bytes = buffer.as<std::uint8_t>();
  ASSERT_EQ(bytes.size(), static_cast<std::size_t>(GetParam()));
  EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; }));
  std::fill(bytes.begin(), bytes.end(), std::uint8_t{0xA5});
  EXPECT_EQ(std::as_const(buffer).as<std::uint8_t>().back(), 0xA5);
}
INSTANTIATE_TEST_SUITE_P(Edges, BufferOfSize,
                         ::testing::Values(1, 63, 64, 4095, 4096, 4097, Buffer::kHugePageBytes - 1,
                                           Buffer::kHugePageBytes, Buffer::kHugePageBytes + 1,
                                           3 * Buffer::kHugePageBytes + 12345));

TEST(Buffer, IsEmptyByDefaultAndForZeroBytes) {
  Buffer none;
  EXPECT_EQ(none.data(), nullptr);
  EXPECT_EQ(none.size(), 0);
  EXPECT_TRUE(none.as<float>().empty());
  Buffer zero(0);
  EXPECT_EQ(zero.data(), nullptr);
  EXPECT_EQ(zero.size(), 0);
}

TEST(Buffer, ViewsWholeElementsOnly) {
  Buffer buffer(11);
  EXPECT_EQ(buffer.as<std::uint32_t>().size(), 2U);
  EXPECT_EQ(std::as_const(buffer).as<std::uint64_t>().size(), 1U);
}

TEST(Buffer, MovesItsMemoryAndLeavesAnEmptyOne) {
  Buffer a(100);
  std::byte* const memory = a.data();
  a.data()[99] = std::byte{7};
  Buffer b(std::move(a));
  EXPECT_EQ(b.data(), memory);
  EXPECT_EQ(b.data()[99], std::byte{7});
  Buffer c(Buffer::kHugePageBytes);
  c = std::move(b);
  EXPECT_EQ(c.data(), memory);
  EXPECT_EQ(c.size(), 100);
  Buffer d;
  c.swap(d);
  EXPECT_EQ(c.size(), 0);
  EXPECT_EQ(d.data(), memory);
}

TEST(Buffer, SurvivesMoveToItself) {
  Buffer a(100);
  a.data()[0] = std::byte{7};
  Buffer& same = a;
  a = std::move(same);
  EXPECT_EQ(a.size(), 100);
  EXPECT_EQ(a.data()[0], std::byte{7});
}

class BufferRefused : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(BufferRefused, SaysHowManyBytesWereAskedFor) {
  try {
    const Buffer buffer(GetParam());
    FAIL() << "got " << buffer.size() << " bytes";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(GetParam()) + " bytes"));
  }
}
INSTANTIATE_TEST_SUITE_P(HugeSizes, BufferRefused,
                         ::testing::Values(std::int64_t{1} << 56, std::int64_t{1} << 62,
                                           kMax - 2 * Buffer::kHugePageBytes,
                                           kMax - Buffer::kHugePageBytes, kMax - 4096, kMax - 4095,
                                           kMax));

TEST(Buffer, RejectsANegativeSizeAsOurOwnMistake) {
  try {
    const Buffer buffer(-1);
    FAIL() << "got " << buffer.size() << " bytes";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_THAT(error.what(), HasSubstr("-1"));
  }
}

TEST(FaultInjection, FailsExactlyTheNthAllocation) {
  fail_nth_allocation_for_testing(3);
  const Buffer first(10);
  const Buffer second(Buffer::kHugePageBytes);
  try {
    const Buffer third(77);
    FAIL() << "the third allocation succeeded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory);
    EXPECT_THAT(error.what(), HasSubstr("77 bytes"));
  }
  const Buffer fourth(77);
  EXPECT_EQ(fourth.size(), 77);
}

TEST(FaultInjection, IsSwitchedOffByZero) {
  fail_nth_allocation_for_testing(1);
  fail_nth_allocation_for_testing(0);
  const Buffer buffer(10);
  EXPECT_EQ(buffer.size(), 10);
}

TEST(FaultInjection, DoesNotCountEmptyBuffers) {
  fail_nth_allocation_for_testing(1);
  const Buffer empty(0);
  EXPECT_EQ(empty.size(), 0);
  EXPECT_THROW(Buffer(1), Error);
}

}  // namespace
}  // namespace moebench
