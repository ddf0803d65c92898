// The emulated device catches what it is there to catch: small kernels that are right pass, and
// with one defect they are refused for that reason.
#include <cuda_runtime.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "moebench/backend/cuda/layout.h"
#include "moebench/core/dtype.h"
#include "tests/cuda/emulated/emulator.h"
// By its full path: the project's own ptx.cuh has the same name.
#include "tests/cuda/emulated/include/moebench/backend/cuda/ptx.cuh"

namespace moebench::cuda {
namespace {

using emulated::Launch;

/// Several of each of the 4 x 3 characters that a seed may have, see reseed() in emulator.cpp.
constexpr std::uint64_t kSeeds = 36;
constexpr unsigned kWarp = 32;
constexpr unsigned kWarpgroup = 128;
constexpr std::uint32_t kSharedBytes = 16 << 10;
constexpr std::uint32_t kAllLanes = 0xFFFFFFFF;

Launch one_block(unsigned threads, std::function<void()> kernel) {
  return {{1, 1, 1}, {threads, 1, 1}, kSharedBytes, false, std::move(kernel)};
}

/// The Fault's text; empty where there is none.
std::string run(const std::vector<Launch>& launches, std::uint64_t seed, int multiprocessors = 4) {
  emulated::settings() = {seed, multiprocessors};
  try {
    for (const Launch& launch : launches) emulated::launch(launch);
    emulated::synchronize();
  } catch (const emulated::Fault& fault) {
    return fault.what();
  }
  return "";
}

/// An empty text: it is right. `for_some`: a defect that no one notices where copies are prompt.
void expect(const Launch& launch, const std::string& text, bool for_some = false) {
  int shown = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const std::string fault = run({launch}, seed);
    if (for_some && fault.empty()) continue;
    EXPECT_TRUE(text.empty() ? fault.empty() : fault.find(text) != std::string::npos)
        << "seed " << seed << ": '" << fault << "' instead of '" << text << "'";
    ++shown;
  }
  EXPECT_GT(shown, 0) << "no seed shows: " << text;
}

/// What to change in the steps of a kernel that is right, and the text of the Fault (empty: none).
template <typename Steps>
struct Defect {
  const char* text;
  void (*change)(Steps&);
  bool for_some = false;
};

/// Device memory that holds 0, 1, 2, ...
class Source {
 public:
  static constexpr std::uint32_t kBytes = 4096;
  Source() {
    cudaMalloc(&bytes_, kBytes);
    std::iota(bytes_, bytes_ + kBytes, std::uint8_t{0});
  }
  ~Source() { cudaFree(bytes_); }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  [[nodiscard]] std::uint8_t* data() const { return bytes_; }

 private:
  std::uint8_t* bytes_ = nullptr;
};

std::uint32_t shared_base() { return ptx::shared_address(ptx::dynamic_shared()); }

// ---------------------------------------------------------------- warps and blocks

TEST(Emulator, WarpCollectives) {
  constexpr unsigned kThreads = 2 * kWarp;
  std::array<std::array<unsigned, 5>, kThreads> got{};
  const Launch launch = one_block(kThreads, [&got] {
    const unsigned t = threadIdx.x;
    got[t] = {__shfl_sync(kAllLanes, t, 7), __shfl_up_sync(kAllLanes, t, 3),
              __shfl_xor_sync(kAllLanes, t, 5), __reduce_max_sync(kAllLanes, t ^ 9),
              __match_any_sync(kAllLanes, static_cast<int>(t % 4))};
  });
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    got = {};
    ASSERT_EQ(run({launch}, seed), "");
    for (unsigned t = 0; t < kThreads; ++t) {
      const unsigned first = t / kWarp * kWarp;
      EXPECT_EQ(got[t], (std::array<unsigned, 5>{first + 7, t - first < 3 ? t : t - 3, t ^ 5,
                                                 first + kWarp - 1, 0x11111111U << t % 4}));
    }
  }
}

