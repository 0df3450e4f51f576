// SPDX-License-Identifier: Apache-2.0
// selective_moments.cuh: the states that enter segments which are not long: what entering_kernel
// finds, by moments where tiles are short beside what has been walked.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_problem.cuh"
#include "ssm/detail/selective_warp_sums.cuh"

namespace ssm::gpu::detail {

/// What entering_kernel finds, each warp by itself, for all states of a tile or none. A tile that
/// is short beside what has been walked, Σ Δ of it ≤ brevity·walked, is summed by moments: what
/// they leave out, (|A'| Σ Δ / 2)^m / m! times the decay exp(A'·walked), is largest for the state
/// whose |A'|·walked is m, and at most 2^threshold of what that one had there.
struct moments_tile {
  static constexpr int threads = 128, warps = threads / 32;
  static constexpr int channels = warps * warp_tile::channels;
  static constexpr int steps = warp_tile::steps, states = warp_tile::states;

  template <class T>
  struct shared {
    warp_tile::shared warp[warps];
    float4 bias[threads / 4], factor[threads / 4], largest_rate[threads / 4];  // of channels
    float4 lost[threads];
    quad_slots<T, threads> x[4], step[4], B[2];
  };
};

/// AlongTime: as the problem says.
template <class T, bool Packed, bool AlongTime>
class moments_warp {
  using tile = warp_tile;
  using shared = moments_tile::shared<T>;

 public:
  __device__ moments_warp(selective_problem<T> const& problem, shared& memory)
      : p{problem},
        block_{memory},
        s{memory.warp[threadIdx.x / 32]},
        sums_(memory.warp[threadIdx.x / 32]) {
    index_t const parts = (p.states + tile::states - 1) / tile::states;
    first_state_ = static_cast<int>(blockIdx.x % parts) * tile::states;
    channel_block const block(p, blockIdx.x / parts, moments_tile::channels);
    int const first = static_cast<int>(threadIdx.x) / 32 * tile::channels;
    b_ = block.b, channel_ = block.channel + first;
    channels_ = min(block.channels - first, tile::channels);
    states_ = min(static_cast<int>(p.states) - first_state_, tile::states);
    lane_ = static_cast<int>(threadIdx.x) % 32, g_ = lane_ / 4, q_ = lane_ % 4;
    // The last tile comes first.
    index_t const t0 = (blockIdx.y + 1) * p.segment_length - tile::steps;
    x_ = p.x.at(b_, t0 + 4 * q_, channel_ + 4 * g_);
    step_ = p.step_size.at(b_, t0 + 4 * q_, channel_ + 4 * g_);
    count_ = min(channels_ - 4 * g_, 4);
    int2 const at = quad(0);
    B_ = p.B.at(b_, t0 + at.x, block.group, first_state_ + at.y);
  }

