// The sm_90a instructions that the kernels use, one thin function each.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace moebench::cuda::ptx {

/// The launch's dynamic shared memory.
__device__ inline std::uint8_t* dynamic_shared() {
  extern __shared__ __align__(16) std::uint8_t shared[];
  return shared;
}
__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void barrier_init(std::uint32_t barrier, std::uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_arrive_if(std::uint32_t barrier, bool arrive) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %1, 0;\n@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}\n" ::
          "r"(barrier),
      "r"(static_cast<int>(arrive))
      : "memory");
}
__device__ inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

/// Contiguous copy from device to shared memory, 16-byte multiples; completes on `barrier`.
__device__ inline void copy_to_shared(std::uint32_t to, const void* from, std::uint32_t bytes,
                                      std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ inline void copy_to_shared(std::uint32_t to, const void* from, std::uint32_t bytes,
                                      std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
/// The same to the same place in both blocks of a cluster of two, and onto the same barrier of
/// each.
__device__ inline void copy_to_both(std::uint32_t to, const void* from, std::uint32_t bytes,
                                    std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "h"(std::uint16_t{3})
      : "memory");
}
__device__ inline std::uint64_t policy_evict_first() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline std::uint64_t policy_evict_normal() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ inline uint4 load_shared_16(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

__device__ inline uint2 load_shared_pair(std::uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}
__device__ inline float2 load_shared_8(std::uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address));
  return v;
}

__device__ inline void store_shared_8(std::uint32_t address, std::uint32_t a, std::uint32_t b) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(a), "r"(b) : "memory");
}

/// Before a barrier is told that shared memory may be overwritten by a bulk copy: loads from it
/// have their values. The arrival alone does not wait for them, and they queue behind other warps'
/// stores to memory for longer than a stage takes to be filled again.
__device__ inline void shared_loads_done() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Without a branch, whatever is known of `store`.
__device__ inline void store_if(void* p, std::uint32_t v, bool store) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %2, 0;\n@p st.global.u32 [%0], %1;\n}\n" ::"l"(p),
               "r"(v), "r"(static_cast<int>(store))
               : "memory");
}

// Two 16-bit numbers of a register, the first in the low half.
__device__ __forceinline__ std::uint32_t round_pair_fp16(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ std::uint32_t round_pair_bf16(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ std::uint32_t max_pair_fp16(std::uint32_t a, std::uint32_t b) {
  std::uint32_t pair;
  asm("max.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}
__device__ __forceinline__ std::uint32_t max_pair_bf16(std::uint32_t a, std::uint32_t b) {
  std::uint32_t pair;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}
/// E4M3 codes, rounded to nearest even and saturating.
__device__ __forceinline__ std::uint16_t e4m3_pair(float low, float high) {
  std::uint16_t codes;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
  return codes;
}
/// Two E4M3 codes as FP16.
__device__ __forceinline__ std::uint32_t e4m3_to_fp16(std::uint16_t codes) {
  std::uint32_t pair;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(codes));
  return pair;
}
/// 2^x and 1 / x to about 2^-22.
__device__ __forceinline__ float exp2_approximate(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
__device__ __forceinline__ float reciprocal_approximate(float x) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
  return inverse;
}

/// Barrier `id` (1..15) among `threads` threads.
__device__ inline void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int kRegisters>
__device__ inline void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// Programmatic dependent launch: the next kernel may start; wait for the one before.
__device__ inline void allow_next_kernel() { asm volatile("griddepcontrol.launch_dependents;"); }
__device__ inline void wait_for_previous_kernel() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

__device__ inline std::int32_t load_acquire(const std::int32_t* p) {
  std::int32_t v;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ inline void store_release(std::int32_t* p, std::int32_t v) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

/// The compiler may not move what computes `a` behind this point.
__device__ inline void keep_before(std::uint32_t (&a)[4]) {
  asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3])::"memory");
}

/// The compiler may not gather the loads of an unrolled loop at its top, where they would hold
/// registers.
__device__ inline void keep_order() { asm volatile("" ::: "memory"); }

/// All threads of the cluster's blocks: what one has written to its shared memory before it arrives
/// the others see after they have waited. To shared memory only: an arrival that released the rest,
/// too, would wait for it to reach the second-level cache.
__device__ inline void cluster_arrive() {
  asm volatile(
      "fence.release.sync_restrict::shared::cta.cluster;\n"
      "barrier.cluster.arrive.relaxed;" ::
          : "memory");
}
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
/// What `p`, in this block's shared memory, is in that of the cluster's block `rank`.
__device__ inline std::int32_t load_cluster(const std::int32_t* p, int rank) {
  std::int32_t v;
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %1, %2;\n"
      "ld.shared::cluster.s32 %0, [there];\n"
      "}\n"
      : "=r"(v)
      : "r"(shared_address(p)), "r"(rank)
      : "memory");
  return v;
}

/// One arrival at what `barrier` is in the cluster's block `rank`. It says that this block's shared
/// memory may be written by bulk copies of that one, and carries no data: with release and acquire
/// of cluster scope all of the first-level cache would be emptied each time.
__device__ inline void barrier_arrive_at(std::uint32_t barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
/// Stores `v` into what `p` is in the cluster's block `rank`: 4 bytes for what `barrier` is there.
__device__ inline void send(std::int32_t v, const std::int32_t* p, std::uint32_t barrier,
                            int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there, barrier;\n"
      "mapa.shared::cluster.u32 there, %0, %2;\n"
      "mapa.shared::cluster.u32 barrier, %1, %2;\n"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.s32 [there], %3, [barrier];\n"
      "}\n" ::"r"(shared_address(p)),
      "r"(barrier), "r"(rank), "r"(v)
      : "memory");
}

