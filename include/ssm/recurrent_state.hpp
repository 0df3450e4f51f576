// SPDX-License-Identifier: Apache-2.0
// recurrent_state.hpp: what a layer carries from token to token, as a value that is copied,
// compared, turned into bytes and back, and rolled back.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ios>  // hex
#include <iterator>
#include <limits>
#include <span>
#include <vector>

#include "ssm/detail/half.hpp"
#include "ssm/error.hpp"
#include "ssm/tensor.hpp"

namespace ssm {
namespace detail {

/// What can be saved; the number of a type among these stands for it in the bytes.
inline constexpr char const* saved_types[] = {"float", "double", "bfloat16", "float16"};
template <class T>
inline constexpr std::uint64_t saved_type = std::same_as<T, float>      ? 0
                                            : std::same_as<T, double>   ? 1
                                            : std::same_as<T, bfloat16> ? 2
                                            : std::same_as<T, float16>  ? 3
                                                                        : 4;
template <class T>
concept saved_element = saved_type<T> < std::size(saved_types);

template <class T, int Rank>
std::span<std::byte const> bytes_of(tensor<T, Rank> const& from) {
  return std::as_bytes(std::span<T const>(from.data(), static_cast<std::size_t>(from.size())));
}

/// What saved bytes begin with. The elements of conv and ssm follow, row-major, and `checksum` of
/// all that.
template <saved_element T, int StateRank>
struct saved_header {
  std::uint64_t magic = 0x6574'6174'736d'7373;  // "ssmstate"
  std::uint64_t version = 1;
  std::uint64_t type = saved_type<T>;
  std::uint64_t state_rank = StateRank;
  index_t position = 0;
  index_array<3> conv{};
  index_array<StateRank> ssm{};
};
static_assert(std::endian::native == std::endian::little,
              "saved states are little-endian and read without swapping bytes");

/// A word that changes with any one word of `bytes`: each round is a bijection of the word before.
inline std::uint64_t checksum(std::span<std::byte const> bytes) {
  std::uint64_t sum = bytes.size();
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), sizeof sum))) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), std::min(bytes.size(), sizeof word));
    sum = (sum ^ word) * 0x9E37'79B9'7F4A'7C15;  // odd; the golden ratio
    sum ^= sum >> 32;
  }
  return sum;
}

/// The bytes of a tensor. An extent of 0 counts as 1 in what must not overflow: strides are
/// products of the others.
template <class T, int Rank>
std::size_t saved_size(index_array<Rank> const& extents, char const* name) {
  index_t bytes = sizeof(T);
  for (int axis = 0; axis < Rank; ++axis) {
    require<checkpoint_error>(
        0 <= extents[axis] && extents[axis] <= std::numeric_limits<index_t>::max() / bytes,
        "from_bytes: ", name, " has shape ", to_string(extents),
        ", expected extents of 0 or more and less than 2^63 bytes");
    bytes *= std::max<index_t>(extents[axis], 1);
  }
  return std::ranges::count(extents.value, 0) > 0 ? 0 : static_cast<std::size_t>(bytes);
}

template <class T, int Rank>
bool same_bits(tensor<T, Rank> const& a, tensor<T, Rank> const& b) {
  return a.extents() == b.extents() && std::ranges::equal(bytes_of(a), bytes_of(b));
}

}  // namespace detail

/// What one layer carries from token to token: `conv` is the carry of causal_conv1d, `ssm` that of
/// selective_scan (StateRank 3) or state_space_dual (StateRank 4), both handed to the operators as
/// they are. A copy is independent of its original. Equal: position, shapes and every bit, so NaN
/// equals itself, and -0 is not 0.
/// Shapes    conv (batch, channel, width - 1); ssm (batch, channel, state) or (batch, head,
///           head_dim, state).
/// Tested    tests/recurrent_state_test.cpp.
template <class T, int StateRank>
struct recurrent_state {
  using value_type = T;
  static constexpr int state_rank = StateRank;

  tensor<T, 3> conv{};
  tensor<accumulator_t<T>, StateRank> ssm{};
  index_t position = 0;  ///< tokens so far; kept by the caller

  friend bool operator==(recurrent_state const& a,
                         recurrent_state const& b) requires detail::saved_element<T> {
    return a.position == b.position && detail::same_bits(a.conv, b.conv) &&
           detail::same_bits(a.ssm, b.ssm);
  }
};

/// A state as bytes, the same on every machine: a header, the elements, a checksum.
/// Cost      the bytes of the state and less than 130 more; reads them twice.
/// Throws    domain_error where the position is negative.
template <detail::saved_element T, int StateRank>
std::vector<std::byte> to_bytes(recurrent_state<T, StateRank> const& state) {
  require<domain_error>(state.position >= 0, "to_bytes: position is ", state.position,
                        ", expected 0 or more");
  detail::saved_header<T, StateRank> const header{
      .position = state.position, .conv = state.conv.extents(), .ssm = state.ssm.extents()};
  auto const conv = detail::bytes_of(state.conv), ssm = detail::bytes_of(state.ssm);
  std::uint64_t sum = 0;
  std::vector<std::byte> bytes(sizeof header + conv.size() + ssm.size() + sizeof sum);
  auto end = bytes.begin();
  auto const append = [&](auto const& part) { end = std::ranges::copy(part, end).out; };
  append(std::as_bytes(std::span(&header, 1)));
  append(conv);
  append(ssm);
  sum = detail::checksum({bytes.begin(), end});
  append(std::as_bytes(std::span(&sum, 1)));
  return bytes;
}

