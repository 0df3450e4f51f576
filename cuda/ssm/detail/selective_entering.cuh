// SPDX-License-Identifier: Apache-2.0
// selective_entering.cuh: the states that enter the segments of time, so that these can run side by
// side.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"

namespace ssm::gpu::detail {

/// What a segment adds to the state that leaves it, h = Σ_t exp(A'·Σ_{s>t} Δ_s) Δ_t B_t x_t,
/// walking back from its end. A state is left where all that is further back would be multiplied by
/// less than 2^threshold: what is dropped is at most that part of the state there. A block walks 32
/// channels and up to 16 states, 32 steps at a time: a lane has a channel, a warp eight of the
/// steps.
struct entering_tile {
  static constexpr int threads = 128;
  static constexpr int warps = threads / 32;
  static constexpr int steps = 32;
  static constexpr int warp_steps = steps / warps;
  static constexpr int channels = 32;
  static constexpr int states = 16;
  using grid = packet_grid<steps, channels>;
  static_assert(grid::packets == threads && warp_steps == packet_elements);

  struct shared {
    float4 pair[steps][channels / 2];  // projected step size and x of two channels
    float B[2][states][steps];         // of this tile and the next, as are the sums
    float sum[2][warps][channels];     // Σ Δ of a warp's steps
    float part[warps][states][channels];
  };
};

template <class T, bool Packed>
class entering_block {
  using tile = entering_tile;

 public:
  __device__ entering_block(selective_problem<T> const& problem, tile::shared& memory)
      : p{problem}, s{memory} {
    index_t const parts = (p.states + tile::states - 1) / tile::states;
    first_state_ = static_cast<int>(blockIdx.x % parts) * tile::states;
    channel_block const block(p, blockIdx.x / parts, tile::channels);
    b_ = block.b, channel_ = block.channel, channels_ = block.channels;
    index_t const others = p.states - first_state_;
    states_ = static_cast<int>(others < tile::states ? others : tile::states);
    tiles_ = p.segment_length / tile::steps;
    warp_ = static_cast<int>(threadIdx.x) / 32;
    lane_ = static_cast<int>(threadIdx.x) % 32;

    // The last tile comes first.
    index_t const t0 = (blockIdx.y + 1) * p.segment_length - tile::steps;
    int2 const at = tile::grid::place(static_cast<int>(threadIdx.x), p.along_time);
    x_ = p.x.at(b_, t0 + at.x, channel_ + at.y);
    step_ = p.step_size.at(b_, t0 + at.x, channel_ + at.y);
    int const there = channels_ - at.y;
    bool const is_whole = there > 0 && (p.along_time || there > packet_elements);
    count_ = is_whole ? packet_elements : there > 0 ? there : 0;
    quad_ = p.projections_along_time ? int2{lane_ % 8 * 4, 4 * warp_ + lane_ / 8}
                                     : int2{lane_, 4 * warp_};
    B_ = p.B.at(b_, t0 + quad_.x, block.group, first_state_ + quad_.y);
    B_count_ = p.projections_along_time && states_ > quad_.y ? 4 : states_ - quad_.y;
  }

  __device__ void run() {
    float rate[tile::states], sum[tile::states];
    bool const has_channel = lane_ < channels_;
#pragma unroll
    for (int n = 0; n < tile::states; ++n) {
      rate[n] = has_channel && n < states_ ? p.rate(channel_ + lane_, first_state_ + n) : 0.0f;
      sum[n] = 0.0f;
    }
    float const bias = has_channel ? p.bias(channel_ + lane_) : 0.0f;
    float const factor = has_channel ? p.scaling.step_factor(channel_ + lane_) : 0.0f;
    float walked = 0.0f, rest = 0.0f;  // Σ Δ so far, and what rounding left out of it
    unsigned const all = (1u << states_) - 1;
    unsigned alive = all;
    bool is_cut = false;
    unsigned long long visited = 0;
    request(true);
#pragma unroll 1
    for (index_t left = tiles_ - 1; left >= 0 && alive != 0 && !is_cut; --left) {
      int const buffer = static_cast<int>(left % 2);
      float step[tile::warp_steps], drive[tile::warp_steps];
      discretize(buffer, bias, factor, step, drive);
      request(left > 0);
      unsigned const starts = starts_of_sequences(left);
      is_cut = starts != 0;
      int const first = is_cut ? 31 - __clz(static_cast<int>(starts)) : 0;
      // Σ Δ of the steps after each.
      float after = walked, sum_of_tile = 0.0f;
#pragma unroll
      for (int w = tile::warps - 1; w >= 0; --w) {
        float const there = s.sum[buffer][w][lane_];
        if (w > warp_) after += there;
        sum_of_tile += there;
      }
#pragma unroll
      for (int k = tile::warp_steps - 1; k >= 0; --k) {
        float const own = step[k];
        step[k] = after;
        after += own;
        if (warp_ * tile::warp_steps + k < first) drive[k] = 0.0f;
      }
      visited += static_cast<unsigned>(__popc(alive)) * tile::steps;
#pragma unroll
      for (int n = 0; n < tile::states; ++n) {
        if (alive >> n & 1) {
          auto const* const four =
              reinterpret_cast<float4 const*>(&s.B[buffer][n][warp_ * tile::warp_steps]);
          float4 const low = four[0], high = four[1];
          float const B[] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
          for (int k = tile::warp_steps - 1; k >= 0; --k) {
            sum[n] = fmaf(exp2(rate[n] * step[k]), drive[k] * B[k], sum[n]);
          }
        }
      }
      // Kahan: walked has thousands of terms.
      float const more = sum_of_tile - rest, next = walked + more;
      rest = (next - walked) - more;
      walked = next;
      if (left % 4 != 0) continue;  // looking costs as much as a state
#pragma unroll
      for (int n = 0; n < tile::states; ++n) {
        bool const is_dead = !has_channel || rate[n] * walked < p.threshold;
        if (__all_sync(~0u, is_dead)) alive &= ~(1u << n);
      }
    }
#pragma unroll
    for (int n = 0; n < tile::states; ++n) s.part[warp_][n][lane_] = sum[n];
    __syncthreads();
    for (int n = warp_; n < states_; n += tile::warps) {
      if (!has_channel) break;
      float total = 0.0f;
      for (int w = tile::warps - 1; w >= 0; --w) total += s.part[w][n][lane_];
      index_t const c = channel_ + lane_;
      p.entering[p.segment_state(b_, blockIdx.y + 1, first_state_ + n, c)] = total;
      bool const passes = !is_cut && (alive >> n & 1) != 0;
      p.decay[p.segment_state(b_, blockIdx.y, first_state_ + n, c)] =
          passes ? exp2(p.rate(c, first_state_ + n) * walked) : 0.0f;
    }
    if (p.visited != nullptr && threadIdx.x == 0) atomicAdd(p.visited, visited * channels_);
  }

