// SPDX-License-Identifier: Apache-2.0
// Mamba's recurrence from its inputs, and the gradient of a loss with respect to A. Prints
//   y          -0.0147321 -0.0173892 0.0598599 ...
//   loss       13.5275
//   dloss/dA   -0.0151427 by scan_vjp, -0.0151427 by a difference
#include <iostream>
#include <ssm/ssm.hpp>

using namespace ssm;

int main() {
  index_t const length = 64, channels = 4, states = 16;
  random_stream const random{1};
  tensor<double, 3> step_size({1, length, channels}), x({1, length, channels});
  tensor<double, 3> B({1, length, states}), C({1, length, states});
  tensor<double, 2> A({channels, states});
  random.child(0).fill_normal({x.data(), static_cast<std::size_t>(x.size())});
  random.child(1).fill_normal({B.data(), static_cast<std::size_t>(B.size())});
  random.child(2).fill_normal({C.data(), static_cast<std::size_t>(C.size())});
  random.child(3).fill_normal({step_size.data(), static_cast<std::size_t>(step_size.size())});
  for (double& delta : step_size) delta = softplus(delta - 4);
  for (index_t c = 0; c < channels; ++c)
    for (index_t n = 0; n < states; ++n) A(c, n) = s4d_real<double>(n);

  // B and C are shared by the channels: a broadcast axis, no copy.
  diagonal<mamba_hold, double> const mamba{
      .step_size = step_size, .eigenvalue = A, .B = B.const_view().broadcast(2, channels), .x = x};
  auto const shared_C = C.const_view().broadcast(2, channels);
  tensor<double, 3> y({1, length, channels});
  auto const loss = [&] {  // half the squared norm of y
    tensor<double, 3> carry({1, channels, states});
    scan(parallel{}, mamba, contract<double>{shared_C, y}, carry);
    double sum = 0;
    for (double const v : y) sum += v * v / 2;
    return sum;
  };
  double const at = loss();
  std::cout << "y          " << y(0, 0, 0) << ' ' << y(0, 1, 0) << ' ' << y(0, 2, 0) << " ...\n"
            << "loss       " << at << '\n';

  tensor<double, 3> const initial({1, channels, states});
  tensor<double, 3> carry_cotangent({1, channels, states});
  tensor<double, 2> A_gradient({channels, states});
  scan_vjp(parallel{}, mamba, contract_vjp<double>{.C = shared_C, .y_cotangent = y}, initial,
           carry_cotangent, {.eigenvalue = A_gradient});

  double const step = 1e-6, before = A(2, 5);
  A(2, 5) = before + step;
  double const above = loss();
  A(2, 5) = before - step;
  std::cout << "dloss/dA   " << A_gradient(2, 5) << " by scan_vjp, "
            << (above - loss()) / (2 * step) << " by a difference\n";
}
