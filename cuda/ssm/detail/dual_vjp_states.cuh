// SPDX-License-Identifier: Apache-2.0
// dual_vjp_states.cuh: the state that enters each chunk of time and the cotangent of the one that
// leaves it.
#pragma once

#include "ssm/detail/dual_vjp_loads.cuh"
#include "ssm/detail/early_launch.cuh"

namespace ssm::gpu::detail {

/// A block's work and shared memory: 64 channels and `States` states through the chunks of a
/// segment, two chunks at hand.
template <class T, int States>
struct state_pass_shape {
  using stored = typename products_of<T>::stored;
  static constexpr int threads = 128;
  static constexpr int side = vjp_steps * vjp_channels;  // elements of x or cotangents of y
  static constexpr int other = vjp_steps * States;       // of B or C

  SSM_HD static constexpr int stage(bool has_gate) {
    return static_cast<int>(sizeof(stored)) * ((has_gate ? 2 : 1) * side + other) +
           static_cast<int>(sizeof(float)) * step_numbers;
  }
  static constexpr int bytes(bool has_gate) {
    return 2 * stage(has_gate) + static_cast<int>(sizeof(stored)) * vjp_channels * States;
  }
};

/// Forward h' = 2^S_last h + Σ_j 2^(S_last - S_j) Δ_j x_j ⊗ B_j from chunk to chunk, S being the
/// sums of log2 of decays; backward g' = 2^S_last g + Σ_i 2^S_i dy_i ⊗ C_i, the cotangent of the
/// state that enters a chunk from that of the one that leaves it.
///
/// The first pass finds what a segment adds to the state that leaves it, or to the cotangent of the
/// one that enters it, walking away from there: against the order of the other pass, and no further
/// than where all that follows would be multiplied by less than 2^threshold.
template <class T, int States>
class state_pass {
  using shape = state_pass_shape<T, States>;
  using products = products_of<T>;
  using stored = typename products::stored;
  static constexpr int column_tiles = States / 8;

 public:
  __device__ state_pass(dual_vjp_problem<T> const& problem, std::byte* memory, bool is_first,
                        bool is_backward)
      : p{problem}, memory_{memory}, first_{is_first}, backward_{is_backward} {
    has_gate_ = p.gate.data_handle() != nullptr && backward_;
    state_tile_ = blockIdx.x % p.state_tiles;
    tile_ = blockIdx.x / p.state_tiles % p.tiles();
    b_ = blockIdx.x / p.state_tiles / p.tiles();
    head_ = tile_ / p.channel_tiles;
    first_channel_ = tile_ % p.channel_tiles * vjp_channels;
    channels_ = count_in(p.head_dim, tile_ % p.channel_tiles, vjp_channels);
    states_ = count_in(p.states, state_tile_, States);
    segment_ = blockIdx.y + (first_ && backward_ ? 1 : 0);
    index_t const chunks = p.segment_length / vjp_steps;
    begin_ = segment_ * chunks;
    end_ = begin_ + chunks < p.chunks ? begin_ + chunks : p.chunks;
    warp_ = static_cast<int>(threadIdx.x) / 32;
    bool const both = p.gate.data_handle() != nullptr;  // as memory was laid out
    stage_ = shape::stage(both);
    out_ = {reinterpret_cast<stored*>(memory + 2 * stage_)};
  }

