// SPDX-License-Identifier: Apache-2.0
// selective_check.cuh: outputs of Mamba's operator on a GPU, each compared with double precision.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "support/selective_reference.cuh"

namespace ssm::bench {

/// Of one output.
struct finding {
  std::string output;
  double relative_l2 = 0;
  double of_allowed = 0;  ///< above 1 or NaN: wrong
};

inline finding worst_of(std::vector<finding> const& all) {
  return *std::max_element(all.begin(), all.end(), [](finding const& a, finding const& b) {
    return a.of_allowed < b.of_allowed || b.of_allowed != b.of_allowed;
  });
}

/// Gradients that were found, G as those that are not sums over time are stored.
template <class G>
struct found_gradients {
  sequence_view<G const, memory::device> x, step_size, gate;  ///< (batch, time, channel)
  sequence_view<G const, memory::device> B, C;                ///< (batch, time, state)
  float const *eigenvalue, *D, *step_bias;                    ///< contiguous
};

namespace detail {

/// A float sum of so many parts, one after the other.
template <class T>
__device__ void compare_sum(thread_tally& mine, T found, bounded sum, double additions) {
  sum.weighted += additions * sum.size;
  mine.compare(found, sum);
}

template <class W>
__global__ void compare_sums_kernel(W const* found, bounded const* sums, index_t size,
                                    double additions, tally* all) {
  thread_tally mine;
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  compare_sum(mine, found[i], sums[i], additions);
  mine.add_to(all, true);
}

template <class W>
__global__ void compare_samples_kernel(sequence_view<W const, memory::device> found,
                                       bounded const* sums, sampled_steps steps, double additions,
                                       tally* all) {
  index_t const samples = (found.extent(1) + steps.period - 1) / steps.period;
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  index_t const b = i / lanes / samples, t = steps.of(i / lanes % samples);
  if (b >= found.extent(0) || t >= found.extent(1)) return;
  thread_tally mine;
  compare_sum(mine, found(b, t, i % lanes), sums[i], additions);
  mine.add_to(all, true);
}

template <class T>
gpu::tensor<T, 1> zeros(gpu::on where, index_t size) {
  gpu::tensor<T, 1> all(where, {size});
  fill_bytes(where, all.view(), 0);
  return all;
}

inline unsigned blocks_of(index_t threads) {
  return static_cast<unsigned>((threads + 127) / 128);
}

inline std::vector<finding> findings(gpu::stream const& stream,
                                     gpu::tensor<tally, 1> const& tallies,
                                     std::vector<std::string> const& names) {
  gpu::check(cudaGetLastError(), "comparison with the reference");
  tensor<tally, 1> host(tallies.view().extents());
  gpu::copy_to_host(stream, tallies.view(), host.view());
  stream.wait();
  std::vector<finding> all;
  for (std::size_t i = 0; i < names.size(); ++i) {
    tally const& found = host(static_cast<index_t>(i));
    all.push_back({names[i], found.relative(), found.of_allowed()});
  }
  return all;
}

template <class T>
unsigned reference_blocks(selective_scan_inputs<T, memory::device> const& in) {
  index_t const threads = in.x.extent(0) * in.x.extent(2) * lanes;
  require<std::runtime_error>(threads % 128 == 0, "reference: expected a multiple of 8 channels");
  return blocks_of(threads);
}

}  // namespace detail

/// All of y, and the final state unless it is empty.
template <class T>
std::vector<finding> check_forward(gpu::stream const& stream,
                                   selective_scan_inputs<T, memory::device> const& in,
                                   sequence_view<T const, memory::device> y,
                                   state_view<float const, memory::device> final_state) {
  auto tallies = detail::zeros<tally>(stream, 2);
  detail::compare_forward_kernel<T><<<detail::reference_blocks(in), 128, 0, stream.get()>>>(
      in, y, final_state, tallies.view().data_handle());
  std::vector<std::string> names = {"y"};
  if (final_state.data_handle() != nullptr) names.push_back("final state");
  return detail::findings(stream, tallies, names);
}

/// All gradients, but those of B and C at about 2048 steps. What is summed over time is taken to
/// have at most 2^13 additions one after another.
template <class T, class G>
std::vector<finding> check_gradients(gpu::stream const& stream,
                                     selective_scan_inputs<T, memory::device> const& in,
                                     sequence_view<T const, memory::device> y_cotangent,
                                     found_gradients<G> const& found) {
  using detail::bounded, detail::lanes, detail::zeros;
  index_t const batch = in.x.extent(0), length = in.x.extent(1), channels = in.x.extent(2);
  unsigned const blocks = detail::reference_blocks(in);
  index_t const threads = index_t{blocks} * 128;
  detail::sampled_steps const steps{std::max<index_t>(1, length / 2048)};
  index_t const samples = batch * ((length + steps.period - 1) / steps.period) * lanes;
  auto B = zeros<bounded>(stream, samples), C = zeros<bounded>(stream, samples);
  auto eigenvalue = zeros<bounded>(stream, channels * lanes);
  auto D = zeros<bounded>(stream, channels), step_bias = zeros<bounded>(stream, channels);
  index_t const block = detail::reference_block;
  gpu::tensor<bounded, 1> states(stream, {(length + block - 1) / block * threads});
  gpu::tensor<bounded, 1> of_block(stream, {std::min(block, length) * threads});
  auto tallies = zeros<tally>(stream, 8);
  auto const at = [](auto& tensor) { return tensor.view().data_handle(); };
  tally* const all = at(tallies);

  detail::compare_gradient_kernel<T, G><<<blocks, 128, 0, stream.get()>>>(
      in, y_cotangent, {found.x, found.step_size, found.gate},
      {at(B), at(C), at(eigenvalue), at(D), at(step_bias), at(states), at(of_block), steps}, all);
  auto const over_channels = static_cast<double>(channels);
  auto const over_time = static_cast<double>(std::min<index_t>(batch * length, 1 << 13));
  auto const compare_samples = [&](auto const& view, auto& sums, int which) {
    detail::compare_samples_kernel<G><<<detail::blocks_of(samples), 128, 0, stream.get()>>>(
        view, at(sums), steps, over_channels, all + which);
  };
  auto const compare_sums = [&](float const* one, auto& sums, index_t size, int which) {
    detail::compare_sums_kernel<<<detail::blocks_of(size), 128, 0, stream.get()>>>(
        one, at(sums), size, over_time, all + which);
  };
  compare_samples(found.B, B, 3);
  compare_samples(found.C, C, 4);
  compare_sums(found.eigenvalue, eigenvalue, channels * lanes, 5);
  compare_sums(found.D, D, channels, 6);
  compare_sums(found.step_bias, step_bias, channels, 7);
  return detail::findings(stream, tallies,
                          {"x", "step_size", "gate", "B", "C", "eigenvalue", "D", "step_bias"});
}

}  // namespace ssm::bench
