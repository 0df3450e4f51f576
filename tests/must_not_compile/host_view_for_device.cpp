// SPDX-License-Identifier: Apache-2.0
// A host view handed to a function that works on device memory.
// expect: could not convert .*memory::host|no matching function for call to 'launch'
#include "ssm/tensor_view.hpp"

using namespace ssm;

void launch(tensor_view<float, 1, memory::device>);

#ifdef MUST_NOT_COMPILE
void call(tensor_view<float, 1, memory::host> x) {
  launch(x);
}
#else
void call(tensor_view<float, 1, memory::device> x) {
  launch(x);
}
#endif
