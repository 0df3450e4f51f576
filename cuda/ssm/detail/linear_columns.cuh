// SPDX-License-Identifier: Apache-2.0
// linear_columns.cuh: the raw scan where channels, not steps, are next to each other in memory, and
// of views with any strides, as tiles of a pipeline.
#pragma once

#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/linear_columns_words.cuh"
#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/tile_pipeline.cuh"

namespace ssm::gpu::detail {

/// Columns as tiles of the pipeline: thread = (part of the stretch, packet of P channels), so that
/// all sums over time are those of one thread or between parts. A packet is one access of shared
/// memory and of the outputs. `Vectors`: 16 bytes of channels are one access of the inputs;
/// otherwise arrays may have any strides.
template <class T, class Step, bool Vectors>
struct columns_tiles {
  using number = accumulator_t<T>;
  using problem = columns_problem<T, Step>;
  using tile_type = columns_tile<T, Step>;
  static constexpr int size = static_cast<int>(sizeof(T)), V = 16 / size;
  static constexpr int workers = 256;
  static constexpr int P = Vectors && size <= 4 ? 2 : 1;
  static constexpr int S = 2 * V / P / (Step::inputs - 1);  ///< steps of a thread
  static constexpr int delay = size == 16 ? 2 : size == 2 ? 3 : Step::inputs + 1, ahead = 2;
  static constexpr int pipeline_blocks = 2;  ///< on a multiprocessor
  static constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  /// Parts beside each other begin in different banks where two rows of 32 channels fit in these.
  static constexpr int part_rows = S + (Vectors && size == 2);
  static constexpr int room = workers * part_rows * P;
  static constexpr int parts_of_lane = workers * P / 32;  ///< in publish
  template <class A>
  using packet = columns_packet<A, P>;
  struct alignas(tile_alignment) stage_memory {
    T in[Step::inputs][room];
    affine_map<number> of_part[workers * P];  ///< of the part; later of all parts before it
  };
  struct state_memory {
    number of_channel[32];
  };
  struct maps {};

  problem const& p;
  stage_memory* stages;
  int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);

  __device__ int width() const { return 1 << p.width_bits; }
  __device__ int thread_bits() const { return p.width_bits - bits_of(P); }
  __device__ int part() const { return static_cast<int>(threadIdx.x) >> thread_bits(); }
  __device__ int channel() const {
    return (static_cast<int>(threadIdx.x) & ((1 << thread_bits()) - 1)) * P;
  }
  static __host__ __device__ constexpr index_t stretch_steps(int width) {
    return workers * P / width * S;
  }

  __device__ columns_tile<T, Step> find(index_t tile) const {
    if (tile >= p.tiles) return {};
    // Tiles are fewer than 2^31, and divisions of 64 bits take a microsecond.
    auto const id = static_cast<unsigned>(tile), bands = static_cast<unsigned>(p.bands);
    auto const across = static_cast<unsigned>(p.across);
    unsigned const stretch = id / bands, band = id - stretch * bands, outer = band / across;
    index_t const channel = index_t{band - outer * across} * width();
    index_t const most = stretch_steps(width()), first = stretch * most;
    auto const capped = [](index_t count, index_t limit) {
      return static_cast<int>(count < limit ? count : limit);
    };
    columns_tile<T, Step> at;
    for (int k = 0; k < Step::inputs; ++k) {
      at.in[k] = p.in[k].at(outer, first + (k == neighbor), channel);
    }
    for (int k = 0; k < Step::outputs; ++k) at.out[k] = p.out[k].at(outer, first, channel);
    at.stretch = stretch, at.band = band, at.outer = outer, at.channel = channel;
    at.steps = capped(p.length - first, most);
    at.channels = capped(p.channels - channel, width());
    at.last = capped(p.length - 1 - first, 1 << 30);
    return at;
  }

  __device__ T* staged(int stage, int k, int step_part, int i, int c) const {
    return stages[stage].in[k] + ((step_part * part_rows + i) << p.width_bits) + c;
  }

