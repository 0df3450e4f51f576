// SPDX-License-Identifier: Apache-2.0
// selective_gradient_formula.hpp: the gradients of selective_scan by their definition, a state
// after another.
#pragma once

#include "support/selective_scan_gradients.hpp"

namespace ssm::test {

template <class W>
selective_gradient<W> gradient_by_formula(selective_problem<W> const& p) {
  selective_formula<W> const f{p};
  scan_shape const& s = p.shape;
  selective_gradient<W> to(p);
  tensor<W, 3> dy(p.x.extents()), to_step(p.x.extents()), sums(p.x.extents());
  for_each_position(p.x.extents(), [&](auto const& at) {
    auto const [b, t, c] = at.value;
    W const z = p.gate(b, t, c), open = 1 / (1 + exp(W(-z)));
    dy(b, t, c) = p.options.gate ? W(p.y_cotangent(b, t, c) * z * open) : p.y_cotangent(b, t, c);
    if (!p.options.D) return;
    sums(b, t, c) = p.D(c) * p.x(b, t, c);
    to.D(c) += dy(b, t, c) * p.x(b, t, c);
    to.x(b, t, c) = dy(b, t, c) * p.D(c);
  });
  for_each_position(p.initial.extents(), [&](auto const& lane) {
    auto const [b, c, n] = lane.value;
    index_t const g = f.group(c);
    W const A = f.eigenvalue(c, n);
    tensor<W, 1> passed({s.length}), decay({s.length});  // passed: what is left of a state
    W h = p.initial(b, c, n);
    for (index_t t = 0; t < s.length; ++t) {
      decay(t) = f.starts(b, t) ? W(0) : W(exp(W(f.step(b, t, c) * A)));
      passed(t) = decay(t) * h;
      h = passed(t) + f.step(b, t, c) * p.B(b, t, g, n) * p.x(b, t, c);
      sums(b, t, c) += p.C(b, t, g, n) * h;
      to.C(b, t, g, n) += dy(b, t, c) * h;
    }
    W e = p.final_cotangent(b, c, n), to_A(0);
    for (index_t t = s.length - 1; t >= 0; --t) {
      W const step = f.step(b, t, c), x = p.x(b, t, c), B = p.B(b, t, g, n);
      e += p.C(b, t, g, n) * dy(b, t, c);
      to_step(b, t, c) += e * (passed(t) * A + B * x);
      to_A += e * passed(t) * step;
      to.B(b, t, g, n) += e * step * x;
      to.x(b, t, c) += e * step * B;
      e *= decay(t);
    }
    to.initial(b, c, n) = e;
    W const sign = p.eigenvalue(c, n) < 0 ? W(-1) : W(1), size = f.size_of(c, n);
    W const factor = p.options.linear ? p.linear(c, n) : W(1), magnitude = abs(p.eigenvalue(c, n));
    to.linear(c, n) += to_A * sign * size;
    to.power(c, n) += to_A * factor * sign * size * log(magnitude);
    to.eigenvalue(c, n) +=
        to_A * factor * (p.options.power ? W(p.power(c, n) * size / magnitude) : W(1));
  });
  for_each_position(p.x.extents(), [&](auto const& at) {
    auto const [b, t, c] = at.value;
    W const biased = f.biased(b, t, c), step = f.rule(biased);
    W const raw = p.options.softplus ? W(log1p(exp(biased))) : biased;
    bool const is_cut = p.options.limits && (raw < p.limits.smallest || raw > p.limits.largest);
    W const slope = is_cut ? W(0) : p.options.softplus ? W(1 / (1 + exp(W(-biased)))) : W(1);
    to.step(c) += to_step(b, t, c) * step;
    to.step_size(b, t, c) = to_step(b, t, c) * f.factor(c) * slope;
    to.step_bias(c) += to.step_size(b, t, c);
    W const z = p.gate(b, t, c), open = 1 / (1 + exp(W(-z)));
    to.gate(b, t, c) = p.y_cotangent(b, t, c) * sums(b, t, c) * open * (1 + z * (1 - open));
  });
  return to;
}

}  // namespace ssm::test
