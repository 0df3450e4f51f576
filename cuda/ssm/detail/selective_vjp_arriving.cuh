// SPDX-License-Identifier: Apache-2.0
// selective_vjp_arriving.cuh: the cotangents of the states that leave the segments of time, so that
// these can run side by side.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_moments.cuh"
#include "ssm/detail/selective_vjp_problem.cuh"

namespace ssm::gpu::detail {

/// What a segment gives the cotangent of the state that enters it,
/// e = Σ_t exp(A'·Σ_{s≤t} Δ_s) C_t dy_t, walking from its begin: the mirror of entering_kernel. A
/// state is left where all that comes later would be multiplied by less than 2^threshold: what is
/// dropped is at most that part of the state's cotangent there. A block walks 32 channels and up to
/// 16 states, 16 steps at a time: a lane has a channel, a warp eight of the steps.
struct arriving_tile {
  static constexpr int threads = 64;
  static constexpr int warps = threads / 32;
  static constexpr int steps = 16;
  static constexpr int warp_steps = steps / warps;
  static constexpr int channels = 32;
  static constexpr int states = 16;
  using grid = packet_grid<steps, channels>;
  static_assert(grid::packets == threads && warp_steps == packet_elements);

  struct shared {
    float4 pair[steps][channels / 2];  // projected step size and dy of two channels
    float C[2][states][steps + 4];     // of this tile and the next, as are the sums; a warp's rows
                                       // begin at banks of their own
    float sum[2][warps][channels];     // Σ Δ of a warp's steps
    float part[warps][states][channels];
  };
};

/// Where a segment is over before it is looked whether states have decayed, none is left (Leaves):
/// without branches exponentials of one do not wait for another.
template <class T, bool Packed, bool Leaves>
class arriving_block {
  using tile = arriving_tile;

 public:
  __device__ arriving_block(selective_vjp_problem<T> const& problem, tile::shared& memory,
                            index_t parts)
      : p{problem},
        s{memory},
        block(problem, blockIdx.x / parts, tile::channels),
        first_state_{static_cast<int>(blockIdx.x % parts) * tile::states},
        warp_{static_cast<int>(threadIdx.x) / 32},
        lane_{static_cast<int>(threadIdx.x) % 32} {
    begin_ = (blockIdx.y + 1) * p.segment_length;
    end_ = begin_ + p.segment_length < p.length ? begin_ + p.segment_length : p.length;
    index_t const others = p.states - first_state_;
    states_ = static_cast<int>(others < tile::states ? others : tile::states);
    at_ = tile::grid::place(static_cast<int>(threadIdx.x), p.along_time);
    auto const first = [&](auto const& array) {
      return array.at(block.b, begin_ + at_.x, block.channel + at_.y);
    };
    step_ = first(p.step_size), arriving_ = first(p.y_cotangent), gate_ = first(p.gate);
    int const there = block.channels - at_.y;
    bool const is_whole = there > 0 && (p.along_time || there > packet_elements);
    count_ = is_whole ? packet_elements : there > 0 ? there : 0;
    int const i = static_cast<int>(threadIdx.x);
    constexpr int along = tile::steps / 4;
    quad_ = p.projections_along_time ? int2{i % along * 4, i / along}
                                     : int2{i % tile::steps, i / tile::steps * 4};
    C_ = p.C.at(block.b, begin_ + quad_.x, block.group, first_state_ + quad_.y);
  }

