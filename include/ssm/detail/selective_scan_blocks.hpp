// SPDX-License-Identifier: Apache-2.0
// selective_scan_blocks.hpp: how Mamba's operator is shared out, and what a thread works on.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "ssm/detail/simd.hpp"
#include "ssm/recurrence.hpp"
#include "ssm/tensor.hpp"

namespace ssm::detail {

/// Channels of one row that share B and C and are run together.
struct channel_block {
  index_t b, group, first, count;
};

/// How channels are shared out: in blocks with long rows of memory, since each row begins a page of
/// its own, up to `most` channels; fewer where there are many states or would be fewer blocks than
/// that.
struct channel_partition {
  index_t groups, channels_per_group, block, blocks_per_group;

  channel_partition(scan_shape const& s, index_t group_count, index_t least_blocks,
                    index_t most = 256)
      : groups{group_count}, channels_per_group{s.channels / group_count} {
    auto const are_few = [&] { return s.batch * s.channels < least_blocks * block; };
    block = s.states <= 16 ? most : s.states <= 32 ? 128 : s.states <= 64 ? 64 : 16;
    if (are_few()) block = std::min<index_t>(block, 256);
    while (block > 16 && are_few()) block /= 2;
    blocks_per_group = (channels_per_group + block - 1) / block;
  }

  index_t count(index_t batch) const { return batch * groups * blocks_per_group; }
  channel_block operator()(index_t i) const {
    index_t const k = i % blocks_per_group, g = i / blocks_per_group % groups;
    return {i / blocks_per_group / groups, g, g * channels_per_group + k * block,
            std::min(block, channels_per_group - k * block)};
  }
};

/// The numbers of a row from `from` on, `stride` apart; zeros beyond `count`.
template <class T, int Lanes, class Storage>
[[gnu::always_inline]] inline pack<T, Lanes> load_row(Storage const* from, index_t stride,
                                                      index_t count) {
  if (stride == 1 && count >= Lanes) return load_as<T, Lanes>(from);
  pack<T, Lanes> result(T(0));
  for (int i = 0; i < Lanes && i < count; ++i) {
    result.v[i] = static_cast<T>(from[static_cast<index_t>(i) * stride]);
  }
  return result;
}

template <class T, int Lanes, class Storage>
[[gnu::always_inline]] inline void store_row(pack<T, Lanes> const& value, Storage* to,
                                             index_t stride, index_t count) {
  if (stride == 1 && count >= Lanes) return store_as(value, to);
  for (int i = 0; i < Lanes && i < count; ++i) {
    to[static_cast<index_t>(i) * stride] = static_cast<Storage>(T(value.v[i]));
  }
}

/// A pack of channels of a view, step by step; none where the view is empty.
template <class T, int Lanes, class Storage>
struct channel_rows {
  Storage* first = nullptr;
  index_t step = 0, stride = 0, count = 0;

  /// From step t and channel `offset` of a block on.
  [[gnu::always_inline]] channel_rows(sequence_view<Storage> const& view,
                                      channel_block const& block, index_t t, index_t offset) {
    if (view.data_handle() == nullptr) return;
    first = &view(block.b, t, block.first + offset);
    step = view.stride(1), stride = view.stride(2), count = block.count - offset;
  }
  [[gnu::always_inline]] pack<T, Lanes> load(index_t t) const {
    return load_row<T, Lanes>(first + t * step, stride, count);
  }
  [[gnu::always_inline]] void store(index_t t, pack<T, Lanes> const& value) const {
    store_row(value, first + t * step, stride, count);
  }
  [[gnu::always_inline]] void add(index_t t, pack<T, Lanes> const& term) const {
    if (first != nullptr) store(t, load(t) + term);
  }
};

/// Rows of B or C that the channels of a block share, one for each step.
template <class T>
struct shared_rows {
  T const* first;
  index_t stride;
};

/// Those of steps [first, last): where they are, or copied to `to`, `padded` states in each.
template <class real, class T>
[[gnu::always_inline]] inline shared_rows<real> rows_of_group(trajectory_view<T const> const& view,
                                                              channel_block const& block,
                                                              index_t first, index_t last,
                                                              index_t padded, real* to) {
  T const* from = &view(block.b, first, block.group, 0);
  index_t const states = view.extent(3), stride = view.stride(3);
  if constexpr (std::is_same_v<T, real>) {
    if (stride == 1 && states == padded) return {from, view.stride(1)};
  }
  real* row = to;
  for (index_t t = first; t < last; ++t, from += view.stride(1), row += padded) {
    for (index_t n = 0; n < states; ++n) row[n] = static_cast<real>(from[n * stride]);
  }
  return {to, padded};
}

/// Rows to bring into the cache, of each two cache lines: memory that is asked for both, one after
/// the other, delivers twice as fast. None where the view has no such step.
class rows_due {
 public:
  static constexpr index_t bytes = 128;

