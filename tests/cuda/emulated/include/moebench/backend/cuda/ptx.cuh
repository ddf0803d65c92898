// In place of moebench/backend/cuda/ptx.cuh: the same functions on the emulated device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "moebench/core/dtype.h"

namespace moebench::cuda::ptx {

inline std::uint8_t* dynamic_shared() { return emulated::dynamic_shared(); }
inline std::uint32_t shared_address(const void* p) { return emulated::shared_address(p); }

inline void barrier_init(std::uint32_t barrier, std::uint32_t count) {
  emulated::barrier_init(barrier, count);
}
inline void barrier_init_fence() {}
inline void barrier_arrive(std::uint32_t barrier) { emulated::barrier_arrive(barrier, 0); }
inline void barrier_arrive_if(std::uint32_t barrier, bool arrive) {
  if (arrive) emulated::barrier_arrive(barrier, 0);
}
inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  emulated::barrier_arrive(barrier, bytes);
}
inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  emulated::barrier_wait(barrier, parity);
}

inline void copy_to_shared(std::uint32_t to, const void* from, std::uint32_t bytes,
                           std::uint32_t barrier, std::uint64_t) {
  emulated::copy_to_shared(to, from, bytes, barrier);
}
inline void copy_to_shared(std::uint32_t to, const void* from, std::uint32_t bytes,
                           std::uint32_t barrier) {
  emulated::copy_to_shared(to, from, bytes, barrier);
}
inline void copy_to_both(std::uint32_t to, const void* from, std::uint32_t bytes,
                         std::uint32_t barrier) {
  emulated::copy_to_cluster(to, from, bytes, barrier);
}
inline std::uint64_t policy_evict_first() { return 0; }
inline std::uint64_t policy_evict_normal() { return 0; }
inline uint4 load_shared_16(std::uint32_t address) {
  uint4 v;
  emulated::load_shared(address, &v, sizeof v);
  return v;
}
inline uint2 load_shared_pair(std::uint32_t address) {
  uint2 v;
  emulated::load_shared(address, &v, sizeof v);
  return v;
}
inline float2 load_shared_8(std::uint32_t address) {
  float2 v;
  emulated::load_shared(address, &v, sizeof v);
  return v;
}

inline void store_shared_8(std::uint32_t address, std::uint32_t a, std::uint32_t b) {
  const uint2 v = {a, b};
  emulated::store_shared(address, &v, sizeof v);
}
inline void shared_loads_done() {}

inline void store_if(void* p, std::uint32_t v, bool store) {
  if (store) std::memcpy(p, &v, sizeof v);
}

inline std::uint32_t round_pair_fp16(float low, float high) {
  return encode_fp16(low) | static_cast<std::uint32_t>(encode_fp16(high)) << 16;
}
inline std::uint32_t round_pair_bf16(float low, float high) {
  return encode_bf16(low) | static_cast<std::uint32_t>(encode_bf16(high)) << 16;
}
template <typename Decode>
std::uint32_t max_pair(Decode decode, std::uint32_t a, std::uint32_t b) {
  const auto larger = [decode](std::uint32_t x, std::uint32_t y) {
    const float fx = decode(static_cast<std::uint16_t>(x));
    const float fy = decode(static_cast<std::uint16_t>(y));
    return fx >= fy || fy != fy ? x : y;  // NaN only where both are
  };
  return larger(a & 0xFFFF, b & 0xFFFF) | larger(a >> 16, b >> 16) << 16;
}
inline std::uint32_t max_pair_fp16(std::uint32_t a, std::uint32_t b) {
  return max_pair(decode_fp16, a, b);
}
inline std::uint32_t max_pair_bf16(std::uint32_t a, std::uint32_t b) {
  return max_pair(decode_bf16, a, b);
}
inline std::uint16_t e4m3_pair(float low, float high) {
  return static_cast<std::uint16_t>(encode_e4m3(low) | encode_e4m3(high) << 8);
}
inline std::uint32_t e4m3_to_fp16(std::uint16_t codes) {
  return round_pair_fp16(decode_e4m3(static_cast<std::uint8_t>(codes & 0xFF)),
                         decode_e4m3(static_cast<std::uint8_t>(codes >> 8)));
}
inline float exp2_approximate(float x) { return std::exp2(x); }
inline float reciprocal_approximate(float x) { return 1.0F / x; }

inline void named_barrier(int id, int threads) { emulated::block_barrier(id, threads); }
template <int kRegisters>
void more_registers() {
  emulated::set_registers(kRegisters, true);
}
template <int kRegisters>
void fewer_registers() {
  emulated::set_registers(kRegisters, false);
}
inline void allow_next_kernel() { emulated::allow_next_launch(); }
inline void wait_for_previous_kernel() { emulated::wait_for_previous_launch(); }

inline std::int32_t load_acquire(const std::int32_t* p) { return emulated::load_acquire(p); }
inline void store_release(std::int32_t* p, std::int32_t v) { emulated::store_release(p, v); }

inline void cluster_arrive() { emulated::cluster_arrive(); }
inline void cluster_wait() { emulated::cluster_wait(); }
inline std::int32_t load_cluster(const std::int32_t* p, int rank) {
  return *reinterpret_cast<const std::int32_t*>(emulated::in_cluster(p, rank));
}

inline void barrier_arrive_at(std::uint32_t barrier, int rank) {
  emulated::barrier_arrive(barrier, 0, rank);
}
inline void send(std::int32_t v, const std::int32_t* p, std::uint32_t barrier, int rank) {
  emulated::send(v, p, barrier, rank);
}

inline std::uint32_t block_index() { return blockIdx.x; }

inline void keep_before(std::uint32_t (&)[4]) {}
inline void keep_order() {}
template <typename T>
T known_here(T x) {
  return x;
}
inline std::uint32_t same_in_warp(std::uint32_t x) { return x; }

inline void wgmma_fence() { emulated::multiply_fence(); }
inline void wgmma_commit() { emulated::multiply_commit(); }
template <int kPending>
void wgmma_wait() {
  emulated::multiply_wait(kPending);
}
template <bool kBf16, int N, bool kAdd = true>
struct Wgmma {
  static void multiply(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b) {
    if (!kAdd) std::fill(d, d + N / 2, 0.0F);
    emulated::multiply(kBf16, N, d, a, b);
  }
};

}  // namespace moebench::cuda::ptx
