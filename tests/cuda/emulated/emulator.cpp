// See emulator.h. One scheduler, on the host's stack, resumes the fibres of all blocks that are
// resident; a fibre runs until it has to wait for a signal, which marks it as ready when it
// changes.
#include "tests/cuda/emulated/emulator.h"

#include <fmt/format.h>
#include <ucontext.h>
#include <csetjmp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include "moebench/core/dtype.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

emulated::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kWarpgroupThreads = 128;
constexpr int kNamedBarriers = 16;
constexpr int kRegisterFile = 65536;
constexpr int kGranule = 16;  ///< bytes of shared memory whose use is tracked together
constexpr std::size_t kStackBytes = 128 << 10;
constexpr std::uint8_t kStackEnd = 0xC5;
constexpr std::size_t kStackEndBytes = 64;
constexpr std::uint8_t kNothing = 0xFF;  ///< NaN in every format that is multiplied
/// Where shared memory begins: aligned for bulk copies, not for the swizzle.
constexpr std::uint32_t kSharedBase = 1024 + 16;
constexpr std::size_t kSharedAlignment = 1024;

// ---------------------------------------------------------------- state

struct Thread;

/// A number that only grows, and the threads that wait for it to reach some value.
struct Signal {
  std::uint64_t value = 0;
  std::vector<Thread*> waiting;
};
/// What a thread waits for, to be named in a report.
struct Reason {
  const char* what = "";
  std::uint64_t detail = 0;
};

struct Block;

/// Accumulators of a thread that wgmmas under way add to.
struct InFlightSums {
  float* place;
  std::vector<float> values;
  std::uint64_t last;  ///< multiplication
};

/// A stack, and where on it to go on.
struct Fibre {
  std::unique_ptr<std::uint8_t[]> stack;
  ucontext_t context{};  ///< where it begins
  jmp_buf place;         ///< where it waits
  bool begun = false;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
};

struct Thread {
  Block* block = nullptr;
  unsigned index = 0;
  std::unique_ptr<Fibre> fibre;
  std::uint64_t awaited = 0;  ///< value of the signal that it waits for
  Reason reason;
  bool done = false;
  int registers = 0;
  // Programmatic launch
  bool allowed = false;
  std::uint64_t cluster_rounds = 0;  ///< what its cluster has to reach before it goes on
  // Acquiring loads
  const std::int32_t* polled = nullptr;
  std::int32_t polled_value = 0;
  // wgmma
  std::uint64_t issued = 0;
  std::vector<std::uint64_t> groups;  ///< issued at each commit
  bool fenced = false;
  std::vector<std::unique_ptr<InFlightSums>> sums;
};

struct Warp {
  Block* block = nullptr;
  int first = 0;  ///< thread
  int live = kWarpThreads;
  bool slow = false;
  bool delayed = false;     ///< a thread waits for an mbarrier in the block to be delayed
  std::uint32_t ready = 0;  ///< lanes; the warp is in the device's list while any is
  int arrived = 0;
  const char* collective = nullptr;
  Signal rounds;
  std::array<std::array<std::uint64_t, kWarpThreads>, 2> values{};
};

struct BlockBarrier {
  int arrived = 0;
  int threads = 0;
  Signal rounds;
};

struct MemoryBarrier {
  std::int64_t count = 0;
  std::int64_t pending = 0;
  std::int64_t bytes = 0;
  Signal phases;  ///< completed
};

struct Copy {
  std::uint32_t to;
  const std::uint8_t* from;
  std::uint32_t bytes;
  std::uint32_t barrier;
  std::vector<std::uint8_t> early;  ///< read when it was issued, or empty: read when it arrives
};

struct Multiplication {
  bool bf16;
  int columns;
  std::uint64_t descriptor;
  int threads = 0;  ///< that have issued it
  std::array<std::array<std::uint32_t, 4>, kWarpgroupThreads> a;
  std::array<InFlightSums*, kWarpgroupThreads> sums;
};

struct Warpgroup {
  Signal executed;
  std::deque<Multiplication> queue;  ///< numbers executed, executed + 1, ...
};

struct GranuleUse {
  std::uint16_t copies = 0;
  std::uint16_t readers = 0;
};

struct Grid;

struct Block {
  Grid* grid = nullptr;
  Index index;
  std::vector<std::uint8_t> memory;
  std::uint8_t* shared = nullptr;
  std::vector<GranuleUse> use;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<Warpgroup> warpgroups;
  std::array<BlockBarrier, kNamedBarriers> barriers;
  std::unordered_map<std::uint32_t, MemoryBarrier> memory_barriers;
  std::vector<Copy> copies;
  int live = 0;
  int not_allowed = 0;     ///< threads that the next launch still waits for
  int free_registers = 0;  ///< what threads gave up, less what others took
  Signal registers_given;
};

