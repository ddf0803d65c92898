// One case on the CPU, ready to run: its scratch memory and the phases of a forward pass.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <vector>

#include "moebench/backend/backend.h"
#include "moebench/backend/cpu/kernels.h"
#include "moebench/backend/cpu/pack.h"
#include "moebench/backend/cpu/tile_plan.h"
#include "moebench/core/buffer.h"

namespace moebench::cpu {

/// Scratch bytes of one case. Rows are (token, slot) pairs sorted by expert.
struct ForwardSizes {
  ForwardSizes(const MoeShape& shape, const SchemeConfig& scheme, std::int64_t tokens,
               const CpuKernels& kernels, int threads);

  TileFormat format;
  std::int64_t rows = 0;
  std::int64_t token_operand_row = 0;   ///< bytes of a row of GEMM1's operand
  std::int64_t hidden_operand_row = 0;  ///< of GEMM2's
  std::int64_t group_scales_row = 0;    ///< fp8-block: scales of a row, the wider of both operands
  std::int64_t expanded_bytes = 0;      ///< an expanded slab
  std::int64_t sums_bytes = 0;          ///< one thread's sums
  std::int64_t thread_bytes = 0;        ///< one thread's working rows
  std::int64_t operand_bytes = 0;
  std::int64_t hidden_bytes = 0;
  std::int64_t expert_output_bytes = 0;
  std::int64_t row_scale_bytes = 0;
  std::int64_t all_thread_bytes = 0;
  [[nodiscard]] std::int64_t total() const;
};

class CpuForward final : public PreparedMoe {
 public:
  CpuForward(const MoeProblem& problem, std::shared_ptr<const PackedCpuWeights> weights,
             const CpuKernels& kernels, int threads);

  void run(std::span<std::uint16_t> y) override;
  [[nodiscard]] std::optional<DynamicScaleClaim> dynamic_scale() const override;
  PhaseTimes run_phases(std::span<std::uint16_t> y) override;
  void flush_caches() override;
  [[nodiscard]] std::int64_t scratch_bytes() const override { return sizes_.total(); }

 private:
  /// One thread's working memory, carved out of thread_scratch_.
  struct Workspace {
    float* row;
    std::uint8_t* payload;
    std::uint8_t* scales;
    float* sums;        ///< of a tile; with expanded slabs [kTaskSlabs][kSumTiles]
    float* row_scales;  ///< of kTaskSlabs slabs, as weight_scales
    float* weight_scales;
    std::uint8_t* expanded;  ///< a slab, or a part of its depth, expanded
  };
  enum Phase : std::uint8_t {
    kRoute,
    kQuantize,
    kGemm1,
    kAmax,
    kRequantize,
    kGemm2,
    kCombine,
    kPhases
  };
  using Clock = std::chrono::steady_clock;
  using PhaseEnds = std::array<Clock::time_point, kPhases + 1>;

  void forward(std::span<std::uint16_t> y, PhaseEnds* ends);
  void work(int thread, std::span<std::uint16_t> y, PhaseEnds* ends);
  [[nodiscard]] Workspace workspace(int thread);
  /// The next block of `count` units of a phase: [first, last), empty when all are taken.
  [[nodiscard]] bool take(Phase phase, std::int64_t count, std::int64_t total, std::int64_t& first,
                          std::int64_t& last);

  void quantize_tokens(const Workspace& space);
  void find_row_amax(const Workspace& space);
  void choose_dynamic_scale();
  void quantize_hidden(const Workspace& space);
  void quantize_row(const Workspace& space, Projection projection, std::int64_t row);
  void store_operand_row(const float* x, Projection projection, std::int64_t row);
  float quantize_fp8_operand(const Workspace& space, Projection projection);
  void quantize_fp8_groups(const Workspace& space, Projection projection, std::int64_t row);

  void multiply(const Workspace& space, Projection projection);
  /// Slabs first .. first + count of one expert with all its tiles.
  void multiply_slabs(const Workspace& space, Projection projection, const ExpertGroup& group,
                      std::int64_t first, std::int64_t count);
  void multiply_expanded_slabs(const Workspace& space, Projection projection,
                               const ExpertGroup& group, std::int64_t first, std::int64_t count);
  [[nodiscard]] std::int64_t part_steps(Projection projection, const ExpertGroup& group,
                                        std::int64_t tiles) const;
  /// A tile with steps first_step .. first_step + steps of a slab.
  struct SlabPart {
    Projection projection;
    Tile tile;
    std::int64_t expert;
    std::int64_t slab;
    std::int64_t first_step;
    std::int64_t steps;
    bool is_expanded;  ///< by the tile before
  };
  void multiply_part(const SlabPart& part, const float* weight_scales, std::uint8_t* expanded,
                     float* sums);
  void finish_sums(Projection projection, const Tile& tile, std::int64_t slab, const float* sums,
                   const float* row_scales);
  void fill_row_scales(Projection projection, std::int64_t expert, std::int64_t slab,
                       float* row_scales) const;
  void fill_group_scales(Projection projection, std::int64_t expert, std::int64_t slab,
                         float* weight_scales) const;
  void combine(std::span<std::uint16_t> y);

  [[nodiscard]] std::int64_t depth(Projection projection) const;
  [[nodiscard]] std::int64_t padded_depth(Projection projection) const;  ///< of an operand
  [[nodiscard]] std::int64_t operand_row_bytes(Projection projection) const;

  const MoeProblem& problem_;
  std::shared_ptr<const PackedCpuWeights> weights_;
  const CpuKernels& kernels_;
  int threads_;
  ForwardSizes sizes_;
  TilePlan plan_;
  Buffer operand_;  ///< GEMM1's tiles, then GEMM2's: the first are dead when the second are written
  Buffer hidden_;   ///< h, 16 bits, [rows, N]
  Buffer expert_output_;  ///< c2, 16 bits, [pairs, K]
  Buffer row_scales_;     ///< token scale, amax and index of each row; fp8-block: group scales
  Buffer thread_scratch_;
  Buffer flush_;                       ///< made by the first flush_caches()
  float* token_scales_ = nullptr;      ///< [rows], multiply the sums
  float* row_amax_ = nullptr;          ///< [rows], of h
  std::int32_t* row_index_ = nullptr;  ///< [rows], 0, 1, 2, ...
  float* group_scales_ = nullptr;      ///< fp8-block: per tile [groups][tokens]
  DynamicScaleClaim dynamic_scale_;
  std::array<std::atomic<std::int64_t>, kPhases> next_{};
};

}  // namespace moebench::cpu
