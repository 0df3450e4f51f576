// SPDX-License-Identifier: Apache-2.0
// linear_bands.cuh: the raw scan where channels are next to each other and so many that a thread
// each keeps the device busy.
#pragma once

#include <algorithm>

#include "ssm/detail/copy_engine.cuh"
#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/lock_step.cuh"
#include "ssm/detail/tile_pipeline.cuh"
#include "ssm/detail/tile_porters.cuh"

namespace ssm::gpu::detail {

/// A block walks a band of so many channels through all of time, a thread each: nothing is folded.
inline constexpr int band_channels = 64;
/// Beside those threads a warp that asks for boxes and one that sends them off.
inline constexpr int band_threads = band_channels + 64;

/// The boxes of a stretch of time of a band. Outputs are put where the inputs were.
template <class T, class Step>
struct band_stage {
  static constexpr int size = static_cast<int>(sizeof(T));
  static constexpr int steps = size == 2 ? 64 : size == 4 ? 32 : 64 / size;

  alignas(tile_alignment) T in[Step::inputs][steps][band_channels];
};

template <class T, class Step>
struct band_memory {
  using stage = band_stage<T, Step>;
  static constexpr int stages = 98304 / static_cast<int>(sizeof(stage));  ///< two blocks fit

  stage of[stages];
  barrier arrived[stages], done[stages], sent[stages];
};

template <class T, class Step>
struct bands_problem {
  CUtensorMap in[Step::inputs], out[Step::outputs];
  columns_problem<T, Step> of;  ///< bands of band_channels
  bool reversed;
  int passes;  ///< bands of a block, at most
  lock_step pace;
};

/// One block.
template <class T, class Step>
struct band_walk {
  using number = accumulator_t<T>;
  using memory_type = band_memory<T, Step>;
  static constexpr int S = memory_type::stages, R = memory_type::stage::steps, K = Step::inputs;
  static constexpr int neighbor = Step::reads_neighbor ? K - 1 : -1;
  static constexpr int at_once = std::min(R, 16);  ///< steps
  /// In which blocks keep together. Twice as many took 2 to 6 % longer in float, half as many 8 %
  /// in bfloat16: they were over before all blocks knew of them.
  static constexpr int round_tiles = 16384 / (R * band_channels * memory_type::stage::size);

  bands_problem<T, Step> const& p;
  memory_type& memory;
  int length = static_cast<int>(p.of.length), tiles = (length + R - 1) / R;
  int across = static_cast<int>(p.of.across), bands = static_cast<int>(p.of.bands);
  int stage = 0;
  unsigned parity = 0;

  __device__ void next_stage() {
    if (++stage == S) stage = 0, parity ^= 1;
  }
  /// Of tile i in memory. The one that lies there at the end may have fewer steps than others.
  __device__ int first_step(int i) const { return (p.reversed ? tiles - 1 - i : i) * R; }
  __device__ int steps(int i) const {
    int const left = length - first_step(i);
    return left < R ? left : R;
  }
  __device__ int outer(int band) const { return band / across; }
  __device__ int first_channel(int band) const { return band % across * band_channels; }

  /// f(band, tile), of all bands that the block walks.
  template <class F>
  __device__ void each_tile(F const& f) {
    for (int pass = 0; pass < p.passes; ++pass) {
      int const band = band_of(pass);
      if (band >= bands) return;
      for (int i = 0; i < tiles; ++i) f(band, i);
    }
  }
  __device__ int band_of(int pass) const {
    return pass * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
  }

  __device__ void keep_pace(int round) const {
    p.pace.reach(round);
    p.pace.wait(round - 1, p.pace.look(round - 1));
  }

  /// By one thread.
  __device__ void request() {
    int round = 0;
    for (int pass = 0; pass < p.passes; ++pass) {
      int const band = band_of(pass);
      for (int i = 0; i < tiles; ++i) {
        if (i % round_tiles == 0) keep_pace(round++);
        if (band >= bands) continue;  // a block without a last one keeps pace nevertheless
        memory.sent[stage].wait(parity ^ 1);
        auto& in = memory.of[stage].in;
        memory.arrived[stage].arrive_expecting(sizeof(in));
#pragma unroll
        for (int k = 0; k < K; ++k) {
          int const further = k != neighbor ? 0 : p.reversed ? -1 : 1;
          hopper::load_box(in[k], p.in[k],
                           {first_channel(band), 0, first_step(i) + further, outer(band)},
                           memory.arrived[stage]);
        }
        next_stage();
      }
    }
  }

