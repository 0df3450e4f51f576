// SPDX-License-Identifier: Apache-2.0
// selective_moments_stage.cuh: what the first passes by moments read, 16 steps at a time.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_moments_tile.cuh"
#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// A warp's tiles of a problem's x and B, back from the end of a segment; or, where cotangents
/// arrive, of these, of the gate and of C, on through one of the walks after the first segment.
template <template <class> class Problem, class T, bool Packed, bool AlongTime>
class moments_stage {
 protected:
  using tile = warp_tile;
  static constexpr bool arrives = requires(Problem<T> const& p) { p.y_cotangent; };
  using shared =
      std::conditional_t<arrives, moments_tile::gated<T, Packed>, moments_tile::shared<T, Packed>>;

  __device__ moments_stage(Problem<T> const& problem, shared& memory)
      : p{problem}, block_{memory}, s{memory.warp[threadIdx.x / 32]} {
    index_t const parts = (p.states + tile::states - 1) / tile::states;
    index_t const index = blockIdx.x * index_t{blockDim.y} + squad_in_block();
    first_state_ = static_cast<int>(index % parts) * tile::states;
    channel_block const block(p, index / parts, moments_tile::channels);
    int const first = static_cast<int>(threadIdx.x) / 32 * tile::channels;
    b_ = block.b, channel_ = block.channel + first;
    channels_ = min(block.channels - first, tile::channels);
    states_ = min(static_cast<int>(p.states) - first_state_, tile::states);
    lane_ = static_cast<int>(threadIdx.x % 32), g_ = lane_ >> 2, q_ = lane_ & 3;
    index_t const t0 = first_step(arrives ? 0 : tiles() - 1);
    int2 const first_place = place(0);
    from_ = source().at(b_, t0 + first_place.x, channel_ + first_place.y);
    step_ = p.step_size.at(b_, t0 + first_place.x, channel_ + first_place.y);
    if constexpr (arrives) gate_ = p.gate.at(b_, t0 + first_place.x, channel_ + first_place.y);
    count_ = min(channels_ - 4 * g_, 4);
    beyond_ = static_cast<int>(min(p.length - first_step(0) - steps_there(), index_t{tile::steps}));
    bool const has_rows = source().time == 1 && p.step_size.time == 1 &&
                          (!arrives || p.gate.data == nullptr || p.gate.time == 1);
    goes_on_ = has_rows && beyond_ > 2;
    int2 const at = quad(0);
    projection_ = projection().at(b_, t0 + at.x, block.group, first_state_ + at.y);
  }

  /// Which walk this is, counted from the begin of time.
  __device__ index_t walk() const {
    if constexpr (arrives) {
      return blockIdx.y + p.walks;
    } else {
      return blockIdx.y;
    }
  }
  /// The tiles of a walk; the last one of a walk on may have fewer steps.
  __device__ index_t tiles() const { return (steps_there() + tile::steps - 1) / tile::steps; }
  __device__ int steps_of_last() const {
    return static_cast<int>(steps_there() - (tiles() - 1) * tile::steps);
  }

  /// Ask for the next tile, of so many steps; nothing if of none.
  __device__ void request(int steps) {
    if (steps <= 0) return;
    if (!Packed && AlongTime && goes_on_ && steps == tile::steps) {
      request_sequences<true>(steps);
    } else {
      request_sequences<false>(steps);
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int2 const at = quad(k);
      int count = states_ - at.y;
      if (!Packed && p.projections_along_time && count > 0) count = ahead(steps) - at.x;
      if constexpr (arrives) count = steps > at.x ? count : 0;
      block_.projection[warp()].request(projection_slot(k),
                                        projection_ + 8 * k * projection().state,
                                        projection().stride(p.projections_along_time), count);
    }
    constexpr int next = arrives ? tile::steps : -tile::steps;
    from_ += next * source().time, step_ += next * p.step_size.time;
    if constexpr (arrives) gate_ += next * p.gate.time;
    projection_ += next * projection().time;
  }