TEST(Emulator, LanesThatDisagree) {
  const auto kernel = [](auto lane_3) {
    return one_block(2 * kWarp, [lane_3] {
      if (threadIdx.x == kWarp + 3) {
        lane_3();
      } else {
        __shfl_sync(kAllLanes, 0, 0);
      }
    });
  };
  expect(kernel([] { __shfl_sync(kAllLanes, 0, 0); }), "");
  expect(kernel([] {}), "");  // ended lanes need not come
  expect(kernel([] { __syncwarp(); }),
         "block 0 thread 35: __syncwarp, while other lanes of the warp are at __shfl_sync");
  expect(kernel([] { ptx::named_barrier(1, 64); }),
         "31 threads (first: block 0 thread 32) wait for the other lanes of their warps");
}

TEST(Emulator, RegistersThatABlockHasNot) {
  const auto kernel = [](auto first_half) {
    return one_block(
        384, [first_half] { threadIdx.x < 256 ? first_half() : ptx::fewer_registers<40>(); });
  };
  expect(kernel([] { ptx::more_registers<232>(); }), "");
  expect(kernel([] { ptx::more_registers<240>(); }), "deadlock: ");
  expect(kernel([] { ptx::more_registers<160>(); }), "setmaxnreg from 168 to 160");
}

TEST(Emulator, SyncthreadsSeparatesWritesFromReads) {
  constexpr unsigned kThreads = 4 * kWarp;
  std::array<unsigned, kThreads> got{};
  const auto wrong_for = [&got](bool separate, std::uint64_t seed) {
    const Launch launch = one_block(kThreads, [&got, separate] {
      auto* const shared = reinterpret_cast<unsigned*>(ptx::dynamic_shared());
      shared[threadIdx.x] = threadIdx.x;
      if (separate) __syncthreads();
      got[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
    });
    EXPECT_EQ(run({launch}, seed), "");
    int wrong = 0;
    for (unsigned t = 0; t < kThreads; ++t) wrong += got[t] != kThreads - 1 - t;
    return wrong;
  };
  std::set<int> wrong;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    EXPECT_EQ(wrong_for(true, seed), 0);
    wrong.insert(wrong_for(false, seed));
  }
  EXPECT_GT(*wrong.begin(), 0);  // whichever warp is first reads what no one has written
}

TEST(Emulator, SyncthreadsNeedsAllLiveThreads) {
  const auto kernel = [](unsigned first, unsigned count, auto instead) {
    return one_block(2 * kWarp, [first, count, instead] {
      threadIdx.x - first < count ? instead() : __syncthreads();
    });
  };
  expect(kernel(40, 1, [] { __syncthreads(); }), "");
  expect(kernel(32, kWarp, [] {}), "");  // a warp that has ended
  const auto elsewhere = [] { ptx::named_barrier(3, 64); };
  expect(kernel(40, 1, elsewhere),
         "63 threads (first: block 0 thread 0) wait for barrier 0; "
         "1 threads (first: block 0 thread 40) wait for barrier 3");
  expect(kernel(32, kWarp, elsewhere),
         "32 threads (first: block 0 thread 0) wait for barrier 0; "
         "32 threads (first: block 0 thread 32) wait for barrier 3");
}

TEST(Emulator, NamedBarriers) {
  // Two pairs of warps, each with a barrier; what the second warp of the first pair does varies.
  const auto kernel = [](auto warp_1) {
    return one_block(4 * kWarp, [warp_1] {
      for (int round = 0; round < 3; ++round) {
        if (threadIdx.x / kWarp == 1) {
          warp_1();
        } else {
          ptx::named_barrier(threadIdx.x < 2 * kWarp ? 1 : 2, 2 * kWarp);
        }
      }
    });
  };
  expect(kernel([] { ptx::named_barrier(1, 2 * kWarp); }), "");
  expect(kernel([] { ptx::named_barrier(1, 3 * kWarp); }), "which others use with");
  expect(kernel([] {}), "deadlock: 32 threads (first: block 0 thread 0) wait for barrier 1");
  expect(kernel([] { ptx::named_barrier(16, 2 * kWarp); }), "there is no barrier 16");
}

// ---------------------------------------------------------------- blocks and launches