struct Grid {
  Launch launch;
  unsigned next = 0;  ///< block to start
  unsigned total = 0;
  unsigned finished = 0;
  unsigned allowed = 0;   ///< blocks that let the next launch begin
  unsigned resident = 1;  ///< blocks at a time
  std::vector<std::unique_ptr<Block>> blocks;
  std::map<unsigned, BlockBarrier> clusters;  ///< barriers
  Signal previous_ended;                      ///< 1 when it has
  [[nodiscard]] bool done() const { return finished == total; }
  /// Its kernel uses no `__shared__` variables that another launch of the same could disturb.
  [[nodiscard]] bool side_by_side() const { return launch.shared_bytes > 0; }
};

struct Device {
  std::vector<std::unique_ptr<Grid>> grids;   ///< one, or two that overlap, in order
  std::vector<std::unique_ptr<Fibre>> spare;  ///< whose threads have ended
  std::array<std::vector<Warp*>, 3> ready;    ///< warps that can go on; the slow, the delayed apart
  std::map<const std::int32_t*, Signal> stores;  ///< to what threads poll
  Thread* current = nullptr;
  ucontext_t host{};
  jmp_buf host_place;
  std::string fault;
  std::mt19937_64 random;
  std::uint64_t seeded_with = 0;
  unsigned event_chance = 0;  ///< of 1024, before a warp is resumed
  unsigned slow_chance = 0;   ///< of 1024, that a slow warp is resumed when it is its turn
  std::map<std::uintptr_t, std::size_t> allocations;
#if defined(__SANITIZE_ADDRESS__)
  const void* host_stack = nullptr;
  std::size_t host_stack_bytes = 0;
  void* host_fake_stack = nullptr;
#endif
};
Device& device() {
  static Device* const kept = new Device;
  return *kept;
}
Thread& self() { return *device().current; }
Block& block() { return *self().block; }

unsigned draw(unsigned below) { return static_cast<unsigned>(device().random() % below); }

std::string where(const Thread& thread) {
  return fmt::format("block {} thread {}", thread.block->index.x, thread.index);
}

// ---------------------------------------------------------------- fibres

void make_ready(Thread& thread) {
  Warp& warp = *thread.block->warps[thread.index / kWarpThreads];
  if (warp.ready == 0) device().ready[warp.delayed ? 2 : warp.slow ? 1 : 0].push_back(&warp);
  warp.ready |= 1U << thread.index % kWarpThreads;
}

void raise(Signal& signal, std::uint64_t by = 1) {
  signal.value += by;
  std::erase_if(signal.waiting, [&signal](Thread* thread) {
    if (signal.value < thread->awaited) return false;
    make_ready(*thread);
    return true;
  });
}

#if defined(__SANITIZE_ADDRESS__)

void resume_fibre(Fibre& fibre) {
  Device& d = device();
  __sanitizer_start_switch_fiber(&d.host_fake_stack, fibre.stack.get(), kStackBytes);
  swapcontext(&d.host, &fibre.context);
  __sanitizer_finish_switch_fiber(d.host_fake_stack, nullptr, nullptr);
}
void leave_fibre(Fibre& fibre) {
  Device& d = device();
  __sanitizer_start_switch_fiber(&fibre.fake_stack, d.host_stack, d.host_stack_bytes);
  swapcontext(&fibre.context, &d.host);
  __sanitizer_finish_switch_fiber(fibre.fake_stack, &d.host_stack, &d.host_stack_bytes);
}

#else

// swapcontext() asks the system to keep the signal mask at each switch; this is ten times as fast.
void resume_fibre(Fibre& fibre) {
  Device& d = device();
  if (_setjmp(d.host_place) != 0) return;
  if (fibre.begun) _longjmp(fibre.place, 1);
  fibre.begun = true;
  setcontext(&fibre.context);
}
void leave_fibre(Fibre& fibre) {
  if (_setjmp(fibre.place) == 0) _longjmp(device().host_place, 1);
}

#endif

/// Back to the scheduler.
void leave(Thread& thread) { leave_fibre(*thread.fibre); }

void resume(Thread& thread) {
  Device& d = device();
  d.current = &thread;
  threadIdx = {thread.index, 0, 0};
  blockIdx = thread.block->index;
  blockDim = thread.block->grid->launch.block;
  gridDim = thread.block->grid->launch.grid;
  resume_fibre(*thread.fibre);
  d.current = nullptr;
}

void wait_for(Signal& signal, std::uint64_t value, Reason reason) {
  if (signal.value >= value) return;
  Thread& thread = self();
  thread.awaited = value;
  thread.reason = reason;
  signal.waiting.push_back(&thread);
  leave(thread);
}

void allow(Thread& thread) {
  if (thread.allowed) return;
  thread.allowed = true;
  if (--thread.block->not_allowed == 0) ++thread.block->grid->allowed;
}

