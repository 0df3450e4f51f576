// SPDX-License-Identifier: Apache-2.0
// Views of memory that is not there: an error comes before anything could read it.
#include <gtest/gtest.h>

#include "compiled/linear_scan.cuh"

namespace {

using namespace ssm;
template <int Rank>
using view = tensor_view<float, Rank, memory::device>;

/// Memory number k, far from that of other numbers.
float* address(int k, index_t element = 0) {
  return reinterpret_cast<float*>(std::uintptr_t{0x100000000} * static_cast<unsigned>(k)) + element;
}

index_array<3> const shape{2, 4000, 3};

struct scan_arguments {
  gpu::linear_scan_inputs<float> in{view<3>{address(1), shape}, view<3>{address(2), shape},
                                    view<2>{address(3), {2, 3}}};
  view<3> states{address(4), shape};
  view<2> final{address(5), {2, 3}};
  gpu::workspace memory{reinterpret_cast<std::byte*>(address(6)), {1 << 20}};

  void run() const { gpu::linear_scan(gpu::on{}, in, states, final, memory); }
  std::size_t bytes() const { return gpu::linear_scan_workspace(in, states, final); }
};

struct vjp_arguments {
  gpu::linear_scan_inputs<float> in{view<3>{address(1), shape}, view<3>{nullptr, shape},
                                    view<2>{address(3), {2, 3}}};
  view<3> states{address(4), shape}, cotangent{address(5), shape};
  view<2> final{address(6), {2, 3}};
  gpu::linear_scan_gradients<float> to{view<3>{address(7), shape}, view<3>{address(8), shape},
                                       view<2>{address(9), {2, 3}}};
  gpu::workspace memory{reinterpret_cast<std::byte*>(address(10)), {1 << 20}};

