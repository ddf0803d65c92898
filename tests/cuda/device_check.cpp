// Runs the kernels around the GEMMs on random layers and compares every byte with the host's code:
// route, permute with quantisation, the quantising pass between the GEMMs, combine, the weight
// generator. Needs a device, so it is no part of the test suite: device_check [rounds [seed]]; one
// line for each mismatch, exit status 1 if there was any.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "moebench/backend/cuda/combine.h"
#include "moebench/backend/cuda/device.h"
#include "moebench/backend/cuda/generate.h"
#include "moebench/backend/cuda/pack.h"
#include "moebench/backend/cuda/permute.h"
#include "moebench/backend/cuda/quantize.h"
#include "moebench/backend/cuda/route.h"
#include "moebench/core/dtype.h"
#include "moebench/core/error.h"
#include "moebench/moe/weights.h"
#include "moebench/quant/fp8.h"
#include "moebench/quant/nvfp4.h"
#include "tests/backend/cuda_plan_reference.h"
#include "tests/cuda/device_check_kernels.h"

namespace moebench::cuda {
namespace {

constexpr std::uint8_t kUnwritten = 0xCD;
int mismatches = 0;

/// A device array with the bytes of a vector.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& values)
      : count_(values.size()), buffer_(static_cast<std::int64_t>(count_ * sizeof(T)), "check") {
    if (count_ == 0) return;
    cuda_check(cudaMemcpy(get(), values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
               "check");
  }
  [[nodiscard]] T* get() const { return buffer_.as<T>(); }
  [[nodiscard]] std::vector<T> fetch() const {
    std::vector<T> values(count_);
    if (count_ == 0) return values;
    cuda_check(cudaMemcpy(values.data(), get(), count_ * sizeof(T), cudaMemcpyDeviceToHost),
               "check");
    return values;
  }

 private:
  std::size_t count_;
  DeviceBuffer buffer_;
};

template <typename T>
std::vector<T> unwritten(std::int64_t count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  if (count > 0) std::memset(values.data(), kUnwritten, values.size() * sizeof(T));
  return values;
}

template <typename T>
void compare(const std::string& what, const std::vector<T>& got, const std::vector<T>& expected) {
  if (got.size() == expected.size() &&
      (got.empty() || std::memcmp(got.data(), expected.data(), got.size() * sizeof(T)) == 0)) {
    return;
  }
  ++mismatches;
  std::size_t wrong = 0;
  std::size_t first = 0;
  for (std::size_t i = got.size(); i-- > 0;) {
    if (std::memcmp(&got[i], &expected[i], sizeof(T)) == 0) continue;
    ++wrong;
    first = i;
  }
  unsigned long long got_bits = 0;
  unsigned long long expected_bits = 0;
  std::memcpy(&got_bits, &got[first], std::min(sizeof(T), sizeof got_bits));
  std::memcpy(&expected_bits, &expected[first], std::min(sizeof(T), sizeof expected_bits));
  std::printf("MISMATCH %s: %zu of %zu, first at %zu: 0x%llx, expected 0x%llx\n", what.c_str(),
              wrong, got.size(), first, got_bits, expected_bits);
}

struct Case {
  MoeShape shape;
  std::int64_t tokens;
  TileSet tile_set;
  std::vector<std::int32_t> ids;
  std::string name;
};

Case random_case(std::mt19937_64& random) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  Case c;
  c.shape.num_experts = pick(0, 2) == 0 ? pick(4, 16) : pick(4, 256);
  c.shape.topk = pick(1, std::min<std::int64_t>(c.shape.num_experts, pick(0, 3) == 0 ? 20 : 8));
  constexpr std::int64_t kSizes[] = {16, 48, 208, 256, 384, 1024, 1408};
  c.shape.hidden = kSizes[pick(0, 6)];
  c.shape.intermediate = kSizes[pick(0, 6)];
  c.shape.act = pick(0, 1) == 0 ? ActType::kFp16 : ActType::kBf16;
  c.tokens = pick(0, 3) == 0 ? pick(0, 300) : pick(0, 40);
  c.tile_set = pick(0, 1) == 0 ? TileSet::kLarge : TileSet::kSmall;
  // Skewed: some cases use few of the experts.
  const std::int64_t used = pick(c.shape.topk, c.shape.num_experts);
  for (std::int64_t token = 0; token < c.tokens; ++token) {
    std::vector<std::int32_t> experts(static_cast<std::size_t>(used));
    for (std::size_t e = 0; e < experts.size(); ++e) experts[e] = static_cast<std::int32_t>(e);
    std::shuffle(experts.begin(), experts.end(), random);
    c.ids.insert(c.ids.end(), experts.begin(), experts.begin() + c.shape.topk);
  }
  c.name = fmt::format("M={} E={} topk={} K={} N={} {} tiles up to {}", c.tokens,
                       c.shape.num_experts, c.shape.topk, c.shape.hidden, c.shape.intermediate,
                       name_of(c.shape.act), max_tile_rows(c.tile_set));
  return c;
}

/// Values over many magnitudes, signed zeros and zero groups among them.
std::vector<std::uint16_t> random_halves(std::mt19937_64& random, ActType type,
                                         std::int64_t count) {
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
  float scale = 1.0F;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i % 16 == 0) {
      const auto kind = random() % 8;
      scale = kind == 0 ? 0.0F : std::ldexp(1.0F, static_cast<int>(random() % 24) - 16);
    }
    values[i] = encode_act(type, normal(random) * scale);
  }
  return values;
}

