// SPDX-License-Identifier: Apache-2.0
// linear_columns_words.cuh: how what enters a stretch of columns is found out from those before.
#pragma once

#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/tile_words.cuh"

namespace ssm::gpu::detail {

/// The words of a scan of columns, as one warp reads them: lanes are (share, channel).
template <class T, class Step>
struct columns_words {
  using number = accumulator_t<T>;

  /// Words that a lane asks for before it waits for one; 8 took longer.
  static constexpr int together = 4;

  columns_problem<T, Step> const& p;
  int lane;

  /// Stretches in a group: what the lanes of a channel read at once.
  static __host__ __device__ constexpr index_t group_size(int width) {
    return together * (32 / width);
  }
  /// Groups in a block; more make what passes from block to block, one by one, faster.
  static __host__ __device__ constexpr index_t block_size(int width) {
    return 4 * group_size(width);
  }

  /// Level 0: stretches; 1: groups of them; 2: what enters groups of groups.
  __device__ tile_slot<number>& slot(int level, index_t i, index_t band, int c) const {
    index_t const row = i + (level > 0 ? p.stretches : 0) + (level > 1 ? p.groups : 0);
    return p.words[((row * p.bands + band) << p.width_bits) + c];
  }

  __device__ number initial(columns_tile<T, Step> const& at, int c) const {
    return p.initial.data == nullptr ? number(0) : *p.initial.at(at.outer, 0, at.channel + c);
  }

  /// The state that enters the stretch, for the lane's channel. The last of a group publishes the
  /// group's map, the last of a block of groups what leaves it.
  __device__ number enter(columns_tile<T, Step> const& at) const {
    int const c = lane & ((1 << p.width_bits) - 1);
    bool const is_here = lane < at.channels;
    if (at.stretch == 0) return is_here ? initial(at, c) : number(0);
    auto const G = static_cast<unsigned>(group_size(1 << p.width_bits));
    auto const B = static_cast<unsigned>(block_size(1 << p.width_bits));
    auto const stretch = static_cast<unsigned>(at.stretch);
    unsigned const group = stretch / G, block = group / B;
    unsigned const in_group = stretch % G, in_block = group % B;
    auto const stretches = fold(at, 0, group * G, in_group);
    tile_map<number> own;
    if (in_group == G - 1) {
      own = fold(at, 0, stretch, 1);
      if (is_here) slot(1, group, at.band, c).publish(compose(stretches, own));
    }
    auto const groups = fold(at, 1, block * B, in_block);
    auto const before = block > 0 ? fold(at, 2, block - 1, 1) : tile_map<number>{};
    auto const state = compose(compose(before, groups), stretches);
    if (in_group == G - 1 && in_block == B - 1 && is_here) {
      slot(2, block, at.band, c).publish(compose(state, own));
    }
    return state.map.drive;
  }

 private:
  /// `count` maps from `first` on, as one. A channel's lanes each ask for some of them, all before
  /// one is waited for; all lanes get the whole. To ask for all levels at once takes more registers
  /// than there are.
  __device__ tile_map<number> fold(columns_tile<T, Step> const& at, int level, index_t first,
                                   unsigned count) const {
    int const c = lane & ((1 << p.width_bits) - 1);
    int const share = lane >> p.width_bits, shares = 32 >> p.width_bits;
    tile_map<number> whole;
    for (unsigned begin = 0; begin < count; begin += static_cast<unsigned>(together * shares)) {
      auto const mine = [&](int j) { return begin + static_cast<unsigned>(share * together + j); };
      auto const slot_of = [&](int j) -> tile_slot<number> const& {
        return slot(level, first + (mine(j) < count ? mine(j) : count - 1), at.band, c);
      };
      typename tile_slot<number>::content content[together];
#pragma unroll
      for (int j = 0; j < together; ++j) content[j] = slot_of(j).load();
      tile_map<number> part;
#pragma unroll
      for (int j = 0; j < together; ++j) {
        if (mine(j) >= count || c >= at.channels) continue;
        while (content[j].is_empty()) content[j] = slot_of(j).load();
        part = compose(part, content[j].map());
      }
      __syncwarp();
      for (int d = 1; d < shares; d *= 2) {
        auto const later = from_lane(part, lane + (d << p.width_bits));
        if (share % (2 * d) == 0) part = compose(part, later);
      }
      whole = compose(whole, from_lane(part, c));
    }
    return whole;
  }
};

}  // namespace ssm::gpu::detail
