// SPDX-License-Identifier: Apache-2.0
// The causal convolution of a Mamba block with bias and SiLU on a GPU, forward and gradient, as a
// share of the rate at which it copies.
#include "ssm/causal_conv1d.cuh"

#include <memory>
#include <string>
#include <type_traits>

#include "support/conv1d_reference.cuh"
#include "support/device_copy.cuh"
#include "support/device_program.cuh"
#include "support/selective_arrays.cuh"

namespace {

using namespace ssm;
using namespace ssm::bench;

constexpr index_t width = 4;

struct shape {
  index_t batch, channels, length;
};

constexpr shape shapes[] = {{1, 5120, 65536}, {1, 1536, 65536}, {8, 2048, 4096},
                            {1, 1536, 2048},  {1, 5121, 65535}, {1, 1536, 524288}};
/// Of a single token with a carry.
constexpr shape tokens[] = {{1, 5120, 1}, {16, 5120, 1}, {128, 5120, 1}};

template <class T>
constexpr char const* scalar_name = std::is_same_v<T, float> ? "f32" : "bf16";

template <class T>
class convolution {
 public:
  convolution(gpu::stream const& stream, shape const& s, innermost layout)
      : stream_{stream},
        shape_{s.batch, s.length, s.channels},
        layout_{layout},
        x_(stream, shape_),
        weight_(stream, {1, width, s.channels}),
        bias_(stream, {1, 1, s.channels}) {
    x_.fill_normal(stream, layout, 1, 1);
    weight_.fill_normal(stream, innermost::time, 2, 0.5);
    bias_.fill_normal(stream, innermost::channels, 3, 1);
  }

  prepared_call forward(bool has_carry) {
    auto const y = std::make_shared<device_sequence_tensor<T>>(stream_, shape_);
    y->fill_bytes(stream_, 0xff);
    auto const in = inputs();
    auto const to = y->view(layout_);
    state_view<T, memory::device> carry{};
    std::shared_ptr<gpu::tensor<T, 3>> kept;
    if (has_carry) {
      kept = std::make_shared<gpu::tensor<T, 3>>(stream_,
                                                 index_array<3>{shape_[0], shape_[2], width - 1});
      carry = kept->view();
      ssm::bench::detail::fill_bytes(stream_, carry, 0);
    }
    gpu::causal_conv1d(stream_, in, carry, to);
    auto const found = compare_conv1d(stream_, in, to);
    return {[=](gpu::on where) {
              (void)y, (void)kept;  // owned
              gpu::causal_conv1d(where, in, carry, to);
            },
            found.relative(), found.of_allowed()};
  }

  prepared_call gradient() {
    struct memory {
      device_sequence_tensor<float> y_cotangent, x, weight, bias;
      gpu::tensor<std::byte, 1> own;
    };
    auto const m = std::make_shared<memory>(memory{{stream_, shape_},
                                                   {stream_, shape_},
                                                   {stream_, {1, width, shape_[2]}},
                                                   {stream_, {1, 1, shape_[2]}},
                                                   {stream_, {0}}});
    m->y_cotangent.fill_normal(stream_, layout_, 4, 1);
    for (auto* const sum : {&m->x, &m->weight, &m->bias}) sum->fill_bytes(stream_, 0xff);
    auto const in = inputs();
    causal_conv1d_gradients<T, ssm::memory::device> const to{
        .x = m->x.view(layout_), .weight = parameters(m->weight), .bias = first_row(m->bias)};
    sequence_view<float const, ssm::memory::device> const arriving = m->y_cotangent.view(layout_);
    m->own = {stream_, {index_t(gpu::causal_conv1d_vjp_workspace(in, {}, arriving, {}, to))}};
    auto const run = [=](gpu::on where) {
      gpu::causal_conv1d_vjp(where, in, {}, arriving, {}, to, m->own.view(), gpu::accumulate::no);
    };
    run(stream_);
    auto const found = compare_conv1d_vjp(stream_, in, arriving, to);
    return {run, found.relative(), found.of_allowed()};
  }

 private:
  template <class U>
  static tensor_view<U, 2, memory::device> parameters(device_sequence_tensor<U>& of) {
    auto const rows = of.view(innermost::time).select(0, 0);  // (tap, channel), taps innermost
    return {rows.data_handle(), {rows.extent(1), rows.extent(0)}, {rows.stride(1), rows.stride(0)}};
  }
  template <class U>
  static tensor_view<U, 1, memory::device> first_row(device_sequence_tensor<U>& of) {
    return of.view(innermost::channels).select(0, 0).select(0, 0);
  }
  causal_conv1d_inputs<T, memory::device> inputs() {
    return {.x = x_.view(layout_),
            .weight = parameters(weight_),
            .bias = first_row(bias_),
            .activation = activation::silu};
  }

  gpu::stream const& stream_;
  index_array<3> shape_;
  innermost layout_;
  device_sequence_tensor<T> x_;
  device_sequence_tensor<float> weight_, bias_;
};

class rows_of_convolution {
 public:
  rows_of_convolution(device_program& program, gpu::stream const& stream)
      : program_{program}, stream_{stream}, copy_(stream) {}

  template <class T>
  void run() {
    for (shape const& s : shapes) {
      for (innermost const layout : {innermost::channels, innermost::time}) {
        auto const p = std::make_shared<std::unique_ptr<convolution<T>>>();
        auto const problem = [=, this]() -> convolution<T>& {
          if (*p == nullptr) *p = std::make_unique<convolution<T>>(stream_, s, layout);
          return **p;
        };
        program_.add(row_of<T>("causal_conv1d", s, layout, 2. * sizeof(T)),
                     [=] { return problem().forward(false); });
        program_.add(row_of<T>("causal_conv1d_vjp", s, layout, 2. * sizeof(float) + sizeof(T)),
                     [=] { return problem().gradient(); });
        run_turns();
      }
    }
    for (shape const& s : tokens) {
      auto const p = std::make_shared<convolution<T>>(stream_, s, innermost::channels);
      program_.add(row_of<T>("causal_conv1d", s, innermost::channels, 2. * width * sizeof(T)),
                   [=] { return p->forward(true); });
    }
    run_turns();
  }

 private:
  template <class T>
  static device_row row_of(std::string const& operation, shape const& s, innermost layout,
                           double bytes) {
    return {.operation = operation,
            .scalar = scalar_name<T>,
            .layout = name_of(layout),
            .rows = s.batch * s.channels,
            .length = s.length,
            .bytes = bytes,
            .rows_are = std::to_string(s.batch) + "x" + std::to_string(s.channels)};
  }
  void run_turns() { program_.run_group(stream_, copy_.turns()); }

  device_program& program_;
  gpu::stream const& stream_;
  device_copy copy_;
};

}  // namespace

int main(int count, char** arguments) {
  return run_device_program(
      count, arguments, {}, [](device_program& program, gpu::stream const& stream) {
        rows_of_convolution rows(program, stream);
        rows.run<bfloat16>();
        rows.run<float>();
        auto const curve_of = [](device_result const& r) {
          auto const& w = r.what;
          bool const is_shown = w.rows_are == "1x1536" && w.scalar == "bf16";
          return is_shown ? w.operation + ", " + w.layout + " innermost" : "";
        };
        auto const share = [](device_result const& r) { return r.share(); };
        return share_picture(program.all(), "Causal convolution, 1536 channels, bf16", "copies",
                             curve_of, share);
      });
}
