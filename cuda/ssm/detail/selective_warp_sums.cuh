// SPDX-License-Identifier: Apache-2.0
// selective_warp_sums.cuh: sums of steps, each times its own decay, for the first passes of
// selective_scan.
#pragma once

#include "ssm/detail/device_math.cuh"

namespace ssm::gpu::detail {

/// What a warp adds at a time: 16 steps of 32 channels for 16 states. Lane 4g + q has channels
/// 4g + i and steps 4q + j of what depends on both, and sums of channels 4g + i and of four states.
struct warp_tile {
  static constexpr int steps = 16, channels = 32, states = 16;
  static constexpr int pitch = 24;  // of steps: lanes of a quarter warp meet no bank twice

  struct shared {
    float4 rate[states][channels / 4];
    float B[states][pitch];
    float2 sum[states / 4][2][32];  // of state(q, k), channels 4g + 2m and 4g + 2m + 1
  };

  /// The k-th state of lane 4g + q: two of the first half of states, two of the second.
  __device__ static int state(int q, int k) { return 2 * q + k % 2 + states / 2 * (k / 2); }
  /// Where the rates of state n and channels 4g to 4g + 3 are.
  __device__ static int swizzled(int n, int g) { return g ^ (n / 2 % 4 * 2); }
};

/// Σ_t exp2(rate·after_t) u_t B_t of 4 channels and 4 states, tile by tile.
class warp_sums {
  using tile = warp_tile;

 public:
  __device__ explicit warp_sums(tile::shared& memory)
      : s{memory}, lane_{static_cast<int>(threadIdx.x % 32)}, g_{lane_ / 4}, q_{lane_ % 4} {
#pragma unroll
    for (int k = 0; k < 4; ++k) s.sum[k][0][lane_] = s.sum[k][1][lane_] = {0.0f, 0.0f};
  }

  /// after = center + nepers·log2(e): one exponential for each step and state.
  __device__ void add(float const (&u)[4][4], float const (&nepers)[4][4],
                      float const (&center)[4]) {
    float after[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) after[i][j] = fmaf(nepers[i][j], log2_of_e, center[i]);
#pragma unroll 1
    for (int k = 0; k < 4; ++k) {
      float part[4][4];  // of lane q ^ c, channel
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        int const n = tile::state(q_ ^ c, k);
        float const* const rate = rates(n);
        float const* const B = steps_of(n);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          part[c][i] = 0.0f;
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            part[c][i] = fmaf(exp2(rate[i] * after[i][j]), u[i][j] * B[j], part[c][i]);
          }
        }
      }
      float sum[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        part[0][i] += __shfl_xor_sync(~0u, part[2][i], 2);
        part[1][i] += __shfl_xor_sync(~0u, part[3][i], 2);
        sum[i] = part[0][i] + __shfl_xor_sync(~0u, part[1][i], 1);
      }
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        float2& two = s.sum[k][m][lane_];
        two = {two.x + sum[2 * m], two.y + sum[2 * m + 1]};
      }
    }
  }

  /// The same with one exponential for each state: exp2(rate·center) times the Taylor sum of
  /// exp(rate·nepers) up to power `Degree`, whose moments Σ u nepers^m B / m! are products of
  /// matrices on tensor cores. These read 11 bits of a number, so that moment 0 is taken in two
  /// parts, as are moment 1 and B if `IsWide`. B is of states g and 8 + g and steps 4q + j; of
  /// one half, the states of the other have decayed.
  /// Accuracy  2^-20 of Σ|terms|: tensor cores cut off what they add. Unless wide, 2^-11 of what
  ///           moment 1 contributes.
  template <int Degree, bool IsWide, int Halves>
  __device__ void add_moments(float const (&u)[4][4], float const (&nepers)[4][4],
                              float const (&center)[4], float const (&B)[2][4]) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      float rate[2 * Halves][2];  // of state(q, k), channels 4g + 2m and 4g + 2m + 1
#pragma unroll
      for (int k = 0; k < 2 * Halves; ++k)
#pragma unroll
        for (int i = 0; i < 2; ++i) rate[k][i] = rates(tile::state(q_, k))[2 * m + i];
      // Of power 0 and of those above, which need not wait for each other. Rows are these channels,
      // columns the states of a half.
      float product[2][Halves][4] = {};
#pragma unroll
      for (int power = Degree; power >= 0; --power) {
        auto& sums = product[power > 0];
        float const share = power == 2 ? 0.5f : 1.0f;
        if (power > 0 && power < Degree) {
#pragma unroll
          for (int i = 0; i < Halves; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[i][e] *= rate[2 * i + e % 2][e / 2];
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float moment[4], rest[4];
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            int const i = 2 * m + e % 2, j = 2 * half + e / 2;
            float const whole = of_power(power, u[i][j], nepers[i][j]);
            moment[e] = leading(whole), rest[e] = whole - moment[e];
          }
#pragma unroll
          for (int i = 0; i < Halves; ++i) {
            float const two[2] = {share * leading(B[i][2 * half]),
                                  share * leading(B[i][2 * half + 1])};
            multiply_add(sums[i], moment, two);
            if (power > IsWide) continue;  // what is left out is small beside the first
            multiply_add(sums[i], rest, two);
            if constexpr (IsWide) {
              float const low[2] = {B[i][2 * half] - two[0], B[i][2 * half + 1] - two[1]};
              multiply_add(sums[i], moment, low);
            }
          }
        }
      }
#pragma unroll
      for (int i = 0; i < Halves; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          product[0][i][e] += rate[2 * i + e % 2][e / 2] * product[1][i][e];
        }
#pragma unroll
      for (int k = 0; k < 2 * Halves; ++k) {
        float const* const found = product[0][k / 2] + k % 2;
        float const first = exp2(rate[k][0] * center[2 * m]);
        float const second = exp2(rate[k][1] * center[2 * m + 1]);
        float2 sum = s.sum[k][m][lane_];
        // Where nothing is left the product may have overflowed.
        if (first > 0.0f) sum.x = fmaf(first, found[0], sum.x);
        if (second > 0.0f) sum.y = fmaf(second, found[2], sum.y);
        s.sum[k][m][lane_] = sum;
      }
    }
  }

  /// The sum of channel 4g + i and state(q, k).
  __device__ float sum(int i, int k) const {
    return reinterpret_cast<float const*>(&s.sum[k][i / 2][lane_])[i % 2];
  }

 private:
  __device__ float const* rates(int n) const {
    return reinterpret_cast<float const*>(&s.rate[n][tile::swizzled(n, g_)]);
  }
  __device__ float const* steps_of(int n) const {
    return &s.B[n][4 * q_];
  }

  /// u x^power / power!, but twice that of power 2: B is halved instead, once for all channels.
  __device__ static float of_power(int power, float u, float x) {
    float const sixth = x * x * (1.0f / 6);
    switch (power) {
      case 0:
        return u;
      case 1:
        return u * x;
      case 2:
        return u * x * x;
      case 3:
        return u * x * sixth;
      case 4:
        return u * sixth * (sixth * 1.5f);
      default:
        return u * x * sixth * (sixth * 0.3f);
    }
  }

  /// The bits of a number that a tensor core reads.
  __device__ static float leading(float x) {
    return __uint_as_float(__float_as_uint(x) & 0xffffe000u);
  }

  /// sum += a·b, 16 rows by 8 steps times 8 steps by 8 columns.
  __device__ static void multiply_add(float (&sum)[4], float const (&a)[4], float const (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
  }

  tile::shared& s;
  int lane_, g_, q_;
};

}  // namespace ssm::gpu::detail