  /// Δ of what was asked for and what drives with it, Δ·x or the cotangent past the gate, by
  /// channel and step.
  __device__ void discretize(float (&step)[16], float (&u)[4][4]) const {
    float projected[16];
    numbers(block_.step, projected);
    float bias[16];
    of_channels(block_.bias, bias);
    if (!Packed || !p.small_steps(projected, bias, step)) p.steps(projected, bias, step);
    if (p.scales_steps) {
      float factor[16];
      of_channels(block_.factor, factor);
#pragma unroll
      for (int i = 0; i < 16; ++i) step[i] *= factor[i];
    }
    float from[16];
    numbers(block_.from, from);
    if constexpr (!arrives) {
#pragma unroll
      for (int i = 0; i < 16; ++i) u[i / 4][i % 4] = step[i] * from[i];
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i) u[i / 4][i % 4] = from[i];
      if (p.gate.data == nullptr) return;
      float gate[16];
      numbers(block_.gate, gate);
#pragma unroll
      for (int i = 0; i < 16; ++i) u[i / 4][i % 4] *= gate[i] * sigmoid(gate[i]);
    }
  }

  /// The projection to states g and 8 + g at steps 4q to 4q + 3.
  __device__ void own_projection(float (&of)[2][4]) const {
    auto const& slots = block_.projection[warp()];
    if (p.projections_along_time) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float4 const four = slots.get(projection_slot(i)).numbers();
        of[i][0] = four.x, of[i][1] = four.y, of[i][2] = four.z, of[i][3] = four.w;
      }
    } else if constexpr (in_pairs) {
      unsigned pair[4];
      slots.columns(lane_, pair);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float2 const two = two_numbers<T>(pair[i]);
        of[i / 2][i % 2 * 2] = two.x, of[i / 2][i % 2 * 2 + 1] = two.y;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        int const row = i % 4 * 4 + q_;
        of[i / 4][i % 4] = slots.number(32 * (i / 4) + 2 * row + g_ / 4, g_ % 4);
      }
    }
  }

  /// To shared memory, by state and step.
  __device__ void store_projection() {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int2 const at = quad(k);
      float4 const four = block_.projection[warp()].get(projection_slot(k)).numbers();
      if (p.projections_along_time) {
        reinterpret_cast<float4&>(s.B[at.y][at.x]) = four;
      } else {
        s.B[at.y][at.x] = four.x, s.B[at.y + 1][at.x] = four.y;
        s.B[at.y + 2][at.x] = four.z, s.B[at.y + 3][at.x] = four.w;
      }
    }
  }

  /// Bit t: step t of a tile starts a sequence, so that nothing beyond it counts.
  __device__ unsigned starts_of_sequences(index_t tiles_left) const {
    if (p.sequence.data_handle() == nullptr) return 0;
    index_t const t0 = first_step(arrives ? tiles() - 1 - tiles_left : tiles_left);
    return __ballot_sync(~0u, lane_ < tile::steps && p.starts_sequence(b_, t0 + lane_));
  }

  /// Of numbers of the block's channels those of channels 4g to 4g + 3.
  struct alignas(16) of_four {
    float number[4];
  };
  __device__ static of_four four(float const (&of_channels)[moments_tile::threads]) {
    return reinterpret_cast<of_four const*>(of_channels)[threadIdx.x / 4];
  }

  Problem<T> const& p;
  shared& block_;
  tile::shared& s;
  index_t b_, channel_;
  int channels_, first_state_, states_, lane_, g_, q_, count_;

 private:
  __device__ auto const& source() const {
    if constexpr (arrives) {
      return p.y_cotangent;
    } else {
      return p.x;
    }
  }
  __device__ auto const& projection() const {
    return arrives ? p.C : p.B;
  }
  __device__ index_t length() const {
    if constexpr (arrives) {
      return p.walk_length;
    } else {
      return p.segment_length;
    }
  }
  __device__ index_t steps_there() const {
    if (!arrives) return length();
    index_t const left = p.length - walk() * length();
    return left < length() ? (left < 0 ? 0 : left) : length();
  }
  /// Of a tile of the walk.
  __device__ index_t first_step(index_t number) const {
    return walk() * length() + number * tile::steps;
  }

  // Two quads of numbers of 16 bits are asked for as one: a copy costs shared memory's time by the
  // rows that it touches.
  static constexpr bool in_pairs = Packed && sizeof(T) == 2;
  static constexpr int requests = in_pairs ? 2 : 4;  // of a lane, for a tile of an array

  /// How far a row goes on from the begin of a tile of so many steps: beyond all of its packets, if
  /// it can.
  __device__ int ahead(int steps) const {
    return steps == tile::steps ? steps + beyond_ : steps;
  }

  /// Step and channel where this lane's k-th request begins in a tile.
  __device__ int2 place(int k) const {
    if (in_pairs && AlongTime) return {(lane_ & 1) * 8, (lane_ >> 1) + 16 * k};
    if (in_pairs) return {g_ + 8 * k, 8 * q_};
    return AlongTime ? int2{4 * q_, 4 * g_ + k} : int2{4 * q_ + k, 4 * g_};
  }
  /// Where the quad of channel 4g or step 4q, and of another three, is kept: those asked for as one
  /// together, and so that a warp that reads its own meets no bank twice.
  __device__ static int slot(int g, int q) {
    int const of_lane = AlongTime || sizeof(T) > 2 ? 4 * g + q : 8 * q + (g ^ (q & 2) * 2);
    return static_cast<int>(threadIdx.x) / 32 * 32 + of_lane;
  }

  using sequence_slots = quad_slots_of<T, moments_tile::threads, Packed>;

  /// Inside: rows go on behind all packets.
  template <bool Inside>
  __device__ void request_sequences(int steps) {
#pragma unroll
    for (int k = 0; k < requests; ++k) {
      request<Inside>(block_.from, source(), from_, k, steps);
      request<Inside>(block_.step, p.step_size, step_, k, steps);
      if constexpr (arrives) {
        request<Inside>(block_.gate, p.gate, gate_, k, p.gate.data == nullptr ? 0 : steps);
      }
    }
  }
  template <bool Inside, class U>
  __device__ void request(sequence_slots (&to)[4], selective_array<U> const& array, T const* first,
                          int k, int steps) {
    int2 const at = place(k);
    bool const is_there = at.y < channels_ && (!arrives || at.x < steps);
    constexpr int apart = !in_pairs ? 1 : AlongTime ? 16 : 8;
    T const* const from = first + apart * k * array.stride(!AlongTime);
    auto& slots = to[(AlongTime ? at.y : at.x) % 4];
    if constexpr (in_pairs) {
      slots.request_two(slot(at.y / 4, at.x / 4), from, is_there);
    } else if constexpr (Inside && !Packed) {
      slots.request_inside(slot(g_, q_), from, is_there);
    } else {
      int const left = AlongTime ? ahead(steps) - at.x : channels_ - at.y;
      slots.request(slot(g_, q_), from, array.stride(AlongTime), is_there ? left : 0);
    }
  }

  /// Step and state where this lane's k-th quad of the projection begins in a tile; the second has
  /// 8 states more.
  __device__ int2 quad(int k) const {
    if (p.projections_along_time) return {4 * q_, g_ + 8 * k};
    return {step_of_row(lane_ >> 1), 4 * (lane_ & 1) + 8 * k};
  }

  __device__ void numbers(sequence_slots const (&from)[4], float (&to)[16]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float4 const four = from[k].get(slot(g_, q_)).numbers();
      float const number[] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) to[AlongTime ? 4 * k + i : 4 * i + k] = number[i];
    }
  }

  __device__ static void of_channels(float const (&from)[moments_tile::threads], float (&to)[16]) {
    auto const [number] = four(from);
#pragma unroll
    for (int i = 0; i < 16; ++i) to[i] = number[i / 4];
  }

  // Quads of the projection are kept as lanes ask for them: eight states of a step as a row of two.
  // A lane's steps are neighbouring rows, for ldmatrix, or four apart: lanes meet no bank twice.
  __device__ static int step_of_row(int row) {
    return in_pairs ? (row & 6) * 2 + (row >> 3) * 2 + (row & 1) : row % 4 * 4 + row / 4;
  }
  __device__ int projection_slot(int k) const {
    return 32 * k + lane_;
  }
  __device__ static int warp() {
    return static_cast<int>(threadIdx.x / 32);
  }

  T const *from_, *step_, *gate_, *projection_;
  int beyond_;    // steps that rows have after the walk, as far as a tile's packets may reach
  bool goes_on_;  // as far as quads that begin anywhere do, in all sequences
};

}  // namespace ssm::gpu::detail