void complete(BlockBarrier& barrier) {
  barrier.arrived = 0;
  raise(barrier.rounds);
}

void end_thread() {
  Thread& thread = self();
  Block& b = *thread.block;
  allow(thread);
  if (!thread.sums.empty()) fault("a thread ends without having waited for its wgmmas");
  const std::uint8_t* const stack = thread.fibre->stack.get();
  if (!std::all_of(stack, stack + kStackEndBytes, [](std::uint8_t x) { return x == kStackEnd; })) {
    fault("the emulator's stacks are too small");
  }
  thread.done = true;
  Warp& warp = *b.warps[thread.index / kWarpThreads];
  --warp.live;
  --b.live;
  if (warp.arrived > 0 && warp.arrived == warp.live) {
    warp.arrived = 0;
    raise(warp.rounds);
  }
  BlockBarrier& all = b.barriers[0];
  if (all.arrived > 0 && all.arrived == b.live) complete(all);
  if (b.live == 0 && !b.copies.empty()) fault("a block ends before its copies have arrived");
}

/// A fibre goes through one thread after the other.
void run_threads() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &device().host_stack, &device().host_stack_bytes);
#endif
  for (;;) {
    self().block->grid->launch.kernel();
    end_thread();
    leave(self());
  }
}

// ---------------------------------------------------------------- blocks and grids

std::unique_ptr<Fibre> make_fibre() {
  auto fibre = std::make_unique<Fibre>();
  fibre->stack.reset(new std::uint8_t[kStackBytes]);  // contents unset
  std::memset(fibre->stack.get(), kStackEnd, kStackEndBytes);
  getcontext(&fibre->context);
  fibre->context.uc_stack.ss_sp = fibre->stack.get();
  fibre->context.uc_stack.ss_size = kStackBytes;
  fibre->context.uc_link = nullptr;
  makecontext(&fibre->context, run_threads, 0);
  return fibre;
}

std::unique_ptr<Fibre> take_fibre() {
  auto& spare = device().spare;
  if (spare.empty()) return make_fibre();
  std::unique_ptr<Fibre> fibre = std::move(spare.back());
  spare.pop_back();
  return fibre;
}

void start_block(Grid& grid) {
  auto made = std::make_unique<Block>();
  Block& b = *made;
  b.grid = &grid;
  b.index = {grid.next % grid.launch.grid.x, grid.next / grid.launch.grid.x, 0};
  ++grid.next;
  b.memory.assign(grid.launch.shared_bytes + kSharedAlignment, kNothing);
  const auto address = reinterpret_cast<std::uintptr_t>(b.memory.data());
  // Host pointers are as much aligned as shared addresses are.
  b.shared = b.memory.data() +
             (kSharedAlignment + kSharedBase - address % kSharedAlignment) % kSharedAlignment;
  b.use.resize(grid.launch.shared_bytes / kGranule + 1);
  const int threads = static_cast<int>(grid.launch.block.x);
  b.live = b.not_allowed = threads;
  b.warpgroups.resize(
      static_cast<std::size_t>((threads + kWarpgroupThreads - 1) / kWarpgroupThreads));
  for (int first = 0; first < threads; first += kWarpThreads) {
    auto warp = std::make_unique<Warp>();
    warp->block = &b;
    warp->first = first;
    warp->slow = draw(4) == 0;
    b.warps.push_back(std::move(warp));
  }
  for (int i = 0; i < threads; ++i) {
    auto thread = std::make_unique<Thread>();
    thread->block = &b;
    thread->index = static_cast<unsigned>(i);
    // What a kernel is compiled for that is alone on its multiprocessor.
    thread->registers = std::min(kRegisterFile / threads / 8 * 8, 248);
    thread->fibre = take_fibre();
    b.threads.push_back(std::move(thread));
    make_ready(*b.threads.back());
  }
  grid.blocks.push_back(std::move(made));
}

void start_blocks() {
  for (const auto& grid : device().grids) {
    const unsigned together = grid->launch.cluster;
    while (grid->next < grid->total && grid->blocks.size() + together <= grid->resident) {
      for (unsigned i = 0; i < together; ++i) start_block(*grid);
    }
  }
}

void retire_block(Block& b) {
  Grid& grid = *b.grid;
  for (const auto& thread : b.threads) device().spare.push_back(std::move(thread->fibre));
  ++grid.finished;
  std::erase_if(grid.blocks, [&b](const auto& other) { return other.get() == &b; });
}

/// After a fault. Fibres are forgotten as they stand.
void drop_everything() {
  for (auto& ready : device().ready) ready.clear();
  device().stores.clear();
  device().grids.clear();
}

// ---------------------------------------------------------------- memory

