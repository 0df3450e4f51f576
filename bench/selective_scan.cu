// SPDX-License-Identifier: Apache-2.0
// Mamba's operator on a GPU, forward and with its gradient, as a share of the rates at which it
// copies and computes exponentials, beside whole arrays with Thrust and, with --peer FILE, beside
// another library's kernels (support/selective_peer.hpp).
#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "support/device_copy.cuh"
#include "support/device_program.cuh"
#include "support/exponential_rate.cuh"
#include "support/selective_own_calls.cuh"
#include "support/selective_own_gradient.cuh"

namespace {

using namespace ssm;
using namespace ssm::bench;

struct shape_rows {
  selective_shape shape;
  bool has_gradient = true, has_floats = true;
};

constexpr shape_rows shapes[] = {
    {.shape = {1, 5120, 65536}},
    {.shape = {1, 1536, 65536}},
    {.shape = {8, 2048, 4096}},
    {.shape = {1, 1536, 2048}},
    {.shape = {1, 5120, 262144}, .has_floats = false},
    {.shape = {1, 1536, 1048576}},
    {.shape = {1, 5120, 131071}, .has_floats = false},
    // For the picture.
    {.shape = {1, 1536, 8192}, .has_gradient = false, .has_floats = false},
    {.shape = {1, 1536, 262144}, .has_gradient = false, .has_floats = false},
};

template <class T>
constexpr char const* scalar_name = std::is_same_v<T, float> ? "f32" : "bf16";

work_kind const exponentials{.name = "exponentials",
                             .rate = "Texp/s",
                             .share = "% of exp",
                             .means =
                                 "of the rate at which a kernel that does nothing else "
                                 "computes exponentials, if none were computed that are not "
                                 "needed"};

/// Of single steps with a state that is kept.
constexpr selective_shape steps[] = {{1, 5120, 1}, {16, 5120, 1}, {128, 5120, 1}};

/// `calls` own memory that they use, so they are kept.
template <class Calls>
prepared_call ready(std::shared_ptr<Calls> const& calls, void (Calls::*run)(gpu::on),
                    std::vector<finding> const& found, bool is_graph = true,
                    std::string const& note = "") {
  finding const worst = worst_of(found);
  require<std::runtime_error>(worst.of_allowed <= 1, worst.output, " is wrong by ",
                              worst.of_allowed, " times what is allowed, relative L2 ",
                              worst.relative_l2);
  // Of y, or of the gradient that is least exact.
  bool const is_forward = found.front().output == "y";
  finding const shown = is_forward
                            ? found.front()
                            : *std::max_element(found.begin(), found.end(), [](auto& a, auto& b) {
                                return a.relative_l2 < b.relative_l2;
                              });
  std::string const which = is_forward ? "" : "L2 of " + shown.output;
  return {[calls, run](gpu::on where) { ((*calls).*run)(where); }, shown.relative_l2,
          worst.of_allowed, is_graph, note + which};
}

class rows_of_selective_scan {
 public:
  rows_of_selective_scan(device_program& program, gpu::stream const& stream)
      : program_{program}, stream_{stream}, copy_(stream), exponentials_(stream) {
    if (std::string const file = program.option("--peer"); !file.empty())
      peer_ = std::make_unique<selective_peer>(file);
  }

  template <class T>
  void run() {
    for (shape_rows const& rows : shapes) {
      if (std::is_same_v<T, float> && !rows.has_floats) continue;
      for (memory_kind const& kind : {as_initialized, long_memory}) run_group<T>(rows, kind);
    }
    for (selective_shape const& s : steps) {
      auto const arrays = std::make_shared<selective_arrays<T>>(stream_, s, as_initialized);
      device_row row = row_of<T>("step", s, as_initialized, innermost::channels, false);
      // The state, read and written, and eigenvalues, which are for all of the batch.
      row.bytes += sizeof(float) * static_cast<double>(s.states) * (2 + 1. / double(s.batch));
      program_.add(row, [arrays] {
        auto const calls = std::make_shared<own_calls<T>>(arrays, innermost::channels);
        return ready(calls, &own_calls<T>::step, calls->check_forward());
      });
    }
    run_turns();
  }

