// SPDX-License-Identifier: Apache-2.0
// The raw scan h_t = a_t h_{t-1} + b_t and its gradient on a GPU, as a share of the rate at which
// it copies, beside Thrust, CUB, the generic scan and, with --peer FILE, another library's kernels
// (support/linear_peer.hpp).
#include "ssm/linear_scan.cuh"

#include <algorithm>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "support/device_program.cuh"
#include "support/linear_baselines.cuh"
#include "support/linear_problem.cuh"

namespace {

using namespace ssm;
using namespace ssm::bench;

struct shape {
  index_t rows, length;
  bool has_twin = false, has_baselines = false;
};

// The generic scan takes its steps one after another: not where rows are long.
constexpr shape shapes[] = {
    {.rows = 12288, .length = 65536, .has_twin = true},
    {.rows = 1536, .length = 1048576, .has_twin = true},
    {.rows = 512, .length = 131072, .has_twin = true, .has_baselines = true},
    {.rows = 16, .length = 16777216},
    {.rows = 1, .length = 268435456, .has_baselines = true},
    {.rows = 7, .length = 10000019},
    {.rows = 9001, .length = 5003},  // most rows begin at no multiple of 16 bytes
    {.rows = 1024, .length = 1000, .has_twin = true},
    {.rows = 1, .length = 4096, .has_twin = true, .has_baselines = true},
    // One row against length, for the picture.
    {.rows = 1, .length = 16384, .has_baselines = true},
    {.rows = 1, .length = 65536, .has_baselines = true},
    {.rows = 1, .length = 262144, .has_baselines = true},
    {.rows = 1, .length = 1048576, .has_baselines = true},
    {.rows = 1, .length = 4194304, .has_baselines = true},
    {.rows = 1, .length = 16777216, .has_baselines = true},
    {.rows = 1, .length = 67108864, .has_baselines = true},
};

template <class T>
constexpr char const* scalar_name = std::is_same_v<T, float> ? "f32" : "bf16";

/// `problem` owns memory that `run` uses, so it is kept with it.
template <class Problem>
prepared_call ready(Problem const& problem, std::function<void(gpu::on)> const& run,
                    tally const& found, bool is_graph = true) {
  require<std::runtime_error>(found.left_unknown() < 0x1p-60,
                              "the reference: decays forget too slowly");
  return {[problem, run](gpu::on where) { run(where); }, found.relative(), found.of_allowed(),
          is_graph};
}

class rows_of_linear_scan {
 public:
  rows_of_linear_scan(device_program& program, gpu::stream const& stream, linear_arrays& arrays)
      : program_{program},
        stream_{stream},
        arrays_{arrays},
        thrust_memory_(stream, {index_t{1} << 28}) {
    if (std::string const file = program.option("--peer"); !file.empty())
      peer_ = std::make_shared<linear_peer>(file);
  }

  template <class T>
  void run() {
    arrays_.fill<T>();
    for (shape const& s : shapes) {
      if (s.rows * s.length * static_cast<index_t>(sizeof(T)) > arrays_.bytes()) {
        std::cout << s.rows << " x " << s.length << " "
                  << scalar_name<T> << ": more than this device has memory for\n";
        continue;
      }
      add_rows<T>(s, innermost::time);
      if (peer_) add_peer<T>(s);
      if (s.rows > 1) add_rows<T>(s, innermost::channels);  // one row has one layout
      run_group();
      if constexpr (std::is_same_v<T, float>) {
        if (s.has_baselines) {
          add_baselines(s);
          run_group();
        }
      }
    }
  }

 private:
  void run_group() {
    program_.run_group(stream_, arrays_.copy(), {},
                       [&](double bytes) { return arrays_.copy(bytes); });
  }

  template <class T>
  static device_row row_of(std::string const& operation, shape const& s, innermost layout,
                           double accesses) {
    return {operation, scalar_name<T>, name_of(layout), s.rows, s.length, accesses * sizeof(T)};
  }

