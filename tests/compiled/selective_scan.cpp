// SPDX-License-Identifier: Apache-2.0
#include "compiled/selective_scan.hpp"

namespace ssm {

template void selective_scan(parallel, selective_scan_inputs<float> const&, state_view<float>,
                             sequence_view<float>, trajectory_view<float>);
template void selective_scan(parallel, selective_scan_inputs<double> const&, state_view<double>,
                             sequence_view<double>, trajectory_view<double>);

}  // namespace ssm