TEST(Emulator, BlocksThatWaitForAnother) {
  const auto outcome = [](std::uint32_t shared_bytes, int multiprocessors, std::uint64_t seed) {
    std::int32_t flag = 0;
    std::int32_t data = 0;
    int seen = 0;
    const auto kernel = [&] {
      if (blockIdx.x == 0) {
        while (ptx::load_acquire(&flag) == 0) continue;
        seen += data;
      } else if (threadIdx.x == 0) {
        data = 1;
        ptx::store_release(&flag, 1);
      }
    };
    const Launch launch{{2, 1, 1}, {kWarp, 1, 1}, shared_bytes, false, kernel};
    const std::string fault = run({launch}, seed, multiprocessors);
    EXPECT_EQ(seen, fault.empty() ? int{kWarp} : 0);
    return fault;
  };
  const std::string never =
      "emulated kernel: deadlock: 32 threads (first: block 0 thread 0) wait for a value in memory";
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    EXPECT_EQ(outcome(kSharedBytes, 2, seed), "");
    EXPECT_EQ(outcome(kSharedBytes, 1, seed), never);
    EXPECT_EQ(outcome(0, 2, seed), never);  // such blocks come one after the other
  }
}

TEST(Emulator, ProgrammaticDependentLaunch) {
  constexpr unsigned kBlocks = 6;
  /// What the second kernel's blocks find done of the first, at least, and the early starts.
  using Outcome = std::pair<int, std::int64_t>;
  const auto outcome = [](bool overlaps, bool allows, bool waits, std::uint64_t seed) {
    std::array<int, kBlocks> done{};
    int least = kBlocks;
    const auto first = [&] {
      if (allows) ptx::allow_next_kernel();
      for (int round = 0; round < 4; ++round) __syncthreads();
      done[blockIdx.x] = 1;
    };
    const auto second = [&] {
      if (waits) ptx::wait_for_previous_kernel();
      least = min(least, std::accumulate(done.begin(), done.end(), 0));
    };
    const emulated::Index grid{kBlocks, 1, 1};
    const emulated::Index block{2 * kWarp, 1, 1};
    const std::int64_t before = emulated::statistics().early_starts;
    EXPECT_EQ(run({{grid, block, kSharedBytes, false, first},
                   {grid, block, kSharedBytes, overlaps, second}},
                  seed),
              "");
    return Outcome{least, emulated::statistics().early_starts - before};
  };
  int missed = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    EXPECT_EQ(outcome(true, true, true, seed), Outcome(kBlocks, 1));
    // Without the launch's attribute or the first kernel's permission they do not overlap.
    EXPECT_EQ(outcome(false, true, false, seed), Outcome(kBlocks, 0));
    EXPECT_EQ(outcome(true, false, false, seed), Outcome(kBlocks, 0));
    missed += outcome(true, true, false, seed).first < int{kBlocks};
  }
  EXPECT_GT(missed, 0) << "no seed shows the missing wait";
}

TEST(Emulator, Clusters) {
  constexpr unsigned kBlocks = 6;
  constexpr unsigned kCluster = 3;
  struct Steps {
    bool waits_before = true, waits_after = true;
  };
  /// Reads that found another value than the other block's, or the fault.
  const auto outcome = [](Steps steps, std::uint64_t seed) {
    int wrong = 0;
    Launch launch{{kBlocks, 1, 1}, {2 * kWarp, 1, 1}, kSharedBytes, false, [&] {
                    auto* const values = reinterpret_cast<std::int32_t*>(ptx::dynamic_shared());
                    const auto value_of = [](unsigned block) {
                      return static_cast<std::int32_t>(1000 * block + threadIdx.x);
                    };
                    values[threadIdx.x] = value_of(blockIdx.x);
                    if (steps.waits_before) {
                      ptx::cluster_arrive();
                      ptx::cluster_wait();
                    }
                    const unsigned rank = (blockIdx.x + 1) % kCluster;
                    const std::int32_t found =
                        ptx::load_cluster(values + threadIdx.x, static_cast<int>(rank));
                    wrong += found != value_of(blockIdx.x / kCluster * kCluster + rank);
                    if (!steps.waits_after) return;
                    ptx::cluster_arrive();
                    ptx::cluster_wait();
                  }};
    launch.cluster = kCluster;
    // One multiprocessor: a cluster is begun as a whole all the same.
    const std::string fault = run({launch}, seed, 1);
    return fault.empty() ? fmt::format("{} wrong", wrong) : fault;
  };
  int early = 0;
  int late = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    EXPECT_EQ(outcome({}, seed), "0 wrong");
    early += outcome({false, true}, seed) != "0 wrong";
    late += outcome({true, false}, seed).find("which has ended") != std::string::npos;
  }
  EXPECT_GT(early, 0) << "no seed shows the missing wait for what others write";
  EXPECT_GT(late, 0) << "no seed shows a block that ends while another reads its memory";
}