std::uint8_t* shared_at(Block& b, std::uint32_t address, std::uint32_t bytes) {
  if (address < kSharedBase || address - kSharedBase + bytes > b.grid->launch.shared_bytes) {
    fault(fmt::format("{} bytes at shared address {:#x} lie outside of shared memory", bytes,
                      address));
  }
  return b.shared + (address - kSharedBase);
}
GranuleUse& use_at(Block& b, std::uint32_t address) {
  return b.use[(address - kSharedBase) / kGranule];
}

MemoryBarrier& memory_barrier(Block& b, std::uint32_t address) {
  const auto found = b.memory_barriers.find(address);
  if (found == b.memory_barriers.end())
    fault(fmt::format("mbarrier at {:#x} was not initialised", address));
  return found->second;
}
void complete_phase(MemoryBarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.pending = barrier.count;
  raise(barrier.phases);
}

void deliver(Block& b, std::size_t which) {
  const Copy copy = std::move(b.copies[which]);
  b.copies.erase(b.copies.begin() + static_cast<std::ptrdiff_t>(which));
  std::memcpy(shared_at(b, copy.to, copy.bytes), copy.early.empty() ? copy.from : copy.early.data(),
              copy.bytes);
  for (std::uint32_t i = 0; i < copy.bytes; i += kGranule) --use_at(b, copy.to + i).copies;
  MemoryBarrier& barrier = b.memory_barriers.at(copy.barrier);
  barrier.bytes -= copy.bytes;
  complete_phase(barrier);
}

// ---------------------------------------------------------------- wgmma

/// B's element (row, byte of depth) as the hardware finds it: rows 128 bytes apart, groups of 8 as
/// the descriptor says, the address bits 4..6 exchanged by bits 7..9.
std::uint32_t operand_address(std::uint64_t descriptor, int row, int byte) {
  const auto start = static_cast<std::uint32_t>(descriptor & 0x3FFF) << 4;
  const auto group_stride = static_cast<std::uint32_t>(descriptor >> 32 & 0x3FFF) << 4;
  const auto r = static_cast<std::uint32_t>(row);
  const std::uint32_t linear =
      start + r / 8 * group_stride + r % 8 * 128 + static_cast<std::uint32_t>(byte);
  return linear ^ (linear >> 3 & 0x70);
}

template <typename Visit>
void each_operand_granule(const Multiplication& m, Visit visit) {
  for (int row = 0; row < m.columns; ++row) {
    for (int byte = 0; byte < 32; byte += kGranule) visit(operand_address(m.descriptor, row, byte));
  }
}

void execute(Block& b, Warpgroup& group) {
  constexpr int kRows = 64;
  constexpr int kDepth = 16;
  constexpr int kMaxColumns = 256;
  const Multiplication& m = group.queue.front();
  const float* const values = half_values(m.bf16);
  std::array<std::array<float, kDepth>, kRows> left;
  for (int t = 0; t < kWarpgroupThreads; ++t) {
    for (int reg = 0; reg < 4; ++reg) {
      const int row = t / 32 * 16 + t % 32 / 4 + reg % 2 * 8;
      const int column = t % 4 * 2 + reg / 2 * 8;
      const std::uint32_t pair = m.a[static_cast<std::size_t>(t)][static_cast<std::size_t>(reg)];
      left[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)] = values[pair & 0xFFFF];
      left[static_cast<std::size_t>(row)][static_cast<std::size_t>(column) + 1] =
          values[pair >> 16];
    }
  }
  std::array<std::array<float, kMaxColumns>, kDepth> right;
  for (int column = 0; column < m.columns; ++column) {
    for (int k = 0; k < kDepth; ++k) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, shared_at(b, operand_address(m.descriptor, column, 2 * k), 2), 2);
      right[static_cast<std::size_t>(k)][static_cast<std::size_t>(column)] = values[bits];
    }
  }
  for (int row = 0; row < kRows; ++row) {
    std::array<float, kMaxColumns> sums;
    const auto sum_of = [&m, row](int column) -> float& {
      const auto thread = static_cast<std::size_t>(row / 16 * 32 + row % 8 * 4 + column % 8 / 2);
      return m.sums[thread]
          ->values[static_cast<std::size_t>(column / 8 * 4 + row % 16 / 8 * 2 + column % 2)];
    };
    for (int c = 0; c < m.columns; ++c) sums[static_cast<std::size_t>(c)] = sum_of(c);
    for (std::size_t k = 0; k < kDepth; ++k) {
      const float a = left[static_cast<std::size_t>(row)][k];
      for (std::size_t c = 0; c < static_cast<std::size_t>(m.columns); ++c)
        sums[c] += a * right[k][c];
    }
    for (int c = 0; c < m.columns; ++c) sum_of(c) = sums[static_cast<std::size_t>(c)];
  }
  each_operand_granule(m, [&b](std::uint32_t address) { --use_at(b, address).readers; });
  ++statistics().multiplications[m.columns / 8];
  group.queue.pop_front();
  raise(group.executed);
}

