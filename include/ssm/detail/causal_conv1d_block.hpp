// SPDX-License-Identifier: Apache-2.0
// causal_conv1d_block.hpp: the work of a causal convolution in blocks of channels, and the rows of
// numbers such a block needs in the cache.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ssm/detail/causal_conv1d_inputs.hpp"

namespace ssm::detail {

/// Channels in a block: rows of 2 KB, which suit the prefetcher and leave a block's memory below
/// 64 KB in float. A multiple of every vector's lanes.
template <class T>
inline constexpr index_t conv_block = 2048 / sizeof(accumulator_t<T>);

/// Rows of inputs at hand, by time modulo this: those of the steps computed together and of the
/// steps that their taps reach back to.
inline constexpr index_t conv_ring = 16;

/// One batch row, a block of channels, and a piece of time.
struct conv_work {
  index_t b, first_channel, channels, begin, end;
};

/// A call cut into pieces of work, those of neighbouring channels next to each other.
template <class T>
struct conv_partition {
  causal_conv1d_extents extents;
  index_t chunk, blocks, pieces;

  conv_partition(causal_conv1d_extents const& e, index_t steps)
      : extents{e}, chunk{steps}, blocks{block_count(e)}, pieces{(e.length + steps - 1) / steps} {}

  static constexpr index_t block_count(causal_conv1d_extents const& e) {
    return (e.channels + conv_block<T> - 1) / conv_block<T>;
  }
  index_t count() const { return extents.batch * pieces * blocks; }

  conv_work operator()(index_t i) const {
    index_t const first = i % blocks * conv_block<T>, begin = i / blocks % pieces * chunk;
    return {i / blocks / pieces, first, std::min(conv_block<T>, extents.channels - first), begin,
            std::min(extents.length, begin + chunk)};
  }
};

/// Part of a row of a view, where it stands if that is contiguous, of type A and fills vectors;
/// else a copy in `space`, in A, with zeros up to a full vector.
template <class A, class T>
A const* contiguous_row(T const* from, index_t stride, index_t count, index_t padded, A* space) {
  if constexpr (std::is_same_v<A, T>) {
    if (stride == 1 && count == padded) return from;
  }
  for (index_t i = 0; i < count; ++i) space[i] = static_cast<A>(from[i * stride]);
  std::fill(space + count, space + padded, A(0));
  return space;
}

/// What a block of channels needs to convolve, in the type that is computed with.
template <class T, int Lanes>
class conv_rows {
 public:
  using A = accumulator_t<T>;

  conv_rows(causal_conv1d_inputs<T> const& in, state_view<T const> const& initial,
            conv_work const& work)
      : in_{in},
        initial_{initial},
        work_{work},
        padded_{(work.channels + Lanes - 1) / Lanes * Lanes} {
    index_t const first = work.first_channel, width = in.weight.extent(1);
    auto const gather = [&](auto const& view, A* space) {
      A const* const row =
          contiguous_row(view.data_handle(), view.stride(0), work.channels, padded_, space);
      if (row != space) std::copy_n(row, padded_, space);
    };
    std::fill_n(zeros_, padded_, A(0));
    std::fill_n(bias_, padded_, A(0));
    if (is_given(in.bias)) gather(in.bias.slice(0, first, work.channels), bias_);
    for (index_t k = 0; k < width; ++k) {
      gather(in.weight.select(1, k).slice(0, first, work.channels), weight_[k]);
    }
  }

  index_t padded() const { return padded_; }  ///< channels, up to a full vector
  A const* bias() const { return bias_; }
  A const* weight(index_t k) const { return weight_[k]; }

  /// Bring the inputs of time s to hand; s may be before the call.
  void load(index_t s) {
    index_t const slot = s & (conv_ring - 1), b = work_.b, first = work_.first_channel;
    if (s >= 0) {
      row_[slot] = contiguous_row(&in_.x(b, s, first), in_.x.stride(2), work_.channels, padded_,
                                  staged_[slot]);
    } else if (is_given(initial_)) {
      index_t const j = s + in_.weight.extent(1) - 1;
      row_[slot] = contiguous_row(&initial_(b, first, j), initial_.stride(1), work_.channels,
                                  padded_, staged_[slot]);
    } else {
      row_[slot] = zeros_;
    }
  }

  /// The inputs of time s as the step at time t sees them: input_at, for all channels.
  A const* input(index_t t, index_t s) const {
    return same_sequence(in_.sequence, work_.b, t, s) ? row_[s & (conv_ring - 1)] : zeros_;
  }

 private:
  causal_conv1d_inputs<T> const in_;
  state_view<T const> const initial_;
  conv_work const work_;
  index_t const padded_;
  A const* row_[conv_ring];
  alignas(64) A zeros_[conv_block<T>];
  alignas(64) A bias_[conv_block<T>];
  alignas(64) A weight_[largest_conv_width][conv_block<T>];
  alignas(64) A staged_[conv_ring][conv_block<T>];
};

}  // namespace ssm::detail