struct DevicePlan {
  OnDevice<PlanHeader> header;
  OnDevice<ExpertTiles> entries;
  OnDevice<std::int32_t> row_pair;
  OnDevice<PairPlace> places;
  OnDevice<WorkPosition> shares;
  OnDevice<std::int32_t> hand_over;
};

constexpr int kGrid = 132;
constexpr ShareShape kWork[2] = {share_shape({56, 16, work_slices(56, kGrid)}, kGrid),
                                 share_shape({3, 5, work_slices(3, kGrid)}, kGrid)};

DevicePlan check_route(const Case& c, testing::HostPlan expected,
                       const OnDevice<std::int32_t>& ids) {
  const auto pairs = static_cast<std::int64_t>(c.ids.size());
  DevicePlan plan{
      OnDevice(unwritten<PlanHeader>(1)),
      OnDevice(unwritten<ExpertTiles>(std::min(pairs, c.shape.num_experts))),
      OnDevice(unwritten<std::int32_t>(max_padded_rows(pairs, c.shape.num_experts, c.tile_set))),
      OnDevice(unwritten<PairPlace>(pairs)),
      OnDevice(unwritten<WorkPosition>(2 * (kGrid + 1))),
      OnDevice(unwritten<std::int32_t>(2 * hand_over_count(kGrid)))};
  for (int gemm = 0; gemm < 2; ++gemm)
    expected.header.shared[gemm] = testing::share_out(expected, kWork[gemm]);
  const RouteArgs args{ids.get(),
                       pairs,
                       c.shape.num_experts,
                       c.tile_set,
                       false,
                       plan.header.get(),
                       plan.entries.get(),
                       plan.row_pair.get(),
                       plan.places.get(),
                       plan.shares.get(),
                       plan.hand_over.get(),
                       kGrid,
                       {kWork[0], kWork[1]}};
  cuda_check(enqueue_route(args, nullptr), "route");
  cuda_check(cudaDeviceSynchronize(), "route");

  compare(c.name + " header", plan.header.fetch(), {expected.header});
  std::vector<ExpertTiles> entries = expected.entries;
  std::vector<std::int32_t> rows = expected.row_pair;
  std::replace(rows.begin(), rows.end(), -1, unwritten<std::int32_t>(1)[0]);  // padding
  std::vector<PairPlace> places;
  for (std::size_t pair = 0; pair < c.ids.size(); ++pair) {
    places.push_back(
        {static_cast<std::int32_t>(expected.tile_begin[pair]),
         static_cast<std::int16_t>(expected.tile_rows[pair]),
         static_cast<std::int16_t>(expected.row_of_pair[pair] - expected.tile_begin[pair])});
  }
  const auto rest = [](auto& values, const auto& like) {
    auto all = unwritten<std::remove_reference_t<decltype(values[0])>>(
        static_cast<std::int64_t>(like.size()));
    std::copy(values.begin(), values.end(), all.begin());
    values = all;
  };
  rest(entries, plan.entries.fetch());
  rest(rows, plan.row_pair.fetch());
  compare(c.name + " entries", plan.entries.fetch(), entries);
  compare(c.name + " row_pair", plan.row_pair.fetch(), rows);
  compare(c.name + " places", plan.places.fetch(), places);
  std::vector<WorkPosition> shares;
  for (int gemm = 0; gemm < 2; ++gemm) {
    for (int block = 0; block <= kGrid; ++block) {
      shares.push_back(
          work_begin(expected.header.shared[gemm], expected.begins.data(), kWork[gemm], block));
    }
  }
  compare(c.name + " shares", plan.shares.fetch(), shares);
  compare(c.name + " hand-over", plan.hand_over.fetch(),
          std::vector<std::int32_t>(2 * hand_over_count(kGrid), 0));
  return plan;
}

