// A forward pass: one parallel region, a barrier between phases, work handed out dynamically. Every
// value depends on (row, column) alone, so the answer has the same bits for any number of threads
// and any schedule.
#include "moebench/backend/cpu/forward.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "moebench/core/checked.h"

namespace moebench::cpu {
namespace {

TileFormat tile_format(const MoeShape& shape, Scheme scheme) {
  switch (scheme) {
    case Scheme::kNvfp4:
      return TileFormat::kNvfp4;
    case Scheme::kNvfp4W4A16:
      return shape.act == ActType::kFp16 ? TileFormat::kNvfp4Fp16 : TileFormat::kNvfp4Bf16;
    case Scheme::kFp8:
      return TileFormat::kFp8;
    case Scheme::kFp8Block:
      return TileFormat::kFp8Block;
  }
  fail(ErrorCode::kInternal, "scheme {}: not in the list", static_cast<int>(scheme));
}

/// Columns of y that a thread takes at a time.
constexpr std::int64_t kCombineColumns = 1024;
/// Slabs of one expert that a thread takes at a time: some 0.5 MB of weights, long runs for the
/// prefetcher.
constexpr std::int64_t kTaskSlabs = 16;
/// Tasks that every thread should find, so that the last one to finish does not keep the others
/// waiting.
constexpr std::int64_t kTasksPerThread = 16;

constexpr std::int64_t kFloatBytes = sizeof(float);
constexpr std::int64_t kActBytes = sizeof(std::uint16_t);

std::int64_t block_groups(std::int64_t cols) { return ceil_div(cols, kFp8BlockSize); }

constexpr std::int64_t kTileFloats = kMaxTileTokens * kSlabRows;
/// Tiles of an expert whose sums are kept while a part of a slab's depth after the other is
/// multiplied.
constexpr std::int64_t kSumTiles = 16;

constexpr std::size_t index_of(TileFormat format) { return static_cast<std::size_t>(format); }

}  // namespace

ForwardSizes::ForwardSizes(const MoeShape& shape, const SchemeConfig& scheme, std::int64_t tokens,
                           const CpuKernels& kernels, int threads)
    : format(tile_format(shape, scheme.scheme)) {
  constexpr const char* kWhat = "scratch of a case";
  const std::int64_t widest = round_up(std::max(shape.hidden, shape.intermediate), kStepDepth);
  const std::int64_t step_bytes = kernels.operand_step_bytes[static_cast<int>(format)];
  rows = checked_product("pairs", {tokens, shape.topk});
  const PackedGeometry packed(shape, weight_format(scheme));
  const std::int64_t gate_up_steps = round_up(packed.gate_up.steps, kernels.operand_steps);
  const std::int64_t down_steps = round_up(packed.down.steps, kernels.operand_steps);
  token_operand_row = checked_product(kWhat, {gate_up_steps, step_bytes});
  hidden_operand_row = checked_product(kWhat, {down_steps, step_bytes});
  sums_bytes = kTileFloats * kFloatBytes;
  if (rows > kernels.max_tile_tokens && kernels.multiply_expanded[index_of(format)] != nullptr) {
    expanded_bytes = checked_product(
        kWhat, {round_up(std::max(packed.gate_up.steps, packed.down.steps), kChunkSteps),
                kernels.expanded_step_bytes});
    sums_bytes *= kTaskSlabs * kSumTiles;
  }
  if (format == TileFormat::kFp8Block) group_scales_row = block_groups(widest);
  operand_bytes = checked_product(kWhat, {rows, std::max(token_operand_row, hidden_operand_row)});
  hidden_bytes = checked_product(kWhat, {rows, shape.intermediate, kActBytes});
  expert_output_bytes = checked_product(kWhat, {rows, shape.hidden, kActBytes});
  row_scale_bytes = checked_product(kWhat, {rows, (3 + group_scales_row) * kFloatBytes});
  // row, payload, scales, sums, slab scales, 128-wide weight scales: the parts of workspace()
  thread_bytes = widest * kFloatBytes + round_up(widest, kCacheLine) +
                 round_up(widest / kStepDepth, kCacheLine) + sums_bytes +
                 kTaskSlabs * (1 + block_groups(widest)) * kSlabRows * kFloatBytes + expanded_bytes;
  thread_bytes = round_up(thread_bytes, kCacheLine);
  all_thread_bytes = checked_product(kWhat, {threads, thread_bytes});
}

std::int64_t ForwardSizes::total() const {
  std::int64_t sum = 0;
  for (const std::int64_t part :
       {operand_bytes, hidden_bytes, expert_output_bytes, row_scale_bytes, all_thread_bytes}) {
    sum = checked_sum("scratch of a case", sum, part);
  }
  return sum;
}

CpuForward::CpuForward(const MoeProblem& problem, std::shared_ptr<const PackedCpuWeights> weights,
                       const CpuKernels& kernels, int threads)
    : problem_(problem),
      weights_(std::move(weights)),
      kernels_(kernels),
      threads_(threads),
      sizes_(problem.shape, problem.scheme, problem.tokens, kernels, threads),
      plan_(problem.tokens, problem.shape.topk, problem.shape.num_experts, kernels.max_tile_tokens),
      operand_(sizes_.operand_bytes),
      hidden_(sizes_.hidden_bytes),
      expert_output_(sizes_.expert_output_bytes),
      row_scales_(sizes_.row_scale_bytes),
      thread_scratch_(sizes_.all_thread_bytes) {
  token_scales_ = row_scales_.as<float>().data();
  row_amax_ = token_scales_ + sizes_.rows;
  row_index_ = row_scales_.as<std::int32_t>().data() + 2 * sizes_.rows;
  group_scales_ = token_scales_ + 3 * sizes_.rows;
  std::iota(row_index_, row_index_ + sizes_.rows, 0);
}

CpuForward::Workspace CpuForward::workspace(int thread) {
  const std::int64_t widest =
      round_up(std::max(problem_.shape.hidden, problem_.shape.intermediate), kStepDepth);
  std::byte* base = thread_scratch_.data() + thread * sizes_.thread_bytes;
  const auto carve = [&base](std::int64_t bytes) {
    std::byte* part = base;
    base += round_up(bytes, kCacheLine);
    return part;
  };
  Workspace space{};
  space.row = reinterpret_cast<float*>(carve(widest * kFloatBytes));
  space.payload = reinterpret_cast<std::uint8_t*>(carve(widest));
  space.scales = reinterpret_cast<std::uint8_t*>(carve(widest / kStepDepth));
  space.sums = reinterpret_cast<float*>(carve(sizes_.sums_bytes));
  space.row_scales = reinterpret_cast<float*>(carve(kTaskSlabs * kSlabRows * kFloatBytes));
  space.weight_scales =
      reinterpret_cast<float*>(carve(kTaskSlabs * block_groups(widest) * kSlabRows * kFloatBytes));
  space.expanded = reinterpret_cast<std::uint8_t*>(carve(sizes_.expanded_bytes));
  return space;
}

std::int64_t CpuForward::depth(Projection projection) const {
  return projection == Projection::kGateUp ? problem_.shape.hidden : problem_.shape.intermediate;
}

std::int64_t CpuForward::padded_depth(Projection projection) const {
  return round_up(weights_->geometry().of(projection).steps, kernels_.operand_steps) * kStepDepth;
}

std::int64_t CpuForward::operand_row_bytes(Projection projection) const {
  return projection == Projection::kGateUp ? sizes_.token_operand_row : sizes_.hidden_operand_row;
}

void CpuForward::run(std::span<std::uint16_t> y) { forward(y, nullptr); }

PhaseTimes CpuForward::run_phases(std::span<std::uint16_t> y) {
  PhaseEnds ends{};
  forward(y, &ends);
  const auto seconds = [&ends](Phase first, Phase last) {
    return std::chrono::duration<double>(ends[last + 1] - ends[first]).count();
  };
  return {{"route", seconds(kRoute, kRoute)},
          {"permute+quantize", seconds(kQuantize, kQuantize)},
          {"gemm1+activation", seconds(kGemm1, kGemm1)},
          {"quantize", seconds(kAmax, kRequantize)},
          {"gemm2", seconds(kGemm2, kGemm2)},
          {"combine", seconds(kCombine, kCombine)}};
}

void CpuForward::forward(std::span<std::uint16_t> y, PhaseEnds* ends) {
  const std::int64_t elements = problem_.tokens * problem_.shape.hidden;
  if (static_cast<std::int64_t>(y.size()) != elements) {
    fail(ErrorCode::kInternal, "output: {} elements, the case has {}", y.size(), elements);
  }
  if (ends != nullptr) (*ends)[kRoute] = Clock::now();
  for (auto& next : next_) next.store(0, std::memory_order_relaxed);
  plan_.route(problem_.routing.topk_ids);
  if (ends != nullptr) (*ends)[kRoute + 1] = Clock::now();
#pragma omp parallel num_threads(threads_)
  work(omp_get_thread_num(), y, ends);
}

void CpuForward::work(int thread, std::span<std::uint16_t> y, PhaseEnds* ends) {
  const Workspace space = workspace(thread);
  const auto finish = [&](Phase phase) {
#pragma omp barrier
    if (ends != nullptr && thread == 0) (*ends)[phase + 1] = Clock::now();
  };
  quantize_tokens(space);
  finish(kQuantize);
  multiply(space, Projection::kGateUp);
  finish(kGemm1);
  if (problem_.scheme.scheme == Scheme::kFp8 && !problem_.scheme.per_act_token) {
    find_row_amax(space);
#pragma omp barrier
    if (thread == 0) choose_dynamic_scale();
  }
  finish(kAmax);
  quantize_hidden(space);
  finish(kRequantize);
  multiply(space, Projection::kDown);
  finish(kGemm2);
  combine(y);
  finish(kCombine);
}

bool CpuForward::take(Phase phase, std::int64_t count, std::int64_t total, std::int64_t& first,
                      std::int64_t& last) {
  first = next_[phase].fetch_add(count, std::memory_order_relaxed);
  last = std::min(first + count, total);
  return first < total;
}

void CpuForward::multiply(const Workspace& space, Projection projection) {
  const Phase phase = projection == Projection::kGateUp ? kGemm1 : kGemm2;
  const auto groups = plan_.groups();
  const SlabGeometry& geometry = weights_->geometry().of(projection);
  const std::int64_t slabs = geometry.slabs;
  const std::int64_t all = slabs * static_cast<std::int64_t>(groups.size());
  const std::int64_t task_slabs =
      std::clamp(all / (threads_ * kTasksPerThread), std::int64_t{1}, kTaskSlabs);
  const std::int64_t tasks_per_group = ceil_div(slabs, task_slabs);
  const std::int64_t tasks = tasks_per_group * static_cast<std::int64_t>(groups.size());
  std::int64_t task = 0;
  std::int64_t end = 0;
  while (take(phase, 1, tasks, task, end)) {
    const ExpertGroup& group = groups[static_cast<std::size_t>(task / tasks_per_group)];
    const std::int64_t end_slab = std::min((task % tasks_per_group + 1) * task_slabs, slabs);
    const std::int64_t first_slab = task % tasks_per_group * task_slabs;
    multiply_slabs(space, projection, group, first_slab, end_slab - first_slab);
  }
}

void CpuForward::multiply_slabs(const Workspace& space, Projection projection,
                                const ExpertGroup& group, std::int64_t first, std::int64_t count) {
  const std::int64_t group_floats = block_groups(depth(projection)) * kSlabRows;
  for (std::int64_t i = 0; i < count; ++i) {
    fill_row_scales(projection, group.expert, first + i, space.row_scales + i * kSlabRows);
    if (sizes_.format != TileFormat::kFp8Block) continue;
    fill_group_scales(projection, group.expert, first + i, space.weight_scales + i * group_floats);
  }
  if (group.tiles > 1 && kernels_.multiply_expanded[index_of(sizes_.format)] != nullptr) {
    multiply_expanded_slabs(space, projection, group, first, count);
    return;
  }
  const std::int64_t steps = weights_->geometry().of(projection).steps;
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t t = 0; t < group.tiles; ++t) {
      multiply_part(
          {projection, TilePlan::tile(group, t), group.expert, first + i, 0, steps, false},
          space.weight_scales + i * group_floats, nullptr, space.sums);
      finish_sums(projection, TilePlan::tile(group, t), first + i, space.sums,
                  space.row_scales + i * kSlabRows);
    }
  }
}

