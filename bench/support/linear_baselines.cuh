// SPDX-License-Identifier: Apache-2.0
// linear_baselines.cuh: the raw scan by Thrust and by CUB, as scans of affine maps. All rows are
// one long scan: the first decay of each row is 0, or they have keys. Lengths are powers of two,
// so that neither needs a division.
#pragma once

#include <thrust/execution_policy.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <thrust/iterator/transform_output_iterator.h>
#include <thrust/scan.h>

#include <bit>
#include <cstdint>
#include <cub/device/device_scan.cuh>

#include "ssm/affine_map.hpp"
#include "ssm/error.hpp"
#include "ssm/tensor.cuh"

namespace ssm::bench {

using float_map = affine_map<float>;

/// Rows of `length` steps one after the other, as Thrust and CUB see them.
struct flat_rows {
  float const* decay;
  float const* drive;
  index_t rows;
  index_t length;

  index_t size() const { return rows * length; }
};

namespace detail {

/// The zipped inputs at position i, with a decay of 0 where a row starts.
struct map_at {
  float const* decay;
  float const* drive;
  index_t within_row;  ///< bits of i that are 0 where a row starts

  __host__ __device__ float_map operator()(index_t i) const {
    return {(i & within_row) == 0 ? 0.f : decay[i], drive[i]};
  }
};

struct row_of {
  int shift;
  __host__ __device__ int operator()(index_t i) const { return static_cast<int>(i >> shift); }
};

struct drive_of {
  __host__ __device__ float operator()(float_map const& map) const { return map.drive; }
};

inline auto zipped(flat_rows const& in) {
  require<shape_error>(std::has_single_bit(static_cast<std::uint64_t>(in.length)),
                       "baseline: rows have length ", in.length, ", expected a power of two");
  return thrust::make_transform_iterator(thrust::counting_iterator<index_t>(0),
                                         map_at{in.decay, in.drive, in.length - 1});
}

/// Memory for Thrust that is there before the clock runs; each call has all of it.
class prepared_memory {
 public:
  using value_type = char;

  explicit prepared_memory(tensor_view<std::byte, 1, memory::device> const& all) : all_{all} {}

  char* allocate(std::ptrdiff_t bytes) {
    index_t const begin = used_;
    used_ += (bytes + 255) / 256 * 256;
    require<std::runtime_error>(used_ <= all_.size(), "thrust: needs ", used_, " bytes");
    return reinterpret_cast<char*>(all_.data_handle() + begin);
  }
  void deallocate(char*, std::size_t) {}

 private:
  tensor_view<std::byte, 1, memory::device> all_;
  index_t used_ = 0;
};

template <class Map>
__global__ void zip_kernel(Map in, index_t size, float_map* out) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += step)
    out[i] = in(i);
}

}  // namespace detail

/// thrust::inclusive_scan of the zipped inputs; of the maps only the states are written.
inline void thrust_scan(gpu::on where, flat_rows const& in, float* states,
                        tensor_view<std::byte, 1, memory::device> const& memory) {
  detail::prepared_memory own(memory);
  auto const first = detail::zipped(in);
  thrust::inclusive_scan(thrust::cuda::par_nosync(own).on(where.stream), first, first + in.size(),
                         thrust::make_transform_output_iterator(states, detail::drive_of{}),
                         then{});
}

/// thrust::inclusive_scan_by_key with the number of the row as its key.
inline void thrust_scan_by_key(gpu::on where, flat_rows const& in, float* states,
                               tensor_view<std::byte, 1, memory::device> const& memory) {
  detail::prepared_memory own(memory);
  auto const keys = thrust::make_transform_iterator(
      thrust::counting_iterator<index_t>(0),
      detail::row_of{std::countr_zero(static_cast<std::uint64_t>(in.length))});
  thrust::inclusive_scan_by_key(thrust::cuda::par_nosync(own).on(where.stream), keys,
                                keys + in.size(), detail::zipped(in),
                                thrust::make_transform_output_iterator(states, detail::drive_of{}),
                                thrust::equal_to<int>{}, then{});
}

/// Arrays of maps for cub_scan, which reads and writes 16 bytes where 12 would do.
inline void zip(gpu::on where, flat_rows const& in, float_map* out) {
  detail::zip_kernel<<<4096, 256, 0, where.stream>>>(
      detail::map_at{in.decay, in.drive, in.length - 1}, in.size(), out);
  gpu::check(cudaGetLastError(), "zip_kernel");
}

/// cub::DeviceScan::InclusiveScan of an array of maps.
inline void cub_scan(gpu::on where, float_map const* in, float_map* out, index_t size,
                     tensor_view<std::byte, 1, memory::device> const& memory) {
  auto bytes = static_cast<std::size_t>(memory.size());
  gpu::check(cub::DeviceScan::InclusiveScan(memory.data_handle(), bytes, in, out, then{}, size,
                                            where.stream),
             "cub::DeviceScan::InclusiveScan");
}

}  // namespace ssm::bench
