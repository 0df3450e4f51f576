// SPDX-License-Identifier: Apache-2.0
// Mamba-2's operator on a GPU, forward and with its gradient, and over single steps, as a share of
// the rates at which it copies and multiplies matrices, and, with --peer FILE, beside another
// library's kernels (support/dual_peer.hpp).
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "support/device_copy.cuh"
#include "support/device_program.cuh"
#include "support/dual_gradient_calls.cuh"
#include "support/tensor_rate.cuh"

namespace {

using namespace ssm;
using namespace ssm::bench;

struct shape_rows {
  dual_shape shape;
  bool has_gradient = true, has_long_memory = false, has_floats = false;
};

constexpr shape_rows shapes[] = {
    {.shape = {1, 80, 65536}, .has_long_memory = true},
    {.shape = {1, 24, 65536}, .has_long_memory = true, .has_floats = true},
    {.shape = {8, 64, 4096}},
    {.shape = {1, 80, 2048}},
    {.shape = {1, 80, 262144}, .has_gradient = false},
    {.shape = {1, 80, 8192}, .has_gradient = false},  // for the picture
};

/// Of single steps with a state that is kept.
constexpr dual_shape steps[] = {{1, 24, 1}, {1, 80, 1}, {16, 80, 1}, {128, 24, 1}, {128, 80, 1}};

work_kind const products{
    .name = "products",
    .rate = "Tflop/s",
    .share = "% of mma",
    .means =
        "of the rate at which a kernel that does nothing else multiplies matrices of "
        "bfloat16, if there were none but those with the state, two a step"};

template <class T>
constexpr char const* scalar_name = std::is_same_v<T, float> ? "f32" : "bf16";

/// What numbers are rounded to when they are multiplied as matrices.
template <class T>
constexpr double unit = std::is_same_v<T, float> ? 0x1p-21 : 0x1p-8;
constexpr double unit_of_tf32 = 0x1p-11;

/// `calls` own memory that they use, so they are kept. Ours are judged; what a peer is off by is
/// shown.
template <class Calls>
prepared_call ready(std::shared_ptr<Calls> const& calls, void (Calls::*run)(gpu::on),
                    std::vector<finding> const& found, bool is_ours, std::string const& note) {
  // Of y, or of the gradient that is least exact.
  bool const is_forward = found.front().output == "y";
  auto const least_exact = [](auto& a, auto& b) { return a.relative_l2 < b.relative_l2; };
  finding const shown =
      is_forward ? found.front() : *std::max_element(found.begin(), found.end(), least_exact);
  return {.run = [calls, run](gpu::on where) { ((*calls).*run)(where); },
          .relative_l2 = shown.relative_l2,
          .of_allowed = worst_of(found).of_allowed,
          .note = note + (is_forward ? "" : "L2 of " + shown.output),
          .most = is_ours ? 1 : std::numeric_limits<double>::infinity()};
}

class rows_of_state_space_dual {
 public:
  rows_of_state_space_dual(device_program& program, gpu::stream const& stream)
      : program_{program}, stream_{stream}, copy_(stream), products_(stream) {
    if (std::string const file = program.option("--peer"); !file.empty())
      peer_ = std::make_unique<dual_peer>(file);
  }

  void run() {
    for (shape_rows const& rows : shapes) {
      for (memory_kind const& kind : {as_initialized, long_memory}) {
        bool const is_first = kind.name == as_initialized.name;
        if (!is_first && !rows.has_long_memory) continue;
        add_forward<bfloat16>(rows.shape, kind, unit<bfloat16>, "");
        run_turns();
        if (rows.has_gradient) add_gradient<bfloat16>(rows.shape, kind);
        run_turns();
        if (!is_first || !rows.has_floats) continue;
        add_forward<float>(rows.shape, kind, unit<float>, "");
        add_forward<float>(rows.shape, kind, unit_of_tf32, "/tf32");
        run_turns();
      }
    }
    for (dual_shape const& s : steps) {
      add_step<bfloat16>(s);
      run_turns();
    }
  }