/// Each slab is expanded once for kSumTiles tiles, by the first of them, as much of its depth at a
/// time as leaves their operand in the second-level cache.
void CpuForward::multiply_expanded_slabs(const Workspace& space, Projection projection,
                                         const ExpertGroup& group, std::int64_t first,
                                         std::int64_t count) {
  const SlabGeometry& geometry = weights_->geometry().of(projection);
  const std::int64_t group_floats = block_groups(depth(projection)) * kSlabRows;
  for (std::int64_t first_tile = 0; first_tile < group.tiles; first_tile += kSumTiles) {
    const std::int64_t end_tile = std::min(first_tile + kSumTiles, group.tiles);
    const std::int64_t part = part_steps(projection, group, end_tile - first_tile);
    for (std::int64_t step = 0; step < geometry.steps; step += part) {
      const std::int64_t steps = std::min(part, geometry.steps - step);
      for (std::int64_t i = 0; i < count; ++i) {
        for (std::int64_t t = first_tile; t < end_tile; ++t) {
          const Tile tile = TilePlan::tile(group, t);
          float* sums = space.sums + (i * kSumTiles + t - first_tile) * kTileFloats;
          multiply_part({projection, tile, group.expert, first + i, step, steps, t > first_tile},
                        space.weight_scales + i * group_floats, space.expanded, sums);
          if (step + steps < geometry.steps) continue;
          finish_sums(projection, tile, first + i, sums, space.row_scales + i * kSlabRows);
        }
      }
    }
  }
}