/// One row through a format: what the operand holds, 16 bits each, and its scales.
struct QuantizedRow {
  std::vector<std::uint16_t> values;
  std::vector<float> scales;
};
QuantizedRow quantize_on_host(OperandFormat format, ActType type, const std::uint16_t* row,
                              std::int64_t columns, float given_scale) {
  std::vector<float> x(static_cast<std::size_t>(columns));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = decode_act(type, row[i]);
  QuantizedRow out;
  const auto fp8 = [&](std::size_t begin, std::size_t end, float scale) {
    std::vector<std::uint8_t> codes(end - begin);
    quantize_fp8_row(x.data() + begin, static_cast<std::int64_t>(codes.size()), scale,
                     codes.data());
    for (const std::uint8_t code : codes) out.values.push_back(encode_fp16(decode_e4m3(code)));
    out.scales.push_back(scale);
  };
  switch (format) {
    case OperandFormat::kWide:
      out.values.assign(row, row + columns);
      break;
    case OperandFormat::kNvfp4: {
      std::vector<std::uint8_t> payload(x.size() / 2);
      std::vector<std::uint8_t> scales(x.size() / 16);
      quantize_nvfp4_row(x.data(), columns, given_scale, payload.data(), scales.data());
      for (std::size_t i = 0; i < x.size(); ++i) {
        const int code = i % 2 == 0 ? payload[i / 2] & 0xF : payload[i / 2] >> 4;
        out.values.push_back(encode_act(
            type, decode_e2m1(static_cast<std::uint8_t>(code)) * decode_e4m3(scales[i / 16])));
      }
      break;
    }
    case OperandFormat::kFp8Tensor:
      fp8(0, x.size(), given_scale);
      break;
    case OperandFormat::kFp8Token:
      fp8(0, x.size(), fp8_scale(amax_of({x.data(), x.size()})));
      break;
    case OperandFormat::kFp8Block:
      for (std::size_t begin = 0; begin < x.size(); begin += kChunkDepth) {
        const std::size_t end = std::min<std::size_t>(x.size(), begin + kChunkDepth);
        fp8(begin, end, fp8_scale(amax_of({x.data() + begin, end - begin})));
      }
      break;
  }
  out.values.resize(static_cast<std::size_t>(operand_row_bytes(columns) / 2), 0);
  return out;
}

struct HostOperand {
  std::vector<std::uint8_t> operand;
  std::vector<float> scales;
};
void put_row(HostOperand& out, OperandFormat format, const QuantizedRow& row,
             const testing::HostPlan& plan, std::size_t pair) {
  const std::int64_t tile_begin = plan.tile_begin[pair];
  const auto row_bytes = static_cast<std::int64_t>(row.values.size() * 2);
  for (std::size_t i = 0; i < row.values.size(); ++i) {
    const std::int64_t at =
        tile_begin * row_bytes + operand_offset(plan.tile_rows[pair],
                                                plan.row_of_pair[pair] - tile_begin,
                                                static_cast<std::int64_t>(2 * i));
    std::memcpy(&out.operand[static_cast<std::size_t>(at)], &row.values[i], 2);
  }
  if (format != OperandFormat::kFp8Token && format != OperandFormat::kFp8Block) return;
  const auto chunks = static_cast<std::int64_t>(row.scales.size());  // or one for all of the row
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t at = operand_scale_index(tile_begin, plan.tile_rows[pair],
                                                plan.row_of_pair[pair] - tile_begin, chunk, chunks);
    out.scales[static_cast<std::size_t>(at)] = row.scales[static_cast<std::size_t>(chunk)];
  }
}

constexpr OperandFormat kFormats[] = {OperandFormat::kWide, OperandFormat::kNvfp4,
                                      OperandFormat::kFp8Tensor, OperandFormat::kFp8Token,
                                      OperandFormat::kFp8Block};