  __device__ void run() {
    float sum[column_tiles][4] = {};
    if (!first_) enter(sum);
    bool const descends = first_ != backward_;
    double walked = 0.0;
    bool is_whole = true;
    index_t visited = 0;
    auto const chunk_of = [&](index_t n) { return descends ? end_ - 1 - n : begin_ + n; };
    index_t const count = end_ - begin_;
    request(chunk_of(0), 0);
    for (index_t n = 0; n < count; ++n) {
      int const stage = static_cast<int>(n % 2);
      wait_for_requests_but<0>();
      __syncthreads();
      if (n + 1 < count) request(chunk_of(n + 1), 1 - stage);
      auto const steps = steps_of(stage);
      if (has_gate_) {
        pull_back_gates<shape::threads>(side_of(stage), gate_of(stage));
        __syncthreads();
      }
      if (first_) {
        add(stage, steps, exp2(static_cast<float>(walked)), sum);
        constexpr int last = vjp_steps - 1;
        walked += static_cast<double>(steps.high(last)) + static_cast<double>(steps.low(last));
        ++visited;
        if (walked < p.log2_negligible || walked <= log2_of_a_start / 2) {
          is_whole = n + 1 == count && walked > log2_of_a_start / 2;
          break;
        }
      } else {
        store(chunk_of(n), sum);
        float const decay = steps.entered(vjp_steps - 1);
        bool const is_cut = decay == 0.0f;  // even of what is infinite
#pragma unroll
        for (auto& four : sum) {
#pragma unroll
          for (float& each : four) each *= decay;
        }
        if (is_cut) {
#pragma unroll
          for (auto& four : sum) four[0] = four[1] = four[2] = four[3] = 0.0f;
        }
        add(stage, steps, 1.0f, sum);
      }
    }
    wait_for_requests_but<0>();
    finish(sum, is_whole ? exp2(static_cast<float>(walked)) : 0.0f, visited);
  }

 private:
  using side_tile = matrix_tile<stored, vjp_channels>;
  using state_tile = matrix_tile<stored, States>;

  __device__ state_tile other_of(int stage) const {
    return {reinterpret_cast<stored*>(memory_ + stage * stage_)};
  }
  __device__ side_tile side_of(int stage) const {
    return {other_of(stage).data + shape::other};
  }
  __device__ side_tile gate_of(int stage) const {
    return {side_of(stage).data + shape::side};
  }
  __device__ chunk_steps steps_of(int stage) const {
    return {reinterpret_cast<float*>(memory_ + (stage + 1) * stage_) - step_numbers};
  }

  __device__ void request(index_t chunk, int stage) {
    index_t const t = chunk * vjp_steps, group = p.group_of(head_);
    int const rows = steps_in(p, chunk);
    auto const& side = backward_ ? p.y_cotangent : p.x;
    auto const& other = backward_ ? p.C : p.B;
    int const thread = static_cast<int>(threadIdx.x);
    auto const ask = [&](auto const& to, auto const& view) {
      request_rows<shape::threads>(thread, to, &view(b_, t, head_, first_channel_), view.stride(1),
                                   rows, channels_);
    };
    ask(side_of(stage), side);
    if (has_gate_) ask(gate_of(stage), p.gate);
    request_rows<shape::threads>(thread, other_of(stage),
                                 &other(b_, t, group, state_tile_ * States), other.stride(1), rows,
                                 states_);
    request_steps<shape::threads>(thread, const_cast<float*>(steps_of(stage).data),
                                  p.steps_of(b_, head_, chunk));
    end_of_requests();
  }

  /// Add the chunk's products, its rows weighed by what of them reaches its end or begin, and by
  /// what was walked.
  __device__ void add(int stage, chunk_steps const& steps, float scale,
                      float (&sum)[column_tiles][4]) const {
    float const* const weight = steps.all(backward_ ? step_number::entered : step_number::driven);
    auto const side = side_of(stage);
    auto const other = other_of(stage);
#pragma unroll 2
    for (int k = 0; k < vjp_steps; k += products::depth) {
      auto a = products::template left<true>(side, 16 * warp_, k);
      products::weigh(a, weight + k, scale);
#pragma unroll
      for (int n = 0; n < column_tiles; n += 2) {
        auto const b = products::template right<true>(other, 8 * n, k);
        products::multiply(sum[n], sum[n + 1], a, b, p.exact);
      }
    }
  }

  /// f(element of sum, the element of `to` for its channel and state) for those that there are,
  /// from the first of this block in `to` and its strides.
  template <class Sum, class Number, class F>
  __device__ void each_state(Sum& sum, Number* to, index_t row, index_t column, F const& f) const {
    int const first = 2 * lane_pair();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int const channel = 16 * warp_ + lane_row() + 8 * r;
      if (channel >= channels_) continue;
      Number* line = to + channel * row + first * column;
#pragma unroll
      for (int n = 0; n < column_tiles; ++n, line += 8 * column) {
        if (8 * n + first < states_) f(sum[n][2 * r], *line);
        if (8 * n + first + 1 < states_) f(sum[n][2 * r + 1], line[column]);
      }
    }
  }
  /// This block's part of what enters a segment, or of the cotangent of what leaves it.
  __device__ float* of_segment(index_t segment) const {
    return (backward_ ? p.arriving : p.entering) + p.segment_states(b_, segment, head_) +
           first_channel_ * p.states + state_tile_ * States;
  }

