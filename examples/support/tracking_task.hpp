// SPDX-License-Identifier: Apache-2.0
// tracking_task.hpp: a task of long memory, and a small selective model that learns it on sequences
// that are too short.
#pragma once

#include <Eigen/Dense>
#include <cmath>
#include <cstdint>
#include <ssm/ssm.hpp>
#include <vector>

namespace tracking {

using namespace ssm;

/// Report the last value that was flagged. Flags come every `gap` steps on average and carry ±1;
/// all other values are noise.
struct example {
  tensor<double, 2> value;  ///< (1, time)
  tensor<double, 2> flag;   ///< (1, time), 0 or 1
  double answer = 1;        ///< ±1
};

inline void add_to(fingerprint& hash, example const& e) {
  add_to(hash, e.value);
  add_to(hash, e.flag);
}

inline constexpr double noise = 0.5;

inline std::vector<example> examples(index_t count, index_t length, double gap,
                                     random_stream const& stream) {
  std::vector<example> all;
  for (index_t i = 0; i < count; ++i) {
    random_stream const one = stream.child(i);
    example e{tensor<double, 2>({1, length}), tensor<double, 2>({1, length})};
    for (index_t t = 0; t < length; ++t) {
      bool const is_flagged = t == 0 || one.child(0).uniform(t) < 1 / gap;
      e.flag(0, t) = is_flagged ? 1 : 0;
      double const sign = one.child(1).sign(t);
      e.value(0, t) = (is_flagged ? sign : 0) + noise * one.child(2).normal(t);
      if (is_flagged) e.answer = sign;
    }
    all.push_back(std::move(e));
  }
  return all;
}

/// One layer of Mamba's operator, whose channels read the same input at different step sizes, and a
/// logistic readout of its last output: P(answer = 1) = σ(Σ weight_c y_c).
struct tracker {
  tensor<double, 2> eigenvalue;  ///< (channel, state)
  tensor<double, 1> step_bias;   ///< (channel): a flag adds flag_step to it
  tensor<double, 1> ones;        ///< B and C of all states
  tensor<double, 1> weight;      ///< (channel)

  static constexpr double flag_step = 8;

  selective_scan_inputs<double> inputs(example const& e, tensor<double, 2> const& push,
                                       scaling_factors<double> const& factors) const {
    index_t const channels = eigenvalue.extent(0), length = e.value.extent(1);
    auto const shared = ones.const_view().broadcast(0, 1).broadcast(0, length).broadcast(0, 1);
    return {.x = e.value.const_view().broadcast(2, channels),
            .step_size = push.const_view().broadcast(2, channels),
            .eigenvalue = eigenvalue,
            .B = shared,
            .C = shared,
            .step_bias = step_bias,
            .step_rule = {.softplus = true},
            .scaling = factors.scaling(0)};
  }

  static tensor<double, 2> push_of(example const& e) {
    tensor<double, 2> push = e.flag;
    for (double& p : push) p *= flag_step;
    return push;
  }

  /// The outputs of all channels after the last step.
  std::vector<double> outputs(example const& e, scaling_factors<double> const& factors) const {
    index_t const channels = eigenvalue.extent(0), length = e.value.extent(1);
    tensor<double, 3> carry({1, channels, eigenvalue.extent(1)}), y({1, length, channels});
    auto const push = push_of(e);
    selective_scan(parallel{.threads = 1}, inputs(e, push, factors), carry, y);
    std::vector<double> last;
    for (index_t c = 0; c < channels; ++c) last.push_back(y(0, length - 1, c));
    return last;
  }
};

inline void add_to(fingerprint& hash, tracker const& m) {
  add_to(hash, m.eigenvalue);
  add_to(hash, m.step_bias);
  add_to(hash, m.weight);
}

inline scaling_factors<double> unscaled(tracker const& m, scaling_kind kind, granularity each) {
  return {kind, each, {1, m.eigenvalue.extent(0), m.eigenvalue.extent(1)}};
}

inline double log_odds(tracker const& m, std::vector<double> const& outputs) {
  double z = 0;
  for (std::size_t c = 0; c < outputs.size(); ++c) {
    z += m.weight(static_cast<index_t>(c)) * outputs[c];
  }
  return z;
}

/// Negative log likelihood of the answer, in nats.
inline double loss(tracker const& m, scaling_factors<double> const& factors, example const& e) {
  return softplus(-e.answer * log_odds(m, m.outputs(e, factors)));
}

/// The same; adds its gradient with respect to the factors.
inline double loss_and_gradient(tracker const& m, scaling_factors<double> const& factors,
                                example const& e, std::span<double> gradient) {
  index_t const channels = m.eigenvalue.extent(0), length = e.value.extent(1);
  double const z = log_odds(m, m.outputs(e, factors));
  tensor<double, 3> const initial({1, channels, m.eigenvalue.extent(1)});
  tensor<double, 3> carry_cotangent(initial.extents()), y_cotangent({1, length, channels});
  for (index_t c = 0; c < channels; ++c) {
    y_cotangent(0, length - 1, c) = -e.answer * sigmoid(-e.answer * z) * m.weight(c);
  }
  auto const push = tracker::push_of(e);
  selective_scan_vjp(parallel{.threads = 1}, m.inputs(e, push, factors), initial, y_cotangent,
                     carry_cotangent, {.scaling = factors.gradient(0, gradient)});
  return softplus(-e.answer * z);
}

/// Step sizes from 0.01 to 0.3 between flags, S4D-real eigenvalues, and the readout of least
/// squares: log odds of two normal laws at ±1 whose variance is that of the residual.
inline tracker trained_on(std::vector<example> const& data, index_t channels, index_t states) {
  tracker m{tensor<double, 2>({channels, states}), tensor<double, 1>({channels}),
            tensor<double, 1>({states}, 1.0), tensor<double, 1>({channels})};
  for (index_t c = 0; c < channels; ++c) {
    double const share = static_cast<double>(c) / static_cast<double>(channels - 1);
    m.step_bias(c) = softplus_inverse(0.01 * std::pow(30.0, share));
    for (index_t n = 0; n < states; ++n) m.eigenvalue(c, n) = s4d_real<double>(n);
  }
  auto const rows = static_cast<Eigen::Index>(data.size());
  Eigen::MatrixXd outputs(rows, channels);
  Eigen::VectorXd answers(rows);
  auto const factors = unscaled(m, {.linear = true}, granularity::layer);
  for (Eigen::Index i = 0; i < rows; ++i) {
    auto const& e = data[static_cast<std::size_t>(i)];
    auto const last = m.outputs(e, factors);
    for (index_t c = 0; c < channels; ++c) outputs(i, c) = last[static_cast<std::size_t>(c)];
    answers(i) = e.answer;
  }
  Eigen::MatrixXd const gram =
      outputs.transpose() * outputs + 1e-6 * Eigen::MatrixXd::Identity(channels, channels) *
                                          (outputs.transpose() * outputs).trace();
  Eigen::VectorXd const weights = gram.ldlt().solve(outputs.transpose() * answers);
  double const variance = (answers - outputs * weights).squaredNorm() / static_cast<double>(rows);
  for (index_t c = 0; c < channels; ++c) m.weight(c) = 2 * weights(c) / variance;
  return m;
}

}  // namespace tracking
