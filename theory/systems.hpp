// SPDX-License-Identifier: Apache-2.0
// systems.hpp: the random systems of the paper, simulated by the library's own scan, and the
// estimators of their state energy with less variance that come beside the simulation.
#pragma once

#include <Eigen/Core>
#include <span>
#include <vector>

#include "closed_forms/paper.hpp"
#include "simulator.hpp"
#include "ssm/diagonal.hpp"
#include "ssm/random.hpp"
#include "ssm/readout.hpp"
#include "ssm/scalar_identity.hpp"
#include "ssm/scan.hpp"
#include "ssm/spectrum.hpp"

namespace ssm::theory {

// Rough core-nanoseconds of the pieces, for planning and progress only.
inline constexpr double normal_cost = 16;
inline constexpr double product_cost = 0.4;
inline constexpr double scan_cost = 1.5;

/// One sample of ‖h_t‖²/W, W = E‖Bx‖² = d·m: h_t = A h_{t-1} + B x_t with eigenvalues from a law,
/// independent N(0, 1) entries of B, and white N(0, I) inputs. (The common variance of B cancels.)
/// A law has pole<double> sample(double u), a decay for u uniform in (0, 1).
template <class Law>
class energy_of_recurrence {
 public:
  energy_of_recurrence(Law const& law, dimensions const& size, index_t steps)
      : law_{law},
        size_{size},
        steps_{steps},
        decay_({size.states}),
        carry_({1, 1, size.states}),
        input_(steps, size.inputs),
        B_(size.states, size.inputs),
        drive_(steps, size.states) {}

  double cost() const {
    auto const d = static_cast<double>(size_.states), m = static_cast<double>(size_.inputs);
    auto const t = static_cast<double>(steps_);
    return normal_cost * (m * t + m * d) + product_cost * m * d * t + scan_cost * d * t;
  }

  linear_system system() const { return {size_.states, size_.inputs, steps_}; }

  void draw_eigenvalues(random_stream const& stream, std::span<double> to) const {
    auto const uniform = stream.child(0);
    for (std::size_t i = 0; i < to.size(); ++i) {
      to[i] = law_.sample(uniform.uniform(static_cast<index_t>(i))).value;
    }
  }

  double operator()(random_stream const& stream) {
    run(stream);
    double energy = 0;
    for (double const h : carry_) energy += h * h;
    return energy / static_cast<double>(size_.states * size_.inputs);
  }

 protected:
  using row_major = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  void run(random_stream const& stream) {
    draw_eigenvalues(stream, {decay_.data(), static_cast<std::size_t>(size_.states)});
    stream.child(1).fill_normal({B_.data(), static_cast<std::size_t>(B_.size())});
    stream.child(2).fill_normal({input_.data(), static_cast<std::size_t>(input_.size())});
    drive_.noalias() = input_ * B_.transpose();

    index_array<4> const extents{1, steps_, 1, size_.states};
    linear_recurrence<double> const recurrence{
        .decay = {decay_.data(), extents, {0, 0, 0, 1}},  // constant in time
        .drive = {drive_.data(), extents}};
    std::fill(carry_.begin(), carry_.end(), 0.0);
    scan(sequential{}, recurrence, discard{}, carry_.view());
  }

  Law law_;
  dimensions size_;
  index_t steps_;
  tensor<double, 1> decay_;
  tensor<double, 3> carry_;
  row_major input_;  // (time, input)
  row_major B_;      // (state, input)
  row_major drive_;  // (time, state)
};

/// One sample of Σ_i h_i²/(|b_i|² g_t(λ_i))/d from the same simulation: each term is a chi-square
/// with one degree of freedom whatever λ and t, so no tail of the spectrum gets in the way.
/// With one state the variance is exactly 2.
template <class Law>
class normalized_energy_of_recurrence : public energy_of_recurrence<Law> {
 public:
  using energy_of_recurrence<Law>::energy_of_recurrence;

  linear_system system() const {
    return {this->size_.states, this->size_.inputs, this->steps_, true};
  }

  double operator()(random_stream const& stream) {
    this->run(stream);
    double sum = 0;
    for (index_t i = 0; i < this->size_.states; ++i) {
      auto const p = this->law_.sample(stream.child(0).uniform(i));
      double const expected =
          this->B_.row(i).squaredNorm() * state_gain(p, static_cast<double>(this->steps_));
      sum += this->carry_(0, 0, i) * this->carry_(0, 0, i) / expected;
    }
    return sum / static_cast<double>(this->size_.states);
  }
};

/// The expectation of ‖h_t‖²/W over the inputs: Σ_i |b_i|² g_t(λ_i)/(d·m), given A and B.
template <class Law>
struct energy_given_system {
  Law law;
  dimensions size;
  index_t steps;

  double cost() const {
    return static_cast<double>(size.states) * (60 + normal_cost * static_cast<double>(size.inputs));
  }

