// The synthetic layer: rows from Philox, quantised expert by expert straight into canonical form.
#include "moebench/moe/weights.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "moebench/core/checked.h"
#include "moebench/moe/expert_pool.h"
#include "moebench/moe/philox.h"
#include "moebench/moe/philox_kernels.h"

namespace moebench {
namespace {

/// One of an expert's two matrices, as the generator knows it.
struct MatrixKey {
  std::uint64_t seed;
  std::int64_t expert;
  bool down;
  std::int64_t rows;
  std::int64_t cols;
};

philox::RowKey row_key(const MatrixKey& matrix, std::int64_t row) {
  return {matrix.seed, static_cast<std::uint32_t>(matrix.down ? Stream::kDown : Stream::kGateUp),
          static_cast<std::uint32_t>(matrix.expert), static_cast<std::uint32_t>(row), kWeightStep};
}

/// Threads for the loops over one expert's rows: callers that take one expert per thread keep their
/// threads busy themselves, a caller that asks for a single expert gets all of them, unless it is
/// so small that waking them costs more.
int row_threads(const MatrixKey& matrix) {
  constexpr std::int64_t kWorthThreads =
      1 << 18;  // about 0.3 ms of generating and quantising on one thread
  const bool alone = omp_in_parallel() != 0 || matrix.rows * matrix.cols < kWorthThreads;
  return alone ? 1 : omp_get_max_threads();
}

/// Calls `use(row, values)` for every row of the matrix. `use` must not throw.
template <typename UseRow>
void for_each_row(const MatrixKey& matrix, UseRow use) {
  const int threads = row_threads(matrix);
  const philox::Fill fill = philox::fastest_fill();
  std::vector<float> buffers(static_cast<std::size_t>(threads * matrix.cols));
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::int64_t row = 0; row < matrix.rows; ++row) {
    float* values = buffers.data() + omp_get_thread_num() * matrix.cols;
    philox::fill_values(fill, row_key(matrix, row), 0, matrix.cols, values);
    use(row, std::span<const float>(values, static_cast<std::size_t>(matrix.cols)));
  }
}

float amax_of_matrix(const MatrixKey& matrix) {
  const int threads = row_threads(matrix);
  std::vector<float> per_thread(static_cast<std::size_t>(threads), 0.0F);
  for_each_row(matrix, [&](std::int64_t, std::span<const float> values) {
    float& amax = per_thread[static_cast<std::size_t>(omp_get_thread_num())];
    amax = std::max(amax, amax_of(values));
  });
  return *std::max_element(per_thread.begin(), per_thread.end());
}

void quantize_nvfp4_matrix(const MatrixKey& matrix, float amax, Nvfp4Matrix& out) {
  out.global_scale = nvfp4_global_scale(amax);
  std::uint8_t* payload = out.payload.as<std::uint8_t>().data();
  std::uint8_t* scales = out.scales.as<std::uint8_t>().data();
  for_each_row(matrix, [&](std::int64_t row, std::span<const float> values) {
    quantize_nvfp4_row(values.data(), matrix.cols, out.global_scale,
                       payload + row * (matrix.cols / 2),
                       scales + row * (matrix.cols / kNvfp4BlockSize));
  });
}

void quantize_fp8_per_tensor(const MatrixKey& matrix, float amax, Fp8Matrix& out) {
  const float scale = fp8_scale(amax);
  out.scales.as<float>()[0] = scale;
  std::uint8_t* payload = out.payload.as<std::uint8_t>().data();
  for_each_row(matrix, [&](std::int64_t row, std::span<const float> values) {
    quantize_fp8_row(values.data(), matrix.cols, scale, payload + row * matrix.cols);
  });
}

void quantize_fp8_per_channel(const MatrixKey& matrix, Fp8Matrix& out) {
  std::uint8_t* payload = out.payload.as<std::uint8_t>().data();
  float* scales = out.scales.as<float>().data();
  for_each_row(matrix, [&](std::int64_t row, std::span<const float> values) {
    scales[row] = fp8_scale(amax_of(values));
    quantize_fp8_row(values.data(), matrix.cols, scales[row], payload + row * matrix.cols);
  });
}

/// A block's 128 row parts (64 KiB) are generated once and stay in cache between its amax and its
/// quantisation.
void quantize_fp8_blocks(const MatrixKey& matrix, Fp8Matrix& out) {
  constexpr std::int64_t kTile = kFp8BlockSize * kFp8BlockSize;
  static_assert(kFp8BlockSize % philox::kWordsPerBlock == 0);
  const std::int64_t row_blocks = ceil_div(matrix.rows, kFp8BlockSize);
  const std::int64_t col_blocks = ceil_div(matrix.cols, kFp8BlockSize);
  const int threads = row_threads(matrix);
  const philox::Fill fill = philox::fastest_fill();
  std::uint8_t* payload = out.payload.as<std::uint8_t>().data();
  float* scales = out.scales.as<float>().data();
  std::vector<float> tiles(static_cast<std::size_t>(threads * kTile));
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
  for (std::int64_t row_block = 0; row_block < row_blocks; ++row_block) {
    for (std::int64_t col_block = 0; col_block < col_blocks; ++col_block) {
      float* tile = tiles.data() + omp_get_thread_num() * kTile;
      const std::int64_t first_row = row_block * kFp8BlockSize;
      const std::int64_t first_col = col_block * kFp8BlockSize;
      const std::int64_t rows = std::min(kFp8BlockSize, matrix.rows - first_row);
      const std::int64_t cols = std::min(kFp8BlockSize, matrix.cols - first_col);
      for (std::int64_t r = 0; r < rows; ++r) {
        philox::fill_values(fill, row_key(matrix, first_row + r), first_col, cols, tile + r * cols);
      }
      const float scale = fp8_scale(amax_of({tile, static_cast<std::size_t>(rows * cols)}));
      scales[row_block * col_blocks + col_block] = scale;
      for (std::int64_t r = 0; r < rows; ++r) {
        quantize_fp8_row(tile + r * cols, cols, scale,
                         payload + (first_row + r) * matrix.cols + first_col);
      }
    }
  }
}

MatrixKey matrix_key(std::uint64_t seed, const MoeShape& shape, std::int64_t expert, bool down) {
  return down ? MatrixKey{seed, expert, true, shape.hidden, shape.intermediate}
              : MatrixKey{seed, expert, false, 2 * shape.intermediate, shape.hidden};
}

bool needs_matrix_amax(WeightFormat format) {
  return format == WeightFormat::kNvfp4 || format == WeightFormat::kFp8PerTensor;
}

/// `amax` is read only where the format has one scale for the whole matrix.
void quantize_matrix(const MatrixKey& matrix, WeightFormat format, float amax, ExpertWeights& out) {
  switch (format) {
    case WeightFormat::kNvfp4:
      return quantize_nvfp4_matrix(matrix, amax, matrix.down ? out.nvfp4_w2 : out.nvfp4_w1);
    case WeightFormat::kFp8PerTensor:
      return quantize_fp8_per_tensor(matrix, amax, matrix.down ? out.fp8_w2 : out.fp8_w1);
    case WeightFormat::kFp8PerChannel:
      return quantize_fp8_per_channel(matrix, matrix.down ? out.fp8_w2 : out.fp8_w1);
    case WeightFormat::kFp8Block:
      return quantize_fp8_blocks(matrix, matrix.down ? out.fp8_w2 : out.fp8_w1);
  }
}

/// amax of both matrices of every expert, once somebody has found it. Two threads that find the
/// same one at the same time store the same value, so relaxed order is enough.
class AmaxMemory {
 public:
  explicit AmaxMemory(std::int64_t num_experts) : amax_(static_cast<std::size_t>(2 * num_experts)) {
    for (std::atomic<float>& amax : amax_) {
      amax.store(kUnknown, std::memory_order_relaxed);
    }
  }

