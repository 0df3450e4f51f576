// SPDX-License-Identifier: Apache-2.0
// A host carry handed to the scan on the GPU.
// expect: no instance of .*scan" matches the argument list
#include "ssm/recurrence.hpp"
#include "ssm/scan.cuh"

using namespace ssm;

#ifdef MUST_NOT_COMPILE
void call(linear_recurrence<float, memory::device> const& recurrence, state_view<float> carry) {
#else
void call(linear_recurrence<float, memory::device> const& recurrence,
          state_view<float, memory::device> carry) {
#endif
  scan(gpu::on{}, recurrence, discard{}, carry);
}
