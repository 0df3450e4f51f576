// SPDX-License-Identifier: Apache-2.0
// linear_teams_launch.cuh: whether teams of blocks run a raw scan, how many, and of how many
// blocks.
#pragma once

#include <algorithm>

#include "ssm/detail/device.cuh"
#include "ssm/detail/linear_teams.cuh"
#include "ssm/detail/tile_launch.cuh"
#include "ssm/execution.cuh"

namespace ssm::gpu::detail {

/// How a band is shared: by `teams` (none: not at all) of `blocks` each.
struct team_shape {
  int teams = 0, blocks = 0;
};

/// A launch of so many blocks, which begin early; `attributes` are part of it.
template <class Tiles, bool Chained>
cudaLaunchConfig_t team_launch(on where, index_t teams, int blocks,
                               cudaLaunchAttribute (&attributes)[3]) {
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(blocks);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeCooperative;  // they wait for each other
  attributes[1].val.cooperative = 1;
  attributes[2] = begins_early();
  cudaLaunchConfig_t launch{};
  launch.gridDim = static_cast<unsigned>(teams * blocks);
  launch.blockDim = team_threads<Tiles, Chained>;
  launch.dynamicSmemBytes = sizeof(team_memory<Tiles, Chained>);
  launch.stream = where.stream;
  launch.attrs = attributes;
  launch.numAttrs = 3;
  return launch;
}

/// Teams of so many blocks that are on the device at once.
template <class Tiles, bool Chained>
int teams_that_fit(int blocks) {
  cudaLaunchAttribute attributes[3]{};
  auto const launch = team_launch<Tiles, Chained>(on{}, 1, blocks, attributes);
  int fitting = 0;
  check(cudaOccupancyMaxActiveClusters(&fitting, team_kernel<Tiles, Chained>, &launch),
        "cudaOccupancyMaxActiveClusters");
  return fitting;
}

/// Whether the device has clusters, what was compiled uses them, and a block may have its memory.
template <class Tiles, bool Chained>
bool allows_teams() {
  constexpr int memory = static_cast<int>(sizeof(team_memory<Tiles, Chained>));
  static_assert(memory <= 227 * 1024);
  auto* const kernel = team_kernel<Tiles, Chained>;
  if (!is_compiled_for_hopper(kernel) || !has_shared_memory(memory)) return false;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, memory),
        "cudaFuncSetAttribute");
  return true;
}

/// The largest teams of which all bands have one at once.
template <class Tiles>
team_shape one_team_a_band(index_t bands, int processors) {
  index_t blocks = std::min<index_t>(most_blocks_of_team, processors / bands);
  while (blocks > 0 && teams_that_fit<Tiles, false>(static_cast<int>(blocks)) < bands) --blocks;
  return {1, static_cast<int>(blocks)};
}

/// As many teams a band as fit, of sizes that use most of the device.
template <class Tiles>
team_shape many_teams_a_band(index_t bands, int width) {
  team_shape best;
  for (int blocks = most_blocks_of_team; blocks > 1; blocks /= 2) {
    int const share = (width + blocks - 1) / blocks;  // of the channels of which a warp looks back
    int const most = std::min(most_teams_of_band, 2 * 32 / share);
    index_t const each = teams_that_fit<Tiles, true>(blocks) / bands;
    int const teams = static_cast<int>(std::min<index_t>(each, most));
    if (teams * blocks > best.teams * best.blocks) best = {teams, blocks};
  }
  return best;
}

template <class Tiles, bool Chained>
void launch_teams(on where, typename Tiles::problem p, team_shape shape, std::byte* workspace) {
  index_t const steps = Tiles::steps_of(p);
  index_t const tiles = (p.length + steps - 1) / steps, in_round = shape.teams * shape.blocks;
  p.teams = shape.teams, p.rounds = (tiles + in_round - 1) / in_round;
  p.inner = (p.length - 1) / steps;
  if (Chained) {
    p.words = reinterpret_cast<decltype(p.words)>(workspace);
    index_t const words = (p.bands * p.rounds * p.teams) << p.width_bits;
    clear(where, workspace, static_cast<std::size_t>(words) * sizeof(*p.words));
  } else {
    p.pace.reached = reinterpret_cast<unsigned*>(workspace);
    clear(where, workspace, lock_step::bytes);
  }
  cudaLaunchAttribute attributes[3]{};
  auto const launch =
      team_launch<Tiles, Chained>(where, p.bands * p.teams, shape.blocks, attributes);
  check(cudaLaunchKernelEx(&launch, team_kernel<Tiles, Chained>, p),
        "linear_scan: cudaLaunchKernelEx");
}

/// The same in bands of up to so many channels, a power of two.
template <class Problem>
Problem in_bands_of(int width, Problem p) {
  while (1 << p.width_bits < width && index_t{1} << p.width_bits < p.channels) ++p.width_bits;
  p.across = divide_up(p.channels, index_t{1} << p.width_bits);
  p.bands = p.outer * p.across;
  return p;
}

/// Words that any number of teams, of two blocks at least, needs at most.
template <class Tiles>
index_t team_words(typename Tiles::problem const& p) {
  auto const words = [](auto const& own) {
    index_t const steps = Tiles::steps_of(own);
    return own.bands * (divide_up(own.length, 2 * steps) + most_teams_of_band) << own.width_bits;
  };
  return std::max(words(p), words(in_bands_of(Tiles::most_width, p)));
}

/// Launch teams if the device has them and is kept busy by them.
template <class Tiles>
bool run_teams(on where, typename Tiles::problem const& p, std::byte* workspace) {
  if (!allows_teams<Tiles, true>()) return false;
  index_t const steps = Tiles::steps_of(p), tiles = p.length / steps;
  if (tiles * p.bands >= (index_t{1} << 31) - most_teams_of_band * most_blocks_of_team)
    return false;
  auto const wide = in_bands_of(Tiles::most_width, p);
  auto const many = many_teams_a_band<Tiles>(p.bands, 1 << p.width_bits),
             many_wide = many_teams_a_band<Tiles>(wide.bands, 1 << wide.width_bits);
  index_t const busy = p.bands * many.teams * many.blocks,
                busy_wide = wide.bands * many_wide.teams * many_wide.blocks;
  bool gives_way = false;
  if constexpr (!Tiles::is_brought) {
    int const processors = multiprocessors();
    if (!allows_teams<Tiles, false>()) return false;
    auto const one = one_team_a_band<Tiles>(p.bands, processors),
               one_wide = one_team_a_band<Tiles>(wide.bands, processors);
    bool const is_wide = wide.bands * one_wide.blocks >= p.bands * one.blocks;
    auto const& own = is_wide ? wide : p;
    auto const shape = is_wide ? one_wide : one;
    // Half of the device with wide bands is faster than all else that runs there.
    index_t const least = own.width_bits > 5 ? processors / 2 : 2 * processors / 3;
    bool const is_busy = own.bands * shape.blocks >= least;
    // But for many teams with wide bands beside one with others, which asks L2 twice as often.
    gives_way = is_busy && !is_wide && many_wide.teams > 1 && busy_wide >= own.bands * shape.blocks;
    if (is_busy && !gives_way) {
      launch_teams<Tiles, false>(where, own, shape, workspace);
      return true;
    }
  }
  if (many.teams == 0 && many_wide.teams == 0) return false;
  bool const is_wide = gives_way || busy_wide >= busy;
  launch_teams<Tiles, true>(where, is_wide ? wide : p, is_wide ? many_wide : many, workspace);
  return true;
}

}  // namespace ssm::gpu::detail