  template <class T>
  void add_rows(shape const& s, innermost layout) {
    auto const p = std::make_shared<linear_problem<T>>(stream_, arrays_, s.rows, s.length, layout);
    program_.add(row_of<T>("linear_scan", s, layout, 3), [p] {
      auto const run = p->forward();
      return ready(p, run, p->check_forward(run));
    });
    program_.add(row_of<T>("linear_scan_vjp", s, layout, 5), [p] {
      p->forward()(p->where());
      auto const run = p->gradient();
      return ready(p, run, p->check_gradient(run));
    });
    if constexpr (std::is_same_v<T, float>) {
      if (s.has_twin) {
        program_.add(row_of<T>("scan", s, layout, 3), [p] {
          auto const run = p->twin();
          return ready(p, run, p->check_forward(run));
        });
      }
    }
  }

  /// However exact it is: with 16 bits a peer may add in 16 bits.
  template <class T>
  void add_peer(shape const& s) {
    auto const p =
        std::make_shared<linear_problem<T>>(stream_, arrays_, s.rows, s.length, innermost::time);
    ssm_linear_peer_call const call = p->peer_call();
    if (!peer_->is_able(call)) return;
    auto const add = [&](std::string const& which, double accesses, auto const& prepare) {
      program_.add(row_of<T>(peer_->name() + which, s, innermost::time, accesses), [=] {
        prepared_call made = prepare();
        made.most = std::numeric_limits<double>::infinity();
        return made;
      });
    };
    std::function<void(gpu::on)> const forward = [peer = peer_, call](gpu::on where) {
      peer->forward(call, where.stream);
    };
    std::function<void(gpu::on)> const gradient = [peer = peer_, call](gpu::on where) {
      peer->gradient(call, where.stream);
    };
    add("", 3, [=] { return ready(p, forward, p->check_forward(forward, false)); });
    add("_vjp", 5, [=] {
      p->forward()(p->where());
      return ready(p, gradient, p->check_gradient(gradient));
    });
  }

  void add_baselines(shape const& s) {
    auto const p = std::make_shared<linear_problem<float>>(stream_, arrays_, s.rows, s.length,
                                                           innermost::time);
    flat_rows const in{arrays_.array<float>(0), arrays_.array<float>(1), s.rows, s.length};
    auto const add = [&](std::string const& name, auto call) {
      program_.add(row_of<float>(name, s, innermost::time, 3),
                   [p, in, call, states = arrays_.array<float>(2), memory = thrust_memory_.view()] {
                     auto const run = [=](gpu::on where) { call(where, in, states, memory); };
                     return ready(p, run, p->check_forward(run, false), false);
                   });
    };
    add("thrust::inclusive_scan", thrust_scan);
    add("thrust::inclusive_scan_by_key", thrust_scan_by_key);
    if (in.size() * static_cast<index_t>(sizeof(float_map)) > arrays_.bytes()) return;
    // Copies write to array 3.
    auto* const maps = arrays_.array<float_map>(4);
    auto* const scanned = arrays_.array<float_map>(3);
    program_.add(row_of<float>("cub::DeviceScan", s, innermost::time, 3),
                 [p, in, maps, scanned, memory = thrust_memory_.view()] {
                   zip(p->where(), in, maps);
                   auto const run = [=](gpu::on where) {
                     cub_scan(where, maps, scanned, in.size(), memory);
                   };
                   return ready(p, run, p->check_maps(run, scanned), false);
                 });
  }

  device_program& program_;
  gpu::stream const& stream_;
  linear_arrays& arrays_;
  gpu::tensor<std::byte, 1> thrust_memory_;
  std::shared_ptr<linear_peer> peer_;
};

/// Of an array: that of the largest shape, or less where the device has less.
index_t bytes_of_array() {
  std::size_t free = 0, total = 0;
  gpu::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  index_t bytes = 0;
  for (shape const& s : shapes) bytes = std::max(bytes, s.rows * s.length * index_t{4});
  return std::min(bytes, static_cast<index_t>(free) / 6 / 256 * 256);
}

}  // namespace

int main(int count, char** arguments) {
  return run_device_program(
      count, arguments, {"--peer"}, [](device_program& program, gpu::stream const& stream) {
        linear_arrays arrays(stream, bytes_of_array());
        rows_of_linear_scan rows(program, stream, arrays);
        rows.run<float>();
        rows.run<bfloat16>();
        auto const curve_of = [](device_result const& r) {
          return r.what.rows == 1 ? r.what.operation + ", " + r.what.scalar : "";
        };
        auto const share = [](device_result const& r) { return r.share(); };
        return share_picture(program.all(), "h = a h + b, one row", "copies", curve_of, share);
      });
}