  __device__ void run() {
    request(begin_);
    bool const has_channel = lane_ < block.channels;
    index_t const c = block.channel + lane_;
    float rate[tile::states], sum[tile::states];
#pragma unroll
    for (int n = 0; n < tile::states; ++n) {
      bool const is_there = has_channel && n < states_;  // loads wait for no branch
      float const A = p.eigenvalue(is_there ? c : block.channel, first_state_ + (is_there ? n : 0));
      rate[n] = is_there ? A * log2_of_e : 0.0f;
      sum[n] = 0.0f;
    }
    if (p.scaling.scales_eigenvalues()) {
#pragma unroll
      for (int n = 0; n < tile::states; ++n) {
        if (has_channel && n < states_) rate[n] = p.rate(c, first_state_ + n);
      }
    }
    float const bias = has_channel ? p.bias(c) : 0.0f;
    float const factor = has_channel ? p.scaling.step_factor(c) : 0.0f;
    float walked = 0.0f, rest = 0.0f;  // Σ Δ so far, and what rounding left out of it
    unsigned alive = (1u << states_) - 1;
    bool is_cut = false;
    int number = 0;
#pragma unroll 1
    for (index_t t0 = begin_; t0 < end_ && alive != 0 && !is_cut; t0 += tile::steps, ++number) {
      int const buffer = number % 2;
      float step[tile::warp_steps], dy[tile::warp_steps];
      discretize(t0, buffer, bias, factor, step, dy);
      request(t0 + tile::steps);
      unsigned const starts = starts_of_sequences(t0);
      is_cut = starts != 0;
      int const last = is_cut ? __ffs(static_cast<int>(starts)) - 1 : tile::steps;
      // Σ Δ of the steps up to each.
      float upto = walked, sum_of_tile = 0.0f;
#pragma unroll
      for (int w = 0; w < tile::warps; ++w) {
        float const there = s.sum[buffer][w][lane_];
        if (w < warp_) upto += there;
        sum_of_tile += there;
      }
#pragma unroll
      for (int k = 0; k < tile::warp_steps; ++k) {
        upto += step[k];
        step[k] = upto;
        if (warp_ * tile::warp_steps + k >= last) dy[k] = 0.0f;
      }
#pragma unroll
      for (int n = 0; n < tile::states; ++n) {
        if (!Leaves || (alive >> n & 1) != 0) {
          auto const* const four =
              reinterpret_cast<float4 const*>(&s.C[buffer][n][warp_ * tile::warp_steps]);
          float4 const low = four[0], high = four[1];
          float const C[] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
          for (int k = 0; k < tile::warp_steps; ++k) {
            sum[n] = fmaf(exp2(rate[n] * step[k]), dy[k] * C[k], sum[n]);
          }
        }
      }
      // Kahan: walked has thousands of terms.
      float const more = sum_of_tile - rest, next = walked + more;
      rest = (next - walked) - more;
      walked = next;
      if constexpr (Leaves) {
        if (number % 8 == 7) alive = still_alive(alive, has_channel, rate, walked);
      }
    }
#pragma unroll
    for (int n = 0; n < tile::states; ++n) s.part[warp_][n][lane_] = sum[n];
    __syncthreads();
    if (!has_channel) return;
    float* const given = p.arriving + p.segment_state(block.b, blockIdx.y, first_state_, c);
    float* const decay = p.decay + p.segment_state(block.b, blockIdx.y + 1, first_state_, c);
#pragma unroll
    for (int n = 0; n < tile::states; ++n) {
      if (n % tile::warps != warp_ || n >= states_) continue;
      float total = 0.0f;
      for (auto const& part : s.part) total += part[n][lane_];
      bool const passes = !is_cut && (alive >> n & 1) != 0;
      given[n * p.channels] = total;
      decay[n * p.channels] = passes ? exp2(rate[n] * walked) : 0.0f;
    }
  }

 private:
  /// The states that have not decayed in all channels. Looking costs as much as a state.
  __device__ unsigned still_alive(unsigned alive, bool has_channel,
                                  float const (&rate)[tile::states], float walked) const {
#pragma unroll
    for (int n = 0; n < tile::states; ++n) {
      bool const is_dead = !has_channel || rate[n] * walked < p.threshold;
      if (__all_sync(~0u, is_dead)) alive &= ~(1u << n);
    }
    return alive;
  }

  /// Ask for the tile from step t0 on; nothing, after the last.
  __device__ void request(index_t t0) {
    index_t const left = end_ - t0;
    int const steps = left < tile::steps ? (left < 0 ? 0 : static_cast<int>(left)) : tile::steps;
    int const own = steps - at_.x;
    int const count = own <= 0 ? 0 : p.along_time && own < count_ ? own : count_;
    auto const load = [&](T const*& from, selective_array<T const> const& array, int count) {
      auto const packet = load_packet<Packed>(from, array.stride(p.along_time), count);
      from += tile::steps * array.time;
      return packet;
    };
    next_step_ = load(step_, p.step_size, count);
    next_arriving_ = load(arriving_, p.y_cotangent, count);
    next_gate_ = load(gate_, p.gate, p.gate.data == nullptr ? 0 : count);
    int const steps_left = steps - quad_.x, states_left = states_ - quad_.y;
    int const of_C = p.projections_along_time ? steps_left : states_left;
    int const elements = steps_left <= 0 || states_left <= 0 ? 0 : of_C < 4 ? of_C : 4;
    next_C_ = load_quad_of<Packed>(C_, p.C.stride(p.projections_along_time), elements);
    C_ += tile::steps * p.C.time;
  }

