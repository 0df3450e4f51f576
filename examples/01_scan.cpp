// SPDX-License-Identifier: Apache-2.0
// A linear recurrence by three policies, and in two calls instead of one. Prints
//   sequential  0.5 0.75 0.875 0.9375 0.96875 0.984375 0.992188 0.996094
//   chunked     0.5 0.75 0.875 0.9375 0.96875 0.984375 0.992188 0.996094
//   parallel    0.5 0.75 0.875 0.9375 0.96875 0.984375 0.992188 0.996094
//   in two      0.5 0.75 0.875 0.9375 0.96875 0.984375 0.992188 0.996094
#include <iostream>
#include <ssm/ssm.hpp>

using namespace ssm;

int main() {
  index_t const length = 8;
  tensor<double, 1> const half({1}, 0.5);
  tensor<double, 4> h({1, length, 1, 1});  // (batch, time, channel, state)

  // h_t = decay·h_{t-1} + drive, both constant: stride 0 broadcasts one number over all of time.
  tensor_view<double const, 4> const constant{half.data(), h.extents(), {0, 0, 0, 0}};
  linear_recurrence<double> const recurrence{.decay = constant, .drive = constant};

  auto const print = [&](char const* name) {
    std::cout << name;
    for (double const value : h) std::cout << ' ' << value;
    std::cout << '\n';
  };
  auto const run = [&](auto policy, char const* name) {
    tensor<double, 3> carry({1, 1, 1});  // the state before the first step, after it the last one
    scan(policy, recurrence, store_states<double>{h}, carry);
    print(name);
  };
  run(sequential{}, "sequential ");
  run(chunked{.length = 3}, "chunked    ");
  run(parallel{.threads = 2, .chunk = 3}, "parallel   ");

  // The carry makes prefill, chunks and single steps one and the same.
  tensor<double, 3> carry({1, 1, 1});
  for (auto const& [first, count] : {std::pair<index_t, index_t>{0, 5}, {5, 3}}) {
    linear_recurrence<double> const part{.decay = constant.slice(1, first, count),
                                         .drive = constant.slice(1, first, count)};
    scan(sequential{}, part, store_states<double>{h.view().slice(1, first, count)}, carry);
  }
  print("in two     ");
}