  double operator()(random_stream const& stream) const {
    auto const eigenvalues = stream.child(0), entries = stream.child(1);
    double sum = 0;
    for (index_t i = 0; i < size.states; ++i) {
      double row = 0;
      for (index_t j = 0; j < size.inputs; ++j) {
        double const b = entries.normal(i * size.inputs + j);
        row += b * b;
      }
      sum += row * state_gain(law.sample(eigenvalues.uniform(i)), static_cast<double>(steps));
    }
    return sum / static_cast<double>(size.states * size.inputs);
  }
};

/// One sample of ‖h_t‖²/(states·E x²) of one Mamba-1 channel: h_n ← e^{-α_n Δ} h_n + Δ B_n x_t
/// with e^{-α_n Δ} from a law, B_n ~ N(0, 1) fixed in time and white x. Runs diagonal<mamba_hold>.
template <class Law>
class energy_of_mamba1 {
 public:
  energy_of_mamba1(Law const& law, double step_size, index_t states, index_t steps)
      : law_{law},
        step_size_{step_size},
        eigenvalue_({1, states}),
        B_({states}),
        x_({1, steps, 1}),
        carry_({1, 1, states}) {}

  double cost() const {
    return normal_cost * static_cast<double>(x_.size()) +
           12 * static_cast<double>(x_.size() * B_.size());  // one exp a step and state
  }

  mamba1_channel system() const { return {step_size_, B_.size(), x_.size()}; }

  void draw_eigenvalues(random_stream const& stream, std::span<double> to) const {
    auto const uniform = stream.child(0);
    for (std::size_t n = 0; n < to.size(); ++n) {
      to[n] = log_decay(law_.sample(uniform.uniform(static_cast<index_t>(n)))) / step_size_;
    }
  }

  double operator()(random_stream const& stream) {
    index_t const steps = x_.size(), states = B_.size();
    draw_eigenvalues(stream, {eigenvalue_.data(), static_cast<std::size_t>(states)});
    stream.child(1).fill_normal({B_.data(), static_cast<std::size_t>(states)});
    stream.child(2).fill_normal({x_.data(), static_cast<std::size_t>(steps)});
    diagonal<mamba_hold, double> const recurrence{
        .step_size = {&step_size_, {1, steps, 1}, {0, 0, 0}},
        .eigenvalue = eigenvalue_,
        .B = {B_.data(), {1, steps, 1, states}, {0, 0, 0, 1}},
        .x = x_};
    std::fill(carry_.begin(), carry_.end(), 0.0);
    scan(sequential{}, recurrence, discard{}, carry_.view());
    double energy = 0;
    for (double const h : carry_) energy += h * h;
    return energy / static_cast<double>(states);
  }

 private:
  Law law_;
  double step_size_;
  tensor<double, 2> eigenvalue_;
  tensor<double, 1> B_;
  tensor<double, 3> x_;
  tensor<double, 3> carry_;
};

/// One sample of ‖h_t‖²/(states·channels·E x²) of one Mamba-2 head, whose states all have the
/// decay λ: B ~ N(0, 1) fixed in time, white x. Runs scalar_identity<mamba_hold>.
class energy_of_mamba2 {
 public:
  energy_of_mamba2(pole<double> const& decay, double step_size, index_t channels, index_t states,
                   index_t steps)
      : step_size_{step_size},
        eigenvalue_{log_decay(decay) / step_size},
        B_({states}),
        x_({1, steps, channels}),
        carry_({1, channels, states}) {}

  double cost() const {
    return (normal_cost + scan_cost * static_cast<double>(B_.size()) + 15) *
           static_cast<double>(x_.size());
  }

  mamba2_head system() const {
    return {step_size_, eigenvalue_, x_.extent(2), B_.size(), x_.extent(1)};
  }

  void draw_eigenvalues(random_stream const&, std::span<double>) const {}

  double operator()(random_stream const& stream) {
    index_t const states = B_.size(), steps = x_.extent(1);
    stream.child(1).fill_normal({B_.data(), static_cast<std::size_t>(states)});
    stream.child(2).fill_normal({x_.data(), static_cast<std::size_t>(x_.size())});
    scalar_identity<mamba_hold, double> const recurrence{
        .step_size = {&step_size_, {1, steps, 1}, {0, 0, 0}},
        .eigenvalue = {&eigenvalue_, {1}},
        .B = {B_.data(), {1, steps, 1, states}, {0, 0, 0, 1}},
        .x = x_};
    std::fill(carry_.begin(), carry_.end(), 0.0);
    scan(sequential{}, recurrence, discard{}, carry_.view());
    double energy = 0;
    for (double const h : carry_) energy += h * h;
    return energy / static_cast<double>(carry_.size());
  }

 private:
  double step_size_;
  double eigenvalue_;
  tensor<double, 1> B_;
  tensor<double, 3> x_;
  tensor<double, 3> carry_;
};

}  // namespace ssm::theory