// ---------------------------------------------------------------- scheduler

/// Lets one copy arrive, or one wgmma finish. False: nothing is under way.
bool happen() {
  struct Event {
    Block* block;
    Warpgroup* group;  ///< or a copy
    std::size_t copy;
  };
  std::vector<Event> events;
  for (const auto& grid : device().grids) {
    for (const auto& b : grid->blocks) {
      for (std::size_t i = 0; i < b->copies.size(); ++i) events.push_back({b.get(), nullptr, i});
      for (Warpgroup& group : b->warpgroups) {
        if (!group.queue.empty() && group.queue.front().threads == kWarpgroupThreads) {
          events.push_back({b.get(), &group, 0});
        }
      }
    }
  }
  if (events.empty()) return false;
  const Event& event = events[draw(static_cast<unsigned>(events.size()))];
  if (event.group != nullptr) {
    execute(*event.block, *event.group);
  } else {
    deliver(*event.block, event.copy);
  }
  return true;
}

void run_warp(Warp& warp) {
  Block& b = *warp.block;
  for (std::uint32_t ready = std::exchange(warp.ready, 0); ready != 0; ready &= ready - 1) {
    resume(*b.threads[static_cast<std::size_t>(warp.first + std::countr_zero(ready))]);
    if (!device().fault.empty()) return;
  }
  if (b.live == 0) retire_block(b);
}

std::string deadlock() {
  std::map<std::string, std::vector<std::string>> waiting;
  for (const auto& grid : device().grids) {
    for (const auto& b : grid->blocks) {
      for (const auto& thread : b->threads) {
        if (!thread->done)
          waiting[fmt::format(fmt::runtime(thread->reason.what), thread->reason.detail)].push_back(
              where(*thread));
      }
    }
  }
  std::string text = "deadlock:";
  for (const auto& [what, threads] : waiting) {
    text +=
        fmt::format(" {} threads (first: {}) wait for {};", threads.size(), threads.front(), what);
  }
  text.pop_back();
  return text;
}

/// A warp to run next, taken from the lists; null: none is ready, or none that is in time.
Warp* choose_warp() {
  auto& [fast, slow, delayed] = device().ready;
  const bool late = !slow.empty() && (fast.empty() || draw(1024) < device().slow_chance);
  std::vector<Warp*>& from = late ? slow : fast;
  if (from.empty()) return nullptr;
  const std::size_t which = draw(static_cast<unsigned>(from.size()));
  std::swap(from[which], from.back());
  Warp* const warp = from.back();
  from.pop_back();
  return warp;
}

/// One that is only run when nothing else can go on; null: there is none.
Warp* delayed_warp() {
  std::vector<Warp*>& delayed = device().ready[2];
  if (delayed.empty()) return nullptr;
  Warp* const warp = delayed.back();
  delayed.pop_back();
  return warp;
}

template <typename Until>
void run_until(Until until) {
  Device& d = device();
  while (!until()) {
    if (!d.grids.empty() && d.grids.front()->done()) {
      d.grids.erase(d.grids.begin());
      for (const auto& next : d.grids) raise(next->previous_ended);
      continue;
    }
    start_blocks();
    if (draw(1024) < d.event_chance) happen();
    if (Warp* const warp = choose_warp()) {
      run_warp(*warp);
    } else if (!happen()) {
      if (Warp* const last = delayed_warp()) {
        run_warp(*last);
      } else {
        d.fault = deadlock();
      }
    }
    if (!d.fault.empty()) {
      std::string what;
      what.swap(d.fault);
      drop_everything();
      throw Fault("emulated kernel: " + what);
    }
  }
}

/// Each seed has a character: copies and multiplications may be prompt or as late as can be, slow
/// warps more or less so.
void reseed() {
  Device& d = device();
  if (d.seeded_with == settings().seed) return;
  d.seeded_with = settings().seed;
  d.random.seed(d.seeded_with);
  constexpr std::array<unsigned, 4> kEventChances = {0, 16, 256, 1024};
  constexpr std::array<unsigned, 3> kSlowChances = {0, 64, 1024};
  d.event_chance = kEventChances[d.seeded_with % kEventChances.size()];
  d.slow_chance = kSlowChances[d.seeded_with / kEventChances.size() % kSlowChances.size()];
}

}  // namespace

Settings& settings() {
  static Settings kept;
  return kept;
}
Statistics& statistics() {
  static Statistics kept;
  return kept;
}

