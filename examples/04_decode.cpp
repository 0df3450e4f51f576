// SPDX-License-Identifier: Apache-2.0
// A Mamba block without its projections reads a prompt, then decodes token by token from a state
// that is saved and rolled back. Prints
//   saved        2528 bytes after 1005 tokens
//   decoded      -0.0205 -0.0202 -0.00361
//   rolled back  -0.0205 -0.0202 -0.00361
//   restored     -0.0205 -0.0202 -0.00361
#include <iostream>
#include <ssm/ssm.hpp>

using namespace ssm;

int main() {
  index_t const length = 1008, channels = 32, states = 16, width = 4;
  auto const normal = [](auto numbers, index_t stream, double mean = 0) {
    for (index_t i = 0; float& v : numbers)
      v = static_cast<float>(mean + random_stream{4}.child(stream).normal(i++) / 2);
    return numbers;
  };
  auto const x = normal(tensor<float, 3>({1, length, channels}), 0);
  auto const step_size = normal(tensor<float, 3>({1, length, channels}), 1, -3);
  auto const B = normal(tensor<float, 4>({1, length, 1, states}), 2);
  auto const C = normal(tensor<float, 4>({1, length, 1, states}), 3);
  auto const weight = normal(tensor<float, 2>({channels, width}), 4);
  tensor<float, 2> const A({channels, states}, -1);
  using layer_state = recurrent_state<float, 3>;  // 4 for Mamba-2
  layer_state state{tensor<float, 3>({1, channels, width - 1}),
                    tensor<float, 3>({1, channels, states})};
  auto const advance = [&](index_t count) {  // one function for a prompt, parts of it and a token
    auto const next = [&](auto const& from) { return from.view().slice(1, state.position, count); };
    tensor<float, 3> u({1, count, channels}), y({1, count, channels});
    causal_conv1d_inputs<float> const conv{next(x), weight, {}, {}, activation::silu};
    causal_conv1d(parallel{}, conv, state.conv, u);
    selective_scan_inputs<float> const mamba{u, next(step_size), A, next(B), next(C)};
    selective_scan(parallel{}, mamba, state.ssm, y);
    state.position += count;
    return y;
  };

  advance(700), advance(300);  // the prompt in two parts
  for (int token = 0; token < 5; ++token) advance(1);
  std::vector<std::byte> const saved = to_bytes(state);
  std::cout.precision(3);
  std::cout << "saved        " << saved.size() << " bytes after " << state.position << " tokens\n";
  state_history<layer_state> history{3};
  auto const decode = [&](char const* name) {
    std::cout << name;
    for (int token = 0; token < 3; ++token) {
      history.remember(state);
      std::cout << ' ' << advance(1)(0, 0, 0);
    }
    std::cout << '\n';
    return state;
  };
  layer_state const first = decode("decoded     ");
  history.roll_back(state, 3);
  bool const same = decode("rolled back ") == first;
  state = from_bytes<layer_state>(saved);
  return same && decode("restored    ") == first ? 0 : 1;
}