  /// Each warp asks for its own parts.
  __device__ void request(columns_tile<T, Step> const& at, int stage) const {
    if constexpr (Vectors) __syncwarp();  // all lanes have read what this overwrites
    if (!at.is_none()) {
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) {
        int const end = k == neighbor && at.last < at.steps ? at.last : at.steps;
        auto const& in = p.in[k];
        if constexpr (Vectors) {
          int const row_bits = p.width_bits - bits_of(V), rows = 32 >> row_bits;
          int const c = (lane & ((1 << row_bits) - 1)) * V;
          int const first = ((warp * 32) >> thread_bits()) * S + (lane >> row_bits);
          T const* from = at.in[k] + first * in.time + c;
#pragma unroll
          for (int j = 0; j < P * S / V; ++j) {
            int const step = first + j * rows;
            if (step < end && c < at.channels) {
              request_bytes<16>(staged(stage, k, step / S, step % S, c), from);
            }
            from += rows * in.time;
          }
        } else if (channel() < at.channels) {
          T const* from = at.in[k] + part() * S * in.time + channel() * in.channel;
#pragma unroll
          for (int i = 0; i < S; ++i) {
            if (part() * S + i < end) {
              T* const to = staged(stage, k, part(), i, channel());
              if constexpr (size >= 4) {
                request_bytes<size>(to, from);
              } else {
                *to = *from;
              }
            }
            from += in.time;
          }
        }
      }
    }
    end_of_requests();
  }

  __device__ void fold(columns_tile<T, Step> const& at, int stage, maps&) const {
    if constexpr (Vectors) __syncwarp();  // lanes have loaded for each other
    packet<affine_map<number>> map{};
    packet<T> in[S][2];
    read(stage, in);
    for_each_step(at, [&](int i) {
      auto const a = to_numbers(in[i][0]), b = to_numbers(in[i][1]);
#pragma unroll
      for (int c = 0; c < P; ++c) {
        number value[Step::inputs] = {a.of[c], b.of[c]};
        map.of[c] = i == 0 ? Step::map(value) : then{}(map.of[c], Step::map(value));
      }
    });
    *of_own_part(stage) = map;
  }

  /// Lanes are (run of parts, channel).
  __device__ void publish(columns_tile<T, Step> const& at, int stage) const {
    int const c = lane & (width() - 1), group = lane >> p.width_bits, groups = 32 >> p.width_bits;
    affine_map<number> own[parts_of_lane], upto{};
    auto const of = [&](int i) -> affine_map<number>& {
      return stages[stage].of_part[((group * parts_of_lane + i) << p.width_bits) + c];
    };
#pragma unroll
    for (int i = 0; i < parts_of_lane; ++i) own[i] = of(i);
#pragma unroll
    for (int i = 0; i < parts_of_lane; ++i) upto = then{}(upto, own[i]);
    for (int d = 1; d < groups; d *= 2) {
      auto const earlier = from_lane(upto, lane - (d << p.width_bits));
      if (group >= d) upto = then{}(earlier, upto);
    }
    auto before = from_lane(upto, lane - width());
    if (group == 0) before = {};
    if (group == groups - 1 && c < at.channels) {
      tile_map<number> whole{upto, false};
      if (at.stretch == 0) whole = {{number(0), upto(words().initial(at, c))}, true};
      words().slot(0, at.stretch, at.band, c).publish(whole);
    }
#pragma unroll
    for (int i = 0; i < parts_of_lane; ++i) {
      of(i) = before;
      before = then{}(before, own[i]);
    }
  }

  __device__ void enter(columns_tile<T, Step> const& at, state_memory& entering) const {
    number const state = words().enter(at);
    if (lane < at.channels) entering.of_channel[lane & (width() - 1)] = state;
  }
  /// What enters the thread's part, from what enters the tile.
  __device__ packet<number> entering(int stage, state_memory const& of_tile) const {
    auto const map = *of_own_part(stage);
    packet<number> state;
#pragma unroll
    for (int c = 0; c < P; ++c) state.of[c] = map.of[c](of_tile.of_channel[channel() + c]);
    return state;
  }

  /// From the states that enter the thread's part.
  __device__ void run(columns_tile<T, Step> const& at, int stage, packet<number> carry,
                      maps const&) const {
    if (channel() >= at.channels) return;
    T* to[Step::outputs];
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) {
      to[k] = at.out[k] + part() * S * p.out[k].time + channel() * p.out[k].channel;
    }
    packet<T> in[S][Step::inputs];
    read(stage, in);  // all of it before the first store, which may be to anywhere
    for_each_step(at, [&](int i) {
      packet<T> out[Step::outputs];
      packet<number> numbers[Step::inputs];
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) numbers[k] = to_numbers(in[i][k]);
#pragma unroll
      for (int c = 0; c < P; ++c) {
        number value[Step::inputs], result[Step::outputs];
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) value[k] = numbers[k].of[c];
        if (neighbor >= 0 && part() * S + i == at.last) {
          value[Step::inputs - 1] = edge(at, channel() + c);
        }
        Step::run(value, carry.of[c], result);
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) out[k].of[c] = to_stored<T>(result[k]);
      }
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
        store_packet(out[k], to[k]);
        to[k] += p.out[k].time;
      }
    });
    if (at.last < at.steps && at.last / S == part() && p.final.data != nullptr) {
      for (int c = 0; c < P; ++c) {
        *p.final.at(at.outer, 0, at.channel + channel() + c) = carry.of[c];
      }
    }
  }

 private:
  __device__ columns_words<T, Step> words() const {
    return {p, lane};
  }

  static constexpr __device__ int bits_of(int n) {
    return n > 1 ? 1 + bits_of(n / 2) : 0;
  }

  /// The first `Inputs` of the thread's part.
  template <int Inputs>
  __device__ void read(int stage, packet<T> (&in)[S][Inputs]) const {
    T const* from = staged(stage, 0, part(), 0, channel());
#pragma unroll
    for (int i = 0; i < S; ++i) {
#pragma unroll
      for (int k = 0; k < Inputs; ++k) {
        in[i][k] = *reinterpret_cast<packet<T> const*>(from + k * room);
      }
      from += width();
    }
  }

  __device__ packet<affine_map<number>>* of_own_part(int stage) const {
    return reinterpret_cast<packet<affine_map<number>>*>(stages[stage].of_part) + threadIdx.x;
  }

  template <class F>
  __device__ void for_each_step(columns_tile<T, Step> const& at, F const& f) const {
    int const steps = at.steps - part() * S;
    if (steps >= S) {
#pragma unroll
      for (int i = 0; i < S; ++i) f(i);
    } else {
#pragma unroll
      for (int i = 0; i < S; ++i) {
        if (i < steps) f(i);
      }
    }
  }

  __device__ number edge(columns_tile<T, Step> const& at, int c) const {
    return p.edge.data == nullptr ? number(0) : *p.edge.at(at.outer, 0, at.channel + c);
  }
};

}  // namespace ssm::gpu::detail
