// SPDX-License-Identifier: Apache-2.0
// linear_scan_vjp_problem.cuh: gradients of raw scans on the device, and what they must be within
// derived bounds.
#pragma once

#include "support/linear_scan_problem.cuh"

namespace ssm::test {

/// A gradient on the device whose every input and output is known to the host. Of a linear_case
/// `drive` is where the cotangents are, `states` where the states and both gradients are, and
/// `place` where the gradient of drive is (in place of the cotangents) or that of decay.
template <class T>
struct vjp_problem {
  using number = accumulator_t<T>;
  using optional = tensor_view<number, 2, memory::device>;

  linear_case of;
  guarded<T> decay, cotangent, states, to_decay, to_drive;
  guarded<number> initial, final_cotangent, to_initial;

  vjp_problem(gpu::on where, linear_case const& wanted)
      : of{wanted},
        decay{where, of.shape, of.decay},
        cotangent{where, of.shape, of.drive},
        states{where, of.shape, of.states},
        to_decay{where, of.shape, of.place == of.in_decay ? of.decay : of.states},
        to_drive{where, of.shape, of.place == of.in_drive ? of.drive : of.states},
        initial{where, {of.shape[0], 1, of.shape[2]}, of.carry},
        final_cotangent{where, {of.shape[0], 1, of.shape[2]}, of.carry},
        to_initial{where, {of.shape[0], 1, of.shape[2]}, of.carry} {
    fill_decays(decay, of.kind, of.seed, of.shape[1]);
    fill_drives(cotangent, of.kind, of.seed, 2);
    fill_drives(states, gates::random, of.seed, 3);  // they need not be states of anything
    fill_drives(initial, gates::random, of.seed, 4);
    fill_drives(final_cotangent, of.kind, of.seed, 5);
  }

  void run(gpu::on where) {
    to_decay.poison(), to_drive.poison(), to_initial.poison();
    auto const copy = [](auto const& from, auto& to) {
      from.each([&](auto... at) { to(at...) = from(at...); });
    };
    if (of.place == of.in_decay) copy(decay, to_decay);
    if (of.place == of.in_drive) copy(cotangent, to_drive);
    decay.send(where), cotangent.send(where), states.send(where), initial.send(where);
    final_cotangent.send(where), to_decay.send(where), to_drive.send(where), to_initial.send(where);

    sequence_view<T, memory::device> const shape_of_drive{nullptr, of.shape};  // not read
    gpu::linear_scan_inputs<T> const in{(of.place == of.in_decay ? to_decay : decay).view(),
                                        shape_of_drive,
                                        of.has_initial ? initial.carry() : optional{}};
    sequence_view<T, memory::device> const arriving =
        (of.place == of.in_drive ? to_drive : cotangent).view();
    optional const last = of.has_final ? final_cotangent.carry() : optional{};
    gpu::linear_scan_gradients<T> const to{to_decay.view(), to_drive.view(),
                                           of.has_initial ? to_initial.carry() : optional{}};
    guarded_workspace own(
        where, gpu::linear_scan_vjp_workspace(in, states.view(), arriving, last, to, of.order));
    gpu::linear_scan_vjp(where, in, states.view(), arriving, last, to, own.view(), of.order);
    to_decay.fetch(where), to_drive.fetch(where), to_initial.fetch(where);
    own.memory.fetch(where);
    EXPECT_EQ(own.memory.overwritten(), 0) << "bytes around the workspace";
  }

  void check() const {
    EXPECT_EQ(to_decay.overwritten(), 0) << "bytes around the gradient of decay";
    EXPECT_EQ(to_drive.overwritten(), 0) << "bytes around the gradient of drive";
    EXPECT_EQ(to_initial.overwritten(), 0) << "bytes around the gradient of the initial state";
    if (!of.has_initial) EXPECT_TRUE(to_initial.is_poisoned());
    bool const exact = of.kind == gates::units;
    mismatches<T> of_decay("gradient of decay", false), of_drive("gradient of drive", exact);
    mismatches<number> of_initial("gradient of initial_state", exact);
    time_window const window = whole(of.shape[1], of.order);
    initial.each([&](index_t b, index_t, index_t c) {
      exact_t<T> e = of.has_final ? exactly(final_cotangent(b, 0, c)) : exact_t<T>(0);
      term_sizes size{std::abs(e)};
      for (index_t i = window.count - 1; i >= 0; --i) {
        index_t const t = window(i);
        exact_t<T> before = of.has_initial ? exactly(initial(b, 0, c)) : exact_t<T>(0);
        if (i > 0) before = exactly(states(b, window(i - 1), c));
        e += exactly(cotangent(b, t, c));
        size.sum += std::abs(exactly(cotangent(b, t, c)));
        of_drive.compare(to_drive(b, t, c), e, size.bound<number>(), b, t, c);

        term_sizes product = size;  // one multiplication more
        product.multiply(std::abs(before));
        of_decay.compare(to_decay(b, t, c), e * conjugated(before), product.bound<number>(), b, t,
                         c);
        e *= conjugated(exactly(decay(b, t, c)));
        size.multiply(std::abs(exactly(decay(b, t, c))));
      }
      if (!of.has_initial) return;
      of_initial.compare(to_initial(b, 0, c), e, size.bound<number>(), b, 0, c);
    });
  }
};

template <class T>
void expect_gradients(linear_case const& of) {
  SCOPED_TRACE(describe<T>(of));
  gpu::stream const stream;
  vjp_problem<T> problem(stream, of);
  problem.run(stream);
  problem.check();
}

}  // namespace ssm::test
