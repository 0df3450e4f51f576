// SPDX-License-Identifier: Apache-2.0
// linear_columns.cuh: the raw scan where channels, not steps, are next to each other in memory, and
// of views with any strides, as tiles of a pipeline.
#pragma once

#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/tile_walk.cuh"
#include "ssm/detail/tile_words.cuh"

namespace ssm::gpu::detail {

/// Columns as tiles of the pipeline: thread = (part of the stretch, channel), so that all sums over
/// time are those of one thread or between parts. `Vectors`: 16 bytes of channels are one access.
template <class T, class Step, bool Vectors>
struct columns_tiles {
  using number = accumulator_t<T>;
  using problem = columns_problem<T, Step>;
  using tile_type = columns_tile<T, Step>;
  static constexpr int V = 16 / static_cast<int>(sizeof(T));
  static constexpr int S = Step::inputs == 2 ? 2 * V : V;  ///< steps of a thread
  static constexpr int delay = sizeof(number) == 4 ? 4 : 2, ahead = 2;
  static constexpr int pipeline_blocks = 2;  ///< on a multiprocessor
  static constexpr int walk_blocks = sizeof(number) > 4 ? 2 : Step::inputs == 2 ? 4 : 3;
  static constexpr int walk_stages = 3;
  static constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  static constexpr int room = worker_threads * S;
  /// Words that a lane asks for before it waits for one.
  static constexpr int together = 8;
  /// Stretches in a group, groups in a block: what the lanes of a channel read at once.
  static __host__ __device__ constexpr index_t group_size(int width) {
    return together * (32 / width);
  }

  struct alignas(tile_alignment) stage_memory {
    T in[Step::inputs][room];
    affine_map<number> of_part[worker_threads];  ///< in a pipeline later: of all parts before
  };
  struct state_memory {
    number of_channel[32];
  };
  struct maps {};

  problem const& p;
  stage_memory* stages;
  int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);

  __device__ int width() const { return 1 << p.width_bits; }
  __device__ int part() const { return static_cast<int>(threadIdx.x) >> p.width_bits; }
  __device__ int channel() const { return static_cast<int>(threadIdx.x) & (width() - 1); }
  __device__ int stretch_steps() const { return (worker_threads >> p.width_bits) * S; }

  __device__ columns_tile<T, Step> find(index_t tile) const {
    if (tile >= p.tiles) return {};
    // Tiles are fewer than 2^31, and divisions of 64 bits take a microsecond.
    auto const id = static_cast<unsigned>(tile), bands = static_cast<unsigned>(p.walks);
    return find_in_walk(id % bands, id / bands);
  }
  __device__ columns_tile<T, Step> find_in_walk(index_t walk, index_t stretch) const {
    auto const band = static_cast<unsigned>(walk), across = static_cast<unsigned>(p.across);
    unsigned const outer = band / across;
    index_t const channel = index_t{band - outer * across} * width();
    index_t const first = stretch * stretch_steps();
    auto const capped = [](index_t count, int most) {
      return count < most ? static_cast<int>(count) : most;
    };
    columns_tile<T, Step> at;
    for (int k = 0; k < Step::inputs; ++k) {
      at.in[k] = p.in[k].at(outer, first + (k == neighbor), channel);
    }
    for (int k = 0; k < Step::outputs; ++k) at.out[k] = p.out[k].at(outer, first, channel);
    at.stretch = stretch, at.band = band, at.outer = outer, at.channel = channel;
    at.steps = capped(p.length - first, stretch_steps());
    at.channels = capped(p.channels - channel, width());
    at.last = capped(p.length - 1 - first, 1 << 30);
    at.ends_walk = at.last < at.steps;
    return at;
  }

