// SPDX-License-Identifier: Apache-2.0
// selective_relay_porters.cuh: the warps of the relay that bring sequences to those that step, and
// take away what they found.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/selective_relay_projections.cuh"
#include "ssm/detail/selective_relay_sequences.cuh"

namespace ssm::gpu::detail {

/// Two warps a group: from memory to Δ and Δ·x in shared memory, and from sums there to y.
template <class T, class Sequences>
class relay_porter : Sequences {
  using base = Sequences;
  using base::p, base::s, base::t_, base::group_;
  using typename base::tile;

 public:
  __device__ relay_porter(relay_block<T> const& of, int thread)
      : base(of, thread),
        thread_{thread},
        drive_{group_ * tile::drive_group + t_},
        sum_{group_ * tile::sum_group + t_} {}

  __device__ void begin() {
    largest_rate_ = 0.0f;
    for (int w = 0; w < this->groups * tile::parts; ++w) {
      largest_rate_ = larger(largest_rate_, s.largest_rate[w]);
    }
  }

  /// Ask for the next tile: one batch, empty after the last.
  __device__ void request(int number) {
    this->request_sequences(number);
    end_batch_of_requests();
  }

  __device__ void stage(int number) {
    int const slot = number % tile::stored;
    this->meet_porters();
    float4 const four = this->projected_step(slot), x = this->x(slot), biases = s.bias[group_];
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
    bool const is_there = this->has_step(number);
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
    if (!this->has_step(number)) return;
    int const slot = number % tile::stored;
    float4 const x = this->x(slot), D = s.D[group_];
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
      float4 const four = this->gate(slot);
      float const gate[] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) y[i] *= gate[i] * sigmoid(gate[i]);
    }
    this->store(y);
  }

 private:
  int thread_;
  int drive_, sum_;  // where its own are in each buffer
  float largest_rate_;
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
