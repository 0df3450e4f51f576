// SPDX-License-Identifier: Apache-2.0
// selective_relay.cuh: Mamba's operator over all of time in one launch, for few channels and steps:
// warps find the decays of parts of a tile side by side, and hand on the states.
#pragma once

#include "ssm/detail/selective_relay_porters.cuh"
#include "ssm/detail/selective_states.cuh"

namespace ssm::gpu::detail {

/// Four warps a group: the states of their part of each tile, and Σ C·h.
template <class T>
class relay_worker : relay_block<T> {
  using block = relay_block<T>;
  using block::p, block::s, block::barriers, block::tiles, block::groups;
  using typename block::tile;

 public:
  __device__ relay_worker(block const& of, int thread) : block(of) {
    lane_ = thread % 32;
    int const warp = thread / 32;
    group_ = warp % groups, part_ = warp / groups;
    channel_ = group_ * tile::group_channels + lane_ / tile::lanes;
    state_ = lane_ % tile::lanes * 2;
    int const c = lane_ / tile::lanes, first = part_ * tile::part_steps;
    drive_ = group_ * tile::drive_group + c * tile::drive_row + first;
    sum_ = group_ * tile::sum_group + lane_ * tile::sum_row + first;
    float largest = 0.0f;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      bool const has_channel = channel_ < of.channels;
      rate_[k] = has_channel ? p.rate(of.channel + channel_, state_ + k) : 0.0f;
      h_[k] = has_channel ? p.initial(of.b, of.channel + channel_, state_ + k) : 0.0f;
      largest = larger(largest, fabsf(rate_[k]));
    }
    bool const leaves = p.checkpoints.data_handle() != nullptr && channel_ < of.channels;
    checkpoint_ = leaves ? &p.checkpoints(of.b, first / selective_scan_checkpoint_steps, state_,
                                          of.channel + channel_)
                         : nullptr;
    if (part_ == 0) s.state[group_][lane_] = {h_[0], h_[1]};
    for (int far = 16; far > 0; far /= 2) {
      largest = larger(largest, __shfl_xor_sync(~0u, largest, far));
    }
    if (lane_ == 0) s.largest_rate[warp] = largest;
    if (thread < groups * tile::group_channels) {
      bool const is_there = thread < of.channels;
      index_t const c = of.channel + thread;
      reinterpret_cast<float*>(s.bias)[thread] = is_there ? p.bias(c) : 0.0f;
      reinterpret_cast<float*>(s.factor)[thread] = is_there ? p.scaling.step_factor(c) : 0.0f;
      reinterpret_cast<float*>(s.D)[thread] = is_there ? p.skip(c) : 0.0f;
    }
  }

  __device__ void run() {
#pragma unroll 1
    for (int i = 0; i < tiles; ++i) {
      unsigned const starts = starts_of_sequences(i);
      barriers.wait_until_full(i);
      load_drives(i);
      int const warps = groups * tile::porters / 32;
      bool const is_small =
          __all_sync(~0u, lane_ >= warps || s.is_small[i % tile::buffers][lane_] != 0);
      if (starts != 0) {
        find_decays(i, [](float exponent) { return exp2(exponent); });
        step_states(i, [&](int k, float decay, float h, float more) {
          return starts >> k & 1 ? more : fmaf(decay, h, more);
        });
      } else if (is_small) {
        find_decays(i, [](float exponent) { return small_exp2_minus_1(exponent); });
        step_states(i,
                    [](int, float less, float h, float more) { return fmaf(less, h, h + more); });
      } else {
        find_decays(i, [](float exponent) { return exp2(exponent); });
        step_states(i, [](int, float decay, float h, float more) { return fmaf(decay, h, more); });
      }
      sum_states(i);
      barriers.leave(i);
    }
    if (part_ < tile::parts - 1 || channel_ >= this->channels) return;
    for (int k = 0; k < 2; ++k) p.carry(this->b, this->channel + channel_, state_ + k) = h_[k];
  }

 private:
  static constexpr int pairs = tile::part_steps / 2;

  /// Bit t: step t of this warp's part of a tile starts a sequence.
  __device__ unsigned starts_of_sequences(int number) const {
    if (p.sequence.data_handle() == nullptr) return 0;
    index_t const t = index_t{number} * tile::steps + part_ * tile::part_steps + lane_;
    return __ballot_sync(~0u, lane_ < tile::part_steps && p.starts_sequence(this->b, t));
  }

  /// Before it is known how decays are found.
  __device__ void load_drives(int number) {
    auto const* const drives =
        reinterpret_cast<float4 const*>(&s.drives[number % tile::buffers][drive_]);
#pragma unroll
    for (int k = 0; k < pairs; ++k) drives_[k] = drives[k];
  }