/// Of a slab, so that the operand of `tiles` tiles over them takes no more than
/// cached_operand_bytes, but at least a 128-wide group: as even as whole groups allow.
std::int64_t CpuForward::part_steps(Projection projection, const ExpertGroup& group,
                                    std::int64_t tiles) const {
  const std::int64_t groups = ceil_div(weights_->geometry().of(projection).steps, kFp8GroupSteps);
  const std::int64_t tokens = TilePlan::tile(group, 0).tokens * tiles;
  const std::int64_t parts = ceil_div(tokens * operand_row_bytes(projection),
                                      std::max(kernels_.cached_operand_bytes, std::int64_t{1}));
  const std::int64_t most = std::max(groups / parts, std::int64_t{1});
  return ceil_div(groups, ceil_div(groups, most)) * kFp8GroupSteps;
}

void CpuForward::multiply_part(const SlabPart& part, const float* weight_scales,
                               std::uint8_t* expanded, float* sums) {
  const auto format = index_of(sizes_.format);
  const SlabGeometry& geometry = weights_->geometry().of(part.projection);
  const std::int64_t group = part.first_step / kFp8GroupSteps;
  TileArgs args{};
  args.slab = weights_->slab(part.expert, part.projection, part.slab) +
              part.first_step * (geometry.slab_bytes / geometry.steps);
  args.expanded = expanded;
  args.steps = part.steps;
  args.tokens = part.tile.tokens;
  args.operand = operand_.data() + part.tile.first_row * operand_row_bytes(part.projection) +
                 part.first_step * kernels_.operand_step_bytes[format] * part.tile.tokens;
  args.sums = sums;
  args.first_part = part.first_step == 0;
  args.last_part = part.first_step + part.steps == geometry.steps;
  if (sizes_.format == TileFormat::kFp8Block) {
    args.weight_scales = weight_scales + group * kSlabRows;
    args.operand_scales = group_scales_ +
                          part.tile.first_row * block_groups(depth(part.projection)) +
                          group * part.tile.tokens;
  }
  part.is_expanded ? kernels_.multiply_expanded[format](args)
                   : kernels_.multiply_tile[format][part.tile.tokens - 1](args);
}