  rows_due() = default;
  template <class Storage>
  rows_due(sequence_view<Storage> const& view, index_t b, index_t t, index_t c) {
    if (view.data_handle() == nullptr || t >= view.extent(1)) return;
    line_ = reinterpret_cast<char const*>(&view(b, t, c));
    row_step_ = view.stride(1) * static_cast<index_t>(sizeof(Storage));
    line_step_ = bytes / 2;
  }
  [[gnu::always_inline]] void fetch_line() {
    __builtin_prefetch(line_);
    line_ += line_step_;
    line_step_ = row_step_ - line_step_;
  }
  [[gnu::always_inline]] void fetch_row() { fetch_line(), fetch_line(); }

 private:
  alignas(bytes) static constexpr char nothing[bytes] = {};  // no address would be looked for
  char const* line_ = nothing;
  index_t row_step_ = 0, line_step_ = 0;
};

/// Packs of a block that are run together, for a tile of time.
struct pack_range {
  index_t first, last;
};

/// What one thread works with while it runs a block of channels: `row` of them, padded to whole
/// packs, whose numbers lie together. Those of each step are only kept for `packs` packs, the ones
/// that are being run, so that they stay in the first cache.
template <class real>
struct selective_scan_workspace {
  index_t steps, packs, row, states;
  tensor<real, 1> memory;
  real *rate, *input, *sum;  ///< [pack][step][lane]: Δ log2 e, Δ x, what becomes y
  real *B, *C;               ///< [step][states]
  real *eigenvalue, *h;      ///< [pack][state][lane]
  real *bias, *D, *factor, *largest_eigenvalue;  ///< [row]
  real* step = nullptr;   ///< [pack][step][lane], for the gradient: Δ before its factor,
  real* slope = nullptr;  ///< and its derivative in what the rule is given

  /// held: states of which there is room for h and the eigenvalues.
  selective_scan_workspace(index_t step_count, index_t pack_count, int lanes, index_t row_length,
                           index_t padded_states, index_t held)
      : steps{step_count}, packs{pack_count}, row{row_length}, states{padded_states} {
    index_t const per_step = steps * packs * lanes, shared = steps * states, of_block = row * held;
    memory = tensor<real, 1>({3 * per_step + 2 * shared + 2 * of_block + 4 * row});
    real* next = memory.data();
    auto const take = [&](index_t count) { return std::exchange(next, next + count); };
    rate = take(per_step), input = take(per_step), sum = take(per_step);
    eigenvalue = take(of_block), h = take(of_block);
    bias = take(row), D = take(row), factor = take(row), largest_eigenvalue = take(row);
    B = take(shared), C = take(shared);
  }
};

/// Gradients with an element of their own for each element of their input; empty: not wanted.
template <class real>
struct sequence_gradients {
  sequence_view<real> x{}, step_size{}, gate{};
};

/// Sums over the channels of one block, (step, state) each, states padded as the workspace's.
template <class real>
struct shared_gradients {
  tensor_view<real, 2> B, C;
};

/// What the gradient of one block of channels adds to the workspace of its forward run.
template <class real>
struct selective_scan_vjp_workspace {
  tensor<real, 1> memory;
  real *arriving, *to_step, *to_input;  ///< [pack][step][lane]: cotangents of Σ C h + D x, Δ, Δ x
  real* to_gate;                        ///< the same: of the gate, but for Σ C h + D x
  real *step, *slope;                   ///< the same: those of the forward workspace
  real *cotangent, *to_eigenvalue;      ///< [pack][state][lane]: of the state, of A
  real* past;         ///< [step, one more][decay or h][state of a few][lane]: decay_t and h_{t-1}
  real *to_B, *to_C;  ///< [few states][step][lane that is kept][state of them]
  real *to_bias, *to_D, *to_factor;  ///< [row]

  selective_scan_vjp_workspace(index_t steps, index_t at_once, index_t row, index_t states,
                               index_t few_lanes, index_t kept_lanes) {
    index_t const per_step = steps * at_once, of_block = row * states,
                  few = (steps + 1) * few_lanes, shared = steps * states * kept_lanes;
    memory = tensor<real, 1>({6 * per_step + 2 * of_block + 2 * few + 2 * shared + 3 * row});
    real* next = memory.data();
    auto const take = [&](index_t count) { return std::exchange(next, next + count); };
    arriving = take(per_step), to_step = take(per_step), to_input = take(per_step);
    to_gate = take(per_step), step = take(per_step), slope = take(per_step);
    cotangent = take(of_block), to_eigenvalue = take(of_block);
    past = take(2 * few), to_B = take(shared), to_C = take(shared);
    to_bias = take(row), to_D = take(row), to_factor = take(row);
  }
};

}  // namespace ssm::detail
