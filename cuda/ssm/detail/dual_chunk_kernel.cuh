// SPDX-License-Identifier: Apache-2.0
// dual_chunk_kernel.cuh: Mamba-2's operator by products of matrices, a chunk of steps at a time, on
// any device from sm_80 on.
#pragma once

#include "ssm/detail/device_math.cuh"
#include "ssm/detail/dual_chunk_coupling.cuh"
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
class dual_block : public dual_coupling<T, States> {
  using base = dual_coupling<T, States>;
  using tile = typename base::tile;
  using base::columns, base::squares;
  using base::is_narrow;
  using typename base::left_square;
  using typename base::right_square;

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
    this->find_cursors(begin);
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
      if (has_gate && !is_first) this->request_gate(left);
      end_of_requests();
      if (next_left > 0) {
        if (shape.stages == 2 || is_first) {
          this->request_states(next_stage, next_left);
          this->request_x(next_stage, next_left);
        }
        this->find_steps(next_buffer, next, next_left);
        this->request_steps(next + tile::steps, left_at(next + tile::steps));
      }
      end_of_requests();
      if (!is_first) {
        if (saves && t0 % state_space_dual_device_block == 0) {
          if (this->first_of(buffer)[0] == 0) this->clear();
          this->store_states(p.saved_states.select(1, t0 / state_space_dual_device_block));
        }
        run_chunk(stage, buffer, t0, left, reads_out, own_begin <= t0);
        passed *= own_begin <= t0 ? this->steps_of(buffer, part).through : 1.0f;
      }
      if (shape.stages == 1 && !is_first && next_left > 0) {
        __syncthreads();
        this->request_states(0, next_left);
        this->request_x(0, next_left);
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
      this->couple(stage, buffer);
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
      typename base::of_columns const weight(steps.weight + 16 * j + lane % 4 * 2);
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

  /// y = (y + D x) silu(gate), to memory. One branch for all numbers, so that they go side by side.
  __device__ void read_out(int stage, int buffer, square_sums (&y)[squares], index_t t0, int left) {
    float const unit = this->steps_of(buffer, part).unit;
    int const pitch = this->x_pitch(), row = lane / 4, column = 16 * slice + lane % 4 * 2;
    float const* const D = this->s.D + 16 * warp + lane % 4 * 2;
    float2 const skip[] = {load_two(D), load_two(D + 8)};
    T const* const x = this->x_of(stage) + row * pitch + column;
    each_pair(y, [&](int t, int c, float& low, float& high) {
      if (is_narrow) low *= unit, high *= unit;
      float2 const input = load_two(x + t * pitch + c);
      low = fmaf(skip[c / 8].x, input.x, low), high = fmaf(skip[c / 8].y, input.y, high);
    });
    int const rows = left - row, channels = own.channels - column;
    auto const store = [&](auto const& view, auto const& stored) {
      index_t const next = view.stride(3);
      auto* const to =
          view.data_handle() + (b * view.stride(0) + (t0 + row) * view.stride(1) +
                                own.head * view.stride(2) + (own.channel + column) * next);
      each_pair(y, [&](int t, int c, float low, float high) {
        auto* const at = to + (t * view.stride(1) + c * next);
        if (t < rows && c < channels) at[0] = stored(low);
        if (t < rows && c + 1 < channels) at[next] = stored(high);
      });
    };
    if (p.saved_ungated.data_handle() != nullptr) {
      store(p.saved_ungated, [](float number) { return number; });
    }
    if (p.gate.data_handle() != nullptr) {
      T const* const gate = this->gate_of() + row * pitch + column;
      each_pair(y, [&](int t, int c, float& low, float& high) {
        float2 const z = load_two(gate + t * pitch + c);
        low *= z.x * sigmoid(z.x), high *= z.y * sigmoid(z.y);
      });
    }
    if (!p.packed) {
      store(p.y, [](float number) { return to_stored<T>(number); });
    } else if constexpr (sizeof(T) == 2) {
      store_packets(y, t0 + row, rows);
    } else {
      T* at = &p.y(b, t0 + row, own.head, own.channel + column);
      each_pair(y, [&](int t, int c, float low, float high) {
        if (t < rows && c < channels) store_two(at + c, {low, high});
        if (c == 8) at += 8 * p.y.stride(1);
      });
    }
  }

  /// y in 16 bits, `rows` of its rows from t on: neighbouring lanes exchange pairs, so that each
  /// has four channels side by side.
  __device__ void store_packets(square_sums const (&y)[squares], index_t t, int rows) const {
    bool const is_odd = lane % 2 != 0;
    int const c = 16 * slice + lane % 4 / 2 * 4 + 8 * is_odd;
    T* at = &p.y(b, t, own.head, own.channel + c);
#pragma unroll
    for (int k = 0; k < 2 * squares; ++k, at += 8 * p.y.stride(1)) {
      float const* const z = y[k / 2].z + 2 * (k % 2);
      unsigned const left = packed<T>({z[0], z[1]}), right = packed<T>({z[4], z[5]});
      unsigned const other = __shfl_xor_sync(~0u, is_odd ? left : right, 1);
      if (8 * k < rows && c < own.channels) {
        *reinterpret_cast<uint2*>(at) = is_odd ? uint2{other, right} : uint2{left, other};
      }
    }
  }

  /// Visit the pairs of numbers of this lane: step and channel after its first, two numbers.
  template <class Visit>
  __device__ static void each_pair(square_sums (&y)[squares], Visit const& visit) {
#pragma unroll
    for (int k = 0; k < 4 * squares; ++k) {
      float* const z = y[k / 4].z + 2 * (k / 2 % 2) + 4 * (k % 2);
      visit(8 * (k / 2), 8 * (k % 2), z[0], z[1]);
    }
  }
};

}  // namespace ssm::gpu::detail
