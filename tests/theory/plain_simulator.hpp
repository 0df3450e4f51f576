// SPDX-License-Identifier: Apache-2.0
// plain_simulator.hpp: the systems of simulator.hpp as they are written there, number by number.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "simulator.hpp"

namespace ssm::theory {

/// Besides each sum, how far one by other means may be from it: with S the sum of the sizes of the
/// terms of a state h, both round h by k eps S and so h² by 2k eps S². Here k is 4 for each
/// operation that a term comes through (a step is an exponential, a product and a sum), sums of
/// energies included, and 16 for its two normal numbers.
class plain_simulator final : public simulator {
 public:
  double tolerance = 0;

  std::string name() const override { return "plain loops"; }

  double sum(linear_system const& s, replicates const& of, numbers decay) override {
    tolerance = 0;
    double sum = 0;
    for (index_t i = 0; i < of.count; ++i) {
      auto const B = of.stream.child(of.first + i).child(1);
      auto const x = of.stream.child(of.first + i).child(2);
      for (index_t n = 0; n < s.states; ++n) {
        state h;
        double row = 0, gain = 0;
        for (index_t j = 0; j < s.inputs; ++j) row += std::pow(B.normal(n * s.inputs + j), 2);
        for (index_t t = 0; t < s.steps; ++t) {
          h.fade(decay(i, n));
          for (index_t j = 0; j < s.inputs; ++j) {
            h.add(B.normal(n * s.inputs + j) * x.normal(t * s.inputs + j));
          }
          gain += std::pow(decay(i, n), 2.0 * static_cast<double>(t));
        }
        double const unit = static_cast<double>(s.states) *
                            (s.is_normalized ? row * gain : static_cast<double>(s.inputs));
        sum += note(h, s.steps + s.inputs + s.states * of.count, unit);
      }
    }
    return sum;
  }

  double sum(mamba1_channel const& s, replicates const& of, numbers eigenvalue) override {
    tolerance = 0;
    double sum = 0;
    for (index_t i = 0; i < of.count; ++i) {
      auto const B = of.stream.child(of.first + i).child(1);
      auto const x = of.stream.child(of.first + i).child(2);
      for (index_t n = 0; n < s.states; ++n) {
        state h;
        for (index_t t = 0; t < s.steps; ++t) {
          h.fade(std::exp(s.step_size * eigenvalue(i, n)));
          h.add(s.step_size * B.normal(n) * x.normal(t));
        }
        sum += note(h, s.steps + s.states * of.count, static_cast<double>(s.states));
      }
    }
    return sum;
  }

  double sum(mamba2_head const& s, replicates const& of, numbers) override {
    tolerance = 0;
    double sum = 0;
    for (index_t i = 0; i < of.count; ++i) {
      auto const B = of.stream.child(of.first + i).child(1);
      auto const x = of.stream.child(of.first + i).child(2);
      for (index_t c = 0; c < s.channels; ++c) {
        for (index_t n = 0; n < s.states; ++n) {
          state h;
          for (index_t t = 0; t < s.steps; ++t) {
            h.fade(std::exp(s.step_size * s.eigenvalue));
            h.add(s.step_size * B.normal(n) * x.normal(t * s.channels + c));
          }
          index_t const all = s.channels * s.states;
          sum += note(h, s.steps + all * of.count, static_cast<double>(all));
        }
      }
    }
    return sum;
  }

  double sum(layer_system const& s, replicates const& of, numbers) override {
    tolerance = 0;
    double sum = 0;
    index_t const rows = s.eigenvalue.extent(0), channels_of_row = s.channels / rows;
    index_t const states_of_column = s.states / s.eigenvalue.extent(1);
    for (index_t i = 0; i < of.count; ++i) {
      auto const x = of.stream.child(of.first + i).child(0);
      auto const B = of.stream.child(of.first + i).child(1);
      for (index_t c = 0; c < s.channels; ++c) {
        index_t const row = c / channels_of_row, group = row / (rows / s.groups);
        double const step = s.step_size(row);
        for (index_t n = 0; n < s.states; ++n) {
          state h;
          for (index_t t = 0; t < s.steps; ++t) {
            h.fade(std::exp(step * s.eigenvalue(row, n / states_of_column)));
            h.add(step * B.normal((t * s.groups + group) * s.states + n) *
                  x.normal(t * s.channels + c));
            sum += note(h, s.steps + s.steps * s.channels * s.states * of.count,
                        static_cast<double>(s.steps) * s.input_energy);
          }
        }
      }
    }
    return sum;
  }

 private:
  /// A state, and the sum of the sizes of its terms.
  struct state {
    double value = 0, size = 0;

    void fade(double decay) {
      value *= decay;
      size *= decay;
    }
    void add(double term) {
      value += term;
      size += std::abs(term);
    }
  };

  /// h²/unit, its error noted.
  double note(state const& h, index_t operations, double unit) {
    double const eps = std::numeric_limits<double>::epsilon();
    double const on_the_way = 4 * static_cast<double>(operations) + 16;
    tolerance += 2 * (2 * on_the_way * eps) * h.size * h.size / unit;  // theirs and ours
    return h.value * h.value / unit;
  }
};

}  // namespace ssm::theory