void launch(Launch request) {
  Device& d = device();
  if (request.block.x % kWarpThreads != 0)
    throw Fault("emulated kernel: a block of part of a warp");
  reseed();
  auto grid = std::make_unique<Grid>();
  grid->total = request.grid.x * request.grid.y;
  grid->resident = request.shared_bytes > 0 ? static_cast<unsigned>(settings().multiprocessors) : 1;
  // A cluster has room on any device.
  grid->resident = std::max(grid->resident, request.cluster);
  grid->launch = std::move(request);
  if (grid->total == 0) throw Fault("emulated kernel: a grid without blocks");
  if (grid->total % grid->launch.cluster != 0)
    throw Fault("emulated kernel: a grid of part of a cluster");
  if (!d.grids.empty()) {
    const Grid& before = *d.grids.front();
    if (!grid->launch.overlaps || !(before.side_by_side() || grid->side_by_side())) {
      synchronize();
    } else {
      run_until([&before] { return before.allowed == before.total; });
    }
  }
  if (!d.grids.empty()) {
    if (!d.grids.front()->done()) ++statistics().early_starts;
  } else {
    grid->previous_ended.value = 1;
  }
  d.grids.push_back(std::move(grid));
  run_until([&d] { return d.grids.size() == 1; });
}

void synchronize() {
  if (device().grids.empty()) return;
  run_until([] { return device().grids.empty(); });
}

void add_memory(const void* address, std::size_t bytes) {
  device().allocations[reinterpret_cast<std::uintptr_t>(address)] = bytes;
}
void remove_memory(const void* address) {
  device().allocations.erase(reinterpret_cast<std::uintptr_t>(address));
}

void fault(std::string what) {
  Device& d = device();
  if (d.current == nullptr) throw Fault("emulated kernel: " + what);
  d.fault = where(*d.current) + ": " + what;
  std::string().swap(what);  // the fibre is never gone back to
  for (;;) leave(*d.current);
}

// ---------------------------------------------------------------- collectives

const std::uint64_t* exchange(const char* what, std::uint64_t value) {
  Thread& thread = self();
  Warp& warp = *thread.block->warps[thread.index / kWarpThreads];
  auto& values = warp.values[warp.rounds.value % 2];
  if (warp.arrived == 0) {
    values.fill(0);
    warp.collective = what;
  } else if (std::strcmp(warp.collective, what) != 0) {
    fault(fmt::format("{}, while other lanes of the warp are at {}", what, warp.collective));
  }
  values[thread.index % kWarpThreads] = value;
  if (++warp.arrived == warp.live) {
    warp.arrived = 0;
    raise(warp.rounds);
  } else {
    wait_for(warp.rounds, warp.rounds.value + 1, {"the other lanes of their warps"});
  }
  return values.data();
}

std::uint8_t* dynamic_shared() { return block().shared; }

std::uint32_t shared_address(const void* p) {
  return kSharedBase +
         static_cast<std::uint32_t>(static_cast<const std::uint8_t*>(p) - block().shared);
}

void block_barrier(int id, int threads) {
  Block& b = block();
  if (id < 0 || id >= kNamedBarriers) fault(fmt::format("there is no barrier {}", id));
  BlockBarrier& barrier = b.barriers[static_cast<std::size_t>(id)];
  const int expected = threads == 0 ? b.live : threads;
  if (barrier.arrived > 0 && barrier.threads != threads) {
    fault(fmt::format("barrier {} of {} threads, which others use with {}", id, threads,
                      barrier.threads));
  }
  barrier.threads = threads;
  if (++barrier.arrived == expected) return complete(barrier);
  wait_for(barrier.rounds, barrier.rounds.value + 1,
           {"barrier {}", static_cast<std::uint64_t>(id)});
}

void set_registers(int registers, bool more) {
  Thread& thread = self();
  Block& b = block();
  if (registers % 8 != 0 || registers < 24 || registers > 256 ||
      (more ? registers < thread.registers : registers > thread.registers)) {
    fault(fmt::format("setmaxnreg from {} to {}", thread.registers, registers));
  }
  const int needed = registers - thread.registers;
  while (b.free_registers < needed) {
    wait_for(b.registers_given, b.registers_given.value + 1,
             {"{} registers", static_cast<std::uint64_t>(registers)});
  }
  b.free_registers -= needed;
  thread.registers = registers;
  if (needed < 0) raise(b.registers_given);
}

void allow_next_launch() { allow(self()); }

void wait_for_previous_launch() {
  wait_for(block().grid->previous_ended, 1, {"the launch before"});
}

// ---------------------------------------------------------------- mbarriers and copies