  /// The state to begin with, or the cotangent: of one segment of time, as the call gives it.
  __device__ void enter(float (&sum)[column_tiles][4]) const {
    float const* from = nullptr;
    index_t row = p.states, column = 1;
    auto const read = [&](auto const& view) {
      from = &view(b_, head_, first_channel_, state_tile_ * States);
      row = view.stride(2), column = view.stride(3);
    };
    if (p.segments > 1) {
      from = of_segment(segment_);
    } else if (backward_) {
      read(p.carry_cotangent);
    } else {
      read(p.initial);
    }
    each_state(sum, from, row, column, [](float& each, float const& other) { each = other; });
  }

  /// What enters or leaves a chunk, as the products read it. Rows of a warp are its own.
  __device__ void store(index_t chunk, float const (&sum)[column_tiles][4]) const {
    int const row = 16 * warp_ + lane_row();
    __syncwarp();
#pragma unroll
    for (int n = 0; n < column_tiles; ++n) {
      out_.set_pair(row, 2 * lane_pair(), 8 * n, sum[n][0], sum[n][1]);
      out_.set_pair(row + 8, 2 * lane_pair(), 8 * n, sum[n][2], sum[n][3]);
    }
    __syncwarp();
    constexpr int unit = state_tile::unit, units = States / unit;
    stored* const to = static_cast<stored*>(p.states_of_chunks) +
                       p.states_of(backward_, b_, chunk, tile_, state_tile_, States) +
                       16 * warp_ * States;
#pragma unroll
    for (int i = 0; i < 16 * units / 32; ++i) {
      int const at = i * 32 + static_cast<int>(threadIdx.x) % 32;
      *reinterpret_cast<uint4*>(to + at * unit) =
          *reinterpret_cast<uint4 const*>(out_.at(16 * warp_ + at / units, at % units * unit));
    }
  }

  __device__ void finish(float (&sum)[column_tiles][4], float decay, index_t visited) const {
    auto const leave = [](float each, float& to) { to = each; };
    if (first_) {
      each_state(sum, of_segment(backward_ ? segment_ - 1 : segment_ + 1), p.states, 1, leave);
      if (threadIdx.x != 0 || first_channel_ != 0 || state_tile_ != 0) return;
      (backward_ ? p.arriving_decay : p.decay)[p.segment_head(b_, segment_, head_)] = decay;
      if (p.visited != nullptr) {
        atomicAdd(p.visited, static_cast<unsigned long long>(visited * vjp_steps));
      }
    } else if (backward_ && segment_ == 0) {
      auto const& to = p.carry_cotangent;
      each_state(sum, &to(b_, head_, first_channel_, state_tile_ * States), to.stride(2),
                 to.stride(3), leave);
    }
  }

  dual_vjp_problem<T> const& p;
  std::byte* memory_;
  bool first_, backward_, has_gate_;
  index_t state_tile_, tile_, b_, head_, first_channel_, segment_, begin_, end_;
  int channels_, states_, warp_, stage_;
  state_tile out_;
};

/// Block (tile of channels and states, segment, direction); only backward where a forward run has
/// left states.
template <class T, int States>
__global__ void __launch_bounds__(128, 3)
    dual_vjp_states_kernel(__grid_constant__ dual_vjp_problem<T> const p, bool is_first) {
  wait_for_earlier_kernels();
  admit_next_kernel();
  extern __shared__ __align__(256) std::byte vjp_memory[];
  bool const skips = is_first && p.block_states.data_handle() != nullptr;
  state_pass<T, States>(p, vjp_memory, is_first, skips || blockIdx.z == 1).run();
}

}  // namespace ssm::gpu::detail
