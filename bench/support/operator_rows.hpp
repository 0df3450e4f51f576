// SPDX-License-Identifier: Apache-2.0
// operator_rows.hpp: the rows of a fused operator, the same for each of them.
//
// An operator is a struct with
//   name             "selective_scan"
//   head_channels    channels of a head
//   multiply_adds    of one token of one channel, by number of states
//   forward(policy, problem)          from problem.carry, which it leaves changed, to problem.y
//   backward<T>(problem)              an object with room for a gradient; run(policy, y) is forward
//                                     and backward from zeros, held() the bytes kept between them
//   eigen(problem), direct(problem)   the same by others
#pragma once

#include <string>
#include <vector>

#include "ssm/execution.hpp"
#include "support/program.hpp"
#include "support/selective_gradient.hpp"
#include "support/selective_problem.hpp"

namespace ssm::bench {

template <class Operator>
struct operator_rows {
  group& rows;
  problem_size size;

  template <class T>
  using shared = lazy<selective_problem<T>>;

  template <class T>
  shared<T> problem() const {
    return shared<T>(
        [s = size] { return selective_problem<T>(s, options::all, Operator::head_channels); });
  }

  /// One thread and all; the library's choice of instructions.
  static std::vector<parallel> usual_policies() {
    std::vector<parallel> all = {{.threads = 1}};
    if (all_threads() > 1) all.push_back({.threads = all_threads()});
    return all;
  }

  /// x, step_size, gate and y are read and written once.
  template <class T>
  row named(parallel const& policy, std::string const& suffix = "") const {
    std::string const name = Operator::name;
    std::string const set =
        policy.instructions == instruction_set::widest ? "" : ":" + name_of(policy.instructions);
    double const bytes = (3 + 1.0 / double(Operator::head_channels)) * sizeof(T);
    row what{.operation = name + suffix,
             .policy = "parallel:" + std::to_string(policy.threads) + set,
             .scalar = sizeof(T) == 2 ? "bf16" : "f32",
             .size = size,
             .with = {.threads = policy.threads, .instructions = policy.instructions},
             .needed = Operator::needed(double(size.states))};
    what.needed.bytes = bytes;
    what.relative_to = name + "/" + (suffix.empty() ? "eigen" : what.policy);
    return what;
  }

  /// From a state of zeros.
  template <class T, class Policy>
  void add_forward(row const& what, shared<T> const& problem, Policy const& policy) {
    rows.add(what, [=] {
      problem->start_anew();
      return task{[=, &p = *problem] {
                    p.clear_carry();
                    Operator::forward(policy, p);
                  },
                  [=] { return error_of(*problem); }};
    });
  }

  template <class T>
  void add_usual(shared<T> const& problem, std::string const& suffix = "") {
    for (parallel const& p : usual_policies()) add_forward(named<T>(p, suffix), problem, p);
  }

  /// What takes as long by token at any length, so that one size is enough: what others do, the
  /// slow twin, narrower instructions.
  void add_references(shared<float> const& problem) {
    auto what = named<float>({.threads = 1});
    auto const add = [&](std::string const& policy, void (*run)(selective_problem<float>&)) {
      what.policy = policy;
      rows.add(what, [=] {
        problem->start_anew();
        return task{[=, &p = *problem] { run(p); }, [=] { return error_of(*problem); }};
      });
    };
    add("eigen", Operator::eigen);
    add("direct", Operator::direct);
    what.policy = "sequential";
    add_forward(what, problem, sequential{});
    for (auto const set : {instruction_set::baseline, instruction_set::avx2}) {
      if (set >= ssm::detail::machine_instruction_set()) continue;
      parallel const policy{.threads = 1, .instructions = set};
      add_forward(named<float>(policy), problem, policy);
    }
  }

  void add_forward_rows(bool with_references) {
    auto const problem = this->problem<float>();
    for (parallel const& policy : usual_policies()) rows.add_floor(named<float>(policy));
    if (with_references) add_references(problem);
    add_usual(problem);
  }

  void add_bfloat16_rows() { add_usual(problem<bfloat16>()); }

  /// Sequences of 1 to 511 steps side by side.
  void add_packed_rows() {
    add_usual(shared<float>([s = size] {
                selective_problem<float> p(s, options::all, Operator::head_channels);
                p.sequence = tensor<std::int32_t, 2>({s.batch, s.length});
                random_stream const random{8};
                for (index_t b = 0; b < s.batch; ++b) {
                  std::int32_t index = 0;
                  for (index_t t = 0, next = 0; t < s.length; ++t) {
                    if (t == next) {
                      ++index;
                      next += 1 + static_cast<index_t>(511 * random.uniform(b * s.length + t));
                    }
                    p.sequence(b, t) = index;
                  }
                }
                return p;
              }),
              ":packed");
  }

  /// One token after another with the state in the cache. Checked at the first, from zeros.
  void add_step_rows() {
    auto const problem = this->problem<float>();
    for (parallel const& policy : usual_policies()) {
      rows.add(named<float>(policy, ":step"), [=] {
        problem->start_anew();
        return task{[=, &p = *problem] { Operator::forward(policy, p); },
                    [=] { return error_of(*problem); }};
      });
    }
  }

  /// Forward and backward, relative to forward alone, with all gradients. The floor is the
  /// forward's.
  void add_gradient_rows() {
    auto const problem = this->problem<float>();
    for (parallel const& policy : usual_policies()) {
      rows.add(named<float>(policy, ":gradient"), [=] {
        using backward = typename Operator::template backward<float>;
        auto& p = *problem;
        p.start_anew();
        Operator::forward(policy, p);
        auto const cotangent = std::make_shared<tensor<float, 3> const>(p.y);
        auto const room = std::make_shared<backward>(p);
        return task{[=] { room->run(policy, *cotangent); },
                    [=] { return gradient_error(*problem, room->gradient, *cotangent); },
                    room->held()};
      });
    }
  }
};

/// The groups of an operator's program. The size of a model, then what others there are.
template <class Operator>
void run_operator(program& all, std::vector<index_t> const& channels, index_t states) {
  auto const at = [&](index_t length, index_t width, auto const& add) {
    all.run([&](group& rows) { add(operator_rows<Operator>{rows, {1, length, width, states}}); });
  };
  for (index_t const width : channels) {
    for (index_t const length : {2048, 16384, 65536}) {
      bool const is_first = length == 2048 && width == channels.front();
      if (length * width > 16384 * channels.front() && !all.is_full()) continue;
      at(length, width, [=](auto rows) { rows.add_forward_rows(is_first); });
    }
  }
  for (index_t const width : channels) {
    at(1, width, [](auto rows) { rows.add_step_rows(); });
  }
  index_t const width = channels.front();
  at(2048, width, [](auto rows) { rows.add_gradient_rows(); });
  at(2048, width, [](auto rows) { rows.add_packed_rows(); });
  at(2048, width, [](auto rows) { rows.add_bfloat16_rows(); });
}

}  // namespace ssm::bench
