// SPDX-License-Identifier: Apache-2.0
// closed_forms_test.cpp: every closed form against reference values to 25 digits.
#include "closed_forms.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "support/oracle.hpp"

namespace {

using namespace ssm;
using namespace ssm::theory;
using ssm::test::digits50, ssm::test::message_of;

template <class T>
using values = std::map<std::string, T>;

template <class T>
using formula = std::function<T(values<T>&)>;

/// The reference values: data/theory_values.csv, one a line. `exact` is the value at the decimal
/// inputs, `rounded` at the doubles nearest to them.
struct reference {
  std::string id;
  values<digits50> decimal;
  values<double> rounded_inputs;
  digits50 exact, rounded;
};

std::vector<std::string> fields_of(std::string const& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (char const c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  return fields;
}

/// name=text;name=text
values<std::string> inputs_of(std::string const& field) {
  values<std::string> inputs;
  std::istringstream parts(field);
  for (std::string part; std::getline(parts, part, ';');) {
    auto const equals = part.find('=');
    inputs[part.substr(0, equals)] = part.substr(equals + 1);
  }
  return inputs;
}

std::vector<reference> references() {
  std::ifstream file(SSM_TEST_DATA "/theory_values.csv");
  std::vector<reference> all;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    auto const fields = fields_of(line);
    reference r{fields.at(0), {}, {}, digits50(fields.at(4)), digits50(fields.at(5))};
    for (auto const& [name, text] : inputs_of(fields[2])) r.decimal[name] = digits50(text);
    for (auto const& [name, text] : inputs_of(fields[3])) {
      r.rounded_inputs[name] = std::strtod(text.c_str(), nullptr);
    }
    all.push_back(r);
  }
  return all;
}

template <class T>
index_t whole(T const& x) {
  return static_cast<index_t>(x);
}

template <class T>
uniform_law<T> uniform(values<T>& v) {  // a = 0 where it is not given
  return uniform_law<T>::between(pole<T>::at(v["a"]), pole<T>::at(v["b"]));
}

/// The formulas by the ids they belong to.
template <class T>
std::map<std::string, formula<T>> formulas() {
  std::map<std::string, formula<T>> all;
  auto const add = [&](std::initializer_list<char const*> ids, formula<T> const& f) {
    for (auto const* id : ids) all[id] = f;
  };
  add({"U1.exact", "U2.exact", "U4.exact", "U5.exact", "U6.exact", "U8.exact"},
      [](auto& v) { return mean_stationary_gain(uniform(v)); });
  add({"U1.printed", "U2.printed", "U3.printed", "U5.printed", "U6.printed", "U7.printed"},
      [](auto& v) { return printed_gain(uniform(v)); });
  add({"U2.ratio", "U3.ratio", "U4.ratio", "U6.ratio", "U7.ratio", "U8.ratio"},
      [](auto& v) { return printed_ratio(uniform(v)); });
  add({"V1.M2", "V3.M2", "V5.M2"}, [](auto& v) { return gain_moment(uniform(v), 2); });
  add({"V1.M11", "V2.M11", "V3.M11", "V4.M11", "V5.M11"},
      [](auto& v) { return square_cross_gain(uniform(v)); });
  add({"V7.Vshared"}, [](auto& v) {
    return shared_decay_variance(uniform(v), {whole(v["d"]), whole(v["m"])});
  });
  add({"T1", "T4", "T5"}, [](auto& v) { return mean_state_gain(uniform(v), whole(v["T"])); });
  add({"T2"}, [](auto& v) {
    v["b"] = T(1);
    return mean_state_gain(uniform(v), whole(v["T"]));
  });
  add({"T6"}, [](auto& v) { return remaining_gain(uniform(v), whole(v["T"])); });
  add({"T8"}, [](auto& v) { return exponential_integral_inverse(v["y"]); });
  add({"T9"}, [](auto& v) {  // W0(1/y), in the bound where 2(b - a) bias = y and -2 log b = 1
    auto const b = pole<T>::with_rate(T(0.5));
    auto const law = uniform_law<T>::between(pole<T>::at(T(0)), b);
    return steps_until_at_most(law, T(v["y"] / (T(2) * b.value)));
  });
  add({"T10"}, [](auto& v) {
    auto const law = uniform(v);
    return steps_until(law, T(v["eta"] * printed_error(law)));
  });
  add({"B2", "B3"},
      [](auto& v) { return mean_stationary_gain(beta_law<T>::of(v["al"], v["be"])); });
  add({"B4"},
      [](auto& v) { return mean_state_gain(beta_law<T>::of(v["al"], v["be"]), whole(v["T"])); });
  add({"L2", "L3"}, [](auto& v) {
    return mean_stationary_gain(
        log_uniform_law<T>::of_rates(T(v["x"] * v["Dt"]), T(v["y"] * v["Dt"])));
  });
  add({"L4"}, [](auto& v) { return mean_stationary_gain(s4d_real_law<T>::of(16, v["Dt"])); });
  add({"G2"}, [](auto& v) { return euler_gain(v["al"], v["D"]); });
  add({"G3", "G4"}, [](auto& v) { return zero_order_hold_gain(v["al"], v["D"]); });
  add({"G6"}, [](auto& v) { return mamba_gain(pole<T>::at(v["l"]), v["D"]); });
  add({"A1", "A2"}, [](auto& v) { return mean_ar1_gain(uniform(v), v["rho"]); });
  add({"A4"}, [](auto& v) { return ar1_gain(pole<T>::at(v["l"]), v["rho"], whole(v["t"])); });
  add({"A5"}, [](auto& v) { return constant_gain(uniform(v), whole(v["t"])); });
  add({"R1", "R4"}, [](auto& v) {
    return softplus_normal_step<T>{v["mu"], v["s"]}.mean_decay(T(T(2) * v["al"])).value;
  });
  add({"R3"}, [](auto& v) {
    return random_step_gain(softplus_normal_step<T>{v["mu"], v["s"]}, v["al"]);
  });
  add({"R5"}, [](auto& v) { return random_step_gain(gamma_step<T>{v["k"], v["th"]}, v["al"]); });
  add({"C2"}, [](auto& v) {
    auto const [a, b] = uniform(v);
    return mean_stationary_gain(ring_law<T>::between(a, b));
  });
  add({"C3"}, [](auto& v) { return complex_ar1_gain(pole<T>::at(v["r"]), v["th"], v["rho"]); });
  add({"S1"},
      [](auto& v) { return matching_eigenvalue_factor(pole<T>::at(v["lam"]), whole(v["T1"])); });
  add({"S3"}, [](auto&) { return constant_elasticity_balance<T>(); });
  add({"S4"}, [](auto&) { return printed_reaches_one<T>(); });
  add({"D1"}, [](auto& v) { return product_of_chi_squares_cdf(v["m"], v["d"], v["x"]); });
  return all;
}

/// Check every line of the file: `error_of` gives the relative error and its bound.
template <class T, class Error>
void check_every_reference(double bound, Error const& error_of) {
  auto all = formulas<T>();
  auto const lines = references();
  ASSERT_EQ(lines.size(), 59u);
  for (auto const& line : lines) {
    ASSERT_TRUE(all.contains(line.id)) << "no formula for " << line.id;
    EXPECT_LE(error_of(all[line.id], line), bound) << line.id;
    all.erase(line.id);
  }
  EXPECT_TRUE(all.empty()) << "no reference value for " << all.begin()->first;
}

TEST(ClosedForms, EqualEveryReferenceValueAtTheDoublesThatItsInputsRoundTo) {
  check_every_reference<double>(1e-14, [](auto const& f, reference const& line) {
    auto inputs = line.rounded_inputs;
    return static_cast<double>(abs((digits50(f(inputs)) - line.rounded) / line.rounded));
  });
}

TEST(ClosedForms, EqualEveryReferenceValueToTwentyFourDigits) {
  check_every_reference<digits50>(1e-24, [](auto const& f, reference const& line) {
    auto inputs = line.decimal;
    return static_cast<double>(abs((f(inputs) - line.exact) / line.exact));
  });
}

}  // namespace
