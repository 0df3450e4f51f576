// SPDX-License-Identifier: Apache-2.0
// The generic scan, forward and gradient: the readable engine, beside what bounds it and the same
// recurrence by Eigen. The fused operators have programs of their own.
#include "ssm/scan.hpp"

#include <string>

#include "ssm/diagonal.hpp"
#include "ssm/readout.hpp"
#include "support/program.hpp"
#include "support/selective_baselines.hpp"
#include "support/selective_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::bench;

template <class T>
struct scan_problem : selective_problem<T> {
  explicit scan_problem(problem_size const& s)
      : selective_problem<T>(s, options::none), carry({s.batch, s.channels, s.states}) {}

  diagonal<mamba_hold, T> recurrence() const {
    return {.step_size = this->step_size,
            .eigenvalue = this->A,
            .B = this->B.view().broadcast(2, this->x.extent(2)),
            .x = this->x};
  }
  contract<T> readout() { return {this->C.const_view().broadcast(2, this->x.extent(2)), this->y}; }

  tensor<T, 3> carry;
};

template <class T>
void add_rows(group& rows, std::string const& scalar, problem_size const& size) {
  lazy<scan_problem<T>> const problem([=] { return scan_problem<T>(size); });
  // For each state an exponential (a product and a polynomial of degree 5, in double 12), the
  // drive, the state and the output; x·step_size.
  double const states = static_cast<double>(size.states), powers = sizeof(T) == 8 ? 13 : 6;
  work const needed{.multiply_adds = states * (powers + 3) + 1, .bytes = 3 * sizeof(T)};
  auto const named = [&](std::string const& operation, std::string const& policy, int threads) {
    return row{.operation = operation,
               .policy = policy,
               .scalar = scalar,
               .size = size,
               .with = {.threads = threads, .scalar_bytes = sizeof(T)},
               .needed = needed,
               .relative_to = "scan/eigen"};
  };
  auto const error = [=] { return error_of(*problem); };

  rows.add_floor(named("scan", "", 1));
  if (size.channels % 64 == 0) {
    rows.add(named("scan", "eigen", 1), [=] {
      return task{[&p = *problem] { eigen_selective_scan(p); }, error};
    });
  }
  auto const add_policy = [&](auto policy, std::string const& name, int threads) {
    rows.add(named("scan", name, threads), [=] {
      return task{[=, &p = *problem] {
                    std::fill(p.carry.begin(), p.carry.end(), T(0));
                    scan(policy, p.recurrence(), p.readout(), p.carry);
                  },
                  error};
    });
  };
  add_policy(sequential{}, "sequential", 1);
  add_policy(chunked{.length = 256}, "chunked:256", 1);
  add_policy(parallel{}, "parallel", all_threads());

  auto gradient = named("scan_vjp", "parallel", all_threads());
  gradient.relative_to = "scan/parallel";
  rows.add(gradient, [=] {
    auto& p = *problem;
    struct {
      tensor<T, 3> initial, cotangent, x;
      tensor<T, 2> A;
    } to{tensor<T, 3>(p.carry.extents()), tensor<T, 3>(p.carry.extents()),
         tensor<T, 3>(p.x.extents()), tensor<T, 2>(p.A.extents())};
    return task{[=, &p]() mutable {
                  std::fill(p.carry.begin(), p.carry.end(), T(0));
                  scan(parallel{}, p.recurrence(), p.readout(), p.carry);
                  scan_vjp(parallel{}, p.recurrence(),
                           contract_vjp<T>{.C = p.readout().C, .y_cotangent = p.y}, to.initial,
                           to.cotangent, {.eigenvalue = to.A, .x = to.x});
                },
                error};
  });
}

}  // namespace

int main(int count, char** arguments) {
  return run_program(count, arguments, [](program& all) {
    for (index_t const length : {512, 2048}) {  // many lanes: time is not cut
      all.run([=](group& rows) { add_rows<float>(rows, "f32", {1, length, 256, 16}); });
    }
    all.run([](group& rows) { add_rows<double>(rows, "f64", {1, 2048, 256, 16}); });
    all.run([](group& rows) { add_rows<double>(rows, "f64", {1, 65536, 1, 16}); });  // time is cut
  });
}
