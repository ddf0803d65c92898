// The kernels in plain C++: the truth that the vector units are tested against, and what runs where
// none of them can.
#include "moebench/backend/cpu/isa_rows.h"

#include <cmath>
#include <cstring>

namespace moebench::cpu {
namespace {

constexpr float kE2m1[16] = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                             -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

struct E4m3Table {
  E4m3Table() {
    for (int code = 0; code < 256; ++code)
      value[code] = decode_e4m3(static_cast<std::uint8_t>(code));
  }
  float value[256];
};
const E4m3Table e4m3;

struct Lanes {
  static constexpr int kCount = 16;
  float v[kCount];
};

template <typename Function>
inline Lanes map(Function function) {
  Lanes result;
  for (int i = 0; i < Lanes::kCount; ++i) result.v[i] = function(i);
  return result;
}

struct Codes16 {
  std::uint16_t v[Lanes::kCount];
};

struct Portable {
  using Vec = Lanes;
  static constexpr int kLanes = Lanes::kCount;
  static constexpr int kStrips = 2;
  static constexpr int kTileTokens = 4;  // each size is unrolled code: more costs compile time only
  static constexpr int kTwoStripTokens = 0;

  static Vec zero() { return {}; }
  static Vec broadcast(float x) {
    return map([&](int) { return x; });
  }
  static Vec load(const float* x) {
    return map([&](int i) { return x[i]; });
  }
  static void store(float* out, const Vec& x) { std::memcpy(out, x.v, sizeof x.v); }
  static Vec add(const Vec& a, const Vec& b) {
    return map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static Vec multiply(const Vec& a, const Vec& b) {
    return map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static Vec divide(const Vec& a, const Vec& b) {
    return map([&](int i) { return a.v[i] / b.v[i]; });
  }
  /// Two roundings: a fused one would be a library call per lane here.
  static Vec multiply_add(const Vec& a, const Vec& b, const Vec& c) {
    return map([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
  }
  static Vec maximum(const Vec& a, const Vec& b) {
    return map([&](int i) { return a.v[i] < b.v[i] ? b.v[i] : a.v[i]; });
  }
  static Vec round(const Vec& a) {
    return map([&](int i) { return std::nearbyintf(a.v[i]); });
  }
  static Vec scale_by_power_of_two(const Vec& a, const Vec& n) {
    return map([&](int i) {
      return n.v[i] == n.v[i] ? std::ldexp(a.v[i], static_cast<int>(n.v[i])) : n.v[i];
    });
  }
  static Vec negative_magnitude(const Vec& a) {
    return map([&](int i) { return -std::fabs(a.v[i]); });
  }
  static Vec select_negative(const Vec& test, const Vec& negative, const Vec& other) {
    return map([&](int i) { return test.v[i] < 0.0F ? negative.v[i] : other.v[i]; });
  }
  static Vec larger_magnitude(const Vec& largest, const Vec& a) {
    return map([&](int i) {
      const float magnitude = std::fabs(a.v[i]);
      return magnitude <= largest.v[i] || largest.v[i] != largest.v[i] ? largest.v[i] : magnitude;
    });
  }

  static Codes16 load_16(const std::uint16_t* x) {
    Codes16 codes;
    std::memcpy(codes.v, x, sizeof codes.v);
    return codes;
  }
  static void store_16(std::uint16_t* out, const Codes16& x) { std::memcpy(out, x.v, sizeof x.v); }
  template <ActType kType>
  static Vec from_act(const Codes16& x) {
    return map([&](int i) { return decode_act(kType, x.v[i]); });
  }
  template <ActType kType>
  static Codes16 to_act(const Vec& x) {
    Codes16 codes;
    for (int i = 0; i < kLanes; ++i) codes.v[i] = encode_act(kType, x.v[i]);
    return codes;
  }
  static Vec load_scales(const std::uint8_t* codes) {
    return map([&](int i) { return e4m3.value[codes[i]]; });
  }

  struct Pair {
    Vec even;
    Vec odd;
  };
  struct Nvfp4Lanes {
    std::uint32_t v[kLanes];
    static Nvfp4Lanes load(const std::uint8_t* bytes) {
      Nvfp4Lanes lanes;
      std::memcpy(lanes.v, bytes, sizeof lanes.v);
      return lanes;
    }
    template <int J>
    Pair pair() const {
      return {map([&](int i) { return kE2m1[v[i] >> (4 * J) & 15]; }),
              map([&](int i) { return kE2m1[v[i] >> (4 * J + 16) & 15]; })};
    }
  };
  struct Fp8Lanes {
    const std::uint8_t* bytes;
    static Fp8Lanes load(const std::uint8_t* from) { return {from}; }
    template <int H>
    Pair pair() const {
      return {map([&](int i) { return e4m3.value[bytes[fp8_pair_offset(0, i, 2 * H)]]; }),
              map([&](int i) { return e4m3.value[bytes[fp8_pair_offset(0, i, 2 * H) + 1]]; })};
    }
  };
  struct Entry {
    static constexpr std::int64_t kBytes = 2 * sizeof(float);
    static constexpr float kFactor = 1.0F;
    float even;
    float odd;
    static Entry load(const std::byte* from) {
      Entry entry;
      std::memcpy(&entry, from, sizeof entry);
      return entry;
    }
    static void store(float even, float odd, std::byte* to) {
      const Entry entry{even, odd};
      std::memcpy(to, &entry, sizeof entry);
    }
  };
  static Vec dot2(const Vec& sum, const Pair& pair, const Entry& entry) {
    return map([&](int i) {
      return (sum.v[i] + pair.even.v[i] * entry.even) + pair.odd.v[i] * entry.odd;
    });
  }

  static void expand_nvfp4(const std::uint8_t* payload, const std::uint8_t* scales,
                           std::int64_t cols, float* out) {
    for (std::int64_t k = 0; k < cols; ++k) {
      out[k] = kE2m1[payload[k / 2] >> (k % 2 * 4) & 15] * e4m3.value[scales[k / kStepDepth]];
    }
  }
  static void expand_fp8(const std::uint8_t* payload, std::int64_t cols, float* out) {
    for (std::int64_t k = 0; k < cols; ++k) out[k] = e4m3.value[payload[k]];
  }
};

CpuKernels make_table() {
  CpuKernels table{};
  table.isa = "portable";
  fill_tile_kernels<Portable, Portable::Entry, Portable::Entry, Portable::Entry>(table);
  fill_row_kernels<Portable>(table);
  return table;
}

}  // namespace

const CpuKernels* portable_kernels() {
  static const CpuKernels table = make_table();
  return &table;
}

}  // namespace moebench::cpu
