// SPDX-License-Identifier: Apache-2.0
// What a trained layer does to its state, from its checkpoint alone. Prints for each layer the
// horizon of its slowest mode in steps, the mean gain of its state, and how much the energy of the
// state grows from 512 to 65536 steps:
//   layer   horizon      gain    growth
//       0    1020.9    25.400   1.05780
//       1    1042.6    23.743   1.05256   ...
#include <algorithm>
#include <cstdio>
#include <ssm/ssm.hpp>
#include <string>

using namespace ssm;

int main(int count, char** argument) {
  std::string const folder = count > 1 ? argument[1] : "examples/data/byte-mamba-64";
  model::checkpoint const weights{folder};
  std::printf("layer   horizon      gain    growth\n");
  for (int layer = 0;; ++layer) {
    std::string const mixer = "backbone.layers." + std::to_string(layer) + ".mixer.";
    if (!weights.contains(mixer + "A_log")) break;
    auto eigenvalue = weights.read<double, 2>(mixer + "A_log");  // (channel, state)
    auto step_size = weights.read<double, 1>(mixer + "dt_proj.bias");
    for (double& a : eigenvalue) a = -ssm::exp(a);
    for (double& delta : step_size) delta = softplus(delta);

    auto const poles = poles_of(eigenvalue.const_view(), step_size.const_view());
    std::span<pole<double> const> const all{poles};
    auto const slowest = *std::min_element(
        poles.begin(), poles.end(), [](auto const& a, auto const& b) { return a.gap < b.gap; });
    std::printf("%5d %9.1f %9.3f %9.5f\n", layer, horizon(slowest), mean_stationary_gain(all),
                energy_growth(all, 512.0, 65536.0));
  }
}
