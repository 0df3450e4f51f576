// SPDX-License-Identifier: Apache-2.0
// linear_bands.cuh: the raw scan where channels are next to each other and so many that a thread
// each keeps the device busy.
#pragma once

#include <algorithm>

#include "ssm/detail/copy_engine.cuh"
#include "ssm/detail/linear_bands_memory.cuh"
#include "ssm/detail/tile_porters.cuh"

namespace ssm::gpu::detail {

/// One block.
template <class T, class Step, int Boxes>
struct band_walk {
  using number = accumulator_t<T>;
  using memory_type = band_memory<T, Step, Boxes>;
  using stage_type = typename memory_type::stage;
  static constexpr int C = band_channels<Boxes>;
  static constexpr int S = memory_type::stages, R = stage_type::steps, K = Step::inputs;
  static constexpr int neighbor = Step::reads_neighbor ? K - 1 : -1;
  static constexpr int at_once = std::min(R, 16);  ///< steps
  /// In which blocks keep together. Twice as many took 2 to 6 % longer in float, half as many 8 %
  /// in bfloat16: they were over before all blocks knew of them.
  static constexpr int round_tiles = std::max(1, 16384 / (R * C * stage_type::size));

  bands_problem<T, Step, Boxes> const& p;
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
  __device__ int first_channel(int band) const { return band % across * C; }

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
        memory.arrived[stage].arrive_expecting(stage_type::bytes_that_arrive);
#pragma unroll
        for (int k = 0; k < K; ++k) {
          int const further = k != neighbor ? 0 : p.reversed ? -1 : 1;
#pragma unroll
          for (int b = 0; b < Boxes; ++b) {
            int const step = b + further + Boxes;
            hopper::load_box(
                &memory.of[stage].in[k][b], p.in[k][step % Boxes],
                {first_channel(band), 0, first_step(i) / Boxes + step / Boxes - 1, outer(band)},
                memory.arrived[stage]);
          }
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
                         &memory.of[stage].in[k], false);
      }
      hopper::wait_for_reads_but<Step::outputs>();
      if (before >= 0) memory.sent[before].arrive();
      before = stage;
      next_stage();
    });
    hopper::wait_for_reads_but<0>();
  }

  /// Instead of send, by a thread for each channel.
  __device__ void store(int own) {
    p.reversed ? store_in<-1>(own) : store_in<1>(own);
  }

  /// By a thread for each channel.
  __device__ void run() {
    p.reversed ? run_in<-1>() : run_in<1>();
  }

 private:
  /// Where channel `own` of this stage has step j, in the order in which they run.
  template <int Pace>
  __device__ auto places(int own) const {
    return [&p = p, at = memory.of[stage].in[0][0].at[0] + own](int k, int j) {
      return at + p.place[k][j % Boxes] + j / Boxes * Pace * stage_type::width;
    };
  }

  template <int Pace>
  __device__ void store_in(int own) {
    T* out[Step::outputs];
    each_tile([&](int band, int i) {
      int const channel = first_channel(band) + own;
      bool const is_here = channel < p.of.channels;
      if (i == 0) {
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) out[k] = p.of.out[k].at(outer(band), 0, channel);
      }
      memory.done[stage].wait(parity);
      auto const at = places<Pace>(own);
      int const count = steps(i);
      if (count == R) {
#pragma unroll
        for (int j = 0; j < R; j += at_once) {
          T value[at_once][Step::outputs];
#pragma unroll
          for (int n = 0; n < at_once; ++n) {
#pragma unroll
            for (int k = 0; k < Step::outputs; ++k) value[n][k] = *at(k, j + n);
          }
#pragma unroll
          for (int n = 0; n < at_once; ++n) {
#pragma unroll
            for (int k = 0; k < Step::outputs; ++k) {
              if (is_here) out[k][n * p.of.out[k].time] = value[n][k];
            }
          }
#pragma unroll
          for (int k = 0; k < Step::outputs; ++k) out[k] += at_once * p.of.out[k].time;
        }
      } else {
        int const first = p.reversed ? R - count : 0;
#pragma unroll 1
        for (int j = first; j < first + count; ++j) {
#pragma unroll
          for (int k = 0; k < Step::outputs; ++k) {
            if (is_here) *out[k] = *at(k, j);
            out[k] += p.of.out[k].time;
          }
        }
      }
      memory.sent[stage].arrive();
      next_stage();
    });
  }

  template <int Pace>
  __device__ void run_in() {
    int const own = static_cast<int>(threadIdx.x);
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
      auto const at = places<Pace>(own);
      if (count == R && i + 1 < tiles) {
        values<at_once> now, next;
        now.load(at, 0);
#pragma unroll
        for (int j = 0; j < R; j += at_once) {
          if (j + at_once < R) next.load(at, j + at_once);  // before what is stored
          now.run(at, j, carry);
          now = next;
        }
      } else {
        int const first = p.reversed ? R - count : 0;
#pragma unroll 1
        for (int j = first; j < first + count; ++j) {
          bool const is_last = i + 1 == tiles && j + 1 == first + count;
          values<1> now;
          now.load(at, j);
          now.run(at, j, carry, is_last ? &edge : nullptr);
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

  /// Steps of one channel.
  template <int Steps>
  struct values {
    T in[Steps][K];

    template <class At>
    __device__ void load(At const& at, int first) {
#pragma unroll
      for (int j = 0; j < Steps; ++j) {
#pragma unroll
        for (int k = 0; k < K; ++k) in[j][k] = *at(k, first + j);
      }
    }
    /// Put what comes out where it was; `edge` is the neighbor of the last step.
    template <class At>
    __device__ void run(At const& at, int first, number& carry,
                        number const* edge = nullptr) const {
#pragma unroll
      for (int j = 0; j < Steps; ++j) {
        number value[K], result[Step::outputs];
#pragma unroll
        for (int k = 0; k < K; ++k) value[k] = to_number(in[j][k]);
        if (neighbor >= 0 && edge != nullptr) value[K - 1] = *edge;
        Step::run(value, carry, result);
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) *at(k, first + j) = to_stored<T>(result[k]);
      }
    }
  };
};

template <class T, class Step, int Boxes>
__global__ void __launch_bounds__(band_threads<Boxes>)
    bands_kernel(__grid_constant__ bands_problem<T, Step, Boxes> const p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(tile_alignment) unsigned char bytes[];
  auto& memory = *reinterpret_cast<band_memory<T, Step, Boxes>*>(bytes);
  constexpr int C = band_channels<Boxes>;
  init_stages<band_memory<T, Step, Boxes>::stages>(memory, 1, C, is_loose<Boxes> ? C : 1);
  band_walk<T, Step, Boxes> walk{p, memory};
  int const porter = static_cast<int>(threadIdx.x) - C;
  if constexpr (!is_loose<Boxes>) {
    walk_with_porters<C>(walk);
  } else if (porter < 0) {
    walk.run();
  } else if (porter == 0) {
    walk.request();
  } else if (porter >= 32) {
    walk.store(porter - 32);
  }
#endif
}

}  // namespace ssm::gpu::detail
