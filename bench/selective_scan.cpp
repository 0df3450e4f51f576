// SPDX-License-Identifier: Apache-2.0
// Mamba's operator with bias, softplus, D and gate, beside what bounds it, the same with Eigen, and
// as it is commonly written.
#include "ssm/selective_scan.hpp"

#include "support/operator_rows.hpp"
#include "support/selective_baselines.hpp"

namespace {

using namespace ssm;
using namespace ssm::bench;

template <class T>
selective_scan_inputs<T> inputs_of(selective_problem<T> const& p) {
  return {.x = p.x,
          .step_size = p.step_size,
          .eigenvalue = p.A,
          .B = p.B.view().broadcast(2, 1),
          .C = p.C.view().broadcast(2, 1),
          .D = p.D,
          .gate = p.gate,
          .step_bias = p.step_bias,
          .sequence = p.sequence};
}

struct selective_scan_operator {
  static constexpr char const* name = "selective_scan";
  static constexpr index_t head_channels = 1;

  /// For each state an exponential, the drive, the state and the output; 27 multiply-adds more for
  /// softplus, the gate, D and the bias.
  static work needed(double states) {
    return {.multiply_adds = 3 * states + 27, .exponentials = states};
  }

  template <class Policy, class T>
  static void forward(Policy const& policy, selective_problem<T>& p) {
    selective_scan(policy, inputs_of(p), p.carry.view(), p.y.view());
  }

  template <class T>
  struct backward {
    using real = accumulator_t<T>;

    explicit backward(selective_problem<T>& problem)
        : p(problem),
          gradient(p),
          initial(p.carry.extents()),
          checkpoints({p.x.extent(0),
                       (p.x.extent(1) + selective_scan_block - 1) / selective_scan_block,
                       p.B.extent(2), p.x.extent(2)}) {}

    std::int64_t held() const {
      return static_cast<std::int64_t>(sizeof(real)) * checkpoints.size();
    }

    void run(parallel const& policy, tensor<T, 3> const& y_cotangent) {
      p.clear_carry();
      selective_scan(policy, inputs_of(p), p.carry.view(), p.y.view(), checkpoints.view());
      auto& g = gradient;
      std::fill(g.carry.begin(), g.carry.end(), real(0));
      selective_scan_gradients<T> const to{.x = g.x,
                                           .step_size = g.step_size,
                                           .eigenvalue = g.A,
                                           .B = g.B.view().broadcast(2, 1),
                                           .C = g.C.view().broadcast(2, 1),
                                           .D = g.D,
                                           .gate = g.gate,
                                           .step_bias = g.step_bias};
      selective_scan_vjp(policy, inputs_of(p), initial.const_view(), y_cotangent.view(),
                         g.carry.view(), to, checkpoints.const_view());
    }

    selective_problem<T>& p;
    selective_gradient<T> gradient;
    tensor<real, 3> initial;
    tensor<real, 4> checkpoints;  ///< what forward leaves for backward
  };

  static void eigen(selective_problem<float>& p) { eigen_selective_scan(p); }
  static void direct(selective_problem<float>& p) { direct_selective_scan(p); }
};

}  // namespace

int main(int count, char** arguments) {
  return run_program(count, arguments, [](program& all) {
    run_operator<selective_scan_operator>(all, {1536, 5120}, 16);
  });
}
