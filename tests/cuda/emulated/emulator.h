// A device of multiprocessors in software: runs our CUDA kernels, compiled by the C++ compiler, one
// fibre per thread. The folder include/ holds headers with CUDA's names (cuda_runtime.h,
// cuda_fp16.h, ...) and a ptx.cuh in place of ours, so that the .cu files compile unchanged; both
// end in the functions below.
//
// What it models
//   - Warps and their collectives (shuffles, matches, maxima, __syncwarp), __syncthreads, named
//     barriers.
//   - Thread blocks of one grid side by side, so that one may wait for another, where the kernel
//     has dynamic shared memory. Blocks of other kernels run one after the other: their
//     `__shared__` variables are plain statics.
//   - Clusters of thread blocks: their barrier, and the shared memory of others.
//   - Programmatic dependent launch: a kernel that was launched so begins as soon as all blocks of
//     the kernel before have called launch_dependents or ended, and runs beside it up to
//     griddepcontrol.wait.
//   - mbarriers with arrivals and bytes. Bulk copies that arrive later, in any order; until then
//     their target holds 0xFF.
//   - wgmma m64nNk16 with A in registers: performed between issue and wait, in order, at some
//     moment. Its accumulators read as NaN until a wait has retired it. B is read as the hardware
//     does, through the descriptor and the 128-byte swizzle.
// The order of all this comes from a seed: which warp runs next, who is slow, when copies arrive
// and multiplications finish.
//
// What it finds, and reports as a Fault with block and thread: deadlocks, also for want of
// registers that setmaxnreg asks for; loads of 16 bytes of shared memory (and wgmmas) to where a
// copy is under way, other reads get its 0xFF; a copy onto what a wgmma still reads, or onto
// another copy; accumulators that are overwritten while they are in flight (what is read of them,
// or added to them, is NaN or lost), a missing wgmma fence or a wait forgotten; warps or warpgroups
// that disagree; barriers that are overrun or were never made; bulk copies that are misaligned or
// leave the device's memory; shared memory of a block that has ended.
//
// What it does not: time; how many registers code needs; the order in which plain writes become
// visible (fences are nothing here); races between plain reads and writes, other than through the
// seeds; the accumulation order of the tensor cores (here: in order of depth, FP32); ex2.approx and
// rcp.approx (here: correctly rounded, to begin with).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

namespace emulated {

/// What a kernel did that a device would punish, or worse, not.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Settings {
  std::uint64_t seed = 1;
  int multiprocessors = 4;
  /// Threads of this block that have waited for an mbarrier go on only when nothing else can.
  int delayed_block = -1;
};
/// For the launches to come.
Settings& settings();

/// Since the start of the process.
struct Statistics {
  std::int64_t multiplications[33] = {};  ///< wgmmas by N / 8
  std::int64_t copies = 0;
  std::int64_t early_starts = 0;  ///< launches that began before the one before had ended
};
Statistics& statistics();

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

struct Launch {
  Index grid, block;
  std::size_t shared_bytes = 0;
  bool overlaps = false;  ///< launched with programmatic stream serialisation
  std::function<void()> kernel;
  unsigned cluster = 1;  ///< blocks that are begun together
};
/// In the order of the one stream that there is. Throws Fault, for this launch or the one before.
void launch(Launch launch);
/// Until all launches have ended. Throws Fault.
void synchronize();
/// Device memory: [address, address + bytes).
void add_memory(const void* address, std::size_t bytes);
void remove_memory(const void* address);

// What kernels call.

/// Ends the launch with what the calling thread did wrong.
[[noreturn]] void fault(std::string what);
/// Gives each lane of the warp's 32 values; all lanes that have not ended must come. `what`: which
/// collective.
const std::uint64_t* exchange(const char* what, std::uint64_t value);
std::uint8_t* dynamic_shared();
std::uint32_t shared_address(const void* p);
/// `threads` 0: all that have not ended.
void block_barrier(int id, int threads);
/// setmaxnreg. A block has no registers but those that it came with: `more` waits until others gave
/// up enough.
void set_registers(int registers, bool more);
void allow_next_launch();
void wait_for_previous_launch();

/// Of all threads of the cluster's blocks.
void cluster_arrive();
void cluster_wait();
/// `p`, in the shared memory of the calling thread's block, in that of the cluster's block `rank`.
const void* in_cluster(const void* p, int rank);

void barrier_init(std::uint32_t barrier, std::uint32_t count);
/// `rank`: the cluster's block whose barrier it is; -1: the calling thread's.
void barrier_arrive(std::uint32_t barrier, std::uint32_t expected_bytes, int rank = -1);
void barrier_wait(std::uint32_t barrier, std::uint32_t parity);
void copy_to_shared(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier);
/// To the same place in all blocks of the cluster, onto the same barrier of each.
void copy_to_cluster(std::uint32_t to, const void* from, std::uint32_t bytes,
                     std::uint32_t barrier);
/// Into what `p` is in the cluster's block `rank`, for its barrier.
void send(std::int32_t value, const std::int32_t* p, std::uint32_t barrier, int rank);
void load_shared(std::uint32_t address, void* out, std::uint32_t bytes);
void store_shared(std::uint32_t address, const void* v, std::uint32_t bytes);
/// The second load in a row of a thread that finds the same value waits for a store_release().
std::int32_t load_acquire(const std::int32_t* p);
void store_release(std::int32_t* p, std::int32_t value);

/// [2^16] values of FP16 or BF16 numbers.
const float* half_values(bool bf16);
void multiply(bool bf16, int columns, float* sums, const std::uint32_t (&a)[4],
              std::uint64_t descriptor);
void multiply_fence();
void multiply_commit();
void multiply_wait(int pending_groups);

}  // namespace emulated