void CpuForward::finish_sums(Projection projection, const Tile& tile, std::int64_t slab,
                             const float* sums, const float* row_scales) {
  const bool gate_up = projection == Projection::kGateUp;
  const std::int64_t slab_columns = gate_up ? kPanelRows : kSlabRows;
  const std::int64_t columns = gate_up ? problem_.shape.intermediate : problem_.shape.hidden;
  const std::int64_t first_column = slab * slab_columns;
  Buffer& out = gate_up ? hidden_ : expert_output_;
  EpilogueArgs epilogue{};
  epilogue.type = problem_.shape.act;
  epilogue.tokens = tile.tokens;
  epilogue.sums = sums;
  epilogue.token_scales = token_scales_ + tile.first_row;
  epilogue.row_scales = row_scales;
  epilogue.valid_rows = std::min(slab_columns, columns - first_column);
  epilogue.out = out.as<std::uint16_t>().data() + first_column;
  epilogue.out_stride = columns;
  epilogue.out_rows = (gate_up ? row_index_ : plan_.pairs()) + tile.first_row;
  gate_up ? kernels_.activate(epilogue) : kernels_.round_sums(epilogue);
}

void CpuForward::fill_row_scales(Projection projection, std::int64_t expert, std::int64_t slab,
                                 float* row_scales) const {
  const WeightFormat format = weights_->geometry().format;
  if (format == WeightFormat::kFp8PerTensor) {
    std::fill_n(row_scales, kSlabRows, *weights_->scales(expert, projection));
  } else if (format == WeightFormat::kFp8PerChannel) {
    const float* scales = weights_->scales(expert, projection);
    for (std::int64_t r = 0; r < kSlabRows; ++r) {
      const std::int64_t row = weights_->geometry().canonical_row(projection, slab, r);
      row_scales[r] = row < 0 ? 0.0F : scales[row];
    }
  } else {
    std::fill_n(row_scales, kSlabRows, 1.0F);  // in the token scale, or inside the sums
  }
}

