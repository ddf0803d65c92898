// Small kernels around the layer: filling, flushing, holding the queue, streaming reads for the
// machine's rates.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace moebench::cuda {

/// Writes `value` into `count` 16-bit elements.
void enqueue_fill(std::uint16_t* out, std::int64_t count, std::uint16_t value, cudaStream_t stream);

/// Overwrites `bytes` (a multiple of 16) at `buffer`, so that a cache of less than half of them
/// holds nothing else.
void enqueue_overwrite(void* buffer, std::int64_t bytes, cudaStream_t stream);

/// Keeps the stream busy for about `clocks` of a multiprocessor: what is enqueued meanwhile starts
/// without a gap.
void enqueue_hold(std::int64_t clocks, cudaStream_t stream);

/// Fills `bytes` (a multiple of 16) with words that differ, adding them up into *sum (modulo 2^64).
void enqueue_stream_fill(void* buffer, std::int64_t bytes, unsigned long long* sum,
                         cudaStream_t stream);

/// Ways to read a buffer once with 16-byte loads.
struct StreamRead {
  int blocks_per_multiprocessor;
  int threads;
  int loads_in_flight;  ///< per thread: 4, 8 or 16
};
/// Reads all of `bytes` and adds its words to *sum.
void enqueue_stream_read(const StreamRead& how, const void* buffer, std::int64_t bytes,
                         unsigned long long* sum, int multiprocessors, cudaStream_t stream);

}  // namespace moebench::cuda
