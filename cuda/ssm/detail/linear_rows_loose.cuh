// SPDX-License-Identifier: Apache-2.0
// linear_rows_loose.cuh: rows of the raw scan that begin anywhere in memory, in each array
// elsewhere.
#pragma once

#include <algorithm>

#include "ssm/detail/linear_rows_stretch.cuh"
#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/tile_launch.cuh"

namespace ssm::gpu::detail {

inline constexpr int loose_threads = 256, loose_stages = 2;

/// Several lanes run a row, tile by tile, each some steps in a row: an odd number of words of
/// shared memory, so that lanes side by side meet different banks wherever the row begins.
template <class T, class Step>
struct loose_problem : rows_problem<T, Step> {
  using base = rows_problem<T, Step>;

  int lanes;      ///< that run a row: a power of two
  int steps;      ///< of each in a tile
  int row_bytes;  ///< of the tile of one array

  loose_problem(base const& p, int lane_bytes) : base{p} {
    constexpr int size = sizeof(T), V = rows_packet<T>;
    // Pieces of V steps and, for an odd number of words, a word more.
    constexpr int piece = std::max(V, 2), more = std::max(1, 4 / size);
    int const most = lane_bytes / size / piece * piece + more;
    lanes = 4;
    while (lanes < 16 && lanes * 16 < p.length) lanes *= 2;  // ends are run by lanes side by side
    while (lanes < loose_threads && lanes * most < p.length) lanes *= 2;
    this->tiles_in_walk = divide_up(p.length, index_t{lanes} * most);
    index_t const least = divide_up(p.length, lanes * this->tiles_in_walk);
    steps = static_cast<int>(divide_up(std::max<index_t>(least - more, 0), piece)) * piece + more;
    // What comes before it in its first packet, and a neighbor behind it.
    int const tile = static_cast<int>(std::min<index_t>(p.length, lanes * steps));
    int const unit = std::clamp(4 * lanes, 16, 128);
    row_bytes = static_cast<int>(divide_up((tile + 1) * size + 16, unit)) * unit;
    if (row_bytes / unit % 2 == 0) row_bytes += unit;
  }
  index_t rows_at_once() const { return lanes < 32 ? 32 / lanes : 1; }
  index_t teams_of_block() const { return loose_threads / std::max(lanes, 32); }
  index_t units() const { return divide_up(this->rows, rows_at_once()); }
  int block_memory() const {
    return loose_threads / lanes * row_bytes * (loose_stages * Step::inputs + Step::outputs);
  }
};

/// A row's lanes.
template <class T, class Step, bool Reversed>
class loose_lanes {
 public:
  using number = accumulator_t<T>;
  using problem = loose_problem<T, Step>;
  using map = affine_map<number>;
  using lanes = stretch_lanes<T>;

  __device__ loose_lanes(problem const& p, unsigned char* memory, map (*of_warp)[8])
      : p_{p},
        own_{static_cast<int>(threadIdx.x) & (p.lanes - 1), p.lanes},
        in_warp_{own_.lane & 31},
        team_{static_cast<int>(threadIdx.x) / max(p.lanes, 32)},
        memory_{memory + static_cast<int>(threadIdx.x) / p.lanes *
                             (p.row_bytes * (loose_stages * Step::inputs + Step::outputs))},
        of_warp_{of_warp[p.lanes > 32 ? team_ : 0]} {}

  __device__ void run() {
    int const at_once = p_.lanes < 32 ? 32 / p_.lanes : 1;
    index_t const teams = loose_threads / max(p_.lanes, 32);
    index_t const all = teams * gridDim.x, units = (p_.rows + at_once - 1) / at_once;
    int const own = p_.lanes < 32 ? static_cast<int>(threadIdx.x % 32) / p_.lanes : 0;
    index_t unit = blockIdx.x + team_ * index_t{gridDim.x};
    place now{unit * at_once + own, 0}, next{};
    number carry{};
    request(now, 0);
    for (int stage = 0; unit < units; stage ^= 1) {
      next = now, next.tile += 1;
      if (next.tile == p_.tiles_in_walk) {
        unit += all;
        next = {unit * at_once + own, 0};
      }
      meet_team();
      request(next, stage ^ 1);
      wait_for_requests_but<1>();
      meet_team();
      scan(now, stage, carry);
      now = next;
    }
  }

