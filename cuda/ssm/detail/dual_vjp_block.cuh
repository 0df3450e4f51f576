// SPDX-License-Identifier: Apache-2.0
// dual_vjp_block.cuh: which chunk and heads a block of dual_vjp_kernel has, what it asks for, and
// how its warps share a product.
#pragma once

#include "ssm/detail/dual_vjp_chunk.cuh"

namespace ssm::gpu::detail {

/// A tile of a head: 64 channels, or those that are left.
struct head_tile {
  int tile, head, first_channel, channels;

  template <class T>
  __device__ head_tile(dual_vjp_problem<T> const& p, int number)
      : tile{number},
        head{number / static_cast<int>(p.channel_tiles)},
        first_channel{number % static_cast<int>(p.channel_tiles) * vjp_channels} {
    count(p);
  }
  template <class T>
  __device__ head_tile next(dual_vjp_problem<T> const& p) const {
    head_tile n = *this;
    ++n.tile;
    n.first_channel += vjp_channels;
    if (n.first_channel >= p.head_dim) n.first_channel = 0, ++n.head;
    n.count(p);
    return n;
  }

 private:
  template <class T>
  __device__ void count(dual_vjp_problem<T> const& p) {
    channels = min(static_cast<int>(p.head_dim) - first_channel, vjp_channels);
  }
};

/// Warp (band, half) has rows 16·band of a product and one half of its columns; a lane has rows
/// `row` and row + 8, and of each eight columns `column` and the next.
template <class T, int States>
struct chunk_block {
  using shape = chunk_shape<T, States>;
  using products = products_of<T>;
  using stored = typename shape::stored;
  using memory_layout = chunk_memory<T, States>;
  using head_stage = typename memory_layout::head_stage;
  static constexpr int depth = products::depth;
  static constexpr int width = vjp_steps / vjp_halves;  // columns of a warp, steps or channels
  static constexpr int step_tiles = width / 8;
  static constexpr int state_tiles = States / vjp_halves / 8;

  dual_vjp_problem<T> const& p;
  memory_layout m;
  index_t chunk, part, group, b;
  int first_tile, last_tile;
  int count, states;  // of steps and states that there are
  int band, half, row, column;
  bool has_gate, is_first_pass;

  __device__ chunk_block(dual_vjp_problem<T> const& problem, std::byte* memory)
      : p{problem}, m{memory, shape::stage(problem.gate.data_handle() != nullptr)} {
    chunk = blockIdx.x, part = blockIdx.y;
    group = blockIdx.z % p.groups, b = blockIdx.z / p.groups;
    index_t const tiles = p.group_heads * p.channel_tiles;
    first_tile = static_cast<int>(group * tiles + part * tiles / p.parts);
    last_tile = static_cast<int>(group * tiles + (part + 1) * tiles / p.parts);
    count = steps_in(p, chunk);
    states = count_in(p.states, p.state_tile, States);
    int const warp = static_cast<int>(threadIdx.x) / 32;
    half = warp / vjp_bands;
    band = (warp + 2 * half) % vjp_bands;  // bands have different work: each scheduler has two
    row = 16 * band + lane_row();
    column = 2 * lane_pair();
    has_gate = p.gate.data_handle() != nullptr;
    is_first_pass = p.state_tile == 0;
  }

  /// Whether this warp's part of a (step, step) matrix has elements on or below the diagonal. Those
  /// that have none do for others what is not shared out.
  __device__ bool has_past() const { return 16 * band + 15 >= width * half; }

  /// Ask for all that belongs to one tile of a head.
  __device__ void request(head_tile const& of, int which) const {
    if (has_past()) return;
    constexpr int askers = 64;
    int const thread = 32 * band + static_cast<int>(threadIdx.x) % 32;
    head_stage const s = m.stage(which);
    index_t const t = chunk * vjp_steps;
    auto const ask = [&](auto const& to, auto const& view) {
      request_rows<askers>(thread, to, &view(b, t, of.head, of.first_channel), view.stride(1),
                           count, of.channels);
    };
    ask(s.x, p.x);
    ask(s.cotangent, p.y_cotangent);
    if (has_gate) ask(s.gate, p.gate);
    stored const* const all = static_cast<stored const*>(p.states_of_chunks);
    auto const states_from = [&](int which_state) {
      return all + p.states_of(which_state, b, chunk, of.tile, p.state_tile, States);
    };
    request_states<askers>(thread, s.entering, states_from(0));
    request_states<askers>(thread, s.leaving, states_from(1));
    request_steps<askers>(thread, s.steps, p.steps_of(b, of.head, chunk));
    if (p.D.data_handle() != nullptr) {
      request_skips(thread, s.D, &p.D(of.head, of.first_channel), p.D.stride(1), of.channels);
    }
    end_of_requests();
  }

