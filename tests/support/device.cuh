// SPDX-License-Identifier: Apache-2.0
// device.cuh: tests that need a GPU say so and are skipped where none answers.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

/// First line of a test that runs kernels.
#define SSM_SKIP_WITHOUT_DEVICE()                                               \
  do {                                                                          \
    int devices = 0;                                                            \
    cudaError_t const status = cudaGetDeviceCount(&devices);                    \
    if (status != cudaSuccess || devices == 0) {                                \
      (void)cudaGetLastError();                                                 \
      GTEST_SKIP() << "no CUDA device answers: " << cudaGetErrorString(status); \
    }                                                                           \
  } while (false)
