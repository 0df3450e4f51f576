// SPDX-License-Identifier: Apache-2.0
// Mamba-2's operator with bias, softplus, D and gate: 24 heads of 64 channels, 128 states, one
// group; beside what bounds it, the chunked matrix form with Eigen, and as it is commonly written.
#include "ssm/state_space_dual.hpp"

#include "support/dual_baselines.hpp"
#include "support/operator_rows.hpp"

namespace {

using namespace ssm;
using namespace ssm::bench;

constexpr index_t head_dim = 64;

/// (..., channel) as (..., head, head_dim).
template <class T>
auto by_head(T* data, index_array<3> const& e) {
  return tensor_view<T, 4>(data, {e[0], e[1], e[2] / head_dim, head_dim});
}

template <class T>
state_space_dual_inputs<T> inputs_of(selective_problem<T> const& p) {
  using real = accumulator_t<T>;
  return {.x = by_head(p.x.data(), p.x.extents()),
          .step_size = p.step_size,
          .eigenvalue = tensor_view<real const, 1>(p.A.data(), {p.heads}),
          .B = p.B.view().broadcast(2, 1),
          .C = p.C.view().broadcast(2, 1),
          .D = p.D.view().broadcast(1, head_dim),
          .gate = by_head(p.gate.data(), p.gate.extents()),
          .step_bias = p.step_bias,
          .sequence = p.sequence};
}

/// (batch, channel, state) as (batch, head, head_dim, state).
template <class T, int Rank>
auto state_by_head(tensor<T, Rank>& carry) {
  auto const& e = carry.extents();
  return tensor_view<T, 4>(carry.data(), {e[0], e[1] / head_dim, head_dim, e[2]});
}

struct state_space_dual_operator {
  static constexpr char const* name = "state_space_dual";
  static constexpr index_t head_channels = head_dim;

  /// For each state one to drive it and one to read it; 27 more for softplus, the gate, D, the
  /// bias.
  static work needed(double states) { return {.multiply_adds = 2 * states + 27}; }

  template <class Policy, class T>
  static void forward(Policy const& policy, selective_problem<T>& p) {
    state_space_dual(policy, inputs_of(p), state_by_head(p.carry),
                     by_head(p.y.data(), p.y.extents()));
  }

  template <class T>
  struct backward {
    using real = accumulator_t<T>;

    explicit backward(selective_problem<T>& problem)
        : p(problem),
          gradient(p),
          initial(p.carry.extents()),
          ungated(p.x.extents()),
          states(of_states()) {}

    index_array<5> of_states() const {
      index_t const length = p.x.extent(1);
      return {p.x.extent(0), (length + state_space_dual_block - 1) / state_space_dual_block,
              p.heads, head_dim, p.carry.extent(2)};
    }
    std::int64_t held() const {
      return static_cast<std::int64_t>(sizeof(real)) * (ungated.size() + states.size());
    }

    void run(parallel const& policy, tensor<T, 3> const& y_cotangent) {
      state_space_dual_saved<T> const saved{.states = channels_innermost(states.view()),
                                            .ungated = by_head(ungated.data(), ungated.extents())};
      p.clear_carry();
      state_space_dual(policy, inputs_of(p), state_by_head(p.carry),
                       by_head(p.y.data(), p.y.extents()), saved);
      auto& g = gradient;
      std::fill(g.carry.begin(), g.carry.end(), real(0));
      state_space_dual_vjp(policy, inputs_of(p), state_by_head(initial),
                           by_head(y_cotangent.data(), y_cotangent.extents()),
                           state_by_head(g.carry),
                           {.x = by_head(g.x.data(), g.x.extents()),
                            .step_size = g.step_size,
                            .eigenvalue = tensor_view<real, 1>(g.A.data(), {p.heads}),
                            .B = g.B.view().broadcast(2, 1),
                            .C = g.C.view().broadcast(2, 1),
                            .D = g.D.view().broadcast(1, head_dim),
                            .gate = by_head(g.gate.data(), g.gate.extents()),
                            .step_bias = g.step_bias},
                           saved);
    }

    selective_problem<T>& p;
    selective_gradient<T> gradient;
    tensor<real, 3> initial, ungated;
    tensor<real, 5> states;
  };

  static void eigen(selective_problem<float>& p) { eigen_state_space_dual(p); }
  static void direct(selective_problem<float>& p) { direct_state_space_dual(p); }
};

}  // namespace

int main(int count, char** arguments) {
  return run_program(count, arguments, [](program& all) {
    run_operator<state_space_dual_operator>(all, {1536}, 128);
  });
}