// ---------------------------------------------------------------- mbarriers and copies

constexpr std::uint32_t kTarget = 1024;
constexpr std::uint32_t kCopied = 16 * kWarp;

/// A warp copies kCopied bytes and reads them. As it stands it is right.
struct CopySteps {
  std::uint32_t barrier = 0, to = kTarget;  ///< offsets in shared memory
  std::uint32_t from = 0, bytes = kCopied, expected = kCopied, parity = 0, shift = 0;
  int arrivals = 1, copies = 1;
  bool from_host = false, barrier_made = true, waits = true, reads = true;

  void operator()(const std::uint8_t* source, std::uint8_t* out) const {
    const std::uint32_t mbarrier = shared_base() + barrier;
    if (threadIdx.x == 0 && barrier_made) ptx::barrier_init(mbarrier, 1);
    __syncwarp();
    if (threadIdx.x == 0) {
      for (int i = 0; i < arrivals; ++i) ptx::barrier_expect(mbarrier, expected);
      for (int i = 0; i < copies; ++i) {
        ptx::copy_to_shared(shared_base() + to, source + from, bytes, mbarrier, 0);
      }
    }
    if (waits) ptx::barrier_wait(mbarrier, parity);
    if (!reads) return;
    const uint4 v = ptx::load_shared_16(shared_base() + to + shift + 16 * threadIdx.x);
    std::memcpy(out + 16 * threadIdx.x, &v, sizeof v);
  }
};

TEST(Emulator, BulkCopies) {
  const std::vector<Defect<CopySteps>> defects = {
      {"", [](auto&) {}},
      {"", [](auto& s) { s.to = kSharedBytes - kCopied; }},
      {"", [](auto& s) { s.from = Source::kBytes - kCopied; }},
      {"mbarrier at 0x410 was not initialised", [](auto& s) { s.barrier_made = false; }},
      {"was not initialised", [](auto& s) { s.barrier_made = false, s.arrivals = 0; }},
      {"was not initialised", [](auto& s) { s.barrier_made = false, s.arrivals = s.copies = 0; }},
      {"a misaligned mbarrier", [](auto& s) { s.barrier = 4; }},
      {"too many arrivals at the mbarrier at 0x410", [](auto& s) { s.arrivals = 2; }},
      {"32 threads (first: block 0 thread 0) wait for the mbarrier at 0x410",
       [](auto& s) { s.arrivals = 0; }},
      {"wait for the mbarrier at 0x410", [](auto& s) { s.expected = kCopied + 16; }},
      {"wait for the mbarrier at 0x410", [](auto& s) { s.expected = kCopied - 16; }},
      {"wait for the mbarrier at 0x410", [](auto& s) { s.copies = 0; }},
      {"a copy to 0x810, where another one is under way", [](auto& s) { s.copies = 2; }},
      {"a misaligned bulk copy", [](auto& s) { s.to = kTarget + 8; }},
      {"a misaligned bulk copy", [](auto& s) { s.from = 8; }},
      {"a misaligned bulk copy", [](auto& s) { s.bytes = kCopied - 8; }},
      {"lie outside of shared memory", [](auto& s) { s.to = kSharedBytes - kCopied + 16; }},
      {"what is not device memory", [](auto& s) { s.from = Source::kBytes - kCopied + 16; }},
      {"what is not device memory", [](auto& s) { s.from_host = true; }},
      {"block 0 thread 0: reads 0x810, to where a copy is under way",
       [](auto& s) { s.waits = false; }},
      {"to where a copy is under way", [](auto& s) { s.parity = 1; }},
      {"a misaligned load of 16 bytes", [](auto& s) { s.shift = 4; }},
      {"a block ends before its copies have arrived", [](auto& s) { s.waits = s.reads = false; }},
  };
  const Source source;
  alignas(16) static const std::array<std::uint8_t, kCopied> host{};
  for (const auto& [text, change, for_some] : defects) {
    CopySteps steps;
    change(steps);
    std::array<std::uint8_t, kCopied> out{};
    const std::uint8_t* const from = steps.from_host ? host.data() : source.data();
    expect(one_block(kWarp, [&] { steps(from, out.data()); }), text, for_some);
    EXPECT_TRUE(*text != 0 || std::equal(out.begin(), out.end(), from + steps.from));
  }
}