  __device__ void run() {
    if (channels_ <= 0) return;
    request(true);
    bool const has_moments = load_rates(four(block_.largest_rate));
    store_channels();
    float walked[4] = {};  // Σ Δ so far; what rounding leaves out of it is in block_.lost
    bool is_cut = false, is_dead = false;
    index_t left = p.segment_length / tile::steps;
#pragma unroll 1
    while (left > 0 && !is_cut && !is_dead) {
      --left;
      wait_for_requests();
      float step[16], u[4][4];
      discretize(step, u);
      __syncwarp();
      store_B();
      __syncwarp();
      request(left > 0);
      if (unsigned const starts = starts_of_sequences(left); starts != 0) {
        is_cut = true;
        int const first = 31 - __clz(static_cast<int>(starts));
#pragma unroll
        for (int i = 0; i < 16; ++i) {
          if (4 * q_ + i % 4 < first) u[i / 4][i % 4] = 0.0f;
        }
      }
      // Σ Δ of the steps after each, but for half of the tile's.
      float nepers[4][4], center[4];
      bool is_short = has_moments, is_shorter = true, is_shortest = true;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float const* const own = step + 4 * i;
        float const after2 = own[3] + own[2], after3 = after2 + own[1], all = after3 + own[0];
        float const near = __shfl_xor_sync(~0u, all, 1), pair = all + near;
        float const far = __shfl_xor_sync(~0u, pair, 2);
        float const total = pair + far;
        float const half = 0.5f * ln_of_2;
        float const offset =
            fmaf(near, q_ & 1 ? -half : half, fmaf(far, q_ & 2 ? -half : half, all * -half));
        nepers[i][0] = fmaf(after3, ln_of_2, offset), nepers[i][1] = fmaf(after2, ln_of_2, offset);
        nepers[i][2] = fmaf(own[3], ln_of_2, offset), nepers[i][3] = offset;
        center[i] = fmaf(0.5f, total, walked[i]);
        is_short = is_short && total <= p.brevity[0] * walked[i];
        is_shorter = is_shorter && total <= p.brevity[1] * walked[i];
        is_shortest = is_shortest && total <= p.brevity[2] * walked[i];
        // Kahan: walked has thousands of terms.
        float& lost = four(block_.lost)[i];
        float const more = total - lost, next = walked[i] + more;
        lost = (next - walked[i]) - more;
        walked[i] = next;
      }
      if (!__all_sync(~0u, is_short)) {
        sums_.add(u, nepers, center);
      } else if (!__all_sync(~0u, is_shorter)) {
        sums_.template add_moments<5, (sizeof(T) > 2)>(u, nepers, center);
      } else if (!__all_sync(~0u, is_shortest)) {
        sums_.template add_moments<3, (sizeof(T) > 2)>(u, nepers, center);
      } else {
        sums_.template add_moments<2, (sizeof(T) > 2)>(u, nepers, center);
      }
      is_dead = true;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float const exponent = four(block_.largest_rate)[i] * walked[i];
        is_dead = is_dead && (i >= count_ || exponent < p.threshold);
      }
      is_dead = __all_sync(~0u, is_dead);
    }
    store_sums(walked, !is_cut && !is_dead);
    auto const visited = static_cast<unsigned long long>(p.segment_length - left * tile::steps);
    if (p.visited != nullptr && lane_ == 0) atomicAdd(p.visited, visited * states_ * channels_);
  }

 private:
  static constexpr float ln_of_2 = 0.6931471805599453f;

  /// Step and state where this lane's k-th quad of B begins in a tile; the second has 8 more.
  __device__ int2 quad(int k) const {
    int const i = lane_ + 32 * k;
    return p.projections_along_time ? int2{i % 4 * 4, i / 4} : int2{i % 16, i / 16 * 4};
  }

  /// Where the rate of channel 4g + i and state 4q + k is.
  __device__ float& rate(int i, int k) const {
    int const n = 4 * q_ + k;
    return reinterpret_cast<float*>(&s.rate[n][tile::swizzled(n, g_)])[i];
  }
  __device__ bool has(int i, int k) const {
    return i < count_ && 4 * q_ + k < states_;
  }

  /// Rates in shared memory and the largest of each channel; whether none is positive.
  __device__ bool load_rates(float* largest) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      bool const is_there = has(i / 4, i % 4);  // loads wait for no branch
      float const A = p.eigenvalue(channel_ + (is_there ? 4 * g_ + i / 4 : 0),
                                   first_state_ + (is_there ? 4 * q_ + i % 4 : 0));
      rate(i / 4, i % 4) = is_there ? A * log2_of_e : 0.0f;
    }
    if (p.scaling.scales_eigenvalues()) {
#pragma unroll 1
      for (int i = 0; i < 16; ++i) {
        index_t const c = channel_ + 4 * g_ + i / 4, n = first_state_ + 4 * q_ + i % 4;
        if (has(i / 4, i % 4)) rate(i / 4, i % 4) = p.rate(c, n);
      }
    }
    bool is_negative = true;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float all = -INFINITY;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (has(i, k)) all = larger(all, rate(i, k));
      }
      all = larger(all, __shfl_xor_sync(~0u, all, 1));
      all = larger(all, __shfl_xor_sync(~0u, all, 2));
      is_negative = is_negative && all <= 0.0f;
      if (q_ == 0) largest[i] = all;
    }
    return __all_sync(~0u, is_negative);
  }

  /// This thread's numbers of four channels.
  template <int Count>
  __device__ static float* four(float4 (&of_threads)[Count]) {
    return reinterpret_cast<float*>(&of_threads[threadIdx.x / (moments_tile::threads / Count)]);
  }
  __device__ void store_channels() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      index_t const c = channel_ + 4 * g_ + i;
      four(block_.lost)[i] = 0.0f;
      if (q_ != 0) continue;
      four(block_.bias)[i] = i < count_ ? p.bias(c) : 0.0f;
      four(block_.factor)[i] = i < count_ ? p.scaling.step_factor(c) : 0.0f;
    }
    __syncwarp();
  }

  /// Ask for the next tile, which lies before this one.
  __device__ void request(bool is_wanted) {
    index_t const x_across = p.x.stride(!AlongTime);
    index_t const step_across = p.step_size.stride(!AlongTime);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      int const there = !is_wanted ? 0 : !AlongTime ? count_ : k < count_ ? 4 : 0;
      block_.x[k].template request<Packed>(x_ + k * x_across, p.x.stride(AlongTime), there);
      block_.step[k].template request<Packed>(step_ + k * step_across,
                                              p.step_size.stride(AlongTime), there);
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int const there = states_ - quad(k).y;
      int const count = p.projections_along_time && there > 0 ? 4 : there;
      block_.B[k].template request<Packed>(
          B_ + 8 * k * p.B.state, p.B.stride(p.projections_along_time), is_wanted ? count : 0);
    }
    x_ -= tile::steps * p.x.time, step_ -= tile::steps * p.step_size.time;
    B_ -= tile::steps * p.B.time;
  }

  /// Δ and Δ·x of what was asked for, by channel and step.
  __device__ void discretize(float (&step)[16], float (&u)[4][4]) const {
    float projected[16];
    numbers(block_.step, projected);
    float bias[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) bias[i] = four(block_.bias)[i / 4];
    p.steps(projected, bias, step);
    if (p.scales_steps) {
#pragma unroll
      for (int i = 0; i < 16; ++i) step[i] *= four(block_.factor)[i / 4];
    }
    float x[16];
    numbers(block_.x, x);
#pragma unroll
    for (int i = 0; i < 16; ++i) u[i / 4][i % 4] = step[i] * x[i];
  }
  __device__ void numbers(quad_slots<T, moments_tile::threads> const (&from)[4],
                          float (&to)[16]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float4 const four = from[k].get().numbers();
      float const number[] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) to[AlongTime ? 4 * k + i : 4 * i + k] = number[i];
    }
  }

  __device__ void store_B() {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int2 const at = quad(k);
      float4 const four = block_.B[k].get().numbers();
      if (p.projections_along_time) {
        reinterpret_cast<float4&>(s.B[at.y][at.x]) = four;
      } else {
        s.B[at.y][at.x] = four.x, s.B[at.y + 1][at.x] = four.y;
        s.B[at.y + 2][at.x] = four.z, s.B[at.y + 3][at.x] = four.w;
      }
    }
  }

  /// Bit t: step t of a tile starts a sequence, so that nothing before it counts.
  __device__ unsigned starts_of_sequences(index_t number) const {
    if (p.sequence.data_handle() == nullptr) return 0;
    index_t const t0 = blockIdx.y * p.segment_length + number * tile::steps;
    return __ballot_sync(~0u, lane_ < tile::steps && p.starts_sequence(b_, t0 + lane_));
  }

  __device__ void store_sums(float const (&walked)[4], bool passes) const {
    index_t const first = p.segment_state(b_, blockIdx.y, first_state_ + 4 * q_, channel_ + 4 * g_);
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!has(i, k)) continue;
        index_t const at = first + (k * p.channels + i);
        p.entering[at + p.states * p.channels] = sums_.sum(i, k);
        p.decay[at] = passes ? exp2(rate(i, k) * walked[i]) : 0.0f;
      }
  }

  selective_problem<T> const& p;
  shared& block_;
  tile::shared& s;
  warp_sums sums_;
  index_t b_, channel_;
  int channels_, first_state_, states_, lane_, g_, q_, count_;
  T const *x_, *step_, *B_;
};

template <class T, bool Packed>
__global__ void __launch_bounds__(moments_tile::threads, 4)
    moments_kernel(__grid_constant__ selective_problem<T> const p) {
  __shared__ moments_tile::shared<T> memory;
  if (p.along_time) return moments_warp<T, Packed, true>(p, memory).run();
  moments_warp<T, Packed, false>(p, memory).run();
}

}  // namespace ssm::gpu::detail
