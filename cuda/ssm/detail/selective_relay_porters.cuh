// SPDX-License-Identifier: Apache-2.0
// selective_relay_porters.cuh: the warps of the relay that bring what others compute with, and take
// away what they found.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_relay_tile.cuh"

namespace ssm::gpu::detail {

/// Two warps a group: from memory to Δ, Δ·x, B and C in shared memory, and from sums there to y.
template <class T>
class relay_porter : relay_block<T> {
  using block = relay_block<T>;
  using block::p, block::s, block::barriers, block::tiles;
  using typename block::tile;

 public:
  __device__ relay_porter(block const& of, int thread) : block(of), thread_{thread} {
    // Four lanes have four steps of a group, so that no two lanes of a warp meet in a bank.
    t_ = thread_ / 4 / of.groups * 4 + thread_ % 4, group_ = thread_ / 4 % of.groups;
    int const c = group_ * tile::group_channels;
    bool const has_channels = c < of.channels;
    index_t const first = of.channel + (has_channels ? c : 0);
    index_t const left = has_channels && t_ < p.length ? p.length - t_ : 0;
    has_tiles_ = static_cast<int>((left + tile::steps - 1) / tile::steps);
    drive_ = group_ * tile::drive_group + t_, sum_ = group_ * tile::sum_group + t_;
    x_ = p.x.at(of.b, t_, first), step_ = p.step_size.at(of.b, t_, first);
    gate_ = p.gate.at(of.b, t_, first), y_ = p.y.at(of.b, t_, first);
  }

  __device__ void begin() {
    largest_rate_ = 0.0f;
    for (int w = 0; w < this->groups * tile::parts; ++w) {
      largest_rate_ = larger(largest_rate_, s.largest_rate[w]);
    }
  }

  __device__ bool has_step(int number) const { return number < has_tiles_; }

  /// Ask for the next tile: one batch, empty after the last.
  __device__ void request(int number) {
    int const slot = number % tile::stored;
    bool const is_there = has_step(number);
    request_if(is_there, &s.x[slot].quad[thread_], x_);
    request_if(is_there, &s.step[slot].quad[thread_], step_);
    if (p.gate.data != nullptr) request_if(is_there, &s.gate[slot].quad[thread_], gate_);
    x_ += tile::steps * p.x.time, step_ += tile::steps * p.step_size.time;
    gate_ += tile::steps * p.gate.time;
    end_batch_of_requests();
  }

  __device__ void stage(int number) {
    int const slot = number % tile::stored;
    float4 const four = s.step[slot].get(thread_).numbers();
    float4 const x = s.x[slot].get(thread_).numbers(), biases = s.bias[group_];
    float const projected[] = {four.x, four.y, four.z, four.w}, of_x[] = {x.x, x.y, x.z, x.w};
    float const bias[] = {biases.x, biases.y, biases.z, biases.w};
    float step[4];
    p.steps(projected, bias, step);
    if (p.scales_steps) {
      float4 const factor = s.factor[group_];
      step[0] *= factor.x, step[1] *= factor.y, step[2] *= factor.z, step[3] *= factor.w;
    }
    float2* const drive = &s.drives[number % tile::buffers][drive_];
    float largest = 0.0f;
    bool const is_there = has_step(number);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      step[i] = is_there ? step[i] : 0.0f;
      largest = larger(largest, fabsf(step[i]));
      drive[i * tile::drive_row] = {step[i], step[i] * of_x[i]};
    }
    int const is_small = __all_sync(~0u, largest * largest_rate_ <= small_exponent);
    if (thread_ % 32 == 0) s.is_small[number % tile::buffers][thread_ / 32] = is_small;
  }

  /// y = (C·h + D x) silu(gate) of a tile.
  __device__ void read_out(int number) {
    if (!has_step(number)) return;
    int const slot = number % tile::stored;
    float4 const x = s.x[slot].get(thread_).numbers(), D = s.D[group_];
    float y[] = {D.x * x.x, D.y * x.y, D.z * x.z, D.w * x.w};
    float const* const sums = &s.sums[number % tile::buffers][sum_];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int n = 0; n < tile::lanes; ++n) {
        y[i] += sums[(i * tile::lanes + n) * tile::sum_row];
      }
    }
    if (p.gate.data != nullptr) {
      float4 const four = s.gate[slot].get(thread_).numbers();
      float const gate[] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) y[i] *= gate[i] * sigmoid(gate[i]);
    }
    stored_quad<T>::of(y).store(y_);
    y_ += tile::steps * p.y.time;
  }

  int thread_, t_, group_;
  int has_tiles_;    // in which this thread has a step
  int drive_, sum_;  // where its own are in each buffer
  float largest_rate_;
  T const *x_, *step_, *gate_;
  T* y_;
};

/// One warp a block: B and C, a few pieces of 16 bytes each thread.
template <class T>
class relay_other_porter : relay_block<T> {
  using block = relay_block<T>;
  using block::p, block::s;
  using typename block::tile;

 public:
  __device__ relay_other_porter(block const& of, int thread)
      : block(of), t_{thread / pieces}, piece_{thread % pieces} {
    int const state = piece_ * 16 / int{sizeof(T)};
    B_ = p.B.at(of.b, t_, of.group, state), C_ = p.C.at(of.b, t_, of.group, state);
  }

  __device__ void begin() {}
  __device__ void request(int number) {
    auto& rows = s.projection[number % tile::stored];
#pragma unroll
    for (int t = t_; t < t_ + tile::steps; t += apart) {
      bool const is_there = index_t{number} * tile::steps + t < p.length;
      request_if(is_there, reinterpret_cast<uint4*>(&rows[0][t]) + piece_, B_);
      request_if(is_there, reinterpret_cast<uint4*>(&rows[1][t]) + piece_, C_);
      B_ += apart * p.B.time, C_ += apart * p.C.time;
    }
    end_batch_of_requests();
  }
  __device__ void stage(int) {}
  __device__ void read_out(int) {}

 private:
  static constexpr int pieces = projection_row<T>::pieces;
  static constexpr int apart = tile::other_porters / pieces;  // steps of a thread
  int t_, piece_;
  T const *B_, *C_;
};

template <class T, class Porter>
__device__ void run_porter(relay_block<T> const& block, Porter& porter) {
  porter.request(0);
  porter.begin();
  constexpr int behind = relay_tile::buffers;
#pragma unroll 1
  for (int i = 0; i < block.tiles + behind; ++i) {
    if (i >= behind) {
      block.barriers.wait_until_left(i - behind);
      porter.read_out(i - behind);
    }
    if (i >= block.tiles) continue;
    porter.request(i + 1);
    wait_for_all_but_last_batch();
    porter.stage(i);
    block.barriers.fill(i);
  }
}

}  // namespace ssm::gpu::detail