TEST(Emulator, TargetHoldsNothingUntilACopyArrives) {
  // And the source is read at some time in between.
  std::set<int> arrived;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Source source;
    int before = 0;
    int after = 0;
    const Launch launch = one_block(kWarp, [&] {
      const volatile std::uint8_t* const target = ptx::dynamic_shared() + kTarget;
      if (threadIdx.x > 0) return;
      ptx::dynamic_shared()[kTarget] = 77;
      ptx::barrier_init(shared_base(), 1);
      ptx::barrier_expect(shared_base(), kCopied);
      ptx::copy_to_shared(shared_base() + kTarget, source.data(), kCopied, shared_base(), 0);
      source.data()[0] = 123;
      before = *target;
      ptx::barrier_wait(shared_base(), 0);
      after = *target;
    });
    EXPECT_EQ(run({launch}, seed), "");
    EXPECT_EQ(before, 0xFF);
    arrived.insert(after);
  }
  EXPECT_EQ(arrived, (std::set<int>{0, 123}));
}

TEST(Emulator, CopiesAndWordsForTheOtherBlockOfACluster) {
  // Each of two blocks copies a half for both, and sends the other its number.
  constexpr unsigned kCluster = 2;
  constexpr std::uint32_t kHalf = kCopied / 2;
  constexpr std::uint32_t kFull = 0, kReady = 8, kSent = 16, kWord = 32;
  struct Steps {
    bool begins_together = true, waits_for_word = true, right_size = true;
  };
  const auto outcome = [](Steps steps, std::uint64_t seed) {
    const Source source;
    int wrong = 0;
    Launch launch{{kCluster, 1, 1}, {kWarp, 1, 1}, kSharedBytes, false, [&] {
                    const int rank = static_cast<int>(ptx::block_index());
                    const auto at = [](std::uint32_t offset) { return shared_base() + offset; };
                    auto* const word =
                        reinterpret_cast<std::int32_t*>(ptx::dynamic_shared() + kWord);
                    if (threadIdx.x == 0) {
                      for (const std::uint32_t barrier : {kFull, kReady, kSent})
                        ptx::barrier_init(at(barrier), 1);
                    }
                    if (steps.begins_together) {
                      ptx::cluster_arrive();
                      ptx::cluster_wait();
                    }
                    if (threadIdx.x == 0) {
                      ptx::barrier_expect(at(kFull), steps.right_size ? kCopied : kHalf);
                      ptx::barrier_arrive_at(at(kReady), 1 - rank);
                      ptx::barrier_wait(at(kReady), 0);
                      const std::uint32_t mine = static_cast<std::uint32_t>(rank) * kHalf;
                      ptx::copy_to_both(at(kTarget + mine), source.data() + mine, kHalf, at(kFull));
                      ptx::send(100 + rank, word, at(kSent), 1 - rank);
                      if (steps.waits_for_word) {
                        ptx::barrier_expect(at(kSent), sizeof *word);
                        ptx::barrier_wait(at(kSent), 0);
                      }
                      wrong += *word != 100 + 1 - rank;
                    }
                    ptx::barrier_wait(at(kFull), 0);
                    const uint4 found = ptx::load_shared_16(at(kTarget + 16 * threadIdx.x));
                    wrong += std::memcmp(&found, source.data() + 16 * threadIdx.x, 16) != 0;
                    ptx::cluster_arrive();
                    ptx::cluster_wait();
                  }};
    launch.cluster = kCluster;
    const std::string fault = run({launch}, seed, 1);
    return fault.empty() ? fmt::format("{} wrong", wrong) : fault;
  };
  int early = 0;
  int no_barrier = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    EXPECT_EQ(outcome({}, seed), "0 wrong");
    no_barrier += outcome({false}, seed).find("was not initialised") != std::string::npos;
    early += outcome({true, false}, seed) != "0 wrong";
    EXPECT_NE(outcome({true, true, false}, seed), "0 wrong");
  }
  EXPECT_GT(no_barrier, 0) << "no seed shows a block that uses the other's barriers too early";
  EXPECT_GT(early, 0) << "no seed shows the missing wait for the other's word";
}

// ---------------------------------------------------------------- wgmma

