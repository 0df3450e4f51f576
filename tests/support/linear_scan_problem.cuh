// SPDX-License-Identifier: Apache-2.0
// linear_scan_problem.cuh: raw scans on the device in any layout, and what they must give within
// derived bounds.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <type_traits>

#include "compiled/linear_scan.cuh"
#include "support/guarded_array.cuh"
#include "support/linear_scan_numbers.cuh"

namespace ssm::test {

/// Σ|terms| of a state, and the same with each term as often as the steps that it has come.
struct term_sizes {
  double sum = 0, travelled = 0;

  void multiply(double decay) {
    travelled = decay * (travelled + sum);
    sum *= decay;
  }

  /// What the sum may be off by. A term that comes m steps is multiplied m times, however the
  /// decays are grouped: m roundings of eps/2. Each sum with later terms moves it a step or more:
  /// m more. Sums with earlier terms, where most are met (few channels): 5 in a warp, 16 of warps,
  /// 8 of blocks, 4 of teams, 2 of what enters, 1 where it is run: 36. So (m + 18)·eps, to first
  /// order; a twentieth more is enough for the others while
  /// m·eps < 1/20. A complex product is off by √5·eps/2 instead of eps/2: twice all that covers it;
  /// twice once more where the expected value is a sum in double, too. Then, for products of decays
  /// that underflow, a few of the smallest numbers.
  template <class Number>
  double bound() const {
    using real = std::numeric_limits<real_t<Number>>;
    double const twice = (complex_scalar<Number> ? 2 : 1) * (real::digits > 24 ? 2 : 1);
    return 1.05 * twice * real::epsilon() * (travelled + 18 * sum) +
           36 * real::denorm_min() * (1 + sum);
  }
};

/// Half a unit in the last place of what is stored.
template <class T>
double storing_bound(double size) {
  double const relative = std::is_same_v<T, bfloat16>  ? 0x1p-8
                          : std::is_same_v<T, float16> ? 0x1p-11
                                                       : 0;
  return relative * size + (std::is_same_v<T, float16> ? 0x1p-25 : 0);
}

/// The elements of one array that are not what they must be.
template <class T>
class mismatches {
 public:
  mismatches(char const* name, bool exact) : name_{name}, exact_{exact} {}

  void compare(T const& found, exact_t<T> const& expected, double bound, index_t b, index_t t,
               index_t c) {
    exact_t<T> const value = exactly(found);
    double const allowed = bound + storing_bound<T>(std::abs(expected) + bound);
    bool const is_right = exact_ ? value == exactly(rounded<T>(expected))
                                 : std::abs(value - expected) <= allowed;  // not so for NaN
    if (is_right) return;
    if (count_++ == 0) {
      first_ << name_ << '(' << b << ", " << t << ", " << c << ") is " << value << ", expected "
             << expected << " ± " << (exact_ ? 0 : allowed);
    }
  }
  ~mismatches() { EXPECT_EQ(count_, 0) << "elements are wrong; first " << first_.str(); }

 private:
  char const* name_;
  bool exact_;
  index_t count_ = 0;
  std::ostringstream first_{};
};

/// What is to be run.
struct linear_case {
  index_array<3> shape;  ///< batch, time, channel
  direction order = direction::forward;
  gates kind = gates::random;
  layout decay = rows, drive = rows, states = rows, carry = columns;
  bool has_initial = true, has_final = true;
  enum { apart, in_decay, in_drive } place = apart;  ///< where the states go
  std::uint64_t seed = 2026;

  linear_case all(layout const& how) const {
    auto result = *this;
    result.decay = result.drive = result.states = how;
    return result;
  }
};

template <class T>
testing::Message describe(linear_case const& of) {
  char const* const places[] = {"", ", in place of decay", ", in place of drive"};
  return testing::Message() << type_name<T>() << ' ' << to_string(of.shape)
                            << (of.order == direction::forward ? " forward" : " backward")
                            << ", decay in " << of.decay.name << ", drive in " << of.drive.name
                            << ", states in " << of.states.name << ", carry in " << of.carry.name
                            << (of.has_initial ? ", initial" : "")
                            << (of.has_final ? ", final" : "") << places[of.place] << ", gates "
                            << static_cast<int>(of.kind) << ", seed " << of.seed;
}

/// A scan on the device whose every input and output is known to the host.
template <class T>
struct linear_problem {
  using number = accumulator_t<T>;

