// SPDX-License-Identifier: Apache-2.0
// A view of constant elements handed over as an output.
// expect: could not convert|no matching function for call to 'fill'
#include "ssm/tensor_view.hpp"

using namespace ssm;

void fill(tensor_view<float, 1> output);

#ifdef MUST_NOT_COMPILE
void call(tensor_view<float const, 1> x) {
  fill(x);
}
#else
void call(tensor_view<float, 1> x) {
  fill(x);
}
#endif
