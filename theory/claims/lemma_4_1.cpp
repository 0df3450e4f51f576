// SPDX-License-Identifier: Apache-2.0
// Claim: ‖B‖₂ = σ_B and |x_i| ≤ σ_x imply ‖Bx‖₂ ≤ σ_B σ_x √d, d the length of x.
// Source: arXiv:2509.19633, Lemma 4.1 and Theorem A.1.

#include <Eigen/Dense>
#include <cmath>
#include <string>

#include "claims/all.hpp"
#include "experiments.hpp"
#include "ssm/readout.hpp"
#include "ssm/recurrence.hpp"
#include "ssm/scan.hpp"
#include "ssm/tensor.hpp"
#include "text.hpp"

namespace ssm::theory {
namespace {

Eigen::MatrixXd gaussian(random_stream const& stream, index_t rows, index_t columns) {
  Eigen::MatrixXd B(rows, columns);
  stream.fill_normal({B.data(), static_cast<std::size_t>(B.size())});
  return B;
}

double operator_norm(Eigen::MatrixXd const& B) {
  return Eigen::JacobiSVD<Eigen::MatrixXd>(B).singularValues()(0);
}

/// ‖Bx‖/(‖B‖₂ √d) for a random B and x uniform in the cube [-1, 1]^d.
struct ratio_to_bound {
  index_t rows, columns;

  double operator()(random_stream const& stream) const {
    Eigen::MatrixXd const B = gaussian(stream.child(0), rows, columns);
    Eigen::VectorXd x(columns);
    stream.child(1).fill_uniform({x.data(), static_cast<std::size_t>(columns)});
    x = 2 * x.array() - 1;
    return (B * x).norm() / (operator_norm(B) * std::sqrt(static_cast<double>(columns)));
  }
};

/// The same where it is attained: x is a vertex of the cube along the top right singular vector.
struct ratio_where_attained {
  index_t rows, columns;

  double operator()(random_stream const& stream) const {
    Eigen::VectorXd x(columns), u(rows);
    stream.child(0).fill_sign({x.data(), static_cast<std::size_t>(columns)});
    stream.child(1).fill_normal({u.data(), static_cast<std::size_t>(rows)});
    double const root = std::sqrt(static_cast<double>(columns));
    // B = u v^T + a smaller part orthogonal to v on the right and to u on the left.
    Eigen::VectorXd const v = x / root;
    u.normalize();
    Eigen::MatrixXd rest = gaussian(stream.child(2), rows, columns);
    rest -= u * (u.transpose() * rest);
    rest -= (rest * v) * v.transpose();
    rest /= 2 * std::max(1e-300, operator_norm(rest));
    Eigen::MatrixXd const B = u * v.transpose() + rest;
    return (B * x).norm() / (operator_norm(B) * root);
  }
};

/// ‖h_t‖ over the bound that the lemma implies for the state,
///   λ^t ‖h_0‖ + σ_B σ_x √d (1 - λ^t)/(1 - λ),  λ = max λ_i,
/// for the worst input of the drive: B x_t = σ_B σ_x √d u with u along h_0, all eigenvalues λ in
/// half of the replicates and U[0, λ] in the others.
struct ratio_of_state {
  index_t states, steps;
  double decay;

  double operator()(random_stream const& stream) const {
    bool const equal = stream.child(0).sign(0) > 0;
    tensor<double, 1> eigenvalues({states});
    tensor<double, 1> drive({states});
    tensor<double, 3> h({1, 1, states});
    stream.child(1).fill_normal({drive.data(), static_cast<std::size_t>(states)});
    double norm = 0;
    for (double const u : drive) norm += u * u;
    norm = std::sqrt(norm);
    double const bound_on_drive = 1;  // σ_B σ_x √d
    double const start = 3;           // ‖h_0‖
    for (index_t i = 0; i < states; ++i) {
      drive(i) *= bound_on_drive / norm;
      h(0, 0, i) = start * drive(i);
      eigenvalues(i) = equal || i == 0 ? decay : decay * stream.child(2).uniform(i);
    }
    index_array<4> const extents{1, steps, 1, states};
    linear_recurrence<double> const recurrence{.decay = {eigenvalues.data(), extents, {0, 0, 0, 1}},
                                               .drive = {drive.data(), extents, {0, 0, 0, 1}}};
    scan(sequential{}, recurrence, discard{}, h.view());
    double energy = 0;
    for (double const v : h) energy += v * v;
    double const faded = std::pow(decay, static_cast<double>(steps));
    return std::sqrt(energy) / (faded * start + bound_on_drive * (1 - faded) / (1 - decay));
  }
};

}  // namespace

claim lemma_4_1() {
  claim c{.id = "lemma-4.1",
          .place = "Lemma 4.1; Theorem A.1",
          .statement = "An input bounded by σx in each entry enters the state with a bounded norm.",
          .printed = "‖Bx‖₂ ≤ σB σx √d   for ‖B‖₂ = σB, |x_i| ≤ σx",
          .exact = "the same, d the length of x",
          .remark =
              "True, and attained where x/σx is a ±1 vector along the top right singular vector "
              "of B. It is a worst case: the Gaussian inputs of Theorem 4.2 do not satisfy it, "
              "and the theorem does not use it. The state bound that it does imply, "
              "λ^t ‖h0‖ + σB σx √d (1-λ^t)/(1-λ), is tested as well.",
          .recorded = verdict::holds_as_bound,
          .experiments = {}};
  double const eps = std::numeric_limits<double>::epsilon();
  struct shape {
    index_t rows, columns;
  };
  shape const shapes[] = {{1, 7}, {16, 4}, {32, 32}};
  auto const plan_for = [&](shape const& of) {
    auto const rows = static_cast<double>(of.rows), d = static_cast<double>(of.columns);
    return bound_plan{.setting = "B " + std::to_string(of.rows) + "×" + std::to_string(of.columns),
                      .method = "",
                      .rounding = 8 * d * rows * eps,  // norms of n terms round by n·eps
                      .cost = 2e3 + 8 * rows * d * d,
                      .samples = 1000};
  };
  for (shape const& of : shapes) {
    bound_plan plan = plan_for(of);
    plan.setting += ", x in the cube";
    plan.method = "largest ‖Bx‖/bound; wrong: without √d";
    plan.alternative = 1 / std::sqrt(static_cast<double>(of.columns));
    c.experiments.push_back(bound_experiment(plan, ratio_to_bound{of.rows, of.columns}));
  }
  for (shape const& of : shapes) {
    bound_plan plan = plan_for(of);
    plan.setting += ", x along the top direction";
    plan.method = "largest ‖Bx‖/bound where attained";
    plan.alternative = 1 - wrong_by;
    c.experiments.push_back(bound_experiment(plan, ratio_where_attained{of.rows, of.columns}));
  }
  for (auto const& [decay, steps] : {std::pair{0.5, index_t{8}}, {0.99, index_t{512}}}) {
    c.experiments.push_back(bound_experiment(
        {.setting = "λ ≤ " + short_text(decay) + ", t = " + std::to_string(steps) + ", d = 16",
         .method = "largest ‖h_t‖/bound, recurrence",
         .alternative = 1 - wrong_by,
         .rounding = 4 * static_cast<double>(steps) * eps,
         .cost = 40.0 * static_cast<double>(steps),
         .samples = 1000},
        ratio_of_state{16, steps, decay}));
  }
  return c;
}

}  // namespace ssm::theory
