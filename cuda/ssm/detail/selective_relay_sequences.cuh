// SPDX-License-Identifier: Apache-2.0
// selective_relay_sequences.cuh: how a porter of the relay reaches x, Δ, the gate and y, for one
// step of four channels.
#pragma once

#include "ssm/detail/selective_relay_tile.cuh"

namespace ssm::gpu::detail {

/// Channels innermost: a porter asks for its own quads.
template <class T>
class relay_quads : protected relay_block<T> {
  using block = relay_block<T>;

 protected:
  using block::p, block::s;
  using typename block::tile;

  __device__ relay_quads(block const& of, int thread) : block(of), thread_{thread} {
    // Four lanes have four steps of a group, so that no two lanes of a warp meet in a bank.
    t_ = thread / 4 / of.groups * 4 + thread % 4, group_ = thread / 4 % of.groups;
    int const c = group_ * tile::group_channels;
    bool const has_channels = c < of.channels;
    index_t const first = of.channel + (has_channels ? c : 0);
    index_t const left = has_channels && t_ < p.length ? p.length - t_ : 0;
    has_tiles_ = static_cast<int>((left + tile::steps - 1) / tile::steps);
    x_ = p.x.at(of.b, t_, first), step_ = p.step_size.at(of.b, t_, first);
    gate_ = p.gate.at(of.b, t_, first), y_ = p.y.at(of.b, t_, first);
  }

  __device__ bool has_step(int number) const { return number < has_tiles_; }

  __device__ void request_sequences(int number) {
    int const slot = number % tile::stored;
    bool const is_there = has_step(number);
    request_if(is_there, &s.x[slot].quads.quad[thread_], x_);
    request_if(is_there, &s.step[slot].quads.quad[thread_], step_);
    if (p.gate.data != nullptr) request_if(is_there, &s.gate[slot].quads.quad[thread_], gate_);
    x_ += tile::steps * p.x.time, step_ += tile::steps * p.step_size.time;
    gate_ += tile::steps * p.gate.time;
  }
  __device__ void meet_porters() const {}  // each needs its own only

  __device__ float4 x(int slot) const { return s.x[slot].quads.get(thread_).numbers(); }
  __device__ float4 projected_step(int slot) const {
    return s.step[slot].quads.get(thread_).numbers();
  }
  __device__ float4 gate(int slot) const { return s.gate[slot].quads.get(thread_).numbers(); }

  /// And go on to the next tile.
  __device__ void store(float const (&y)[4]) {
    stored_quad<T>::of(y).store(y_);
    y_ += tile::steps * p.y.time;
  }

  int t_, group_;

 private:
  int thread_;
  int has_tiles_;  // in which this thread has a step
  T const *x_, *step_, *gate_;
  T* y_;
};

/// Time innermost: the porters of a group ask for its rows together, by pieces of 16 bytes.
template <class T>
class relay_rows : protected relay_block<T> {
  using block = relay_block<T>;

 protected:
  using block::p, block::s;
  using typename block::tile;

  __device__ relay_rows(block const& of, int thread) : block(of) {
    t_ = thread % tile::steps, group_ = thread / tile::steps;
    int const c = group_ * tile::group_channels;
    index_t const left = c < of.channels && t_ < p.length ? p.length - t_ : 0;
    has_tiles_ = static_cast<int>((left + tile::steps - 1) / tile::steps);
    has_channels_ = of.channels - c;
    row_ = c + t_ / lanes;
    has_row_ = row_ < of.channels;
    x_ = first_piece(p.x), step_ = first_piece(p.step_size), gate_ = first_piece(p.gate);
    y_ = p.y.at(of.b, t_, of.channel + c);
    for (int i = 0; i < tile::group_channels; ++i) {
      x_before_[i] = before(p.x, c + i), step_before_[i] = before(p.step_size, c + i);
      gate_before_[i] = before(p.gate, c + i);
    }
  }

  __device__ bool has_step(int number) const { return number < has_tiles_; }

  __device__ void request_sequences(int number) {
    int const slot = number % tile::stored;
    uint4* const x = &s.x[slot].rows[row_].piece[t_ % lanes];
    uint4* const step = &s.step[slot].rows[row_].piece[t_ % lanes];
    uint4* const gate = &s.gate[slot].rows[row_].piece[t_ % lanes];
    bool const has_gate = p.gate.data != nullptr;
    index_t const left = p.length - index_t{number} * tile::steps;
    meet_porters();  // what was there is read
#pragma unroll
    for (int i = 0; i < row_type::pieces; i += lanes) {
      if (i + t_ % lanes >= row_type::pieces) continue;
      if (left >= 2 * tile::steps) {
        request_if(has_row_, x + i, x_ + i), request_if(has_row_, step + i, step_ + i);
        if (has_gate) request_if(has_row_, gate + i, gate_ + i);
      } else {
        int const bytes = static_cast<int>(left) * int{sizeof(T)} - 16 * (i + t_ % lanes);
        auto const request = [&](selective_array<T const> const& of, uint4* to, uint4 const* from) {
          request_piece<T>(has_row_ ? bytes + before(of, row_) : 0, to, from);
        };
        request(p.x, x + i, x_ + i), request(p.step_size, step + i, step_ + i);
        if (has_gate) request(p.gate, gate + i, gate_ + i);
      }
    }
    constexpr int pieces_of_tile = row_type::pieces - 1;
    x_ += pieces_of_tile, step_ += pieces_of_tile, gate_ += pieces_of_tile;
  }
  __device__ void meet_porters() const {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group_), "n"(tile::porters) : "memory");
  }

  __device__ float4 x(int slot) const {
    return four(s.x[slot], x_before_);
  }
  __device__ float4 projected_step(int slot) const {
    return four(s.step[slot], step_before_);
  }
  __device__ float4 gate(int slot) const {
    return four(s.gate[slot], gate_before_);
  }

  /// And go on to the next tile.
  __device__ void store(float const (&y)[4]) {
#pragma unroll
    for (int i = 0; i < tile::group_channels; ++i) {
      if (i < has_channels_) y_[i * p.y.channel] = to_stored<T>(y[i]);
    }
    y_ += tile::steps;
  }

  int t_, group_;

 private:
  using row_type = covered_row<T, tile::steps>;
  using slots = relay_tile::sequence_slots<T>;
  static constexpr int lanes = tile::porters / tile::group_channels;  // that ask for a row

  __device__ int before(selective_array<T const> const& of, int channel) const {
    return row_type::before(of.at(this->b, 0, this->channel + channel));
  }
  /// Of those of its row that this thread asks for.
  __device__ uint4 const* first_piece(selective_array<T const> const& of) const {
    return row_type::first_piece(of.at(this->b, 0, this->channel + row_)) + t_ % lanes;
  }
  __device__ float4 four(slots const& from, int const (&before)[4]) const {
    auto const* const row = &from.rows[group_ * tile::group_channels];
    auto const number = [&](int i) { return to_number(row[i].get(before[i], t_)); };
    return {number(0), number(1), number(2), number(3)};
  }

  int has_tiles_;     // in which this thread has a step
  int has_channels_;  // from the group's first on
  int row_;           // for which this thread asks
  bool has_row_;
  int x_before_[4], step_before_[4], gate_before_[4];  // bytes, in the rows of the group
  uint4 const *x_, *step_, *gate_;                     // the next piece of the row
  T* y_;
};

}  // namespace ssm::gpu::detail
