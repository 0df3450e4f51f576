// SPDX-License-Identifier: Apache-2.0
// Held-out data handed to the function that selects.
// expect: no matching function for call to '?calibrate
#include "ssm/calibrate.hpp"

using namespace ssm;

double loss(int const& model, scaling_factors<double> const& factors, double const& example) {
  return model * factors.numbers()[0] * example;
}

#ifdef MUST_NOT_COMPILE
calibration call(held_out_set<double> const& data) {
#else
calibration call(calibration_set<double> const& data) {
#endif
  scaling_factors<double> const start({.linear = true}, granularity::layer, {1, 1, 1});
  return calibrate(1, data, loss, start, optimize::spsa_settings{.domain = {.low = 0.001}});
}
