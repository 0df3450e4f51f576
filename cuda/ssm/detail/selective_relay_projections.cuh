// SPDX-License-Identifier: Apache-2.0
// selective_relay_projections.cuh: the warps of a block of the relay that bring B and C.
#pragma once

#include "ssm/detail/selective_relay_tile.cuh"

namespace ssm::gpu::detail {

/// States innermost: a few pieces of 16 bytes each thread.
template <class T>
class relay_states_porter : relay_block<T> {
  using block = relay_block<T>;
  using block::p, block::s;
  using typename block::tile;

 public:
  __device__ relay_states_porter(block const& of, int thread)
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

/// Time innermost: rows of steps, which a warp each for B and C turns into rows of states.
template <class T>
class relay_turning_porter : relay_block<T> {
  using block = relay_block<T>;
  using block::p, block::s;
  using typename block::tile;

 public:
  __device__ relay_turning_porter(block const& of, int thread)
      : block(of), which_{thread / 32}, lane_{thread % 32} {
    auto const& projection = which_ == 0 ? p.B : p.C;
    first_ = projection.at(of.b, 0, of.group, 0), apart_ = projection.state;
    for (int k = 0; k < 2; ++k) before_[k] = row_type::before(row(state() + k));
  }

  __device__ void begin() {}
  __device__ void request(int number) {
    index_t const first = index_t{number} * tile::steps, left = p.length - first;
    auto const request_of_row = [&](int n, int piece) {
      auto* const to = &s.turned[number % 2][which_][n].piece[piece];
      auto const* const from = row_type::first_piece(row(n) + first) + piece;
      if (left >= 2 * tile::steps) {
        request_if(true, to, from);
      } else {
        int const bytes = static_cast<int>(left) * int{sizeof(T)} - 16 * piece;
        request_piece<T>(left > 0 ? bytes + row_type::before(row(n)) : 0, to, from);
      }
    };
    // All pieces but the last of a few rows together, then the last of all.
    constexpr int lanes = row_type::pieces - 1, rows_at_once = 32 / lanes;
#pragma unroll
    for (int n = 0; n < tile::states; n += rows_at_once) {
      request_of_row(n + lane_ / lanes, lane_ % lanes);
    }
    if (lane_ < tile::states) request_of_row(lane_, lanes);
    end_batch_of_requests();
  }
  __device__ void stage(int number) {
    __syncwarp();  // what others asked for is there
    auto const* const rows = &s.turned[number % 2][which_][state()];
    auto* const to = s.projection[number % tile::stored][which_];
    constexpr int apart = 32 / pairs, at_once = 8;
#pragma unroll
    for (int t0 = 0; t0 < tile::steps; t0 += at_once * apart) {
      int const t = t0 + lane_ / pairs;
      T two[at_once][2];
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        for (int k = 0; k < 2; ++k) two[i][k] = rows[k].get(before_[k], t + i * apart);
      }
#pragma unroll
      for (int i = 0; i < at_once; ++i) {
        memcpy(&to[t + i * apart].state[state()], two[i], sizeof two[i]);
      }
    }
    __syncwarp();  // before others ask for the next
  }
  __device__ void read_out(int) {}

 private:
  using row_type = covered_row<T, tile::steps>;
  static constexpr int pairs = tile::states / 2;  // of states, one of which a lane turns

  __device__ int state() const {
    return lane_ % pairs * 2;
  }
  __device__ T const* row(int n) const {
    return first_ + n * apart_;
  }

  int which_, lane_;
  T const* first_;  // of the first step and state
  index_t apart_;   // states
  int before_[2];   // bytes, in the rows of the pair
};

}  // namespace ssm::gpu::detail
