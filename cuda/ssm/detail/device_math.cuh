// SPDX-License-Identifier: Apache-2.0
// device_math.cuh: float functions of the kernels: few instructions, errors of a few eps.
#pragma once

namespace ssm::gpu::detail {

inline constexpr float log2_of_e = 1.4426950408889634f;

/// 2^x; results below the normal range are 0.
/// Accuracy  2^-22.5 of the result (the instruction's documented bound).
__device__ inline float exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

/// 2^x - 1 for |x| ≤ small_exponent: no loss where 2^x is next to 1.
/// Accuracy  2^-22 of the result: x³/24 is left out.
inline constexpr float small_exponent = 1.0f / 64;
__device__ inline float small_exp2_minus_1(float x) {
  float const slope = fmaf(fmaf(x, 0.0555041087f, 0.2402265070f), x, 0.6931471806f);
  return slope * x;
}

/// x, but at least low and at most high; a NaN stays one.
__device__ inline float clamp(float x, float low, float high) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(x), "f"(low));
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(result), "f"(high));
  return result;
}

/// The larger of two numbers; a NaN is larger than any other.
__device__ inline float larger(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}

/// log(1 + e^x) without cancellation for any x.
/// Accuracy  6 eps: log(1 + e)/e is a polynomial that is off by 3e-8 on [0, 1].
__device__ inline float softplus(float x) {
  float const e = exp2(-fabsf(x) * log2_of_e);
  float q = 0.005232690027f;
  q = fmaf(q, e, -0.02950521992f);
  q = fmaf(q, e, 0.07822591751f);
  q = fmaf(q, e, -0.136632425f);
  q = fmaf(q, e, 0.1910600499f);
  q = fmaf(q, e, -0.2484298169f);
  q = fmaf(q, e, 0.3331909673f);
  q = fmaf(q, e, -0.4999949314f);
  q = fmaf(q, e, 0.9999999699f);
  return fmaf(q, e, fmaxf(x, 0.0f));
}

/// log(1 + 2^(x - 1)) for x ≤ 0: of softplus what is at most log(3/2), in fewer instructions.
/// Accuracy  6 eps: log(1 + e)/e is a polynomial that is off by 2^-21.3 on [0, 1/2].
__device__ inline float small_softplus(float x) {
  float const twice_e = exp2(x);
  float q = -0.05560990795f / 64;
  q = fmaf(q, twice_e, 0.1517776996f / 32);
  q = fmaf(q, twice_e, -0.239017725f / 16);
  q = fmaf(q, twice_e, 0.3321391046f / 8);
  q = fmaf(q, twice_e, -0.499951154f / 4);
  q = fmaf(q, twice_e, 0.9999996424f / 2);
  return q * twice_e;
}

/// 1/(1 + e^-x).
/// Accuracy  8 eps.
__device__ inline float sigmoid(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(1.0f + exp2(-x * log2_of_e)));
  return result;
}

/// d/dx x/(1 + e^-x); both shares of 1 without cancellation.
/// Accuracy  13 eps.
__device__ inline float silu_slope(float x) {
  float const e = exp2(-fabsf(x) * log2_of_e);
  float larger_share;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(larger_share) : "f"(1.0f + e));
  float const smaller_share = e * larger_share;
  float const share = x < 0.0f ? smaller_share : larger_share;
  float const rest = x < 0.0f ? larger_share : smaller_share;
  return share * fmaf(x, rest, 1.0f);
}

}  // namespace ssm::gpu::detail