/// [groups][32]; the rows of a panel share one scale except where the up rows of w1 do not begin on
/// a block.
void CpuForward::fill_group_scales(Projection projection, std::int64_t expert, std::int64_t slab,
                                   float* weight_scales) const {
  const std::int64_t groups = block_groups(depth(projection));
  const float* scales = weights_->scales(expert, projection);
  const auto block_of = [&](std::int64_t slab_row) {
    const std::int64_t row = weights_->geometry().canonical_row(projection, slab, slab_row);
    return row < 0 ? 0 : row / kFp8BlockSize;  // a padding row's sums are not used
  };
  for (std::int64_t panel = 0; panel < kSlabRows; panel += kPanelRows) {
    std::array<std::int64_t, kPanelRows> blocks{};
    for (std::int64_t r = 0; r < kPanelRows; ++r) {
      blocks[static_cast<std::size_t>(r)] = block_of(panel + r) * groups;
    }
    const bool shared = blocks.front() == blocks.back();
    for (std::int64_t g = 0; g < groups; ++g) {
      float* out = weight_scales + g * kSlabRows + panel;
      if (shared) {
        std::fill_n(out, kPanelRows, scales[blocks.front() + g]);
        continue;
      }
      for (std::int64_t r = 0; r < kPanelRows; ++r) {
        out[r] = scales[blocks[static_cast<std::size_t>(r)] + g];
      }
    }
  }
}

void CpuForward::combine(std::span<std::uint16_t> y) {
  const std::int64_t hidden = problem_.shape.hidden;
  const std::int64_t topk = problem_.shape.topk;
  const std::int64_t parts = ceil_div(hidden, kCombineColumns);
  const std::uint16_t* outputs = expert_output_.as<std::uint16_t>().data();
  std::int64_t unit = 0;
  std::int64_t end = 0;
  while (take(kCombine, 1, problem_.tokens * parts, unit, end)) {
    const std::int64_t token = unit / parts;
    const std::int64_t column = unit % parts * kCombineColumns;
    kernels_.combine(problem_.shape.act, outputs + token * topk * hidden + column, hidden,
                     problem_.routing.topk_weights.data() + token * topk, topk,
                     std::min(kCombineColumns, hidden - column),
                     y.data() + token * hidden + column);
  }
}

std::optional<DynamicScaleClaim> CpuForward::dynamic_scale() const {
  if (problem_.scheme.scheme != Scheme::kFp8 || problem_.scheme.per_act_token) return std::nullopt;
  return dynamic_scale_;
}

void CpuForward::flush_caches() {
  // Twice the last-level cache, or this much where its size is not known.
  constexpr std::int64_t kUnknownCacheBytes = std::int64_t{128} << 20;
  const std::int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (flush_.size() == 0) flush_ = Buffer(cache > 0 ? 2 * cache : kUnknownCacheBytes);
  const auto lines = flush_.as<std::uint8_t>();
#pragma omp parallel for num_threads(threads_)
  for (std::int64_t i = 0; i < flush_.size(); i += kCacheLine) {
    ++lines[static_cast<std::size_t>(i)];
  }
}

}  // namespace moebench::cpu
