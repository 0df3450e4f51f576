// SPDX-License-Identifier: Apache-2.0
// selective_moments.cuh: the states that enter segments which are not long, and the cotangents that
// arrive there: what entering_kernel and arriving_kernel find, by moments where tiles are short
// beside what has been walked.
#pragma once

#include "ssm/detail/selective_moments_stage.cuh"

namespace ssm::gpu::detail {

/// What entering_kernel and arriving_kernel find, each warp by itself, for all states of a tile or
/// none. A tile that is short beside what has been walked, Σ Δ of it ≤ brevity·walked, is summed by
/// moments: what they leave out, (|A'| Σ Δ / 2)^m / m! times the decay exp(A'·walked), is largest
/// for the state whose |A'|·walked is m, and at most 2^threshold of what that one had there.
/// AlongTime: as the problem says.
template <template <class> class Problem, class T, bool Packed, bool AlongTime>
class moments_warp : moments_stage<Problem, T, Packed, AlongTime> {
  using stage = moments_stage<Problem, T, Packed, AlongTime>;
  using stage::arrives, stage::four;
  using stage::first_state_, stage::states_, stage::lane_, stage::g_, stage::q_, stage::count_;
  using stage::p, stage::s, stage::block_, stage::b_, stage::channel_, stage::channels_;
  using typename stage::shared, typename stage::tile;

 public:
  __device__ moments_warp(Problem<T> const& problem, shared& memory)
      : stage(problem, memory), sums_(memory.warp[threadIdx.x / 32]) {}

  __device__ void run() {
    if (channels_ <= 0) return;
    index_t left = this->tiles();
    int const of_last = arrives ? this->steps_of_last() : tile::steps;
    auto const steps_of_next = [&] { return left > 1 ? tile::steps : left > 0 ? of_last : 0; };
    this->request(steps_of_next());
    load_rates();
    // The largest rate of what is watched until it has decayed: the second half of states, then the
    // first.
    float watched = largest_rate(1);
    bool const has_moments = __all_sync(~0u, larger(watched, largest_rate(0)) <= 0.0f);
    store_channels();
    float walked = 0.0f;           // Σ Δ of channel lane_ so far
    block_.lost[threadIdx.x] = 0;  // what rounding left out of it
    bool is_cut = false, is_half = false, is_dead = false;
#pragma unroll 1
    while (left > 0 && !is_cut) {
      --left;
      wait_for_requests();
      __syncwarp();
      float step[16], u[4][4];
      this->discretize(step, u);
      if (arrives && left == 0) {  // a step that is not there changes nothing
#pragma unroll
        for (int i = 0; i < 16; ++i) step[i] = 4 * q_ + i % 4 < of_last ? step[i] : 0.0f;
      }
      if (unsigned const starts = this->starts_of_sequences(left); starts != 0) {
        is_cut = true;
        int const cut =
            arrives ? __ffs(static_cast<int>(starts)) - 1 : 31 - __clz(static_cast<int>(starts));
#pragma unroll
        for (int i = 0; i < 16; ++i) {
          int const t = 4 * q_ + i % 4;
          if (arrives ? t >= cut : t < cut) u[i / 4][i % 4] = 0.0f;
        }
      }
      float nepers[4][4];
      float const total = find_nepers(step, nepers);
      block_.center[threadIdx.x] = fmaf(0.5f, total, walked);
      auto const is_short = [&](float brevity) {
        return __all_sync(~0u, has_moments && total <= brevity * walked);
      };
      int const degree = !is_short(p.brevity[0])   ? 0
                         : !is_short(p.brevity[1]) ? 5
                         : !is_short(p.brevity[2]) ? 3
                                                   : 2;
      // Kahan: walked has thousands of terms.
      float const more = total - block_.lost[threadIdx.x], next = walked + more;
      block_.lost[threadIdx.x] = (next - walked) - more;
      walked = next;
      float B[2][4];
      this->own_projection(B);
      if (degree == 0) this->store_projection();
      __syncwarp();
      this->request(steps_of_next());
      auto const [center] = four(block_.center);
      if (degree == 0) {
        sums_.add(u, nepers, center);
      } else if (degree == 5) {
        sums_.template add_moments<5, is_wide, 2>(u, nepers, center, B);
      } else if (degree == 3) {
        sums_.template add_moments<3, is_wide, 2>(u, nepers, center, B);
      } else if (!is_half) {
        sums_.template add_moments<2, is_wide, 2>(u, nepers, center, B);
      } else {
        sums_.template add_moments<2, is_wide, 1>(u, nepers, center, B);
      }
      if (__all_sync(~0u, lane_ >= channels_ || watched * walked < p.threshold)) {
        is_dead = is_half;
        if (is_dead) break;
        is_half = true, watched = largest_rate(0);
        count_visited(left, 1);
      }
    }
    __syncwarp();
    block_.center[threadIdx.x] = walked;
    __syncwarp();
    store_sums(four(block_.center), !is_cut && !is_dead);
    if (!is_half) count_visited(left, 1);
    count_visited(left, 0);
  }

 private:
  static constexpr bool is_wide = sizeof(T) > 2;
  static constexpr float ln_of_2 = 0.6931471805599453f;

  /// Of four numbers of channels 4g to 4g + 3 the one of channel lane_.
  __device__ float own(float const (&of)[4]) const {
    return q_ & 2 ? (q_ & 1 ? of[3] : of[2]) : (q_ & 1 ? of[1] : of[0]);
  }

