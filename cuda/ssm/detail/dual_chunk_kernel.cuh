// SPDX-License-Identifier: Apache-2.0
// dual_chunk_kernel.cuh: Mamba-2's operator by products of matrices, a chunk of steps at a time, on
// any device from sm_80 on.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/dual_chunk_states.cuh"
#include "ssm/detail/dual_square.cuh"
#include "ssm/detail/state_space_dual_inputs.hpp"

namespace ssm::gpu::detail {

/// With the state H entering a chunk, decays g_i = Π_{k<=i} a_k and M_ij = (C_i·B_j) Δ_j g_i/g_j
/// for j <= i,
///   y_i = g_i C_i Hᵀ + Σ_j M_ij x_j,   H ← g_last H + Σ_j (Δ_j g_last/g_j x_j) ⊗ B_j.
/// C·B is found once for all heads of a block and decayed in float before it is rounded. A warp has
/// 16 channels p and all states n: its sums of H(p, n) are, rounded, what C is multiplied with, and
/// the squares of xᵀ(p, j) are operands of both sums over j, so that neither goes through shared
/// memory.
/// Source    Dao & Gu 2024, arXiv:2405.21060, section 6.
template <class T, int States>
class dual_block : public dual_states<T, States> {
  using base = dual_states<T, States>;
  using tile = typename base::tile;
  using left_square = square<T, side::left>;
  using right_square = square<T, side::right>;
  static constexpr int squares = tile::squares;
  static constexpr int columns = base::squares;  // squares of states
  using base::is_narrow;

 public:
  using base::b, base::lane, base::own, base::p, base::part, base::shape, base::slice, base::state,
      base::warp;
  using base::base;

  /// Run the steps [begin, end). The first pass (not `reads_out`) writes nothing, runs this warp's
  /// part only from `own_begin` on, and returns what it multiplies states with.
  __device__ float run(index_t begin, index_t own_begin, index_t end, bool reads_out) {
    auto const left_at = [&](index_t t) { return clamp_count(end - t, tile::steps); };
    bool const has_gate = reads_out && p.gate.data_handle() != nullptr;
    bool const saves = reads_out && p.saved_states.data_handle() != nullptr;
    if (lane < 16) {
      int const c = 16 * slice + lane;
      this->s.D[16 * warp + lane] = c < own.channels ? p.skip(own.head, own.channel + c) : 0.0f;
    }
    float passed = 1.0f;
    int buffer = 1, stage = shape.stages - 1;
    this->request_steps(begin, left_at(begin));
    // Each turn asks for the next chunk and finds its decays; the first does nothing else.
#pragma unroll 1
    for (index_t t0 = begin - tile::steps; t0 < end; t0 += tile::steps) {
      index_t const next = t0 + tile::steps;
      int const left = left_at(t0), next_left = left_at(next);
      int const next_stage = shape.stages == 2 ? stage ^ 1 : 0, next_buffer = buffer ^ 1;
      bool const is_first = t0 < begin;
      wait_for_requests_but<0>();
      __syncthreads();
      if (has_gate && !is_first) this->request_channels(this->y_of(), p.gate, t0, left);
      end_of_requests();
      if (next_left > 0) {
        if (shape.stages == 2 || is_first) {
          this->request_chunk(next_stage, next, next_left, reads_out, own_begin <= next);
        }
        this->find_steps(next_buffer, next, next_left);
        this->request_steps(next + tile::steps, left_at(next + tile::steps));
      }
      end_of_requests();
      if (!is_first) {
        if (saves && t0 % state_space_dual_block == 0) {
          if (this->first_of(buffer)[0] == 0) this->clear();
          this->store_states(p.saved_states.select(1, t0 / state_space_dual_block));
        }
        run_chunk(stage, buffer, t0, left, reads_out, own_begin <= t0);
        passed *= own_begin <= t0 ? this->steps_of(buffer, part).through : 1.0f;
      }
      if (shape.stages == 1 && !is_first && next_left > 0) {
        __syncthreads();
        this->request_chunk(0, next, next_left, reads_out, own_begin <= next);
        end_of_requests();
      }
      stage = next_stage, buffer = next_buffer;
    }
    return passed;
  }

 private:
  __device__ void run_chunk(int stage, int buffer, index_t t0, int left, bool reads_out,
                            bool is_needed) {
    square_sums y[squares];
    if (reads_out) {
      couple(stage, buffer);
      read_state(stage, buffer, y);
      wait_for_requests_but<1>();
      __syncthreads();
    }
    if (!is_needed) return;
    right_square x[squares];
#pragma unroll
    for (int j = 0; j < squares; ++j) {
      x[j] = right_square::columns(this->x_of(stage) + 16 * j * this->x_pitch() + 16 * slice,
                                   this->x_pitch());
    }
    if (reads_out) {
      add_chunk(x, y);
      read_out(stage, buffer, y, t0, left);
    }
    update_state(stage, buffer, x);
  }