  /// B and C of a tile of states to shared memory, at once.
  __device__ void load_projections(index_t tile) const {
    int const there = count_in(p.states, tile, States);
    auto const ask = [&](auto const& to, auto const& view) {
      request_rows<shape::threads>(static_cast<int>(threadIdx.x), to,
                                   &view(b, chunk * vjp_steps, group, tile * States),
                                   view.stride(1), count, there);
    };
    __syncthreads();
    ask(m.B(), p.B);
    ask(m.C(), p.C);
    end_of_requests();
    wait_for_requests_but<0>();
    __syncthreads();
  }

  /// sum += rows 16·band and the columns `of` a b, over one depth from k.
  template <bool TurnsA, bool TurnsB, int Tiles, class TileA, class TileB>
  __device__ void add_product(float (&sum)[Tiles][4], TileA const& a, TileB const& b_tile,
                              int k) const {
    auto const left = products::template left<TurnsA>(a, 16 * band, k);
#pragma unroll
    for (int n = 0; n < Tiles; n += 2) {
      auto const right = products::template right<TurnsB>(b_tile, 8 * Tiles * half ^ 8 * n, k);
      products::multiply(sum[n], sum[n + 1], left, right, p.exact);
    }
  }

  /// Add this warp's part of a matrix to rows (b, time, third, first...) of a tensor, or store it
  /// there; `packed` where two of its columns may be reached together.
  template <int Tiles, class View>
  __device__ void give_rows(View const& to, index_t third, index_t first, int columns, bool packed,
                            bool adds, float const (&values)[Tiles][4]) const {
    int const own = 8 * Tiles * half + column;
    float* line = &to(b, chunk * vjp_steps + row, third, first);
    index_t const eight_rows = 8 * to.stride(1);
    if (packed && columns == 8 * Tiles * vjp_halves) {
      line += own;
#pragma unroll
      for (int r = 0; r < 2; ++r, line += eight_rows) {
        if (row + 8 * r >= count) continue;
#pragma unroll
        for (int n = 0; n < Tiles; ++n) {
          give_pair(line + 8 * n, values[n][2 * r], values[n][2 * r + 1], adds);
        }
      }
      return;
    }
    index_t const stride = to.stride(3);
#pragma unroll
    for (int r = 0; r < 2; ++r, line += eight_rows) {
#pragma unroll
      for (int n = 0; n < Tiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          int const c = own + 8 * n + e;
          if (row + 8 * r >= count || c >= columns) continue;
          float& at = line[c * stride];
          at = adds ? at + values[n][2 * r + e] : values[n][2 * r + e];
        }
      }
    }
  }

  /// Sums over the rows of a warp for its columns: f(column, sum), one for each lane. Halves of the
  /// columns go to halves of the lanes: seven exchanges.
  template <class F>
  __device__ void sum_rows(float (&own)[step_tiles][2], F const& f) const {
    auto const exchanged = [](bool upper, float low, float high, int distance) {
      float const there = __shfl_xor_sync(~0u, upper ? low : high, distance);
      return (upper ? high : low) + there;
    };
    int const lane = lane_row();
    bool const upper = lane & 4, second = lane & 2, odd = lane & 1;
    float two[2][2];
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) two[n][e] = exchanged(upper, own[n][e], own[n + 2][e], 16);
    }
    float const first = exchanged(second, two[0][0], two[1][0], 8);
    float const last = exchanged(second, two[0][1], two[1][1], 8);
    f(width * half + 16 * upper + 8 * second + column + odd, exchanged(odd, first, last, 4));
  }
  __device__ static float sum_of_columns(float own) {
    own += __shfl_xor_sync(~0u, own, 1);
    return own + __shfl_xor_sync(~0u, own, 2);
  }
};

}  // namespace ssm::gpu::detail