const char* name_of_format(OperandFormat format) {
  constexpr const char* kNames[] = {"wide", "nvfp4", "fp8 tensor", "fp8 token", "fp8 block"};
  return kNames[static_cast<int>(format)];
}

void check_permute(const Case& c, const testing::HostPlan& plan, const DevicePlan& device,
                   const OnDevice<std::int32_t>& ids, OperandFormat format,
                   std::mt19937_64& random) {
  const std::int64_t columns = c.shape.hidden;
  const std::int64_t rows =
      max_padded_rows(static_cast<std::int64_t>(c.ids.size()), c.shape.num_experts, c.tile_set);
  const auto tokens = random_halves(random, c.shape.act, c.tokens * columns);
  std::vector<float> global_scales;
  const bool alike = random() % 2 == 0;
  for (std::int64_t e = 0; e < c.shape.num_experts; ++e) {
    global_scales.push_back(alike ? 1234.5F
                                  : std::ldexp(1.0F + 0.01F * static_cast<float>(e % 40),
                                               static_cast<int>(random() % 12)));
  }
  const std::vector<float> tensor_scale = {0.0123F};
  const OnDevice device_tokens(tokens);
  const OnDevice device_global(global_scales);
  const OnDevice device_tensor(tensor_scale);
  const OnDevice hidden_scale(unwritten<HiddenScale>(1));
  const OnDevice operand(unwritten<std::uint8_t>(rows * operand_row_bytes(columns)));
  const OnDevice scales(unwritten<float>(rows * divide_up(columns, kChunkDepth)));
  PermuteArgs args{};
  args.rows = device_tokens.get();
  args.columns = columns;
  args.items = c.tokens;
  args.copies = static_cast<std::int32_t>(c.shape.topk);
  args.places = device.places.get();
  args.operand = operand.get();
  args.row_scale = scales.get();
  args.topk_ids = ids.get();
  args.global_scale = device_global.get();
  args.tensor_scale = device_tensor.get();
  args.hidden_scale = hidden_scale.get();
  cuda_check(enqueue_permute(format, c.shape.act, args, nullptr), "permute");
  cuda_check(cudaDeviceSynchronize(), "permute");

  HostOperand expected{unwritten<std::uint8_t>(rows * operand_row_bytes(columns)),
                       unwritten<float>(rows * divide_up(columns, kChunkDepth))};
  for (std::size_t pair = 0; pair < c.ids.size(); ++pair) {
    const auto token = static_cast<std::int64_t>(pair) / c.shape.topk;
    const float given = format == OperandFormat::kNvfp4
                            ? global_scales[static_cast<std::size_t>(c.ids[pair])]
                            : tensor_scale[0];
    put_row(expected, format,
            quantize_on_host(format, c.shape.act, tokens.data() + token * columns, columns, given),
            plan, pair);
  }
  const std::string name = c.name + " permute " + name_of_format(format);
  compare(name, operand.fetch(), expected.operand);
  compare(name + " scales", scales.fetch(), expected.scales);
  if (format == OperandFormat::kFp8Tensor && c.tokens > 0)
    compare(name + " scale of h", hidden_scale.fetch(),
            {HiddenScale{0, 0.0F, HiddenScale::kNoPair}});
}

