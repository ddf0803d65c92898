// The narrow number formats as scalar code: the truth that every vectorised or device encoder is
// tested against. Depends on nothing but std; not fast, not meant to be.
#pragma once

#include <cstdint>

namespace moebench {

/// 16-bit activation types. FP16 is the original benchmark's default.
enum class ActType : std::uint8_t { kFp16, kBf16 };
[[nodiscard]] const char* name_of(ActType type);

// Each `encode` rounds to nearest, ties to even; each `decode` is exact. Storage types are plain
// integers.

/// E2M1 (4 bits, in the low nibble): +-{0, 0.5, 1, 1.5, 2, 3, 4, 6}. |x| > 6 and infinities
/// saturate to +-6; NaN encodes as +6 (the format has no NaN; PTX cvt.rn.satfinite.e2m1x2 does the
/// same). Source: OCP MX spec 1.0, 5.3.3.
[[nodiscard]] std::uint8_t encode_e2m1(float x);
[[nodiscard]] float decode_e2m1(std::uint8_t code);

/// E4M3 "fn": max 448, no infinities, NaN = 0x7F / 0xFF. Saturating: |x| > 448 and infinities give
/// +-448; NaN stays NaN (sign kept). Source: OCP FP8 spec 1.0; PTX cvt.rn.satfinite.e4m3x2.
[[nodiscard]] std::uint8_t encode_e4m3(float x);
[[nodiscard]] float decode_e4m3(std::uint8_t code);

/// E8M0: 2^(code-127), 0xFF = NaN. Encoding rounds up to the next power of two (so that nothing
/// overflows), clamps to 2^-127..2^127; negative, NaN and infinite inputs give NaN; zero gives
/// 2^-127. Source: OCP MX spec 1.0, 5.4.1.
[[nodiscard]] std::uint8_t encode_e8m0(float x);
[[nodiscard]] float decode_e8m0(std::uint8_t code);

/// IEEE binary16; overflow gives infinity, NaN stays a (quiet) NaN.
[[nodiscard]] std::uint16_t encode_fp16(float x);
[[nodiscard]] float decode_fp16(std::uint16_t bits);

/// bfloat16; overflow gives infinity, NaN stays a (quiet) NaN.
[[nodiscard]] std::uint16_t encode_bf16(float x);
[[nodiscard]] float decode_bf16(std::uint16_t bits);

/// The 16-bit rounding of a layer's rounding points, in the layer's activation type. The double
/// versions round once (double -> 16 bits), never through float.
[[nodiscard]] std::uint16_t encode_act(ActType type, float x);
[[nodiscard]] std::uint16_t encode_act(ActType type, double x);
[[nodiscard]] float decode_act(ActType type, std::uint16_t bits);

inline constexpr float kE2m1Max = 6.0F;
inline constexpr float kE4m3Max = 448.0F;

}  // namespace moebench