 private:
  static constexpr int V = rows_packet<T>;
  static constexpr int neighbor = Step::reads_neighbor ? Step::inputs - 1 : -1;
  static constexpr int direction = Reversed ? -1 : 1;

  /// A tile of a row, and what enters the row and what follows it.
  struct place {
    index_t row, tile;
    number initial{}, edge{};
  };
  /// Elements of a tile in memory.
  struct stretch {
    index_t lowest;
    int count;
    bool is_last;
  };
  __device__ stretch stretch_of(place const& at) const {
    index_t const first = at.tile * (p_.lanes * p_.steps), left = p_.length - first;
    int const count = no_further(left, p_.lanes * p_.steps);
    return {Reversed ? left - count : first, count, count == left};
  }

  __device__ void meet_team() const {
    __syncwarp();
    if (p_.lanes > 32) {
      asm volatile("bar.sync %0, %1;" ::"r"(team_ + 1), "r"(p_.lanes) : "memory");
    }
  }
  __device__ T* buffer(int i) const { return reinterpret_cast<T*>(memory_ + i * p_.row_bytes); }
  __device__ void request(place& at, int stage) const {
    if (at.row < p_.rows) {
      auto const s = stretch_of(at);
      if (at.tile == 0 && p_.initial != nullptr) at.initial = p_.initial[at.row * p_.initial_pitch];
      if (neighbor >= 0 && s.is_last && p_.edge != nullptr)
        at.edge = p_.edge[at.row * p_.edge_pitch];
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) {
        int const more = k == neighbor && !s.is_last;
        T const* const first =
            p_.in[k] + at.row * p_.in_pitch[k] + s.lowest - (Reversed ? more : 0);
        own_.request(buffer(stage * Step::inputs + k), first, s.count + more, p_.in[k],
                     p_.in[k] + p_.in_span[k]);
      }
    }
    end_of_requests();
  }

  /// f<Count>(i) for so many steps from i on: pieces of V, and what remains one by one.
  template <class F>
  __device__ static void each_piece(int steps, F const& f) {
    int i = 0;
#pragma unroll 1
    for (; i + V <= steps; i += V) f.template operator()<V>(i);
#pragma unroll 1
    for (; i < steps; ++i) f.template operator()<1>(i);
  }

  /// The state that enters a lane, which has all of its warp up to its last step in `upto`;
  /// `carry`, which entered the tile, becomes what leaves it.
  __device__ number enter(map const& upto, number& carry) const {
    int const lane = static_cast<int>(threadIdx.x % 32);
    number state = carry;
    if (p_.lanes > 32) {
      if (in_warp_ == 31) of_warp_[own_.lane / 32] = upto;
      meet_team();
#pragma unroll 1
      for (int w = 0; w < p_.lanes / 32; ++w) {
        if (w == own_.lane / 32) state = carry;
        carry = of_warp_[w](carry);
      }
    } else {
      carry = from_lane(upto, lane | (p_.lanes - 1))(carry);
    }
    auto const before = from_lane(upto, lane - 1);
    return in_warp_ > 0 ? before(state) : state;
  }