 private:
  template <class T>
  void run_group(shape_rows const& rows, memory_kind const& kind) {
    selective_shape const& s = rows.shape;
    auto const arrays = std::make_shared<selective_arrays<T>>(stream_, s, kind);
    for (bool const has_gradient : {false, true}) {
      if (has_gradient && !rows.has_gradient) continue;
      for (innermost const layout : {innermost::channels, innermost::time}) {
        if (has_gradient && std::is_same_v<T, float> && layout == innermost::time) continue;
        add_own<T>(s, kind, layout, arrays, has_gradient);
      }
      if (peer_) add_peer<T>(s, kind, arrays, has_gradient);
    }
    bool const has_keys = std::has_single_bit(static_cast<std::uint64_t>(s.length));
    if (!has_keys || !has_memory(selective_thrust_memory::bytes(s))) return run_turns();
    program_.add(row_of<T>("thrust::inclusive_scan_by_key", s, kind, innermost::time, false),
                 [arrays] {
                   auto const calls = std::make_shared<thrust_calls<T>>(arrays);
                   return ready(calls, &thrust_calls<T>::forward, calls->check_forward(), false);
                 });
    run_turns();
  }

  template <class T>
  void add_own(selective_shape const& s, memory_kind const& kind, innermost layout,
               std::shared_ptr<selective_arrays<T>> const& arrays, bool has_gradient) {
    program_.add(row_of<T>("selective_scan", s, kind, layout, has_gradient), [=] {
      if (has_gradient) {
        auto const calls = std::make_shared<own_gradient_calls<T>>(arrays, layout);
        return ready(calls, &own_gradient_calls<T>::both, calls->check_both());
      }
      auto const calls = std::make_shared<own_calls<T>>(arrays, layout);
      auto const found = calls->check_forward();
      std::string const note =
          "first pass " + text::significant(100 * calls->first_pass(), 2) + " %";
      return ready(calls, &own_calls<T>::forward, found, true, note);
    });
  }

  template <class T>
  void add_peer(selective_shape const& s, memory_kind const& kind,
                std::shared_ptr<selective_arrays<T>> const& arrays, bool has_gradient) {
    program_.add(row_of<T>(peer_->name(), s, kind, innermost::time, has_gradient), [this, arrays,
                                                                                    has_gradient] {
      auto const calls = std::make_shared<peer_calls<T>>(*peer_, arrays);
      return has_gradient ? ready(calls, &peer_calls<T>::both, calls->check_both())
                          : ready(calls, &peer_calls<T>::forward, calls->check_forward());
    });
  }

  /// Forward x, step size, gate and y are moved; the gradient reads three of them again and the
  /// cotangent, and writes three gradients. Each state of each step has an exponential in either
  /// direction, softplus two, the gate two, and their slopes as many again.
  template <class T>
  static device_row row_of(std::string const& operation, selective_shape const& s,
                           memory_kind const& kind, innermost layout, bool has_gradient) {
    double const accesses = has_gradient ? 11 : 4;
    double const functions = has_gradient ? 2 * (s.states + 4) : s.states + 4;
    return {.operation = operation + (has_gradient ? "+vjp" : ""),
            .scalar = scalar_name<T>,
            .layout = name_of(layout),
            .rows = s.batch * s.channels,
            .length = s.length,
            .bytes = accesses * sizeof(T),
            .work = functions,
            .rows_are = std::string(kind.name) + "/" + std::to_string(s.batch) + "x" +
                        std::to_string(s.channels)};
  }

  void run_turns() {
    program_.run_group(
        stream_, copy_.turns(),
        {[this](gpu::on where) { exponentials_.run(where); }, exponentials_.count(), exponentials});
  }

  /// A quarter of the device: beside it are the inputs and what other rows of the group keep.
  static bool has_memory(index_t bytes) {
    std::size_t free = 0, total = 0;
    gpu::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<std::size_t>(bytes) < total / 4;
  }

  device_program& program_;
  gpu::stream const& stream_;
  device_copy copy_;
  exponential_rate exponentials_;
  std::unique_ptr<selective_peer> peer_;
};

/// Forward rows of one kind of network: ours with channels innermost, and the others'.
std::string curve_of(device_result const& r) {
  auto const& w = r.what;
  bool const is_ours = w.operation == "selective_scan";
  bool const is_shown = w.scalar == "bf16" && w.rows_are.ends_with("/1x1536") &&
                        !w.operation.ends_with("+vjp") && is_ours == (w.layout == "channels");
  return is_shown ? w.operation + ", " + w.rows_are.substr(0, w.rows_are.find('/')) : "";
}

}  // namespace

int main(int count, char** arguments) {
  return run_device_program(
      count, arguments, {"--peer"}, [](device_program& program, gpu::stream const& stream) {
        rows_of_selective_scan rows(program, stream);
        rows.run<bfloat16>();
        rows.run<float>();
        auto const share = [](device_result const& r) { return r.share_of_work(); };
        return share_picture(program.all(), "Mamba's operator, 1536 channels, bf16", "exponentials",
                             curve_of, share);
      });
}
