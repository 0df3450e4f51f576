// SPDX-License-Identifier: Apache-2.0
// linear_bands_memory.cuh: the boxes of bands of channels, and where they lie in shared memory.
#pragma once

#include <cuda.h>

#include "ssm/detail/barrier.cuh"
#include "ssm/detail/linear_columns_tile.cuh"
#include "ssm/detail/linear_step.cuh"
#include "ssm/detail/lock_step.cuh"
#include "ssm/detail/tile_pipeline.cuh"

namespace ssm::gpu::detail {

/// The copy engine wants boxes whose rows begin at a multiple of 16 bytes. Where the steps of an
/// array do not, every `Boxes`th is a multiple of 16 bytes further: a box has those, from the
/// multiple of 16 bytes before the band on. Otherwise there is one box, of all steps.
template <int Boxes>
inline constexpr bool is_loose = Boxes > 1;

/// A block walks a band of so many channels through all of time, a thread each: nothing is folded.
/// Wide bands share fewer sectors with others where they begin anywhere.
template <int Boxes>
inline constexpr int band_channels = is_loose<Boxes> ? 96 : 64;
/// Beside those threads a warp that asks for boxes, and one that sends them off or threads that
/// store what comes out where boxes cannot.
template <int Boxes>
inline constexpr int band_threads = band_channels<Boxes> + 32 +
                                    (is_loose<Boxes> ? band_channels<Boxes> : 32);

/// A stretch of time of a band. Outputs are put where the inputs were.
template <class T, class Step, int Boxes>
struct band_stage {
  static constexpr int size = static_cast<int>(sizeof(T));
  static constexpr int halves = is_loose<Boxes> && Step::inputs > 2 ? 32 : 64;  ///< of 16 bits
  static constexpr int steps = size == 2 ? halves : size == 4 ? 32 : 64 / size;
  static constexpr int box_steps = steps / Boxes;
  static constexpr int width = band_channels<Boxes> + (is_loose<Boxes> ? 16 / size : 0);

  struct alignas(tile_alignment) box {
    T at[box_steps][width];
  };
  box in[Step::inputs][Boxes];

  static constexpr int box_elements = static_cast<int>(sizeof(box)) / size;
  static constexpr unsigned bytes_that_arrive = Step::inputs * steps * width * size;
};

template <class T, class Step, int Boxes>
struct band_memory {
  using stage = band_stage<T, Step, Boxes>;
  static constexpr int bytes = is_loose<Boxes> ? 114688 : 98304;  ///< two blocks fit
  static constexpr int stages = bytes / static_cast<int>(sizeof(stage));

  stage of[stages];
  barrier arrived[stages], done[stages], sent[stages];
};

template <class T, class Step, int Boxes>
struct bands_problem {
  CUtensorMap in[Step::inputs][Boxes], out[Step::outputs];
  int place[Step::inputs][Boxes];  ///< in a stage, of the steps that are run first
  columns_problem<T, Step> of;     ///< bands of band_channels
  bool reversed;
  int passes;  ///< bands of a block, at most
  lock_step pace;
};

}  // namespace ssm::gpu::detail
