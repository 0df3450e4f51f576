// SPDX-License-Identifier: Apache-2.0
// linear_scan.cuh, compiled once for all tests: its kernels would take most of the time to compile
// each of them. A test that includes this is linked to compiled_kernels.
#pragma once

#include "ssm/linear_scan.cuh"

namespace ssm::gpu::detail {

using complex64 = element_t<std::complex<float>>;
template <class T>
using forward_call = linear_call<T, linear_step>;
template <class T>
using adjoint_call = linear_call<T, linear_adjoint_step>;

extern template std::size_t run_linear(on, forward_call<float>, std::byte*, bool);
extern template std::size_t run_linear(on, forward_call<double>, std::byte*, bool);
extern template std::size_t run_linear(on, forward_call<bfloat16>, std::byte*, bool);
extern template std::size_t run_linear(on, forward_call<float16>, std::byte*, bool);
extern template std::size_t run_linear(on, forward_call<complex64>, std::byte*, bool);

extern template std::size_t run_linear(on, adjoint_call<float>, std::byte*, bool);
extern template std::size_t run_linear(on, adjoint_call<double>, std::byte*, bool);
extern template std::size_t run_linear(on, adjoint_call<bfloat16>, std::byte*, bool);
extern template std::size_t run_linear(on, adjoint_call<complex64>, std::byte*, bool);

}  // namespace ssm::gpu::detail