  __device__ T* staged(int stage, int k, int step, int c) const {
    return stages[stage].in[k] + (step << p.width_bits) + c;
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
          constexpr int packet_bits = V == 8 ? 3 : V == 4 ? 2 : V == 2 ? 1 : 0;
          int const row_bits = (p.width_bits < 5 ? p.width_bits : 5) - packet_bits;
          int const first_thread = warp * 32, first_step = (first_thread >> p.width_bits) * S;
          int const first_channel = first_thread & (width() - 1);
#pragma unroll
          for (int j = 0; j < S / V; ++j) {
            int const place = j * 32 + lane, step = first_step + (place >> row_bits);
            int const c = first_channel + (place & ((1 << row_bits) - 1)) * V;
            if (step < end && c < at.channels) {
              request_bytes<16>(staged(stage, k, step, c), at.in[k] + step * in.time + c);
            }
          }
        } else if (channel() < at.channels) {
          T const* from = at.in[k] + part() * S * in.time + channel() * in.channel;
#pragma unroll
          for (int i = 0; i < S; ++i) {
            int const step = part() * S + i;
            if (step < end) {
              T* const to = staged(stage, k, step, channel());
              if constexpr (sizeof(T) >= 4) {
                request_bytes<sizeof(T)>(to, from);
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
    affine_map<number> map{};
    T const* const from = staged(stage, 0, part() * S, channel());
    for_each_step(at, [&](int i) {
      number value[Step::inputs] = {};
      for (int k = 0; k < 2; ++k) value[k] = to_number(from[k * room + (i << p.width_bits)]);
      map = i == 0 ? Step::map(value) : then{}(map, Step::map(value));
    });
    stages[stage].of_part[threadIdx.x] = map;
  }

  /// Lanes are (stretch of eight parts, channel), as the threads of a warp are.
  __device__ void publish(columns_tile<T, Step> const& at, int stage) const {
    int const c = lane & (width() - 1), group = lane >> p.width_bits, groups = 32 >> p.width_bits;
    affine_map<number> upto{};
    auto const of = [&](int i) -> affine_map<number>& {
      return stages[stage].of_part[((group * 8 + i) << p.width_bits) + c];
    };
#pragma unroll
    for (int i = 0; i < 8; ++i) upto = then{}(upto, of(i));
    for (int d = 1; d < groups; d *= 2) {
      auto const earlier = from_lane(upto, lane - (d << p.width_bits));
      if (group >= d) upto = then{}(earlier, upto);
    }
    auto before = from_lane(upto, lane - width());
    if (group == 0) before = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      auto const own = of(i);
      of(i) = before;
      before = then{}(before, own);
    }
    if (group == groups - 1 && c < at.channels) {
      tile_map<number> whole{upto, false};
      if (at.stretch == 0) whole = {{number(0), upto(initial(at, c))}, true};
      word(0, at.stretch, at.band, c).publish(whole);
    }
  }

  __device__ void enter(columns_tile<T, Step> const& at, state_memory& entering) const {
    int const c = lane & (width() - 1);
    bool const stores = lane < at.channels;
    if (at.stretch == 0) {
      if (stores) entering.of_channel[c] = initial(at, c);
      return;
    }
    auto const G = static_cast<unsigned>(group_size(width()));
    auto const stretch = static_cast<unsigned>(at.stretch);
    unsigned const group = stretch / G, block = group / G;
    unsigned const in_group = stretch % G, in_block = group % G;
    auto const stretches = fold_words(at, 0, group * G, in_group);
    tile_map<number> own;
    if (in_group == G - 1) {
      own = fold_words(at, 0, stretch, 1);
      if (stores) word(1, group, at.band, c).publish(compose(stretches, own));
    }
    auto const groups = fold_words(at, 1, block * G, in_block);
    auto const before = block > 0 ? fold_words(at, 2, block - 1, 1) : tile_map<number>{};
    auto const state = compose(compose(before, groups), stretches);
    if (in_group == G - 1 && in_block == G - 1 && stores) {
      word(2, block, at.band, c).publish(compose(state, own));
    }
    if (stores) entering.of_channel[c] = state.map.drive;
  }
  /// What enters the thread's part, from what enters the tile.
  __device__ number entering(int stage, state_memory const& of_tile) const {
    return stages[stage].of_part[threadIdx.x](of_tile.of_channel[channel()]);
  }
  /// The same in a walk, and `carry`, of the thread's channel, goes on to the next tile.
  __device__ number pass(columns_tile<T, Step> const& at, int stage, number& carry) const {
    int const c = channel();
    if (at.stretch == 0) carry = c < at.channels ? initial(at, c) : number(0);
    number entering = carry;
    for (int i = 0; i < worker_threads >> p.width_bits; ++i) {
      if (i == part()) entering = carry;
      carry = stages[stage].of_part[(i << p.width_bits) + c](carry);
    }
    return entering;
  }

  /// From the state that enters the thread's part.
  __device__ void run(columns_tile<T, Step> const& at, int stage, number carry, maps const&) const {
    int const c = channel();
    if (c >= at.channels) return;
    T const* const from = staged(stage, 0, part() * S, c);
    T* to[Step::outputs];
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) {
      to[k] = at.out[k] + part() * S * p.out[k].time + c * p.out[k].channel;
    }
    for_each_step(at, [&](int i) {
      number value[Step::inputs], result[Step::outputs];
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) {
        value[k] = to_number(from[k * room + (i << p.width_bits)]);
      }
      if (neighbor >= 0 && part() * S + i == at.last) value[Step::inputs - 1] = edge(at, c);
      Step::run(value, carry, result);
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
        *to[k] = to_stored<T>(result[k]);
        to[k] += p.out[k].time;
      }
    });
    if (at.last < at.steps && at.last / S == part() && p.final.data != nullptr) {
      *p.final.at(at.outer, 0, at.channel + c) = carry;
    }
  }

 private:
  template <class F>
  __device__ void for_each_step(columns_tile<T, Step> const& at, F const& f) const {
    if ((part() + 1) * S <= at.steps) {
#pragma unroll
      for (int i = 0; i < S; ++i) f(i);
    } else {
      for (int i = 0; part() * S + i < at.steps; ++i) f(i);
    }
  }

  __device__ number initial(columns_tile<T, Step> const& at, int c) const {
    return p.initial.data == nullptr ? number(0) : *p.initial.at(at.outer, 0, at.channel + c);
  }

  __device__ number edge(columns_tile<T, Step> const& at, int c) const {
    return p.edge.data == nullptr ? number(0) : *p.edge.at(at.outer, 0, at.channel + c);
  }

  __device__ tile_slot<number>& word(int level, index_t i, index_t band, int c) const {
    index_t const row = i + (level > 0 ? p.stretches : 0) + (level > 1 ? p.groups : 0);
    return p.words[((row * p.walks + band) << p.width_bits) + c];
  }

  /// `count` maps from `first` on, as one. A channel's lanes each ask for some of them, all before
  /// one is waited for; all lanes get the whole.
  __device__ tile_map<number> fold_words(columns_tile<T, Step> const& at, int level, index_t first,
                                         unsigned count) const {
    int const c = lane & (width() - 1);
    int const share = lane >> p.width_bits, shares = 32 >> p.width_bits;
    auto const mine = [&](int j) { return static_cast<unsigned>(share * together + j); };
    auto const read = [&](int j, tile_map<number>& map) {
      return word(level, first + mine(j), at.band, c).read(map);
    };
    tile_map<number> map[together], whole;
    bool has[together];
#pragma unroll
    for (int j = 0; j < together; ++j) {
      has[j] = mine(j) >= count || c >= at.channels || read(j, map[j]);
    }
#pragma unroll
    for (int j = 0; j < together; ++j) {
      while (!has[j]) has[j] = read(j, map[j]);
      whole = compose(whole, map[j]);
    }
    __syncwarp();
    for (int d = 1; d < shares; d *= 2) {
      auto const later = from_lane(whole, lane + (d << p.width_bits));
      if (share % (2 * d) == 0) whole = compose(whole, later);
    }
    return from_lane(whole, c);
  }
};

}  // namespace ssm::gpu::detail