/// blockIdx.x, read anew each time instead of held in a register.
__device__ inline std::uint32_t block_index() {
  std::uint32_t x;
  asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
  return x;
}

/// `x`, as something that is only known here: what follows from it is not computed before a loop
/// and held in registers all through it.
__device__ inline int known_here(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
template <typename T>
__device__ inline T* known_here(T* p) {
  asm volatile("" : "+l"(p));
  return p;
}

/// `x`, which is the same in all lanes of the warp, as something that the compiler knows to be so:
/// what follows from it then takes uniform registers and instructions.
__device__ inline std::uint32_t same_in_warp(std::uint32_t x) {
  return __shfl_sync(0xFFFFFFFF, x, 0);
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// wgmma m64nNk16, A (the weights) from registers, B (the tokens) from shared memory, FP32
// accumulators d[N/2]. d += A * B, or d = A * B. Operands are numbered: the accumulators, 4
// registers of A, the descriptor of B.
#define MOEBENCH_D4(C, i) C(d[i]), C(d[i + 1]), C(d[i + 2]), C(d[i + 3])
#define MOEBENCH_D8(C, i) MOEBENCH_D4(C, i), MOEBENCH_D4(C, i + 4)
#define MOEBENCH_D16(C, i) MOEBENCH_D8(C, i), MOEBENCH_D8(C, i + 8)
#define MOEBENCH_D32(C, i) MOEBENCH_D16(C, i), MOEBENCH_D16(C, i + 16)
#define MOEBENCH_S4 "%0,%1,%2,%3"
#define MOEBENCH_S8 MOEBENCH_S4 ",%4,%5,%6,%7"
#define MOEBENCH_S12 MOEBENCH_S8 ",%8,%9,%10,%11"
#define MOEBENCH_S20 MOEBENCH_S16 ",%16,%17,%18,%19"
#define MOEBENCH_S28 MOEBENCH_S24 ",%24,%25,%26,%27"
#define MOEBENCH_S36 MOEBENCH_S32 ",%32,%33,%34,%35"
#define MOEBENCH_S16 MOEBENCH_S8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define MOEBENCH_S24 MOEBENCH_S16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define MOEBENCH_S32 MOEBENCH_S24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define MOEBENCH_S40 MOEBENCH_S32 ",%32,%33,%34,%35,%36,%37,%38,%39"

template <bool kBf16, int N, bool kAdd = true>
struct Wgmma;
#define MOEBENCH_WGMMA(BF16, TYPE, ADD, N, REGS, OUT, A0, A1, A2, A3, B)                     \
  template <>                                                                                \
  struct Wgmma<BF16, N, ADD> {                                                               \
    __device__ static void multiply(float (&d)[N / 2], const std::uint32_t (&a)[4],          \
                                    std::uint64_t b) {                                       \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" REGS \
                   "}, {%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 "}, %" #B ", " #ADD ", 1, 1, 0;\n" \
                   : OUT                                                                     \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                    \
    }                                                                                        \
  };
#define MOEBENCH_WGMMA_SIZES(BF16, TYPE, ADD, C)                                            \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 8, MOEBENCH_S4, MOEBENCH_D4(C, 0), 4, 5, 6, 7, 8)         \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 16, MOEBENCH_S8, MOEBENCH_D8(C, 0), 8, 9, 10, 11, 12)     \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 24, MOEBENCH_S12,                                         \
                 MOEBENCH_D8(C, 0) MOEBENCH_COMMA MOEBENCH_D4(C, 8), 12, 13, 14, 15, 16)    \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 40, MOEBENCH_S20,                                         \
                 MOEBENCH_D16(C, 0) MOEBENCH_COMMA MOEBENCH_D4(C, 16), 20, 21, 22, 23, 24)  \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 56, MOEBENCH_S28,                                         \
                 MOEBENCH_D16(C, 0) MOEBENCH_COMMA MOEBENCH_D8(C, 16)                       \
                     MOEBENCH_COMMA MOEBENCH_D4(C, 24),                                     \
                 28, 29, 30, 31, 32)                                                        \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 72, MOEBENCH_S36,                                         \
                 MOEBENCH_D32(C, 0) MOEBENCH_COMMA MOEBENCH_D4(C, 32), 36, 37, 38, 39, 40)  \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 32, MOEBENCH_S16, MOEBENCH_D16(C, 0), 16, 17, 18, 19, 20) \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 48, MOEBENCH_S24,                                         \
                 MOEBENCH_D16(C, 0) MOEBENCH_COMMA MOEBENCH_D8(C, 16), 24, 25, 26, 27, 28)  \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 64, MOEBENCH_S32, MOEBENCH_D32(C, 0), 32, 33, 34, 35, 36) \
  MOEBENCH_WGMMA(BF16, TYPE, ADD, 80, MOEBENCH_S40,                                         \
                 MOEBENCH_D32(C, 0) MOEBENCH_COMMA MOEBENCH_D8(C, 32), 40, 41, 42, 43, 44)
#define MOEBENCH_COMMA ,
MOEBENCH_WGMMA_SIZES(false, "f16", 1, "+f")
MOEBENCH_WGMMA_SIZES(true, "bf16", 1, "+f")
MOEBENCH_WGMMA_SIZES(false, "f16", 0, "=f")
MOEBENCH_WGMMA_SIZES(true, "bf16", 0, "=f")
#undef MOEBENCH_WGMMA_SIZES
#undef MOEBENCH_WGMMA

}  // namespace moebench::cuda::ptx