  void run() const { gpu::linear_scan_vjp(gpu::on{}, in, states, cotangent, final, to, memory); }
  std::size_t bytes() const {
    return gpu::linear_scan_vjp_workspace(in, states, cotangent, final, to);
  }
};

template <class Arguments, class Change>
void expect_error(std::string const& message, Change const& change) {
  Arguments arguments;
  change(arguments);
  try {
    arguments.run();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (shape_error const& error) {
    EXPECT_EQ(error.what(), message);
  } catch (gpu::error const& error) {
    ADD_FAILURE() << "launched: " << error.what() << ", expected: " << message;
  }
}

template <class Arguments, class Change>
std::size_t bytes_of(Change const& change) {
  Arguments arguments;
  change(arguments);
  return arguments.bytes();
}

index_array<3> const longer{2, 4001, 3};
index_array<2> const wider{2, 4};
std::string const own_elements = ", expected elements of its own at every position";
std::string const own_memory = ", expected memory of its own";

TEST(LinearScanErrors, NameViewsOfTheWrongShape) {
  auto const expect = expect_error<scan_arguments, void (*)(scan_arguments&)>;
  std::string const all = ", expected (2, 4000, 3) (batch, time, channel)";
  std::string const carry = " has shape (2, 4), expected (2, 3) (batch, channel)";
  expect("linear_scan: decay has shape (2, 4001, 3)" + all, [](scan_arguments& a) {
    a.in.decay = view<3>{address(1), longer};
  });
  expect("linear_scan: states has shape (2, 4001, 3)" + all, [](scan_arguments& a) {
    a.states = {address(4), longer};
  });
  expect("linear_scan: initial_state" + carry, [](scan_arguments& a) {
    a.in.initial_state = view<2>{address(3), wider};
  });
  expect("linear_scan: final_state" + carry, [](scan_arguments& a) {
    a.final = {address(5), wider};
  });
}

TEST(LinearScanErrors, NameOutputsThatRepeatTheirElements) {
  auto const expect = expect_error<scan_arguments, void (*)(scan_arguments&)>;
  expect("linear_scan: states has stride 0 along axis 1 of extent 4000" + own_elements,
         [](scan_arguments& a) {
           a.states = {address(4), shape, {3, 0, 1}};
         });
  expect("linear_scan: final_state has stride 0 along axis 0 of extent 2" + own_elements,
         [](scan_arguments& a) {
           a.final = {address(5), {2, 3}, {0, 1}};
         });
}

TEST(LinearScanErrors, NameOutputsThatOverlap) {
  auto const expect = expect_error<scan_arguments, void (*)(scan_arguments&)>;
  expect("linear_scan: states overlaps decay" + own_memory, [](scan_arguments& a) {
    a.states = {address(1, 1), shape};
  });
  expect("linear_scan: states overlaps drive" + own_memory, [](scan_arguments& a) {
    a.states = {address(2, -23999), shape};
  });
  expect("linear_scan: states overlaps drive" + own_memory, [](scan_arguments& a) {
    a.states = {address(2), shape, {12000, 1, 4000}};
  });
  expect("linear_scan: states overlaps final_state" + own_memory, [](scan_arguments& a) {
    a.final = {address(4, 23999), {2, 3}};
  });
  expect("linear_scan: states overlaps initial_state" + own_memory, [](scan_arguments& a) {
    a.states = {address(3, 5), shape};
  });
  expect("linear_scan: final_state overlaps decay" + own_memory, [](scan_arguments& a) {
    a.final = {address(1, 100), {2, 3}};
  });
  expect("linear_scan: final_state overlaps drive" + own_memory, [](scan_arguments& a) {
    a.final = {address(2, 100), {2, 3}};
  });
  expect("linear_scan: final_state overlaps initial_state" + own_memory, [](scan_arguments& a) {
    a.final = {address(3), {2, 3}};
  });
}

TEST(LinearScanErrors, AreNotThrownForOutputsSideBySideWithInputs) {
  auto const bytes = bytes_of<scan_arguments, void (*)(scan_arguments&)>;
  EXPECT_NO_THROW(bytes([](scan_arguments& a) {
    a.in.drive = view<3>{address(1, 0), shape, {24000, 6, 1}};
    a.states = {address(1, 3), shape, {24000, 6, 1}};
    a.in.decay = view<3>{address(2), shape};
  }));
  EXPECT_NO_THROW(bytes([](scan_arguments& a) { a.states = {address(2, 24000), shape}; }));
  EXPECT_NO_THROW(bytes([](scan_arguments& a) { a.states = {address(2, -24000), shape}; }));
  EXPECT_NO_THROW(bytes([](scan_arguments& a) { a.states = {address(2), shape}; }));
}

TEST(LinearScanErrors, NameAWorkspaceThatIsTooSmallOrMisaligned) {
  auto const expect = expect_error<scan_arguments, void (*)(scan_arguments&)>;
  std::string const needed = std::to_string(scan_arguments{}.bytes());
  expect("linear_scan: workspace has 0 bytes, expected at least " + needed,
         [](scan_arguments& a) { a.memory = {}; });
  expect("linear_scan: workspace has " + std::to_string(scan_arguments{}.bytes() - 1) +
             " bytes, expected at least " + needed,
         [](scan_arguments& a) { a.memory = a.memory.slice(0, 0, index_t(a.bytes()) - 1); });
  expect("linear_scan: workspace begins in the middle of 16 bytes, expected a multiple of 16",
         [](scan_arguments& a) { a.memory = a.memory.slice(0, 8, 1 << 19); });
}

TEST(LinearScanErrors, OfTheGradientNameTheArgument) {
  auto const expect = expect_error<vjp_arguments, void (*)(vjp_arguments&)>;
  std::string const name = "linear_scan_vjp: ";
  std::string const of_3 = " has shape (2, 4001, 3), expected (2, 4000, 3) (batch, time, channel)";
  std::string const of_2 = " has shape (2, 4), expected (2, 3) (batch, channel)";
  expect(name + "decay" + of_3, [](vjp_arguments& a) { a.in.decay = view<3>{address(1), longer}; });
  expect(name + "states" + of_3, [](vjp_arguments& a) { a.states = {address(4), longer}; });
  expect(name + "cotangent" + of_3, [](vjp_arguments& a) { a.cotangent = {address(5), longer}; });
  expect(name + "gradient of decay" + of_3, [](vjp_arguments& a) {
    a.to.decay = {address(7), longer};
  });
  expect(name + "gradient of drive" + of_3, [](vjp_arguments& a) {
    a.to.drive = {address(8), longer};
  });
  expect(name + "initial_state" + of_2, [](vjp_arguments& a) {
    a.in.initial_state = view<2>{address(3), wider};
  });
  expect(name + "final_cotangent" + of_2, [](vjp_arguments& a) { a.final = {address(6), wider}; });
  expect(name + "gradient of initial_state" + of_2, [](vjp_arguments& a) {
    a.to.initial_state = {address(9), wider};
  });

  expect(name + "gradient of decay has stride 0 along axis 1 of extent 4000" + own_elements,
         [](vjp_arguments& a) {
           a.to.decay = {address(7), shape, {3, 0, 1}};
         });
  expect(name + "gradient of drive overlaps states" + own_memory,
         [](vjp_arguments& a) { a.to.drive = a.states; });
  expect(name + "gradient of decay overlaps gradient of drive" + own_memory,
         [](vjp_arguments& a) { a.to.drive = a.to.decay; });
  expect(name + "gradient of decay overlaps decay" + own_memory, [](vjp_arguments& a) {
    a.to.decay = {address(1, 1), shape};
  });
  expect(name + "gradient of drive overlaps gradient of initial_state" + own_memory,
         [](vjp_arguments& a) {
           a.to.initial_state = {address(8, 100), {2, 3}};
         });
  expect(
      name + "workspace has 0 bytes, expected at least " + std::to_string(vjp_arguments{}.bytes()),
      [](vjp_arguments& a) { a.memory = {}; });
}

TEST(LinearScanErrors, OfTheGradientNameAnInitialStateThatOverlaps) {
  auto const expect = expect_error<vjp_arguments, void (*)(vjp_arguments&)>;
  std::string const name = "linear_scan_vjp: gradient of initial_state overlaps ";
  expect(name + "decay" + own_memory, [](vjp_arguments& a) {
    a.to.initial_state = {address(1, 100), {2, 3}};
  });
  expect(name + "cotangent" + own_memory, [](vjp_arguments& a) {
    a.to.initial_state = {address(5, 100), {2, 3}};
  });
  expect(name + "states" + own_memory, [](vjp_arguments& a) {
    a.to.initial_state = {address(4, 100), {2, 3}};
  });
  expect(name + "initial_state" + own_memory, [](vjp_arguments& a) {
    a.to.initial_state = {address(3), {2, 3}};
  });
  expect(name + "final_cotangent" + own_memory, [](vjp_arguments& a) {
    a.to.initial_state = {address(6), {2, 3}};
  });
}

}  // namespace