/// Where operands may lie.
std::uint32_t operand_base() { return (shared_base() + 1024 + 1023) / 1024 * 1024; }

/// Depth 64 in four steps, against a plain loop. Small integers: every order of adding is exact.
template <bool kBf16, int N>
void check_product(std::uint64_t seed, bool swizzled = true) {
  constexpr unsigned kRows = 64;
  constexpr unsigned kDepth = 64;
  const auto encode = [](float x) { return kBf16 ? encode_bf16(x) : encode_fp16(x); };
  const auto a = [](unsigned row, unsigned k) { return static_cast<float>((row * 5 + k * 3) % 7); };
  const auto b = [](unsigned k, unsigned c) { return static_cast<float>((k * c + k) % 11) - 4; };
  const auto initial = [](unsigned row, unsigned c) {
    return static_cast<float>(row) + 64.0F * static_cast<float>(c);
  };
  static std::array<std::array<float, N>, kRows> got;
  const Launch launch = one_block(kWarpgroup, [&] {
    const unsigned lane = threadIdx.x % kWarp;
    const auto row_of = [lane](unsigned i) { return threadIdx.x / kWarp * 16 + lane / 4 + 8 * i; };
    auto* const operand = ptx::dynamic_shared() + (operand_base() - shared_base());
    for (unsigned c = threadIdx.x; c < N; c += kWarpgroup) {
      for (unsigned k = 0; k < kDepth; ++k) {
        const unsigned unit = swizzled ? k / 8 ^ c % 8 : k / 8;
        const std::uint16_t bits = encode(b(k, c));
        std::memcpy(operand + c * 128 + unit * 16 + k % 8 * 2, &bits, sizeof bits);
      }
    }
    __syncthreads();
    float sums[N / 2];
    const auto each_sum = [&](auto visit) {
      for (unsigned i = 0; i < N / 2; ++i) {
        visit(row_of(i / 2 % 2), i / 4 * 8 + lane % 4 * 2 + i % 2, sums[i]);
      }
    };
    each_sum([&](unsigned row, unsigned c, float& sum) { sum = initial(row, c); });
    ptx::wgmma_fence();
    for (unsigned step = 0; step < kDepth / 16; ++step) {
      std::uint32_t fragment[4];
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned k = step * 16 + i / 2 * 8 + lane % 4 * 2;
        fragment[i] = encode(a(row_of(i % 2), k)) |
                      static_cast<std::uint32_t>(encode(a(row_of(i % 2), k + 1))) << 16;
      }
      ptx::Wgmma<kBf16, N>::multiply(sums, fragment,
                                     operand_descriptor(operand_base() + 32 * step));
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    each_sum([&](unsigned row, unsigned c, const float& sum) { got[row][c] = sum; });
  });
  const std::int64_t before = emulated::statistics().multiplications[N / 8];
  ASSERT_EQ(run({launch}, seed), "");
  EXPECT_EQ(emulated::statistics().multiplications[N / 8] - before, kDepth / 16);
  int wrong = 0;
  for (unsigned row = 0; row < kRows; ++row) {
    for (unsigned c = 0; c < N; ++c) {
      float sum = initial(row, c);
      for (unsigned k = 0; k < kDepth; ++k) sum += a(row, k) * b(k, c);
      wrong += got[row][c] != sum;
    }
  }
  EXPECT_EQ(wrong == 0, swizzled) << N << " columns, seed " << seed << ": " << wrong;
}

TEST(Emulator, WgmmaIsTheProduct) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    check_product<false, 8>(seed);
    check_product<true, 16>(seed);
    check_product<false, 32>(seed);
    check_product<true, 48>(seed);
    check_product<false, 80>(seed);
    check_product<true, 8>(seed, false);
  }
}

/// A warpgroup multiplies thrice, in two groups; the operand is copied there before, and again
/// afterwards. As it stands it is right.
struct MultiplySteps {
  bool waits_for_copy = true;
  bool fences = true, fences_again = true, commits = true, waits = true, refills = true;
  bool writes_between = false;    ///< the accumulators, between two of a group
  bool writes_in_flight = false;  ///< before the wait
  unsigned absent = kWarpgroup;   ///< thread that does not multiply
  unsigned astray = kWarpgroup;   ///< thread with another operand
  std::uint64_t descriptor = 0;   ///< difference to the right one

