// SPDX-License-Identifier: Apache-2.0
// packed.hpp: several sequences side by side in one row, told apart by an index for each step.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// (batch, time): the number of the sequence that a step belongs to, never decreasing in time.
/// Where it changes, what was carried is cut to zero. An initial state enters the first sequence
/// of a row, the final state is that of the last. An empty view: one sequence a row.
template <memory Where = memory::host>
using sequence_index_view = tensor_view<std::int32_t const, 2, Where>;

/// Throw shape_error unless `sequence` is empty or fits and does not decrease.
inline void require_sequence(sequence_index_view<> sequence, index_t batch, index_t length,
                             char const* name) {
  if (sequence.data_handle() == nullptr) return;
  require_shape(sequence, {batch, length}, name, "batch, time");
  for (index_t b = 0; b < batch; ++b) {
    for (index_t t = 1; t < length; ++t) {
      if (sequence(b, t) >= sequence(b, t - 1)) continue;
      require<shape_error>(false, name, " falls from ", sequence(b, t - 1), " to ", sequence(b, t),
                           " at (", b, ", ", t, "), expected never less than before");
    }
  }
}

/// Whether step t of row b is the first of its sequence in this call, but for the row's first
/// step, which goes on from the initial state.
inline bool starts_sequence(sequence_index_view<> sequence, index_t b, index_t t) {
  return t > 0 && sequence.data_handle() != nullptr && sequence(b, t) != sequence(b, t - 1);
}

/// The first step after t, and at most `end`, that belongs to another sequence than step t.
inline index_t end_of_sequence(sequence_index_view<> sequence, index_t b, index_t t, index_t end) {
  if (sequence.data_handle() == nullptr) return end;
  std::int32_t const own = sequence(b, t);
  while (++t < end && sequence(b, t) == own) {
  }
  return t < end ? t : end;
}

/// The index of one row that holds the sequences [offsets[i], offsets[i + 1]) one after another
/// (cu_seqlens elsewhere). Sequences without steps leave no trace.
/// Shapes    result (1, last offset).
/// Throws    shape_error unless offsets begin with 0 and do not decrease.
inline tensor<std::int32_t, 2> sequence_index(std::span<index_t const> offsets) {
  require<shape_error>(!offsets.empty(), "sequence_index: offsets are empty, expected 0 first");
  require<shape_error>(offsets.front() == 0, "sequence_index: offsets begin with ", offsets.front(),
                       ", expected 0");
  require<shape_error>(offsets.size() - 1 <= std::numeric_limits<std::int32_t>::max(),
                       "sequence_index: ", offsets.size() - 1, " sequences, expected fewer");
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    require<shape_error>(offsets[i] >= offsets[i - 1], "sequence_index: offsets fall from ",
                         offsets[i - 1], " to ", offsets[i], ", expected never less than before");
  }
  tensor<std::int32_t, 2> index({1, offsets.back()});
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    for (index_t t = offsets[i - 1]; t < offsets[i]; ++t) {
      index(0, t) = static_cast<std::int32_t>(i - 1);
    }
  }
  return index;
}

}  // namespace ssm
