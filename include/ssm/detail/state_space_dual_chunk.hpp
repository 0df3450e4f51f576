// SPDX-License-Identifier: Apache-2.0
// state_space_dual_chunk.hpp: how channels and time are shared out, and the step sizes and decays
// of a few steps.
#pragma once

#include <algorithm>

#include "ssm/detail/simd_math.hpp"
#include "ssm/detail/state_space_dual_inputs.hpp"
#include "ssm/detail/state_space_dual_products.hpp"

namespace ssm::detail {

/// Channels [first, first + count) of a head of a row.
struct ssd_tile {
  index_t b, head, first, count;
};

/// How the channels of a call are shared out: tiles whose states stay in the cache.
struct ssd_partition {
  ssd_extents extents;
  index_t tile, tiles;

  ssd_partition(ssd_extents const& e, index_t bytes, index_t cached = 32768) : extents{e} {
    constexpr index_t narrowest = 16, widest = 64;  // multiples of all lanes
    index_t const fitting = cached / (bytes * std::max<index_t>(1, e.states));
    index_t const needed = round_up(std::max<index_t>(1, e.head_dim), narrowest);
    tile = std::min(std::clamp(fitting / narrowest * narrowest, narrowest, widest), needed);
    tiles = (e.head_dim + tile - 1) / tile;
  }

  index_t count() const { return extents.batch * extents.heads * tiles; }
  ssd_tile operator()(index_t i) const {
    index_t const first = i % tiles * tile, lane = i / tiles;
    return {lane / extents.heads, lane % extents.heads, first,
            std::min(tile, extents.head_dim - first)};
  }
};

/// Tiles of one group that go through time side by side. Their states wait in the carry, as rows of
/// channels, so that they need no memory: where it has no such rows, a tile goes alone, and is
/// smaller.
struct ssd_bundles {
  ssd_partition tiles;
  bool in_place;
  index_t of_group, count;  // bundles of a group, and in all

  template <class A>
  ssd_bundles(ssd_extents const& e, tensor_view<A, 4> const& carry, int threads)
      : tiles{e, sizeof(A)} {
    constexpr index_t widest = 12;  // their states stay in the second cache
    in_place = carry.stride(3) == 1 && carry.stride(2) == e.states &&
               e.head_dim % tiles.tile == 0 && e.states % product_rows == 0;
    if (!in_place) tiles = {e, sizeof(A), 16384};
    index_t const most = in_place ? widest : 1, shares = 2 * threads;
    index_t const wanted = std::clamp<index_t>(tiles.count() / shares, 1, most);
    of_group = (tiles_of_group() + wanted - 1) / wanted;
    count = e.batch * e.groups * of_group;
  }

  index_t tiles_of_group() const { return tiles.extents.heads_per_group() * tiles.tiles; }
  index_t first_tile(index_t bundle) const {
    return bundle / of_group * tiles_of_group() + bundle % of_group * tiles_of_group() / of_group;
  }
};

/// Steps in a chunk where it is ours to choose, and at most.
inline constexpr index_t longest_ssd_chunk = state_space_dual_block;

/// A chunk ends before its states could grow by more than 2 to this power, so that no product of
/// decays overflows where the states do not.
inline constexpr int largest_ssd_growth = 32;
/// The same for what decays, where drives are divided by the decays before them.
inline constexpr int largest_ssd_decay = 64;

/// One after another: chunks that end at `chunk` steps, at a block's end and where a sequence ends.
template <class T>
index_t end_of_chunk(state_space_dual_inputs<T> const& in, index_t b, index_t t, index_t chunk) {
  index_t const block_end = (t / state_space_dual_block + 1) * state_space_dual_block;
  return end_of_sequence(in.sequence, b, t, std::min({t + chunk, block_end, in.x.extent(1)}));
}

/// Δ before the factor, from the projection with its bias.
template <int Lanes, class A>
[[gnu::always_inline]] inline pack<A, Lanes> by_rule(step_size_rule<A> const& rule,
                                                     pack<A, Lanes> const& biased) {
  pack<A, Lanes> const step = rule.softplus ? softplus(biased) : biased;
  if (!rule.limits) return step;
  return larger(pack<A, Lanes>(rule.limits->smallest),
                smaller(pack<A, Lanes>(rule.limits->largest), step));
}

/// Δ and what it is made of for the steps [t, t + count) of a head, and log2 of their decays:
/// `rule` is Δ before the factor, `log_decay` is Δ' A' log2(e). Rows are filled up with zeros.
template <int Lanes, class T>
[[gnu::always_inline]] inline void fill_steps(state_space_dual_inputs<T> const& in, index_t b,
                                              index_t head, index_t t, index_t count,
                                              index_t padded, accumulator_t<T> rate,
                                              accumulator_t<T>* step, accumulator_t<T>* log_decay) {
  using A = accumulator_t<T>;
  A const factor = in.scaling.step_factor(head);
  for (index_t i = 0; i < count; ++i) step[i] = biased_step(in, b, t + i, head);
  for (index_t i = count; i < padded; ++i) step[i] = A(0);
  for (index_t i = 0; i < padded; i += Lanes) {
    auto const delta = by_rule(in.step_rule, pack<A, Lanes>::load(step + i)) * factor;
    delta.store(step + i);
    pack<A, Lanes>(delta * rate).store(log_decay + i);
  }
  for (index_t i = count; i < padded; ++i) step[i] = log_decay[i] = A(0);
}

/// How many of the steps may be one chunk.
template <class A>
index_t steps_without_overflow(A const* log_decay, index_t count) {
  A growth(0);  // log2 of the most that any run of steps up to here multiplies by
  for (index_t i = 0; i < count; ++i) {
    growth = std::max(growth, A(0)) + log_decay[i];
    if (growth > A(largest_ssd_growth) && i > 0) return i;
  }
  return count;
}

/// What the steps of a chunk multiply by: between[i·padded + j] from after step j to after step i
/// for j <= i (1 elsewhere), and entered[i] from before the chunk to after step i. Sums of
/// logarithms are taken over just the steps between, so nothing cancels.
template <int Lanes, class A>
[[gnu::always_inline]] inline void fill_decays(A const* log_decay, index_t count, index_t padded,
                                               A* between, A* entered) {
  A sum(0);
  for (index_t i = 0; i < count; ++i) entered[i] = sum += log_decay[i];
  for (index_t i = count; i < padded; ++i) entered[i] = A(0);
  for (index_t j = 0; j < padded; j += Lanes) {
    exp2(pack<A, Lanes>::load(entered + j)).store(entered + j);
    pack<A, Lanes> index, row(A(0));
    for (int k = 0; k < Lanes; ++k) index.v[k] = static_cast<A>(j + k);
    for (index_t i = j; i < count; ++i) {
      row = where_greater(pack<A, Lanes>(A(0)), pack<A, Lanes>(index.v - static_cast<A>(i)),
                          pack<A, Lanes>(row.v + log_decay[i]), pack<A, Lanes>(A(0)));
      exp2(row).store(between + i * padded + j);
    }
  }
}

}  // namespace ssm::detail