  /// Numbers of the four columns of a square that a lane has.
  struct of_columns {
    float2 left, right;
    __device__ explicit of_columns(float const* from)
        : left{*reinterpret_cast<float2 const*>(from)},
          right{*reinterpret_cast<float2 const*>(from + 8)} {}
    __device__ float operator[](int i) const {
      return i < 4 ? (i % 2 ? left.y : left.x) : (i % 2 ? right.y : right.x);
    }
  };

  /// M of all parts, into shared memory: squares on and below the diagonal, shared out to warps.
  __device__ void couple(int stage, int buffer) {
    bool const is_cut = p.sequence.data_handle() != nullptr;
#pragma unroll 1
    for (int task = warp; task < squares * (squares + 1) / 2; task += shape.warps()) {
      int across = task, down = 0;
      while (across > down) across -= ++down;
      square_sums product;
      T const* const C = this->C_of(stage) + 16 * down * tile::C_pitch;
      T const* const B = this->B_of(stage) + 16 * across * tile::B_pitch;
#pragma unroll
      for (int k = 0; k < columns; ++k) {
        add_product(product, left_square::rows(C + 16 * k, tile::C_pitch),
                    right_square::rows(B + 16 * k, tile::B_pitch), p.exact);
      }
      int const row = 16 * down + lane / 4, column = 16 * across + lane % 4 * 2;
      int const* const first = this->first_of(buffer);
      int const first_of_row[] = {first[row], first[row + 8]};
#pragma unroll 3
      for (int of = 0; of < shape.parts; ++of) {
        auto const& steps = this->steps_of(buffer, of);
        of_columns const sum(steps.sum + column), drive(steps.drive + column);
        float const sum_of_row[] = {steps.sum[row], steps.sum[row + 8]};
        square_sums M;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          int const half = i / 2 % 2;
          float log2 = sum_of_row[half] - sum[i];
          if constexpr (std::is_same_v<T, float>) {
            log2 += steps.sum_low[row + 8 * half] - steps.sum_low[column + i % 2 + i / 4 * 8];
          }
          M.z[i] = product.z[i] * exp2(log2) * drive[i];
        }
        if (down == across || is_cut) {
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            int const half = i / 2 % 2, r = row + 8 * half, c = column + i % 2 + i / 4 * 8;
            if (c > r || c < first_of_row[half]) M.z[i] = 0.0f;
          }
        }
        left_square::rounded(M).store_rows(this->M_of(of) + 16 * down * tile::M_pitch + 16 * across,
                                           tile::M_pitch);
      }
    }
  }

  /// y_i = g_i C_i Hᵀ, in units of the part's drive.
  __device__ void read_state(int stage, int buffer, square_sums (&y)[squares]) {
    auto const& steps = this->steps_of(buffer, part);
    float const lift = is_narrow ? 1.0f / size_of_state() : 1.0f;
    T const* const C = this->C_of(stage);
#pragma unroll
    for (int k = 0; k < columns; ++k) {
      square_sums H = state[k];
      if (is_narrow) H.scale(lift);
      auto const rounded = right_square::rounded(H);
#pragma unroll
      for (int i = 0; i < squares; ++i) {
        add_product(y[i], left_square::rows(C + 16 * i * tile::C_pitch + 16 * k, tile::C_pitch),
                    rounded, p.exact);
      }
    }
    bool const is_cut = p.sequence.data_handle() != nullptr;
    float const unit = is_narrow ? 1.0f / (lift * steps.unit) : 1.0f;
#pragma unroll
    for (int i = 0; i < squares; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float growth = steps.growth[16 * i + lane / 4 + 8 * half];
        if (is_narrow) growth *= unit;
#pragma unroll
        for (int k = 2 * half; k < 8; k += k % 2 ? 3 : 1) {
          y[i].z[k] *= growth;
          if (is_cut) y[i].z[k] = growth == 0.0f ? 0.0f : y[i].z[k];  // even if a state is infinite
        }
      }
  }

  /// A power of 2 next to the largest number of this warp's states.
  __device__ float size_of_state() const {
    float largest = 0.0f;
#pragma unroll
    for (auto const& of : state)
#pragma unroll
      for (float const each : of.z) largest = larger(largest, fabsf(each));
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      largest = larger(largest, __shfl_xor_sync(~0u, largest, distance));
    }
    return base::unit_of(largest);
  }

  /// y_i += Σ_j M_ij x_j.
  __device__ void add_chunk(right_square const (&x)[squares], square_sums (&y)[squares]) const {
    T const* const M = this->M_of(part);
#pragma unroll
    for (int i = 0; i < squares; ++i)
#pragma unroll
      for (int j = 0; j <= i; ++j) {
        add_product(y[i], left_square::rows(M + 16 * i * tile::M_pitch + 16 * j, tile::M_pitch),
                    x[j], p.exact);
      }
  }

  /// H ← g_last H + Σ_j (Δ_j g_last/g_j x_j) ⊗ B_j.
  __device__ void update_state(int stage, int buffer, right_square const (&x)[squares]) {
    auto const& steps = this->steps_of(buffer, part);
    bool const is_cut = p.sequence.data_handle() != nullptr;
    float const unit = steps.unit, through = is_narrow ? steps.through / unit : steps.through;
    if (through == 0.0f) {
      this->clear();
    } else {
#pragma unroll
      for (auto& of : state) of.scale(through);
    }
#pragma unroll
    for (int j = 0; j < squares; ++j) {
      of_columns const weight(steps.weight + 16 * j + lane % 4 * 2);
      square_sums weighted = x[j].numbers();
#pragma unroll
      for (int i = 0; i < 8; ++i) weighted.z[i] *= weight[i];
      if (is_cut) {
#pragma unroll
        for (int i = 0; i < 8; ++i) weighted.z[i] = weight[i] == 0.0f ? 0.0f : weighted.z[i];
      }
      auto const drive = left_square::rounded(weighted);
      T const* const B = this->B_of(stage) + 16 * j * tile::B_pitch;
#pragma unroll
      for (int k = 0; k < columns; ++k) {
        add_product(state[k], drive, right_square::columns(B + 16 * k, tile::B_pitch), p.exact);
      }
    }
    if (is_narrow) {
#pragma unroll
      for (auto& of : state) of.scale(unit);
    }
  }

  /// y = (y + D x) silu(gate), to memory.
  __device__ void read_out(int stage, int buffer, square_sums const (&y)[squares], index_t t0,
                           int left) {
    float const unit = this->steps_of(buffer, part).unit;
    int const pitch = this->x_pitch(), column = 16 * slice + lane % 4 * 2;
    index_t const channel = p.saved_ungated.stride(3);
    float* ungated = p.saved_ungated.data_handle();
    if (ungated != nullptr) ungated = &p.saved_ungated(b, t0, own.head, own.channel);
    float const* const D = this->s.D + 16 * warp + lane % 4 * 2;
    float2 const skip[] = {load_two(D), load_two(D + 8)};
#pragma unroll
    for (int i = 0; i < squares; ++i)
#pragma unroll
      for (int k = 0; k < 8; k += 2) {
        int const t = 16 * i + lane / 4 + k / 2 % 2 * 8, c = column + k / 4 * 8;
        T const* const x = this->x_of(stage) + t * pitch + c;
        T* const to = this->y_of() + t * pitch + c;
        float2 const input = load_two(x);
        float2 result{y[i].z[k], y[i].z[k + 1]};
        if (is_narrow) result.x *= unit, result.y *= unit;
        result.x = fmaf(skip[k / 4].x, input.x, result.x);
        result.y = fmaf(skip[k / 4].y, input.y, result.y);
        if (ungated != nullptr && t < left) {
          float* const at = ungated + (t * p.saved_ungated.stride(1) + c * channel);
          if (c < own.channels) *at = result.x;
          if (c + 1 < own.channels) at[channel] = result.y;
        }
        if (p.gate.data_handle() != nullptr) {
          float2 const gate = load_two(to);
          result.x *= gate.x * sigmoid(gate.x), result.y *= gate.y * sigmoid(gate.y);
        }
        store_two(to, result);
      }
    __syncwarp();
    constexpr int packets = 16 / tile::packet, rows = 32 / packets;
    int const c = 16 * slice + lane % packets * tile::packet;
    int const count = clamp_count(own.channels - c, tile::packet);
    auto const& to = p.y;
    T* const first =
        to.data_handle() + (b * to.stride(0) + t0 * to.stride(1) + own.head * to.stride(2) +
                            (own.channel + c) * to.stride(3));
#pragma unroll
    for (int k = 0; k < tile::steps / rows; ++k) {
      int const t = lane / packets + rows * k;
      if (t >= left) continue;
      T const* const from = this->y_of() + t * pitch + c;
      T* const at = first + t * to.stride(1);
      if (p.packed) {
        if (count > 0) *reinterpret_cast<uint4*>(at) = *reinterpret_cast<uint4 const*>(from);
      } else {
#pragma unroll 1
        for (int i = 0; i < count; ++i) at[i * to.stride(3)] = from[i];
      }
    }
  }
};

}  // namespace ssm::gpu::detail