 private:
  template <class T>
  void add_forward(dual_shape const& s, memory_kind const& kind, double rounding,
                   std::string const& variant) {
    auto const arrays = std::make_shared<dual_arrays<T>>(stream_, s, kind);
    program_.add(row_of<T>("state_space_dual" + variant, s, kind), [=] {
      auto const calls = std::make_shared<own_dual_calls<T>>(arrays, variant.empty());
      auto const found = calls->check(false, rounding);
      std::string const note =
          "first pass " + text::significant(100 * calls->first_pass(), 2) + " %";
      return ready(calls, &own_dual_calls<T>::forward, found, true, note);
    });
    if (!peer_ || !std::is_same_v<T, bfloat16>) return;
    program_.add(row_of<T>(peer_->name(), s, kind), [this, arrays, rounding] {
      auto const calls = std::make_shared<peer_dual_calls<T>>(*peer_, arrays);
      return ready(calls, &peer_dual_calls<T>::forward, calls->check(false, rounding), false, "");
    });
  }

  template <class T>
  void add_gradient(dual_shape const& s, memory_kind const& kind) {
    auto const arrays = std::make_shared<dual_arrays<T>>(stream_, s, kind);
    program_.add(row_of<T>("state_space_dual", s, kind, true), [arrays] {
      auto const calls = std::make_shared<own_dual_gradient_calls<T>>(arrays);
      return ready(calls, &own_dual_gradient_calls<T>::both, calls->check(unit<T>), true, "");
    });
    if (!peer_) return;
    program_.add(row_of<T>(peer_->name(), s, kind, true), [this, arrays] {
      auto const calls = std::make_shared<peer_dual_gradient_calls<T>>(*peer_, arrays);
      return ready(calls, &peer_dual_gradient_calls<T>::both, calls->check(unit<T>), false, "");
    });
  }

  template <class T>
  void add_step(dual_shape const& s) {
    auto const arrays = std::make_shared<dual_arrays<T>>(stream_, s, as_initialized);
    auto const row = [&](std::string const& operation) {
      device_row one = row_of<T>(operation, s, as_initialized);
      one.bytes += 2 * sizeof(float) * static_cast<double>(s.states);  // read and written
      return one;
    };
    program_.add(row("step"), [arrays] {
      auto const calls = std::make_shared<own_dual_calls<T>>(arrays);
      return ready(calls, &own_dual_calls<T>::step, calls->check(true, 0), true, "");
    });
    if (!peer_) return;
    program_.add(row(peer_->name()), [this, arrays] {
      auto const calls = std::make_shared<peer_dual_calls<T>>(*peer_, arrays);
      return ready(calls, &peer_dual_calls<T>::step, calls->check(true, 0), false, "");
    });
  }

  /// x and y are moved, step sizes of heads, B and C of all heads; for the gradient all inputs
  /// again, the cotangent, and a gradient of each. The state is multiplied by C, and what is added
  /// to it is a product too; backward there are five such.
  template <class T>
  static device_row row_of(std::string const& operation, dual_shape const& s,
                           memory_kind const& kind, bool has_gradient = false) {
    auto const states = static_cast<double>(s.states);
    double const of_step = 1. / double(s.head_dim), shared = 2 * states / double(s.channels());
    double const moved = has_gradient ? 5 + 3 * of_step + 3 * shared : 2 + of_step + shared;
    return {.operation = operation + (has_gradient ? "+vjp" : ""),
            .scalar = scalar_name<T>,
            .layout = name_of(innermost::channels),
            .rows = s.batch * s.channels(),
            .length = s.length,
            .bytes = moved * sizeof(T),
            .work = (has_gradient ? 14 : 4) * states,
            .rows_are = std::string(kind.name) + "/" + std::to_string(s.batch) + "x" +
                        std::to_string(s.heads)};
  }

  void run_turns() {
    program_.run_group(
        stream_, copy_.turns(),
        {[this](gpu::on where) { products_.run(where); }, products_.count(), products});
  }

  device_program& program_;
  gpu::stream const& stream_;
  device_copy copy_;
  tensor_rate products_;
  std::unique_ptr<dual_peer> peer_;
};

/// Forward rows of one model.
std::string curve_of(device_result const& r) {
  auto const& w = r.what;
  bool const is_shown = w.scalar == "bf16" && w.rows_are == "init/1x80" && w.length > 1 &&
                        !w.operation.ends_with("+vjp");
  return is_shown ? w.operation : "";
}

}  // namespace

int main(int count, char** arguments) {
  return run_device_program(
      count, arguments, {"--peer"}, [](device_program& program, gpu::stream const& stream) {
        rows_of_state_space_dual(program, stream).run();
        auto const share = [](device_result const& r) { return r.share(); };
        return share_picture(program.all(), "Mamba-2's operator, 80 heads, bf16", "copies",
                             curve_of, share);
      });
}