void cluster_arrive() {
  Thread& thread = self();
  Grid& grid = *thread.block->grid;
  BlockBarrier& barrier = grid.clusters[thread.block->index.x / grid.launch.cluster];
  if (thread.cluster_rounds > barrier.rounds.value)
    fault("arrives at the cluster's barrier twice without a wait");
  thread.cluster_rounds = barrier.rounds.value + 1;
  if (++barrier.arrived == static_cast<int>(grid.launch.cluster * grid.launch.block.x))
    complete(barrier);
}
void cluster_wait() {
  Thread& thread = self();
  Grid& grid = *thread.block->grid;
  BlockBarrier& barrier = grid.clusters[thread.block->index.x / grid.launch.cluster];
  wait_for(barrier.rounds, thread.cluster_rounds, {"the other blocks of the cluster"});
}
/// The cluster's block `rank`.
Block& cluster_block(int rank) {
  Block& b = block();
  const unsigned cluster = b.grid->launch.cluster;
  const unsigned index = b.index.x / cluster * cluster + static_cast<unsigned>(rank);
  for (const auto& other : b.grid->blocks) {
    if (other->index.x == index) return *other;
  }
  fault(fmt::format("uses the shared memory of block {}, which has ended", index));
}
const void* in_cluster(const void* p, int rank) {
  return cluster_block(rank).shared + (static_cast<const std::uint8_t*>(p) - block().shared);
}

void barrier_init(std::uint32_t barrier, std::uint32_t count) {
  Block& b = block();
  shared_at(b, barrier, 8);
  if (barrier % 8 != 0) fault("a misaligned mbarrier");
  b.memory_barriers[barrier] = {count, count, 0, {}};
}

void barrier_arrive(std::uint32_t barrier, std::uint32_t expected_bytes, int rank) {
  MemoryBarrier& found = memory_barrier(rank < 0 ? block() : cluster_block(rank), barrier);
  if (found.pending == 0) fault(fmt::format("too many arrivals at the mbarrier at {:#x}", barrier));
  found.bytes += expected_bytes;
  --found.pending;
  complete_phase(found);
}

void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  Block& b = block();
  Signal& phases = memory_barrier(b, barrier).phases;
  if (phases.value % 2 != parity) return;
  Warp& warp = *b.warps[self().index / kWarpThreads];
  warp.delayed = static_cast<int>(b.index.x) == settings().delayed_block;
  wait_for(phases, phases.value + 1, {"the mbarrier at {:#x}", barrier});
  warp.delayed = false;
}

namespace {
void copy_to_block(Block& b, std::uint32_t to, const void* from, std::uint32_t bytes,
                   std::uint32_t barrier) {
  Device& d = device();
  const auto source = reinterpret_cast<std::uintptr_t>(from);
  if (to % kGranule != 0 || source % kGranule != 0 || bytes % kGranule != 0)
    fault("a misaligned bulk copy");
  const auto after = d.allocations.upper_bound(source);
  if (after == d.allocations.begin() ||
      source + bytes > std::prev(after)->first + std::prev(after)->second) {
    fault("a bulk copy reads what is not device memory");
  }
  memory_barrier(b, barrier);
  std::uint8_t* const target = shared_at(b, to, bytes);
  for (std::uint32_t i = 0; i < bytes; i += kGranule) {
    GranuleUse& use = use_at(b, to + i);
    if (use.readers > 0)
      fault(fmt::format("a copy to {:#x}, which a wgmma is still to read", to + i));
    if (use.copies > 0)
      fault(fmt::format("a copy to {:#x}, where another one is under way", to + i));
    ++use.copies;
  }
  std::memset(target, kNothing, bytes);
  Copy copy{to, static_cast<const std::uint8_t*>(from), bytes, barrier, {}};
  if (draw(2) == 0) copy.early.assign(copy.from, copy.from + bytes);
  b.copies.push_back(std::move(copy));
  ++statistics().copies;
}
}  // namespace

void copy_to_shared(std::uint32_t to, const void* from, std::uint32_t bytes,
                    std::uint32_t barrier) {
  copy_to_block(block(), to, from, bytes, barrier);
}
void copy_to_cluster(std::uint32_t to, const void* from, std::uint32_t bytes,
                     std::uint32_t barrier) {
  for (unsigned rank = 0; rank < block().grid->launch.cluster; ++rank)
    copy_to_block(cluster_block(static_cast<int>(rank)), to, from, bytes, barrier);
}

void send(std::int32_t value, const std::int32_t* p, std::uint32_t barrier, int rank) {
  Block& to = cluster_block(rank);
  std::memcpy(to.shared + (reinterpret_cast<const std::uint8_t*>(p) - block().shared), &value,
              sizeof value);
  MemoryBarrier& found = memory_barrier(to, barrier);
  found.bytes -= sizeof value;
  complete_phase(found);
}

void load_shared(std::uint32_t address, void* out, std::uint32_t bytes) {
  Block& b = block();
  if (address % bytes != 0) fault(fmt::format("a misaligned load of {} bytes", bytes));
  const std::uint8_t* from = shared_at(b, address, bytes);
  if (use_at(b, address).copies > 0)
    fault(fmt::format("reads {:#x}, to where a copy is under way", address));
  std::memcpy(out, from, bytes);
}