void check_hidden(const Case& c, const testing::HostPlan& plan, const DevicePlan& device,
                  OperandFormat format, std::mt19937_64& random) {
  const std::int64_t columns = c.shape.intermediate;
  const std::int64_t rows =
      max_padded_rows(static_cast<std::int64_t>(c.ids.size()), c.shape.num_experts, c.tile_set);
  auto h = random_halves(random, c.shape.act, rows * columns);
  if (random() % 4 == 0) std::fill(h.begin(), h.end(), std::uint16_t{0});
  const OnDevice device_h(h);
  const OnDevice operand(unwritten<std::uint8_t>(rows * operand_row_bytes(columns)));
  const OnDevice scales(unwritten<float>(rows * divide_up(columns, kChunkDepth)));
  PermuteArgs args{};
  args.rows = device_h.get();
  args.columns = columns;
  args.items = static_cast<std::int64_t>(c.ids.size());
  args.copies = 1;
  args.places = device.places.get();
  args.operand = operand.get();
  args.row_scale = scales.get();
  HiddenScale found{0, 0.0F, HiddenScale::kNoPair};  // as GEMM1 leaves it, then as the pass does
  std::int32_t attained = 0;
  for (std::size_t pair = 0; pair < c.ids.size(); ++pair) {
    const std::uint16_t* row = h.data() + plan.row_of_pair[pair] * columns;
    for (std::int64_t i = 0; i < columns; ++i) {
      const std::uint32_t magnitude = row[i] & 0x7FFFU;
      if (magnitude <= found.amax) continue;
      found.amax = magnitude;
      attained = static_cast<std::int32_t>(pair);
    }
  }
  const float amax = decode_act(c.shape.act, static_cast<std::uint16_t>(found.amax));
  const OnDevice hidden_scale(std::vector<HiddenScale>{found});
  args.hidden_scale = hidden_scale.get();
  cuda_check(enqueue_quantize_hidden(format, c.shape.act, args, nullptr), "quantize");
  cuda_check(cudaDeviceSynchronize(), "quantize");

  HostOperand expected{unwritten<std::uint8_t>(rows * operand_row_bytes(columns)),
                       unwritten<float>(rows * divide_up(columns, kChunkDepth))};
  for (std::size_t pair = 0; pair < c.ids.size(); ++pair) {
    const std::uint16_t* row = h.data() + plan.row_of_pair[pair] * columns;
    put_row(expected, format, quantize_on_host(format, c.shape.act, row, columns, fp8_scale(amax)),
            plan, pair);
  }
  const std::string name = c.name + " quantize h " + name_of_format(format);
  compare(name, operand.fetch(), expected.operand);
  compare(name + " scales", scales.fetch(), expected.scales);
  if (format == OperandFormat::kFp8Tensor && !c.ids.empty()) {
    found.scale = fp8_scale(amax);
    found.pair = attained;
    compare(name + " scale of h", hidden_scale.fetch(), {found});
  }
}

void check_combine(const Case& c, std::mt19937_64& random) {
  const auto pairs = static_cast<std::int64_t>(c.ids.size());
  const auto pair_out = random_halves(random, c.shape.act, pairs * c.shape.hidden);
  std::vector<float> weights;
  for (std::int64_t i = 0; i < pairs; ++i)
    weights.push_back(std::uniform_real_distribution<float>(0.0F, 1.0F)(random));
  const OnDevice device_out(pair_out);
  const OnDevice device_weights(weights);
  const OnDevice y(unwritten<std::uint16_t>(c.tokens * c.shape.hidden));
  cuda_check(enqueue_combine(c.shape.act,
                             {device_out.get(), device_weights.get(), y.get(), c.tokens,
                              static_cast<std::int32_t>(c.shape.topk), c.shape.hidden},
                             nullptr),
             "combine");
  cuda_check(cudaDeviceSynchronize(), "combine");
  std::vector<std::uint16_t> expected;
  for (std::int64_t token = 0; token < c.tokens; ++token) {
    for (std::int64_t column = 0; column < c.shape.hidden; ++column) {
      float sum = 0.0F;
      for (std::int64_t j = 0; j < c.shape.topk; ++j) {
        const std::int64_t pair = token * c.shape.topk + j;
        const float product =
            decode_act(c.shape.act,
                       pair_out[static_cast<std::size_t>(pair * c.shape.hidden + column)]) *
            weights[static_cast<std::size_t>(pair)];
        sum = sum + product;
      }
      expected.push_back(encode_act(c.shape.act, sum));
    }
  }
  compare(c.name + " combine", y.fetch(), expected);
}

