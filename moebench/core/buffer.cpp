// Host memory straight from mmap: zeroed without being touched, aligned to huge pages where that
// pays.
#include "moebench/core/buffer.h"

#include <sys/mman.h>

#include <atomic>
#include <limits>

#include "moebench/core/checked.h"
#include "moebench/core/error.h"

namespace moebench {
namespace {

std::atomic<std::int64_t> allocations_until_failure{0};

bool injected_failure() {
  return allocations_until_failure.load() > 0 && allocations_until_failure.fetch_sub(1) == 1;
}

constexpr std::int64_t kPageBytes = 4096;
// No address space is this large; below it the sums of the constructor cannot overflow.
constexpr std::int64_t kLargestBuffer =
    std::numeric_limits<std::int64_t>::max() - 2 * Buffer::kHugePageBytes;

[[noreturn]] void refuse(std::int64_t bytes) {
  fail(ErrorCode::kOutOfMemory,
       "memory: the system refused {} bytes; use fewer experts or a smaller batch", bytes);
}

}  // namespace

void fail_nth_allocation_for_testing(std::int64_t n) { allocations_until_failure = n; }

Buffer::Buffer(std::int64_t bytes) {
  if (bytes < 0) fail(ErrorCode::kInternal, "buffer: negative size {}", bytes);
  if (bytes == 0) return;
  if (bytes > kLargestBuffer || injected_failure()) refuse(bytes);
  // mmap gives zeroed pages without touching them; the alignment to a huge page is found inside a
  // larger mapping, whose ends go back at once.
  const bool huge = bytes >= kHugePageBytes;
  const std::int64_t length = round_up(bytes, kPageBytes);
  const std::int64_t mapped = huge ? length + kHugePageBytes : length;
  void* base = mmap(nullptr, static_cast<std::size_t>(mapped), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) refuse(bytes);
  auto* start = static_cast<std::byte*>(base);
  if (huge) {
    const auto address = reinterpret_cast<std::uintptr_t>(start);
    constexpr auto kAlign = static_cast<std::uintptr_t>(kHugePageBytes);
    const std::uintptr_t lead = (kAlign - address % kAlign) % kAlign;
    if (lead > 0) munmap(start, lead);
    const auto tail = static_cast<std::size_t>(mapped - length) - lead;
    if (tail > 0) munmap(start + lead + length, tail);
    start += lead;
    // Only advice: a refusal costs speed, nothing else.
    madvise(start, static_cast<std::size_t>(length), MADV_HUGEPAGE);
  }
  data_ = start;
  size_ = bytes;
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, static_cast<std::size_t>(round_up(size_, kPageBytes)));
}

}  // namespace moebench
