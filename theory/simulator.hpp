// SPDX-License-Identifier: Apache-2.0
// simulator.hpp: random systems in plain numbers, and what simulates many of them at once on
// another device than the processor.
#pragma once

#include <concepts>
#include <memory>
#include <span>
#include <string>

#include "ssm/config.hpp"
#include "ssm/random.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm::theory {

// The first three are those of systems.hpp. Child 1 of a replicate's stream gives B and child 2 the
// inputs, all N(0, 1); the eigenvalues come beside it, since laws stay on the processor.
//   eigenvalues()   that a replicate draws from a law
//   updates()       states times steps of a replicate
//   numbers()       that a replicate keeps in memory, roughly

/// The sample of energy_of_recurrence; with is_normalized that of normalized_energy_of_recurrence.
struct linear_system {
  index_t states = 1, inputs = 1, steps = 0;
  bool is_normalized = false;

  index_t eigenvalues() const { return states; }
  index_t updates() const { return states * steps; }
  index_t numbers() const { return (states + steps) * inputs + 2 * states; }
};

/// The sample of energy_of_mamba1.
struct mamba1_channel {
  double step_size = 1;
  index_t states = 1, steps = 0;

  index_t eigenvalues() const { return states; }
  index_t updates() const { return states * steps; }
  index_t numbers() const { return 3 * states + steps; }
};

/// The sample of energy_of_mamba2, which has one eigenvalue that is not random.
struct mamba2_head {
  double step_size = 1, eigenvalue = 0;
  index_t channels = 1, states = 1, steps = 0;

  index_t eigenvalues() const { return 0; }
  index_t updates() const { return channels * states * steps; }
  index_t numbers() const { return states + (states + steps) * channels; }
};

/// The sample of energy_of_layer, whose replicates draw x from child 0 and B from child 1.
struct layer_system {
  bool has_heads = false;                   ///< scalar_identity, else diagonal
  tensor_view<double const, 2> eigenvalue;  ///< (row, column), as in layer_spectrum
  tensor_view<double const, 1> step_size;   ///< (row)
  index_t channels = 1, states = 1, groups = 1, steps = 0;
  double input_energy = 1;

  index_t eigenvalues() const { return 0; }
  index_t updates() const { return channels * states * steps; }
  index_t numbers() const { return channels * states; }  // inputs come in pieces
};

/// The children [first, first + count) of a stream, one for each replicate.
struct replicates {
  random_stream stream;
  index_t first = 0, count = 0;
};

/// Sums the samples of replicates. The normal numbers are those of the processor and the states
/// come from the library's scan, so a sample differs by rounding alone; the order of a sum depends
/// on nothing but its count and the device.
/// Shapes    decay, eigenvalue, none (replicate, eigenvalues() of the system).
class simulator {
 public:
  virtual ~simulator() = default;
  virtual std::string name() const = 0;

  using numbers = tensor_view<double const, 2>;
  virtual double sum(linear_system const&, replicates const&, numbers decay) = 0;
  virtual double sum(mamba1_channel const&, replicates const&, numbers eigenvalue) = 0;
  virtual double sum(mamba2_head const&, replicates const&, numbers none) = 0;
  virtual double sum(layer_system const&, replicates const&, numbers none) = 0;
};

/// A sampler that says which system it runs, and draws the eigenvalues of a replicate.
template <class Sampler>
concept system_sampler = requires(Sampler const& sampler, random_stream const& replicate,
                                  std::span<double> to) {
  { sampler.system().updates() } -> std::same_as<index_t>;
  sampler.draw_eigenvalues(replicate, to);
};

/// The GPU of this machine.
/// Throws    std::runtime_error where none answers, or where the program was built without CUDA.
std::unique_ptr<simulator> gpu_simulator();

}  // namespace ssm::theory
