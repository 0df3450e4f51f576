// SPDX-License-Identifier: Apache-2.0
// linear_lanes.cuh: the raw scan where channels are next to each other and so many that a thread
// each keeps the device busy.
#pragma once

#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/tile_pipeline.cuh"

namespace ssm::gpu::detail {

/// A warp is a block and runs 32 channels through all of time: nothing is folded, and nobody waits
/// for another. What it will need lies in shared memory, `stages` of `steps` each, before it does.
template <class T, class Step>
struct lanes_stage {
  static constexpr int packet = 16 / static_cast<int>(sizeof(T)), steps = sizeof(T) <= 4 ? 16 : 4;

  alignas(tile_alignment) T in[Step::inputs][steps][32];
};

/// Three blocks of a multiprocessor then have 72 KB on their way.
template <class T, class Step>
inline constexpr int lanes_stages = sizeof(lanes_stage<T, Step>) > 8192
                                        ? 3
                                        : 24576 / static_cast<int>(sizeof(lanes_stage<T, Step>));

template <class T, class Step>
__global__ void __launch_bounds__(32) lanes_kernel(columns_problem<T, Step> const p) {
  using stage_memory = lanes_stage<T, Step>;
  using number = accumulator_t<T>;
  constexpr int S = lanes_stages<T, Step>, R = stage_memory::steps, V = stage_memory::packet;
  constexpr int packets = 32 / V, rows = 32 / packets;  // that the warp asks for at once
  constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  extern __shared__ __align__(tile_alignment) unsigned char memory[];
  auto* const stages = reinterpret_cast<stage_memory*>(memory);
  int const lane = static_cast<int>(threadIdx.x);
  auto const band = static_cast<unsigned>(blockIdx.x), across = static_cast<unsigned>(p.across);
  unsigned const outer = band / across;
  index_t const channel = index_t{band - outer * across} * 32;
  bool const is_here = channel + lane < p.channels;

  // Where the lane's packets begin, and how many steps are left there.
  int const row = lane / packets, column = lane % packets * V;
  T const* from[Step::inputs];
#pragma unroll
  for (int k = 0; k < Step::inputs; ++k) {
    from[k] = p.in[k].at(outer, row + (k == neighbor), channel + column);
  }
  index_t left = channel + column < p.channels ? p.length - row : 0;
  int arriving = 0;
  auto const request = [&] {
#pragma unroll
    for (int k = 0; k < Step::inputs; ++k) {
      int const end =
          left < R ? static_cast<int>(left) - (k == neighbor) : R - (k == neighbor && left == R);
      T const* at = from[k];
#pragma unroll
      for (int j = 0; j < R; j += rows) {
        if (j < end) {
          request_bytes<16>(&stages[arriving].in[k][j + row][column], at);
        }
        at += rows * p.in[k].time;
      }
      from[k] = at;
    }
    left -= R;
    arriving = arriving + 1 < S ? arriving + 1 : 0;
    end_of_requests();
  };
  for (int s = 0; s < S - 1; ++s) request();

  auto const of_lane = [&](auto const& array) {
    return is_here && array.data != nullptr ? *array.at(outer, 0, channel + lane) : number(0);
  };
  number carry = of_lane(p.initial);
  number const edge = of_lane(p.edge);
  T* to[Step::outputs];
#pragma unroll
  for (int k = 0; k < Step::outputs; ++k) to[k] = p.out[k].at(outer, 0, channel + lane);
  int arrived = 0;
  for (index_t first = 0; first < p.length; first += R) {
    wait_for_requests_but<S - 2>();
    __syncwarp();  // lanes have loaded for each other, and read what is asked for again
    request();
    T in[R][Step::inputs];  // all loads before the first store, which may be to anywhere
#pragma unroll
    for (int i = 0; i < R; ++i) {
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) in[i][k] = stages[arrived].in[k][i][lane];
    }
    auto const run = [&](int i, bool is_last) {
      number value[Step::inputs], result[Step::outputs];
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) value[k] = to_number(in[i][k]);
      if (neighbor >= 0 && is_last) value[Step::inputs - 1] = edge;
      Step::run(value, carry, result);
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
        if (is_here) *to[k] = to_stored<T>(result[k]);
        to[k] += p.out[k].time;
      }
    };
    if (first + R <= p.length) {
#pragma unroll
      for (int i = 0; i < R; ++i) run(i, i == R - 1 && first + R == p.length);
    } else {
#pragma unroll
      for (int i = 0; i < R; ++i) {
        if (first + i < p.length) run(i, first + i == p.length - 1);
      }
    }
    arrived = arrived + 1 < S ? arrived + 1 : 0;
  }
  wait_for_requests_but<0>();
  if (is_here && p.final.data != nullptr) *p.final.at(outer, 0, channel + lane) = carry;
}

}  // namespace ssm::gpu::detail