  void operator()(const std::uint8_t* source) const {
    const auto fill = [source] {
      if (threadIdx.x > 0) return;
      ptx::barrier_expect(shared_base(), kCopied);
      ptx::copy_to_shared(operand_base(), source, kCopied, shared_base(), 0);
    };
    if (threadIdx.x == 0) ptx::barrier_init(shared_base(), 1);
    fill();
    __syncthreads();
    if (waits_for_copy) ptx::barrier_wait(shared_base(), 0);
    if (threadIdx.x != absent) {
      float sums[4] = {};
      const std::uint32_t a[4] = {};
      const std::uint64_t right = operand_descriptor(operand_base());
      const std::uint64_t b = (threadIdx.x == astray ? right + 2 : right) ^ descriptor;
      if (fences) ptx::wgmma_fence();
      ptx::Wgmma<false, 8>::multiply(sums, a, b);
      if (writes_between) sums[1] = 0.0F;
      ptx::Wgmma<false, 8>::multiply(sums, a, b);
      if (commits) ptx::wgmma_commit();
      if (fences_again) ptx::wgmma_fence();
      ptx::Wgmma<false, 8>::multiply(sums, a, b);
      if (commits) ptx::wgmma_commit();
      if (writes_in_flight) sums[1] = 0.0F;
      if (waits) ptx::wgmma_wait<0>();
      if (refills) {
        fill();
        ptx::barrier_wait(shared_base(), 1);
      }
    }
    __syncthreads();
  }
};

TEST(Emulator, Wgmma) {
  const std::vector<Defect<MultiplySteps>> defects = {
      {"", [](auto&) {}},
      {"a wgmma reads 0xc00, to where a copy is under way",
       [](auto& s) { s.waits_for_copy = false; }, true},
      {"a wgmma without a fence", [](auto& s) { s.fences = false; }},
      {"a wgmma without a fence", [](auto& s) { s.fences_again = false; }},
      {"a thread ends without having waited for its wgmmas",
       [](auto& s) { s.commits = s.refills = false; }},
      {"a thread ends without having waited for its wgmmas",
       [](auto& s) { s.waits = s.refills = false; }},
      {"accumulators are written while a wgmma adds to them",
       [](auto& s) { s.writes_between = true; }},
      {"accumulators are written while a wgmma adds to them",
       [](auto& s) { s.writes_in_flight = true; }},
      {"block 0 thread 0: a copy to 0xc00, which a wgmma is still to read",
       [](auto& s) { s.waits = false; }},
      {"127 threads (first: block 0 thread 0) wait for a wgmma that not all of their warpgroup "
       "have issued",
       [](auto& s) { s.absent = 5; }},
      {"the threads of a warpgroup issue different wgmmas", [](auto& s) { s.astray = 70; }},
      {"another swizzle than that of 128 bytes",
       [](auto& s) { s.descriptor = std::uint64_t{3} << 62; }},
      {"lie outside of shared memory", [](auto& s) { s.descriptor = 0x2000; }},
  };
  const Source source;
  for (const auto& [text, change, for_some] : defects) {
    MultiplySteps steps;
    change(steps);
    expect(one_block(kWarpgroup, [&] { steps(source.data()); }), text, for_some);
  }
}

TEST(Emulator, AccumulatorsAreUnreadableInFlight) {
  int right = 0;
  const Launch launch = one_block(kWarpgroup, [&right] {
    float first[4] = {1, 1, 1, 1};
    float second[4] = {2, 2, 2, 2};
    const std::uint32_t a[4] = {};
    std::memset(ptx::dynamic_shared(), 0, kSharedBytes);
    __syncthreads();
    for (float(*sums)[4] : {&first, &second}) {
      ptx::wgmma_fence();
      ptx::Wgmma<false, 8>::multiply(*sums, a, operand_descriptor(operand_base()));
      ptx::wgmma_commit();
    }
    bool as_it_should = std::isnan(first[0]) && std::isnan(second[3]);
    ptx::wgmma_wait<1>();
    as_it_should &= first[0] == 1.0F && std::isnan(second[3]);
    ptx::wgmma_wait<0>();
    right += as_it_should && second[3] == 2.0F;
  });
  expect(launch, "");
  EXPECT_EQ(right, int{kSeeds * kWarpgroup});
}

}  // namespace
}  // namespace moebench::cuda