  __device__ void scan(place const& at, int stage, number& carry) const {
    auto const s = stretch_of(at);
    int const first = own_.lane * p_.steps;
    int const steps = at.row < p_.rows ? max(0, min(s.count - first, p_.steps)) : 0;
    T const* in[Step::inputs];  // of the first step
#pragma unroll
    for (int k = 0; k < Step::inputs; ++k) {
      int const more = Reversed && k == neighbor && !s.is_last;
      T const* const lowest = p_.in[k] + at.row * p_.in_pitch[k] + s.lowest - more;
      in[k] = buffer(stage * Step::inputs + k) + lanes::misplaced(lowest) + more +
              (Reversed ? s.count - 1 - first : first);
    }
    if (at.tile == 0) carry = at.initial;
    map upto{};
    each_piece(steps, [&]<int Count>(int from) {
      number value[2][Count];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
#pragma unroll
        for (int i = 0; i < Count; ++i) value[k][i] = to_number(in[k][direction * (from + i)]);
      }
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        number one[Step::inputs] = {value[0][i], value[1][i]};
        upto = then{}(upto, Step::map(one));
      }
    });
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      auto const earlier = from_lane(upto, static_cast<int>(threadIdx.x % 32) - d);
      if (in_warp_ >= d) upto = then{}(earlier, upto);
    }
    number state = enter(upto, carry);

    T* out[Step::outputs];
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) {
      out[k] = buffer(loose_stages * Step::inputs + k) + (Reversed ? s.count - 1 - first : first) +
               lanes::misplaced(p_.out[k] + at.row * p_.out_pitch[k] + s.lowest);
    }
    int const last = s.is_last ? s.count - 1 - first : -1;
    each_piece(steps, [&]<int Count>(int from) {
      // All are loaded before one is stored, or loads wait for stores.
      T value[Step::inputs][Count], result[Step::outputs][Count];
#pragma unroll
      for (int k = 0; k < Step::inputs; ++k) {
#pragma unroll
        for (int i = 0; i < Count; ++i)
          value[k][i] = in[k][direction * (from + i + (k == neighbor ? 1 : 0))];
      }
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        number one[Step::inputs], out_of_one[Step::outputs];
#pragma unroll
        for (int k = 0; k < Step::inputs; ++k) one[k] = to_number(value[k][i]);
        if (neighbor >= 0 && from + i == last) one[Step::inputs - 1] = at.edge;
        Step::run(one, state, out_of_one);
#pragma unroll
        for (int k = 0; k < Step::outputs; ++k) result[k][i] = to_stored<T>(out_of_one[k]);
      }
#pragma unroll
      for (int k = 0; k < Step::outputs; ++k) {
#pragma unroll
        for (int i = 0; i < Count; ++i) out[k][direction * (from + i)] = result[k][i];
      }
    });
    if (steps > 0 && last == steps - 1 && p_.final != nullptr)
      p_.final[at.row * p_.final_pitch] = state;
    meet_team();
    if (at.row >= p_.rows) return;
#pragma unroll
    for (int k = 0; k < Step::outputs; ++k) {
      own_.store(p_.out[k] + at.row * p_.out_pitch[k] + s.lowest,
                 buffer(loose_stages * Step::inputs + k), s.count);
    }
  }

  problem const& p_;
  lanes own_;    ///< among those of its row
  int in_warp_;  ///< this one among those of its row in its warp
  int team_;
  unsigned char* memory_;
  map* of_warp_;
};

template <class T, class Step, bool Reversed>
__global__ void __launch_bounds__(loose_threads, sizeof(accumulator_t<T>) == 4 ? 3 : 2)
    loose_kernel(loose_problem<T, Step> const p) {
  extern __shared__ __align__(tile_alignment) unsigned char memory[];
  __shared__ affine_map<accumulator_t<T>> of_warp[4][8];
  wait_for_earlier_kernels();
  loose_lanes<T, Step, Reversed>(p, memory, of_warp).run();
}

/// Launch it, or not. Returns the bytes of workspace that it needs: none.
template <bool Reversed, class T, class Step>
std::size_t run_loose(on where, rows_problem<T, Step> const& rows, bool launches) {
  if (!launches) return 0;
  constexpr int lane_bytes = Step::inputs == 2 ? 84 : 52;
  loose_problem<T, Step> p(rows, lane_bytes);
  // Some devices have 99 KB for a block.
  if (!has_shared_memory(p.block_memory())) p = {rows, lane_bytes / 2};
  auto* const kernel = loose_kernel<T, Step, Reversed>;
  int const memory = p.block_memory();
  int each = 0;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, memory),
        "linear_scan: cudaFuncSetAttribute");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, loose_threads, memory),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  index_t const blocks = std::min(divide_up(p.units(), p.teams_of_block()), blocks_of_device(each));
  launch_blocks(where, kernel, p, blocks, loose_threads, memory, false, true);
  return 0;
}

}  // namespace ssm::gpu::detail