  /// By one thread.
  __device__ void send() {
    int before = -1;
    each_tile([&](int band, int i) {
      memory.done[stage].wait(parity);
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
        hopper::send_box(p.out[k], {first_channel(band), 0, first_step(i), outer(band)},
                         memory.of[stage].in[k], false);
      }
      hopper::wait_for_reads_but<Step::outputs>();
      if (before >= 0) memory.sent[before].arrive();
      before = stage;
      next_stage();
    });
    hopper::wait_for_reads_but<0>();
  }

  /// By a thread for each channel.
  __device__ void run() {
    int const own = static_cast<int>(threadIdx.x),
              pace = p.reversed ? -band_channels : band_channels;
    number carry{}, edge{};
    each_tile([&](int band, int i) {
      int const channel = first_channel(band) + own;
      bool const is_here = channel < p.of.channels;
      auto const of_channel = [&](auto const& array) {
        return is_here && array.data != nullptr ? *array.at(outer(band), 0, channel) : number(0);
      };
      if (i == 0) carry = of_channel(p.of.initial), edge = of_channel(p.of.edge);
      memory.arrived[stage].wait(parity);
      int const count = steps(i);
      T* at = memory.of[stage].in[0][p.reversed ? count - 1 : 0] + own;
      if (count == R && i + 1 < tiles) {
        values<at_once> now, next;
        now.load(at, pace);
#pragma unroll
        for (int j = 0; j < R; j += at_once) {
          if (j + at_once < R) next.load(at + at_once * pace, pace);  // before what is stored
          at = now.run(at, pace, carry);
          now = next;
        }
      } else {
#pragma unroll 1
        for (int j = 0; j < count; ++j) {
          bool const is_last = i + 1 == tiles && j + 1 == count;
          values<1> now;
          now.load(at, pace);
          at = now.run(at, pace, carry, is_last ? &edge : nullptr);
        }
      }
      hopper::publish_stores();
      memory.done[stage].arrive();
      next_stage();
      if (i + 1 == tiles && is_here && p.of.final.data != nullptr) {
        *p.of.final.at(outer(band), 0, channel) = carry;
      }
    });
  }

 private:
  /// Steps of one channel.
  template <int Steps>
  struct values {
    static constexpr int array = R * band_channels;
    T in[Steps][K];

    __device__ void load(T const* at, int pace) {
#pragma unroll
      for (int j = 0; j < Steps; ++j) {
#pragma unroll
        for (int k = 0; k < K; ++k) in[j][k] = at[j * pace + k * array];
      }
    }
    /// Put what comes out where it was; `edge` is the neighbor of the last step. Returns where the
    /// next step is.
    __device__ T* run(T* at, int pace, number& carry, number const* edge = nullptr) const {
#pragma unroll
      for (int j = 0; j < Steps; ++j) {
        number value[K], result[Step::outputs];
#pragma unroll
        for (int k = 0; k < K; ++k) value[k] = to_number(in[j][k]);
        if (neighbor >= 0 && edge != nullptr) value[K - 1] = *edge;
        Step::run(value, carry, result);
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) at[j * pace + k * array] = to_stored<T>(result[k]);
      }
      return at + Steps * pace;
    }
  };
};

template <class T, class Step>
__global__ void __launch_bounds__(band_threads)
    bands_kernel(__grid_constant__ bands_problem<T, Step> const p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(tile_alignment) unsigned char bytes[];
  auto& memory = *reinterpret_cast<band_memory<T, Step>*>(bytes);
  init_stages<band_memory<T, Step>::stages>(memory, 1, band_channels);
  band_walk<T, Step> walk{p, memory};
  walk_with_porters<band_channels>(walk);
#endif
}

}  // namespace ssm::gpu::detail