  /// Σ Δ of a tile's steps from where the walk began up to each, but for half of the tile's; that
  /// of all the tile's of channel lane_.
  __device__ float find_nepers(float const (&step)[16], float (&nepers)[4][4]) const {
    float total[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float const* const of = step + 4 * i;
      float const two = arrives ? of[0] + of[1] : of[3] + of[2];
      float const three = two + of[arrives ? 2 : 1], all = three + of[arrives ? 3 : 0];
      float const near = __shfl_xor_sync(~0u, all, 1), pair = all + near;
      float const far = __shfl_xor_sync(~0u, pair, 2);
      float const half = 0.5f * ln_of_2, ahead = arrives ? -half : half;
      float const offset =
          fmaf(near, q_ & 1 ? -ahead : ahead, fmaf(far, q_ & 2 ? -ahead : ahead, all * -half));
      float const of_two = fmaf(two, ln_of_2, offset), of_three = fmaf(three, ln_of_2, offset);
      float const of_one = fmaf(of[arrives ? 0 : 3], ln_of_2, offset);
      if constexpr (arrives) {  // what a step gives passes it, too
        nepers[i][0] = of_one, nepers[i][1] = of_two, nepers[i][2] = of_three;
        nepers[i][3] = fmaf(all, ln_of_2, offset);
      } else {
        nepers[i][0] = of_three, nepers[i][1] = of_two, nepers[i][2] = of_one;
        nepers[i][3] = offset;
      }
      total[i] = pair + far;
    }
    return own(total);
  }

  __device__ int state(int k) const {
    return tile::state(q_, k);
  }

  /// Where the rate of channel 4g + i and state(k) is.
  __device__ float& rate(int i, int k) const {
    int const n = state(k);
    return reinterpret_cast<float*>(&s.rate[n][tile::swizzled(n, g_)])[i];
  }
  __device__ bool has(int i, int k) const {
    return i < count_ && state(k) < states_;
  }

  /// Rates in shared memory.
  __device__ void load_rates() {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      bool const is_there = has(i / 4, i % 4);  // loads wait for no branch
      float const A = p.eigenvalue(channel_ + (is_there ? 4 * g_ + i / 4 : 0),
                                   first_state_ + (is_there ? state(i % 4) : 0));
      rate(i / 4, i % 4) = is_there ? A * log2_of_e : 0.0f;
    }
    if (p.scaling.scales_eigenvalues()) {
#pragma unroll 1
      for (int i = 0; i < 16; ++i) {
        index_t const c = channel_ + 4 * g_ + i / 4, n = first_state_ + state(i % 4);
        if (has(i / 4, i % 4)) rate(i / 4, i % 4) = p.rate(c, n);
      }
    }
    __syncwarp();
  }

  /// Of a half of the states of channel lane_.
  __device__ float largest_rate(int half) const {
    float largest = -INFINITY;
    if (lane_ >= channels_) return largest;
    int const first = half * tile::states / 2, after = min(first + tile::states / 2, states_);
    for (int n = first; n < after; ++n) {
      largest = larger(largest, reinterpret_cast<float const*>(
                                    &s.rate[n][tile::swizzled(n, lane_ / 4)])[lane_ % 4]);
    }
    return largest;
  }

  __device__ void store_channels() {
    bool const is_there = lane_ < channels_;
    block_.bias[threadIdx.x] = is_there ? p.bias(channel_ + lane_) : 0.0f;
    block_.factor[threadIdx.x] = is_there ? p.scaling.step_factor(channel_ + lane_) : 0.0f;
    __syncwarp();
  }

  /// What has been visited of a half of the states when so many tiles are left.
  __device__ void count_visited(index_t left, int half) const {
    if (arrives || p.visited == nullptr || lane_ != 0) return;
    int const states = min(max(states_ - half * tile::states / 2, 0), tile::states / 2);
    auto const steps = static_cast<unsigned long long>(p.segment_length - left * tile::steps);
    atomicAdd(p.visited, steps * states * channels_);
  }

  __device__ void store_sums(typename stage::of_four const& walked, bool passes) const {
    float *sums = p.entering, *decays = p.decay;
    index_t const n = first_state_, c = channel_ + 4 * g_;
    if constexpr (arrives) {
      sums = p.arriving + p.walk_state(b_, this->walk() - 1, n, c);
      decays += p.walk_state(b_, this->walk(), n, c);
    } else {
      sums += p.segment_state(b_, blockIdx.y + 1, n, c);
      decays += p.segment_state(b_, blockIdx.y, n, c);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!has(i, k)) continue;
        index_t const at = state(k) * p.channels + i;
        sums[at] = sums_.sum(i, k);
        decays[at] = passes ? exp2(rate(i, k) * walked.number[i]) : 0.0f;
      }
  }

  warp_sums sums_;
};

/// As of selective_scan_kernel, a block has several squads.
template <class T, bool Packed>
__global__ void __launch_bounds__(moments_tile::threads* moments_tile::squads)
    moments_kernel(__grid_constant__ selective_problem<T> const p) {
  extern __shared__ uint4 moments_memory[];
  auto& memory =
      reinterpret_cast<moments_tile::shared<T, Packed>*>(moments_memory)[squad_in_block()];
  if (p.along_time) return moments_warp<selective_problem, T, Packed, true>(p, memory).run();
  moments_warp<selective_problem, T, Packed, false>(p, memory).run();
}

}  // namespace ssm::gpu::detail