  /// Decays and what is added to the states.
  template <class Decay>
  __device__ void find_decays(int number, Decay const& decay) {
    auto const* const B = &s.projection[number % tile::stored][0][part_ * tile::part_steps];
#pragma unroll
    for (int k = 0; k < pairs; ++k) {
      float4 const two = drives_[k];
      float2 const first = B[2 * k].two(state_), second = B[2 * k + 1].two(state_);
      decay_[2 * k][0] = decay(two.x * rate_[0]), decay_[2 * k][1] = decay(two.x * rate_[1]);
      decay_[2 * k + 1][0] = decay(two.z * rate_[0]);
      decay_[2 * k + 1][1] = decay(two.z * rate_[1]);
      found_[2 * k][0] = two.y * first.x, found_[2 * k][1] = two.y * first.y;
      found_[2 * k + 1][0] = two.w * second.x, found_[2 * k + 1][1] = two.w * second.y;
    }
  }

  /// All steps of this part, once the part before has handed on its states.
  template <class Next>
  __device__ void step_states(int number, Next const& next) {
    // What needs no state is done before, as the compiler sees a dependence. Every second step of
    // it is enough.
    unsigned all = 0;
#pragma unroll
    for (int k = 3; k < tile::part_steps; k += 4) {
      all |= __float_as_uint(decay_[k][0]) | __float_as_uint(decay_[k][1]);
    }
    float2& state = s.state[group_][lane_];
    barriers.take_over(group_, part_, number, all & static_cast<unsigned>(p.length >> 62));
    float2 const entering = state;
    h_[0] = entering.x, h_[1] = entering.y;
#pragma unroll
    for (int k = 0; k < tile::part_steps; ++k)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        h_[j] = next(k, decay_[k][j], h_[j], found_[k][j]);
        found_[k][j] = h_[j];
      }
    state = {h_[0], h_[1]};
    barriers.hand_on(group_, part_);
    if (checkpoint_ != nullptr) leave_checkpoints(number, entering);
  }

  __device__ void leave_checkpoints(int number, float2 const& entering) {
    constexpr int apart = static_cast<int>(selective_scan_checkpoint_steps);
    static_assert(tile::part_steps % apart == 0);
    int const left = static_cast<int>(p.length) - (number * tile::steps + part_ * tile::part_steps);
    float* at = checkpoint_;
#pragma unroll
    for (int k = 0; k < tile::part_steps; k += apart, at += p.checkpoints.stride(1)) {
      float const* const before = found_[k > 0 ? k - 1 : 0];
      if (k >= left) continue;
      at[0] = k > 0 ? before[0] : entering.x;
      at[p.checkpoints.stride(2)] = k > 0 ? before[1] : entering.y;
    }
    checkpoint_ += tile::steps / apart * p.checkpoints.stride(1);
  }

  /// What this lane has of Σ C·h.
  __device__ void sum_states(int number) {
    auto const* const C = &s.projection[number % tile::stored][1][part_ * tile::part_steps];
    auto* const sum = reinterpret_cast<float4*>(&s.sums[number % tile::buffers][sum_]);
    float of[tile::part_steps];  // stored once all is loaded, or loads wait for what is stored
#pragma unroll
    for (int k = 0; k < tile::part_steps; ++k) {
      float2 const two = C[k].two(state_);
      of[k] = fmaf(two.x, found_[k][0], two.y * found_[k][1]);
    }
#pragma unroll
    for (int k = 0; k < tile::part_steps; k += 4) {
      sum[k / 4] = {of[k], of[k + 1], of[k + 2], of[k + 3]};
    }
  }

  int lane_, group_, part_, channel_, state_;
  int drive_, sum_;    // where this lane's are in each buffer
  float* checkpoint_;  // the next to leave; null: none
  float rate_[2], h_[2];
  float4 drives_[pairs];              // Δ and Δ·x of two steps each
  float decay_[tile::part_steps][2];  // or less by 1, if all are next to 1
  float found_[tile::part_steps][2];  // what is added to the states; then the states
};

template <class T, bool AlongTime, bool ProjectionsAlongTime>
__global__ void __launch_bounds__(relay_tile::most_threads, 1)
    relay_kernel(__grid_constant__ selective_problem<T> const p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ uint4 relay_memory[];
  __shared__ relay_barriers barriers;
  auto& memory = *reinterpret_cast<relay_tile::shared<T>*>(relay_memory);
  constexpr int of_group = relay_tile::workers + relay_tile::porters;
  int const groups = static_cast<int>(blockDim.x) / of_group;
  int const thread = static_cast<int>(threadIdx.x);
  int const porter = thread - groups * relay_tile::workers;
  int const other = porter - groups * relay_tile::porters;
  relay_block<T> const block(p, memory, barriers, groups);
  if (thread == 0) barriers.init(groups);
  if (porter < 0) {
    relay_worker<T> worker(block, thread);
    meet_block();
    worker.run();
  } else if (other < 0) {
    using sequences = std::conditional_t<AlongTime, relay_rows<T>, relay_quads<T>>;
    relay_porter<T, sequences> of_sequences(block, porter);
    meet_block();
    run_porter(block, of_sequences);
  } else {
    using porter_of_kind =
        std::conditional_t<ProjectionsAlongTime, relay_turning_porter<T>, relay_states_porter<T>>;
    porter_of_kind of_projections(block, other);
    meet_block();
    run_porter(block, of_projections);
  }
#else
  static_cast<void>(p);
#endif
}

}  // namespace ssm::gpu::detail