 private:
  /// Ask for the next tile, which lies before this one.
  __device__ void request(bool is_wanted) {
    next_x_ = load_packet<Packed>(x_, p.x.stride(p.along_time), is_wanted ? count_ : 0);
    next_step_ =
        load_packet<Packed>(step_, p.step_size.stride(p.along_time), is_wanted ? count_ : 0);
    next_B_ =
        load_quad_of<Packed>(B_, p.B.stride(p.projections_along_time), is_wanted ? B_count_ : 0);
    x_ -= tile::steps * p.x.time;
    step_ -= tile::steps * p.step_size.time;
    B_ -= tile::steps * p.B.time;
  }

  /// The warp's Δ and Δ·x of what was asked for; their sums and B in shared memory.
  __device__ void discretize(int buffer, float bias, float factor, float (&step)[tile::warp_steps],
                             float (&drive)[tile::warp_steps]) {
    float4 const quad = next_B_.numbers();
    auto& B = s.B[buffer];
    if (p.projections_along_time) {
      reinterpret_cast<float4&>(B[quad_.y][quad_.x]) = quad;
    } else {
      B[quad_.y][quad_.x] = quad.x, B[quad_.y + 1][quad_.x] = quad.y;
      B[quad_.y + 2][quad_.x] = quad.z, B[quad_.y + 3][quad_.x] = quad.w;
    }
    float projected[tile::warp_steps], biases[tile::warp_steps], factors[tile::warp_steps];
#pragma unroll
    for (int k = 0; k < tile::warp_steps; ++k) biases[k] = bias, factors[k] = factor;
    if (p.along_time) {  // a packet is what this lane needs
#pragma unroll
      for (int k = 0; k < packet_elements; ++k) projected[k] = next_step_[k], drive[k] = next_x_[k];
    } else {
      int2 const at = tile::grid::place(static_cast<int>(threadIdx.x), false);
#pragma unroll
      for (int k = 0; k < packet_elements; k += 2) {
        s.pair[at.x][swizzled((at.y + k) / 2)] = {next_step_[k], next_x_[k], next_step_[k + 1],
                                                  next_x_[k + 1]};
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < tile::warp_steps; ++k) {
        auto const* const two = reinterpret_cast<float2 const*>(
            &s.pair[warp_ * tile::warp_steps + k][swizzled(lane_ / 2)]);
        projected[k] = two[lane_ % 2].x, drive[k] = two[lane_ % 2].y;
      }
    }
    p.steps(projected, biases, factors, step);
    float sum = 0.0f;
#pragma unroll
    for (int k = tile::warp_steps - 1; k >= 0; --k) {
      drive[k] *= step[k];
      sum += step[k];
    }
    s.sum[buffer][warp_][lane_] = sum;
    __syncthreads();
  }

  /// Bit t: step t of a tile starts a sequence, so that nothing before it counts.
  __device__ unsigned starts_of_sequences(index_t number) const {
    if (p.sequence.data_handle() == nullptr) return 0;
    index_t const t0 = blockIdx.y * p.segment_length + number * tile::steps;
    return __ballot_sync(~0u, p.starts_sequence(b_, t0 + lane_));
  }

  __device__ static int swizzled(int i) {
    return i ^ (i >> 3 & 3);
  }

  selective_problem<T> const& p;
  tile::shared& s;
  index_t b_, channel_, tiles_;
  int channels_, first_state_, states_, warp_, lane_, count_, B_count_;
  T const *x_, *step_, *B_;
  stored_packet<T> next_x_, next_step_;
  int2 quad_;  // step and state of its first element
  stored_quad<T> next_B_;
};

template <class T, bool Packed>
__global__ void __launch_bounds__(128, 5)
    entering_kernel(__grid_constant__ selective_problem<T> const p) {
  __shared__ entering_tile::shared memory;
  entering_block<T, Packed>(p, memory).run();
}

}  // namespace ssm::gpu::detail