  float of(const MatrixKey& matrix) {
    std::atomic<float>& slot =
        amax_[static_cast<std::size_t>(2 * matrix.expert + (matrix.down ? 1 : 0))];
    float amax = slot.load(std::memory_order_relaxed);
    if (amax == kUnknown) {
      amax = amax_of_matrix(matrix);
      slot.store(amax, std::memory_order_relaxed);
    }
    return amax;
  }

 private:
  static constexpr float kUnknown = -1.0F;
  std::vector<std::atomic<float>> amax_;
};

void require_made_for(const MoeShape& shape, const ExpertWeights& out) {
  const bool nvfp4 = out.format == WeightFormat::kNvfp4;
  const std::int64_t w1_rows = nvfp4 ? out.nvfp4_w1.rows : out.fp8_w1.rows;
  const std::int64_t w2_rows = nvfp4 ? out.nvfp4_w2.rows : out.fp8_w2.rows;
  if (w1_rows != 2 * shape.intermediate || w2_rows != shape.hidden) {
    fail(ErrorCode::kInternal, "expert weights hold {} and {} rows, the shape asks for {} and {}",
         w1_rows, w2_rows, 2 * shape.intermediate, shape.hidden);
  }
}

void require_view_for(const MoeShape& shape, WeightFormat format, std::int64_t expert,
                      const ExpertWeightsView& weights) {
  const bool nvfp4 = format == WeightFormat::kNvfp4;
  const auto sizes_match = [](const auto& matrix, std::int64_t rows, std::int64_t cols) {
    return matrix.rows == rows && matrix.cols == cols && matrix.payload != nullptr &&
           matrix.scales != nullptr;
  };
  const std::int64_t w1_rows = 2 * shape.intermediate;
  const bool match = weights.format == format &&
                     (nvfp4 ? sizes_match(weights.nvfp4_w1, w1_rows, shape.hidden) &&
                                  sizes_match(weights.nvfp4_w2, shape.hidden, shape.intermediate)
                            : sizes_match(weights.fp8_w1, w1_rows, shape.hidden) &&
                                  sizes_match(weights.fp8_w2, shape.hidden, shape.intermediate) &&
                                  weights.fp8_w1.scaling == fp8_scaling(format) &&
                                  weights.fp8_w2.scaling == fp8_scaling(format));
  if (!match) {
    fail(ErrorCode::kBadInput,
         "expert {}: its weights are not {} w1 [{}, {}] and w2 [{}, {}] with payload and scales; "
         "give "
         "every expert the same format and sizes",
         expert, name_of(format), w1_rows, shape.hidden, shape.hidden, shape.intermediate);
  }
}

}  // namespace