/// One matrix of two experts out of three; the first must stay unwritten.
void check_generate(const Case& c, WeightFormat format, Projection projection, std::uint64_t seed) {
  constexpr std::int64_t kExperts = 3;
  constexpr std::int64_t kFirst = 1;  // the first is not asked for
  const bool nvfp4 = format == WeightFormat::kNvfp4;
  const bool gate_up = projection == Projection::kGateUp;
  MoeShape shape = c.shape;
  shape.num_experts = kExperts;
  shape.topk = 1;
  const Wide wide = shape.act == ActType::kFp16 ? Wide::kFp16 : Wide::kBf16;
  const auto geometry = matrix_geometry(projection, shape.hidden, shape.intermediate,
                                        nvfp4 ? kNvfp4ChunkBytes : kFp8ChunkBytes);
  const std::int64_t scale_count =
      gate_up ? weight_scale_count(format, 2 * shape.intermediate, shape.hidden)
              : weight_scale_count(format, shape.hidden, shape.intermediate);
  const OnDevice packed(unwritten<std::uint8_t>(kExperts * geometry.expert_bytes()));
  const OnDevice scales(unwritten<float>(kExperts * scale_count));
  GenerateArgs args{};
  args.seed = seed;
  args.projection = projection;
  args.hidden = shape.hidden;
  args.intermediate = shape.intermediate;
  args.format = format;
  args.wide = wide;
  args.first_expert = kFirst;
  args.experts = kExperts - kFirst;
  args.scales = scales.get();
  args.packed = packed.get();
  cuda_check(enqueue_generate(args, nullptr), "generate");
  cuda_check(cudaDeviceSynchronize(), "generate");

  auto expected = unwritten<std::uint8_t>(kExperts * geometry.expert_bytes());
  auto expected_scales = unwritten<float>(kExperts * scale_count);
  const WeightSource source = synthetic_weights(seed, shape, format);
  for (std::int64_t expert = kFirst; expert < kExperts; ++expert) {
    source.with_expert(expert, [&](const ExpertWeightsView& view) {
      pack_expert(view, shape, wide, projection,
                  reinterpret_cast<std::byte*>(expected.data() + expert * geometry.expert_bytes()));
      const float* from = (gate_up ? view.fp8_w1 : view.fp8_w2).scales;
      if (nvfp4) from = &(gate_up ? view.nvfp4_w1 : view.nvfp4_w2).global_scale;
      std::copy_n(from, scale_count, expected_scales.begin() + expert * scale_count);
    });
  }
  const std::string name =
      fmt::format("{} generate {} {}", c.name, moebench::name_of(format), gate_up ? "w1" : "w2");
  compare(name, packed.fetch(), expected);
  compare(name + " scales", scales.fetch(), expected_scales);
}

void check_e4m3() {
  const OnDevice wrong(std::vector<unsigned long long>{0});
  cuda_check(enqueue_compare_e4m3(wrong.get(), nullptr), "e4m3");
  cuda_check(cudaDeviceSynchronize(), "e4m3");
  compare("e4m3 of all floats", wrong.fetch(), {0ULL});
}

/// Sizes past what the random cases reach: many experts, many pairs, more experts than shared
/// memory has room for per warp.
void check_large_routes(std::mt19937_64& random) {
  struct Size {
    std::int64_t tokens, experts, topk;
  };
  for (const Size& size : {Size{2048, 256, 8}, Size{700, 1024, 8}, Size{300, 1500, 12},
                           Size{50, kMaxRoutedExperts, 4}, Size{20000, 16, 2}, Size{3000, 1, 1}}) {
    Case c;
    c.shape.num_experts = size.experts;
    c.shape.topk = size.topk;
    c.tile_set = TileSet::kLarge;
    for (std::int64_t i = 0; i < size.tokens * size.topk; ++i) {
      c.ids.push_back(
          static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(size.experts)));
    }
    c.name = fmt::format("M={} E={} topk={}", size.tokens, size.experts, size.topk);
    check_route(c, testing::make_host_plan(c.ids, size.experts, c.tile_set), OnDevice(c.ids));
  }
}

int run(int rounds, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  check_e4m3();
  check_large_routes(random);
  for (int round = 0; round < rounds; ++round) {
    const Case c = random_case(random);
    const OnDevice ids(c.ids);
    const testing::HostPlan plan = testing::make_host_plan(c.ids, c.shape.num_experts, c.tile_set);
    const DevicePlan device = check_route(c, plan, ids);
    for (const OperandFormat format : kFormats) check_permute(c, plan, device, ids, format, random);
    check_hidden(c, plan, device, OperandFormat::kFp8Tensor, random);
    check_hidden(c, plan, device, OperandFormat::kFp8Token, random);
    check_combine(c, random);
    for (const WeightFormat format : {WeightFormat::kNvfp4, WeightFormat::kFp8PerTensor,
                                      WeightFormat::kFp8PerChannel, WeightFormat::kFp8Block}) {
      check_generate(c, format, Projection::kGateUp, seed);
      check_generate(c, format, Projection::kDown, seed);
    }
  }
  std::printf("%d rounds, seed %llu: %d mismatches\n", rounds,
              static_cast<unsigned long long>(seed), mismatches);
  return mismatches == 0 ? 0 : 1;
}

}  // namespace
}  // namespace moebench::cuda

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 20;
  const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  try {
    return moebench::cuda::run(rounds, seed);
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 2;
  }
}
