// SPDX-License-Identifier: Apache-2.0
// A view with one axis too few.
// expect: could not convert|no matching function for call to 'read'
#include "ssm/tensor_view.hpp"

using namespace ssm;

void read(sequence_view<float const> x);

#ifdef MUST_NOT_COMPILE
void call(tensor_view<float const, 2> x) {
  read(x);
}
#else
void call(tensor_view<float const, 3> x) {
  read(x);
}
#endif
