// SPDX-License-Identifier: Apache-2.0
// The generic scan, forward and gradient: the readable engine, beside what bounds it and the same
// recurrence by Eigen. The fused operators have programs of their own.
#include "ssm/scan.hpp"

#include <string>

#include "ssm/diagonal.hpp"
#include "ssm/readout.hpp"
#include "support/program.hpp"
#include "support/selective_baselines.hpp"
#include "support/selective_gradient.hpp"
#include "support/selective_problem.hpp"

namespace {

using namespace ssm;
using namespace ssm::bench;

template <class T>
diagonal<mamba_hold, T> recurrence_of(selective_problem<T> const& p) {
  return {.step_size = p.step_size,
          .eigenvalue = p.A,
          .B = p.B.view().broadcast(2, p.x.extent(2)),
          .x = p.x};
}

template <class T>
contract<T> readout_of(selective_problem<T>& p) {
  return {p.C.const_view().broadcast(2, p.x.extent(2)), p.y};
}

template <class T>
void add_rows(group& rows, std::string const& scalar, problem_size const& size) {
  lazy<selective_problem<T>> const problem(
      [=] { return selective_problem<T>(size, options::none); });
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
      problem->start_anew();
      return task{[&p = *problem] { eigen_selective_scan(p); }, error};
    });
  }
  auto const add_policy = [&](auto policy, std::string const& name, int threads) {
    rows.add(named("scan", name, threads), [=] {
      problem->start_anew();
      return task{[=, &p = *problem] {
                    p.clear_carry();
                    scan(policy, recurrence_of(p), readout_of(p), p.carry);
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
    p.start_anew();
    auto const g = std::make_shared<selective_gradient<T>>(p);
    return task{[=, &p] {
                  p.clear_carry();
                  scan(parallel{}, recurrence_of(p), readout_of(p), p.carry);
                  std::fill(g->carry.begin(), g->carry.end(), T(0));
                  tensor<T, 3> const initial(p.carry.extents());
                  scan_vjp(parallel{}, recurrence_of(p),
                           contract_vjp<T>{.C = readout_of(p).C, .y_cotangent = p.y}, initial,
                           g->carry, {.eigenvalue = g->A, .x = g->x});
                },
                [=, &p] {
                  balance of_x;  // y is linear in x
                  of_x.add_products(p.x, g->x, 1);
                  of_x.add_products(p.y, p.y, -1);
                  return std::abs(of_x.sum) / of_x.size / rounding_of(p) + error_of(p);
                }};
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
