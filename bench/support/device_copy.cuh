// SPDX-License-Identifier: Apache-2.0
// device_copy.cuh: how fast a GPU copies its memory.
#pragma once

#include "support/device_program.cuh"
#include "support/selective_arrays.cuh"

namespace ssm::bench {

/// A gigabyte, copied from one half of an array to the other.
class device_copy {
 public:
  explicit device_copy(gpu::stream const& stream) : array_(stream, {2, 1, count}) {
    array_.fill_normal(stream, innermost::channels, 9, 1);
  }

  /// Uses this object.
  yardstick turns() {
    return {[all = array_.data()](gpu::on where) {
              gpu::check(cudaMemcpyAsync(all + count, all, sizeof(float) * count,
                                         cudaMemcpyDeviceToDevice, where.stream),
                         "cudaMemcpyAsync");
            },
            2. * sizeof(float) * count};
  }

 private:
  static constexpr index_t count = index_t{1} << 28;
  device_sequence_tensor<float> array_;
};

}  // namespace ssm::bench
