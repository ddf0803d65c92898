// Owned, aligned host memory. Large buffers ask for huge pages: weights are streamed, and 4 KiB
// pages cost TLB misses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

namespace moebench {

/// Bytes with 64-byte alignment (2 MiB and MADV_HUGEPAGE from kHugePageBytes on), zero-filled,
/// movable, not copyable. Throws Error(kOutOfMemory) with the size when the system refuses.
class Buffer {
 public:
  static constexpr std::int64_t kAlignment = 64;
  static constexpr std::int64_t kHugePageBytes = std::int64_t{2} << 20;

  Buffer() = default;
  explicit Buffer(std::int64_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  [[nodiscard]] std::byte* data() { return data_; }
  [[nodiscard]] const std::byte* data() const { return data_; }
  [[nodiscard]] std::int64_t size() const { return size_; }

  template <typename T>
  [[nodiscard]] std::span<T> as() {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    return {reinterpret_cast<T*>(data_), static_cast<std::size_t>(size_) / sizeof(T)};
  }
  template <typename T>
  [[nodiscard]] std::span<const T> as() const {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    return {reinterpret_cast<const T*>(data_), static_cast<std::size_t>(size_) / sizeof(T)};
  }

  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

 private:
  std::byte* data_ = nullptr;
  std::int64_t size_ = 0;
};

/// Fault injection for tests: the n-th Buffer allocation from now on fails as if memory were out (0
/// switches it off).
void fail_nth_allocation_for_testing(std::int64_t n);

}  // namespace moebench