/// The state that to_bytes made `bytes` of, bit for bit: from_bytes<recurrent_state<float, 3>>(b).
/// Bytes that this accepts are those that to_bytes makes of the result. The checksum is there
/// against accidents; what it cannot tell is whether the shapes are those of a model, which the
/// operators do.
/// Throws    checkpoint_error where bytes are not a whole, undamaged State, before memory is asked
///           for.
template <class State>
State from_bytes(
    std::span<std::byte const> bytes) requires detail::saved_element<typename State::value_type> {
  using T = typename State::value_type;
  using real = accumulator_t<T>;
  auto const demand = [](bool holds, auto const&... parts) {
    require<checkpoint_error>(holds, "from_bytes: ", parts...);
  };
  detail::saved_header<T, State::state_rank> const expected;
  auto header = expected;
  std::uint64_t sum = 0;
  demand(bytes.size() >= sizeof header + sizeof sum, "found ", bytes.size(),
         " bytes, expected at least ", sizeof header + sizeof sum);
  std::memcpy(&header, bytes.data(), sizeof header);
  std::memcpy(&sum, bytes.last(sizeof sum).data(), sizeof sum);

  demand(header.magic == expected.magic, "bytes begin with the word 0x", std::hex, header.magic,
         ", expected 0x", expected.magic, " (ssmstate)");
  demand(header.version == expected.version, "version is ", header.version, ", expected ",
         expected.version);
  demand(header.type == expected.type, "elements are ",
         header.type < std::size(detail::saved_types) ? detail::saved_types[header.type]
                                                      : "of an unknown type",
         ", expected ", detail::saved_types[expected.type]);
  demand(header.state_rank == expected.state_rank, "ssm has rank ", header.state_rank,
         ", expected ", expected.state_rank);
  demand(header.position >= 0, "position is ", header.position, ", expected 0 or more");
  std::size_t const conv_size = detail::saved_size<T>(header.conv, "conv");
  std::size_t const ssm_size = detail::saved_size<real>(header.ssm, "ssm");
  auto const elements = bytes.subspan(sizeof header, bytes.size() - sizeof header - sizeof sum);
  demand(elements.size() == conv_size + ssm_size, "found ", elements.size(),  // below 2^64
         " bytes of elements, expected ", conv_size + ssm_size, " for conv ",
         to_string(header.conv), " and ssm ", to_string(header.ssm));
  std::uint64_t const found = detail::checksum(bytes.first(bytes.size() - sizeof sum));
  demand(found == sum, "checksum is ", found, ", expected ", sum);

  State state{tensor<T, 3>(header.conv), tensor<real, State::state_rank>(header.ssm),
              header.position};
  std::copy_n(elements.begin(), conv_size,
              std::as_writable_bytes(std::span(state.conv.data(), conv_size / sizeof(T))).begin());
  std::copy_n(elements.begin() + static_cast<std::ptrdiff_t>(conv_size), ssm_size,
              std::as_writable_bytes(std::span(state.ssm.data(), ssm_size / sizeof(real))).begin());
  return state;
}

/// The latest states of a decoder, at most `capacity`, for tokens that may have to be taken back:
/// remember the state before each token, and roll_back as many tokens as were rejected. State is a
/// recurrent_state, a vector of them for all layers, or anything that can be copied.
/// Cost      a copy of a state for each call; no memory is asked for once all have been filled,
///           and views into a state that is rolled back stay valid where its shape is the same.
/// Throws    shape_error where the capacity is less than 1 or a step is not there; nothing is
///           changed then.
template <std::copyable State>
class state_history {
 public:
  explicit state_history(index_t capacity) : capacity_{capacity} {
    require<shape_error>(capacity >= 1, "state_history: capacity is ", capacity,
                         ", expected at least 1");
  }

  index_t capacity() const { return capacity_; }
  /// How many steps can be rolled back.
  index_t size() const { return size_; }

  /// Keep a copy; where the history is full, the oldest one is forgotten.
  void remember(State const& state) {
    size_ = std::min(size_, capacity_ - 1);
    if (next_ == static_cast<index_t>(states_.size())) {
      states_.push_back(state);
    } else {
      states_[static_cast<std::size_t>(next_)] = state;
    }
    next_ = (next_ + 1) % capacity_;
    ++size_;
  }

  /// Make `state` what it was `steps` calls of remember ago (1: at the last one; 0: as it is), and
  /// forget these calls.
  void roll_back(State& state, index_t steps) {
    require<shape_error>(0 <= steps && steps <= size_, "state_history: steps to roll back are ",
                         steps, ", expected 0 to the ", size_, " that are kept");
    if (steps == 0) return;
    index_t const then = next_ < steps ? next_ - steps + capacity_ : next_ - steps;
    state = states_[static_cast<std::size_t>(then)];
    next_ = then;
    size_ -= steps;
  }

 private:
  index_t capacity_;
  index_t size_ = 0;
  index_t next_ = 0;  // where the next state goes, in a ring
  std::vector<State> states_;
};

}  // namespace ssm