  linear_case of;
  guarded<T> decay, drive, states;
  guarded<number> initial, final;

  linear_problem(gpu::on where, linear_case const& wanted)
      : of{wanted},
        decay{where, of.shape, of.decay},
        drive{where, of.shape, of.drive},
        states{where, of.shape, of.states},
        initial{where, {of.shape[0], 1, of.shape[2]}, of.carry},
        final{where, {of.shape[0], 1, of.shape[2]}, of.carry} {
    fill_decays(decay, of.kind, of.seed, of.shape[1]);
    fill_drives(drive, of.kind, of.seed, 2);
    fill_drives(initial, of.kind, of.seed, 3);
  }

  gpu::linear_scan_inputs<T> inputs() const {
    return {(of.place == of.in_decay ? states : decay).view(),
            (of.place == of.in_drive ? states : drive).view(),
            of.has_initial ? initial.carry() : tensor_view<number, 2, memory::device>{}};
  }
  tensor_view<number, 2, memory::device> final_view() const {
    return of.has_final ? final.carry() : tensor_view<number, 2, memory::device>{};
  }

  /// Inputs as they are here, outputs as if never written.
  void send(gpu::on where) {
    states.poison();
    final.poison();
    if (of.place != of.apart) {
      auto const& from = of.place == of.in_decay ? decay : drive;
      states.each([&](auto... at) { states(at...) = from(at...); });
    }
    decay.send(where), drive.send(where), states.send(where);
    initial.send(where), final.send(where);
  }

  void run(gpu::on where) {
    send(where);
    guarded_workspace own(
        where, gpu::linear_scan_workspace(inputs(), states.view(), final_view(), of.order));
    gpu::linear_scan(where, inputs(), states.view(), final_view(), own.view(), of.order);
    fetch(where);
    own.memory.fetch(where);
    EXPECT_EQ(own.memory.overwritten(), 0) << "bytes around the workspace";
  }
  void fetch(gpu::on where) { states.fetch(where), final.fetch(where); }

  void check() const {
    EXPECT_EQ(states.overwritten(), 0) << "bytes around the states";
    EXPECT_EQ(final.overwritten(), 0) << "bytes around the final state";
    if (!of.has_final) EXPECT_TRUE(final.is_poisoned());
    bool const exact = of.kind == gates::units;
    mismatches<T> of_states("states", exact);
    mismatches<number> of_final("final_state", exact);
    time_window const window = whole(of.shape[1], of.order);
    initial.each([&](index_t b, index_t, index_t c) {
      exact_t<T> h = of.has_initial ? exactly(initial(b, 0, c)) : exact_t<T>(0);
      term_sizes size{std::abs(h)};
      for (index_t i = 0; i < window.count; ++i) {
        auto const a = exactly(decay(b, window(i), c)), d = exactly(drive(b, window(i), c));
        h = a * h + d;
        size.multiply(std::abs(a));
        size.sum += std::abs(d);
        of_states.compare(states(b, window(i), c), h, size.bound<number>(), b, window(i), c);
      }
      if (!of.has_final) return;
      of_final.compare(final(b, 0, c), h, size.bound<number>(), b, 0, c);
    });
  }
};

/// Run and check one case.
template <class T>
void expect_states(linear_case const& of) {
  SCOPED_TRACE(describe<T>(of));
  gpu::stream const stream;
  linear_problem<T> problem(stream, of);
  problem.run(stream);
  problem.check();
}

inline constexpr direction both_ways[] = {direction::forward, direction::backward};

/// Call test(std::type_identity<T>{}) for each of the types.
template <class... T, class Test>
void for_types(Test const& test) {
  (test(std::type_identity<T>{}), ...);
}

/// Steps of a tile of rows, and of a stretch of columns in the pipeline.
template <class T, class Step>
constexpr index_t rows_tile_length =
    gpu::detail::rows_tile_slots<gpu::detail::element_t<T>, Step::inputs == 2 ? 3 : 2>;

template <class T, class Step>
index_t columns_tile_length(index_t channels) {
  using namespace gpu::detail;
  index_t width = 1;
  while (width < 32 && width < channels) width *= 2;
  return columns_tiles<element_t<T>, Step, true>::stretch_steps(static_cast<int>(width));
}

}  // namespace ssm::test