ExpertWeightsView view(const ExpertWeights& weights) {
  ExpertWeightsView result;
  result.format = weights.format;
  if (weights.format == WeightFormat::kNvfp4) {
    result.nvfp4_w1 = view(weights.nvfp4_w1);
    result.nvfp4_w2 = view(weights.nvfp4_w2);
  } else {
    result.fp8_w1 = view(weights.fp8_w1);
    result.fp8_w2 = view(weights.fp8_w2);
  }
  return result;
}

ExpertWeights make_expert_weights(const MoeShape& shape, WeightFormat format) {
  validate(shape, format);
  ExpertWeights weights;
  weights.format = format;
  if (format == WeightFormat::kNvfp4) {
    weights.nvfp4_w1 = make_nvfp4_matrix(2 * shape.intermediate, shape.hidden);
    weights.nvfp4_w2 = make_nvfp4_matrix(shape.hidden, shape.intermediate);
  } else {
    weights.fp8_w1 = make_fp8_matrix(2 * shape.intermediate, shape.hidden, fp8_scaling(format));
    weights.fp8_w2 = make_fp8_matrix(shape.hidden, shape.intermediate, fp8_scaling(format));
  }
  return weights;
}

void synthetic_weight_row(std::uint64_t seed, std::int64_t expert, bool down, std::int64_t row,
                          std::int64_t cols, float* out) {
  philox_row(seed, down ? Stream::kDown : Stream::kGateUp, static_cast<std::uint32_t>(expert),
             static_cast<std::uint32_t>(row), kWeightStep, cols, out);
}

void quantize_synthetic_expert(std::uint64_t seed, const MoeShape& shape, std::int64_t expert,
                               ExpertWeights& out) {
  require_made_for(shape, out);
  for (const bool down : {false, true}) {
    const MatrixKey matrix = matrix_key(seed, shape, expert, down);
    const float amax = needs_matrix_amax(out.format) ? amax_of_matrix(matrix) : 0.0F;
    quantize_matrix(matrix, out.format, amax, out);
  }
}

WeightSource synthetic_weights(std::uint64_t seed, const MoeShape& shape, WeightFormat format) {
  validate(shape, format);
  auto memory = std::make_shared<AmaxMemory>(shape.num_experts);
  const auto fill_expert = [seed, shape, memory](std::int64_t expert, ExpertWeights& out) {
    for (const bool down : {false, true}) {
      const MatrixKey matrix = matrix_key(seed, shape, expert, down);
      quantize_matrix(matrix, out.format, needs_matrix_amax(out.format) ? memory->of(matrix) : 0.0F,
                      out);
    }
  };
  WeightSource source = generated_source(shape, format, fill_expert);
  source.unquantized_row = [seed, shape](std::int64_t expert, bool down, std::int64_t row,
                                         float* out) {
    synthetic_weight_row(seed, expert, down, row, down ? shape.intermediate : shape.hidden, out);
  };
  source.synthetic_seed = seed;
  return source;
}

WeightSource resident_weights(const MoeShape& shape, std::span<const ExpertWeightsView> experts) {
  if (static_cast<std::int64_t>(experts.size()) != shape.num_experts || experts.empty()) {
    fail(ErrorCode::kBadInput,
         "weights: {} experts are given, the layer has {}; give one per expert", experts.size(),
         shape.num_experts);
  }
  const WeightFormat format = experts.front().format;
  validate(shape, format);
  for (std::size_t expert = 0; expert < experts.size(); ++expert) {
    require_view_for(shape, format, static_cast<std::int64_t>(expert), experts[expert]);
  }
  WeightSource source{shape, format, {}, {}};
  source.with_expert = [views = std::vector<ExpertWeightsView>(experts.begin(), experts.end())](
                           std::int64_t expert, const WithExpert& use) {
    require_expert(expert, static_cast<std::int64_t>(views.size()));
    use(views[static_cast<std::size_t>(expert)]);
  };
  return source;
}

}  // namespace moebench