void store_shared(std::uint32_t address, const void* v, std::uint32_t bytes) {
  Block& b = block();
  if (address % bytes != 0) fault(fmt::format("a misaligned store of {} bytes", bytes));
  std::uint8_t* const to = shared_at(b, address, bytes);
  if (use_at(b, address).copies > 0)
    fault(fmt::format("writes {:#x}, to where a copy is under way", address));
  std::memcpy(to, v, bytes);
}

std::int32_t load_acquire(const std::int32_t* p) {
  Thread& thread = self();
  if (thread.polled == p && *p == thread.polled_value) {
    Signal& stores = device().stores[p];
    wait_for(stores, stores.value + 1, {"a value in memory"});
  }
  thread.polled = p;
  thread.polled_value = *p;
  return *p;
}
void store_release(std::int32_t* p, std::int32_t value) {
  *p = value;
  if (const auto found = device().stores.find(p); found != device().stores.end())
    raise(found->second);
}

// ---------------------------------------------------------------- wgmma

const float* half_values(bool bf16) {
  static const auto make = [](auto decode) {
    std::vector<float> values(1 << 16);
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = decode(static_cast<std::uint16_t>(i));
    return values;
  };
  static const std::vector<float> kFp16 = make(moebench::decode_fp16);
  static const std::vector<float> kBf16 = make(moebench::decode_bf16);
  return (bf16 ? kBf16 : kFp16).data();
}

void multiply(bool bf16, int columns, float* sums, const std::uint32_t (&a)[4],
              std::uint64_t descriptor) {
  Thread& thread = self();
  Block& b = *thread.block;
  Warpgroup& group = b.warpgroups[thread.index / kWarpgroupThreads];
  if (!thread.fenced) fault("a wgmma without a fence after its registers were written");
  const std::uint64_t ahead = thread.issued - group.executed.value;
  if (ahead == group.queue.size()) {
    if (descriptor >> 62 != 1)
      fault("the descriptor asks for another swizzle than that of 128 bytes");
    Multiplication& made =
        group.queue.emplace_back(Multiplication{bf16, columns, descriptor, 0, {}, {}});
    each_operand_granule(made, [&b](std::uint32_t address) {
      shared_at(b, address, kGranule);
      GranuleUse& use = use_at(b, address);
      if (use.copies > 0)
        fault(fmt::format("a wgmma reads {:#x}, to where a copy is under way", address));
      ++use.readers;
    });
  }
  Multiplication& m = group.queue[ahead];
  if (m.bf16 != bf16 || m.columns != columns || m.descriptor != descriptor) {
    fault("the threads of a warpgroup issue different wgmmas");
  }
  const auto lane = thread.index % kWarpgroupThreads;
  std::copy(std::begin(a), std::end(a), m.a[lane].begin());
  const auto found = std::find_if(thread.sums.begin(), thread.sums.end(),
                                  [sums](const auto& s) { return s->place == sums; });
  if (found == thread.sums.end()) {
    thread.sums.push_back(std::make_unique<InFlightSums>(
        InFlightSums{sums, std::vector<float>(sums, sums + columns / 2), thread.issued}));
    std::fill(sums, sums + columns / 2, std::numeric_limits<float>::quiet_NaN());
    m.sums[lane] = thread.sums.back().get();
  } else {
    if (!std::all_of(sums, sums + columns / 2, [](float x) { return x != x; })) {
      fault("accumulators are written while a wgmma adds to them");
    }
    (*found)->last = thread.issued;
    m.sums[lane] = found->get();
  }
  ++m.threads;
  ++thread.issued;
}

void multiply_fence() { self().fenced = true; }

void multiply_commit() {
  Thread& thread = self();
  thread.groups.push_back(thread.issued);
  thread.fenced = false;
}

void multiply_wait(int pending_groups) {
  Thread& thread = self();
  const auto pending = static_cast<std::size_t>(pending_groups);
  if (thread.groups.size() <= pending) return;
  const std::uint64_t needed = thread.groups[thread.groups.size() - 1 - pending];
  thread.groups.erase(thread.groups.begin(), thread.groups.end() - pending_groups);
  wait_for(thread.block->warpgroups[thread.index / kWarpgroupThreads].executed, needed,
           {"a wgmma that not all of their warpgroup have issued"});
  std::erase_if(thread.sums, [needed](const auto& sums) {
    if (sums->last >= needed) return false;
    if (!std::all_of(sums->place, sums->place + sums->values.size(),
                     [](float x) { return x != x; })) {
      fault("accumulators are written while a wgmma adds to them");
    }
    std::copy(sums->values.begin(), sums->values.end(), sums->place);
    return true;
  });
}

}  // namespace emulated
