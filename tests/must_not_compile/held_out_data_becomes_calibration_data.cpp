// SPDX-License-Identifier: Apache-2.0
// Held-out examples taken out to choose with.
// expect: has no member named 'examples'|no member named 'examples'
#include "ssm/calibrate_data.hpp"

using namespace ssm;

#ifdef MUST_NOT_COMPILE
double first(held_out_set<double> const& data) {
#else
double first(calibration_set<double> const& data) {
#endif
  return data.examples()[0];
}
