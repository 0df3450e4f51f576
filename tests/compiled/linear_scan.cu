// SPDX-License-Identifier: Apache-2.0
#include "compiled/linear_scan.cuh"

namespace ssm::gpu::detail {

template std::size_t run_linear(on, forward_call<float>, std::byte*, bool);
template std::size_t run_linear(on, forward_call<double>, std::byte*, bool);
template std::size_t run_linear(on, forward_call<bfloat16>, std::byte*, bool);
template std::size_t run_linear(on, forward_call<float16>, std::byte*, bool);
template std::size_t run_linear(on, forward_call<complex64>, std::byte*, bool);

}  // namespace ssm::gpu::detail