  /// From what was asked for to C in shared memory, this warp's steps of each lane's channel, and
  /// their sum.
  __device__ void discretize(index_t t0, int buffer, float bias, float factor,
                             float (&step)[tile::warp_steps], float (&dy)[tile::warp_steps]) {
    float4 const quad = next_C_.numbers();
    auto& C = s.C[buffer];
    if (p.projections_along_time) {
      reinterpret_cast<float4&>(C[quad_.y][quad_.x]) = quad;
    } else {
      C[quad_.y][quad_.x] = quad.x, C[quad_.y + 1][quad_.x] = quad.y;
      C[quad_.y + 2][quad_.x] = quad.z, C[quad_.y + 3][quad_.x] = quad.w;
    }
    float projected[tile::warp_steps], biases[tile::warp_steps], factors[tile::warp_steps];
#pragma unroll
    for (int k = 0; k < tile::warp_steps; ++k) {
      biases[k] = bias, factors[k] = factor;
      projected[k] = next_step_[k], dy[k] = next_arriving_[k];
    }
    if (p.gate.data != nullptr) {
#pragma unroll
      for (int k = 0; k < tile::warp_steps; ++k) dy[k] *= next_gate_[k] * sigmoid(next_gate_[k]);
    }
    if (!p.along_time) {  // else a packet is what this lane needs
#pragma unroll
      for (int k = 0; k < packet_elements; k += 2) {
        s.pair[at_.x][swizzled((at_.y + k) / 2)] = {projected[k], dy[k], projected[k + 1],
                                                    dy[k + 1]};
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < tile::warp_steps; ++k) {
        auto const* const two = reinterpret_cast<float2 const*>(
            &s.pair[warp_ * tile::warp_steps + k][swizzled(lane_ / 2)]);
        projected[k] = two[lane_ % 2].x, dy[k] = two[lane_ % 2].y;
      }
    }
    p.steps(projected, biases, factors, step);
    if (t0 + tile::steps > end_) {  // a step that is not there changes nothing
      index_t const left = end_ - t0 - warp_ * tile::warp_steps;
#pragma unroll
      for (int k = 0; k < tile::warp_steps; ++k) step[k] = k < left ? step[k] : 0.0f;
    }
    float sum = 0.0f;
#pragma unroll
    for (float const each : step) sum += each;
    s.sum[buffer][warp_][lane_] = sum;
    __syncthreads();
  }

  /// Bit t: step t of a tile starts a sequence, so that nothing from it on counts.
  __device__ unsigned starts_of_sequences(index_t t0) const {
    if (p.sequence.data_handle() == nullptr) return 0;
    return __ballot_sync(~0u, lane_ < tile::steps && p.starts_sequence(block.b, t0 + lane_));
  }

  __device__ static int swizzled(int i) {
    return i ^ (i >> 3 & 3);
  }

  selective_vjp_problem<T> const& p;
  tile::shared& s;
  channel_block block;
  int first_state_, states_, warp_, lane_, count_;
  int2 at_, quad_;  // this thread's packet, and its quad of C: step and state
  index_t begin_, end_;
  T const *step_, *arriving_, *gate_, *C_;
  stored_packet<T> next_step_, next_arriving_, next_gate_;
  stored_quad<T> next_C_;
};

/// 8 blocks of 126 registers spill nothing; 10 of 96 take 15 % longer.
template <class T, bool Packed, bool Leaves>
__global__ void __launch_bounds__(arriving_tile::threads, 8)
    arriving_kernel(__grid_constant__ selective_vjp_problem<T> const p) {
  __shared__ arriving_tile::shared memory;
  index_t const parts = (p.states + arriving_tile::states - 1) / arriving_tile::states;
  arriving_block<T, Packed, Leaves>(p, memory, parts).run();
}

/// The same for segments that are not long, by any number of walks.
template <class T, bool Packed>
__global__ void __launch_bounds__(moments_tile::threads, 4)
    arriving_moments_kernel(__grid_constant__ selective_vjp_problem<T> const p) {
  extern __shared__ uint4 arriving_moments_memory[];
  auto& memory = *reinterpret_cast<moments_tile::gated<T, Packed>*>(arriving_moments_memory);
  if (p.along_time) return moments_warp<selective_vjp_problem, T, Packed, true>(p, memory).run();
  moments_warp<selective_vjp_problem, T, Packed, false>(p, memory).run();
}

}  // namespace ssm::gpu::detail
