// SPDX-License-Identifier: Apache-2.0
// scaling_factors.hpp: the factors of all layers' spectra as one row of numbers that can be
// optimized, composed and undone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/numerics.hpp"
#include "ssm/scalar.hpp"
#include "ssm/spectrum_scaling.hpp"
#include "ssm/tensor_view.hpp"

namespace ssm {

/// Which factors a scaling has: any of A' = linear · sign(A)|A|^power, Δ' = step · Δ.
struct scaling_kind {
  bool linear = false;
  bool power = false;
  bool step = false;

  friend constexpr bool operator==(scaling_kind const&, scaling_kind const&) = default;
};

/// What shares a factor. Of `step` there is at most one for each channel or head.
enum class granularity { layer, head, channel, channel_and_state };

/// The eigenvalues of a model. For heads (state_space_dual) the channels are heads, states is 1.
struct spectrum_shape {
  index_t layers = 0;
  index_t channels = 0;
  index_t states = 0;

  friend constexpr bool operator==(spectrum_shape const&, spectrum_shape const&) = default;
};

/// "linear", "power+step", ...: the names of what a kind has; "none".
inline std::string to_string(scaling_kind kind) {
  std::string text;
  for (auto const& [has, name] : {std::pair(kind.linear, "linear"), std::pair(kind.power, "power"),
                                  std::pair(kind.step, "step")}) {
    if (has) text += (text.empty() ? "" : "+") + std::string(name);
  }
  return text.empty() ? "none" : text;
}

/// "layer", "head", "channel" or "channel-and-state".
inline std::string to_string(granularity each) {
  static constexpr char const* names[] = {"layer", "head", "channel", "channel-and-state"};
  return names[static_cast<int>(each)];
}

/// The kind that to_string names so.
/// Throws    domain_error for any other text.
inline scaling_kind scaling_kind_named(std::string_view text) {
  for (int bits = 1; bits < 8; ++bits) {
    scaling_kind const kind{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0};
    if (to_string(kind) == text) return kind;
  }
  throw domain_error("scaling_kind_named: \"" + std::string(text) +
                     "\", expected linear, power, step or some of them in this order, such as "
                     "linear+step");
}

/// The granularity that to_string names so.
/// Throws    domain_error for any other text.
inline granularity granularity_named(std::string_view text) {
  for (auto const each : {granularity::layer, granularity::head, granularity::channel,
                          granularity::channel_and_state}) {
    if (to_string(each) == text) return each;
  }
  throw domain_error("granularity_named: \"" + std::string(text) +
                     "\", expected layer, head, channel or channel-and-state");
}

/// The factors of a scaling of all layers, as one row of numbers: all of `linear`, then all of
/// `power`, then all of `step`; in each by layer, then channel, then state, as far as the
/// granularity tells them apart. Operators take those of a layer by scaling() and add to what
/// gradient() shows them. Scalings are closed under compose, and those without a power of 0 are a
/// group.
template <real_scalar T = double>
class scaling_factors {
 public:
  /// The identity: every factor is 1.
  /// Throws    domain_error for an empty kind or shape, and for heads of more than one state.
  scaling_factors(scaling_kind kind, granularity each, spectrum_shape const& shape)
      : kind_{kind}, each_{each}, shape_{shape} {
    require<domain_error>(kind != scaling_kind{},
                          "scaling_factors: kind is none, expected linear, power or step");
    require<domain_error>(shape.layers > 0 && shape.channels > 0 && shape.states > 0,
                          "scaling_factors: shape is (", shape.layers, ", ", shape.channels, ", ",
                          shape.states, "), expected 1 or more (layer, channel, state)");
    require<domain_error>(each != granularity::head || shape.states == 1,
                          "scaling_factors: ", shape.states,
                          " states, expected 1 where factors are those of heads");
    numbers_.assign(index_of(count()), T(1));
  }

  /// These numbers, in the order of numbers().
  /// Throws    as above, and domain_error for a wrong count or what require_valid rejects.
  scaling_factors(scaling_kind kind, granularity each, spectrum_shape const& shape,
                  std::span<T const> numbers)
      : scaling_factors(kind, each, shape) {
    require_count(numbers.size());
    std::copy(numbers.begin(), numbers.end(), numbers_.begin());
    require_valid();
  }

  scaling_kind kind() const { return kind_; }
  granularity each() const { return each_; }
  spectrum_shape const& shape() const { return shape_; }

  /// To be read and written; what is written is checked when a layer's scaling is asked for.
  std::span<T> numbers() & { return numbers_; }
  std::span<T const> numbers() const& { return numbers_; }
  std::span<T const> numbers() const&& = delete;  // of a value about to be gone

  /// Throw domain_error unless all linear and step factors are positive and all are finite.
  void require_valid() const {
    for (index_t layer = 0; layer < shape_.layers; ++layer) require_valid(layer);
  }

  /// What the operators of a layer take: views of these numbers, valid as long as they are there.
  /// Throws    domain_error as require_valid, for this layer, and for a layer that is not there.
  spectrum_scaling<T> scaling(index_t layer) const& {
    require_valid(layer);
    spectrum_scaling<T> result;
    view_layer(layer, numbers_.data(), result);
    return result;
  }
  spectrum_scaling<T> scaling(index_t layer) const&& = delete;  // the same

  /// Views through which a layer's operators add the gradient of each factor to the number of `to`
  /// that has its place in numbers(), summed over all that shares the factor.
  /// Throws    domain_error for a wrong count, and for a layer that is not there.
  typename spectrum_scaling<T>::gradient gradient(index_t layer, std::span<T> to) const {
    require_layer(layer);
    require_count(to.size());
    typename spectrum_scaling<T>::gradient result;
    view_layer(layer, to.data(), result);
    return result;
  }

  /// The same factors for operators that compute in another type.
  /// Throws    domain_error where one is no valid factor there, as 1e-50 is not in float.
  template <real_scalar U>
  scaling_factors<U> rounded() const {
    std::vector<U> numbers;
    for (T const& number : numbers_) numbers.push_back(static_cast<U>(number));
    return {kind_, each_, shape_, std::span<U const>(numbers)};
  }

  /// What undoes this scaling: |A| = (|A'|/linear)^(1/power), Δ = Δ'/step.
  /// Accuracy  2 eps; under a power (4 + 2|log(linear)/power|)·eps for its linear factor.
  /// Throws    domain_error for a power of 0, after which all eigenvalues are the same, and where
  ///           a factor of the inverse is beyond the range of T.
  scaling_factors inverse() const {
    require_valid();
    scaling_factors result(kind_, each_, shape_);
    result.set([&](index_t layer, index_t c, index_t n) {
      factor_values const here = at(layer, c, n);
      require<domain_error>(here.power != T(0), "scaling_factors: a power of layer ", layer,
                            " is 0, expected another: the scaling has no inverse");
      T const power = T(1) / here.power;
      return factor_values{T(1) / raised(here.linear, power), power, T(1) / here.step};
    });
    return result;
  }

  /// What `inner` and then `outer` do:
  ///   linear = outer.linear · inner.linear^outer.power,   power = outer.power · inner.power,
  ///   step = outer.step · inner.step,
  /// of the kinds that either has, by the finer granularity.
  /// Accuracy  as inverse.
  /// Throws    domain_error for spectra of different shapes and for factors beyond the range of T.
  friend scaling_factors compose(scaling_factors const& outer, scaling_factors const& inner) {
    auto const [layers, channels, states] = inner.shape_;
    require<domain_error>(outer.shape_ == inner.shape_, "compose: outer scales a spectrum of (",
                          outer.shape_.layers, ", ", outer.shape_.channels, ", ",
                          outer.shape_.states, "), expected that of inner, (", layers, ", ",
                          channels, ", ", states, ") (layer, channel, state)");
    outer.require_valid();
    inner.require_valid();
    scaling_kind const kind{outer.kind_.linear || inner.kind_.linear,
                            outer.kind_.power || inner.kind_.power,
                            outer.kind_.step || inner.kind_.step};
    scaling_factors result(kind, std::max(outer.each_, inner.each_), inner.shape_);
    result.set([&](index_t layer, index_t c, index_t n) {
      factor_values const o = outer.at(layer, c, n), i = inner.at(layer, c, n);
      return factor_values{o.linear * raised(i.linear, o.power), o.power * i.power,
                           o.step * i.step};
    });
    return result;
  }

  friend bool operator==(scaling_factors const&, scaling_factors const&) = default;

 private:
  struct factor_values {
    T linear, power, step;
  };

  static std::size_t index_of(index_t i) { return static_cast<std::size_t>(i); }
  static T raised(T const& base, T const& exponent) {
    return spectrum_scaling<T>::raised(base, exponent);
  }

  // A layer has rows() factors of the step and rows()·columns() of each other kind.
  index_t rows() const { return each_ == granularity::layer ? 1 : shape_.channels; }
  index_t columns() const { return each_ == granularity::channel_and_state ? shape_.states : 1; }
  index_t count() const {
    return shape_.layers * rows() * ((kind_.linear + kind_.power) * columns() + kind_.step);
  }

  /// Views of a layer's share of `numbers`.
  template <class U, class Views>
  void view_layer(index_t layer, U* numbers, Views& to) const {
    index_array<2> const extents{shape_.channels, shape_.states};
    index_array<2> const strides{rows() == 1 ? 0 : columns(), columns() == 1 ? 0 : 1};
    index_t const per_layer = rows() * columns();
    for (auto const& [has, view] :
         {std::pair(kind_.linear, &to.linear), std::pair(kind_.power, &to.power)}) {
      if (!has) continue;
      *view = {numbers + layer * per_layer, extents, strides};
      numbers += shape_.layers * per_layer;
    }
    if (kind_.step) to.step = {numbers + layer * rows(), {shape_.channels}, {rows() == 1 ? 0 : 1}};
  }

  factor_values at(index_t layer, index_t c, index_t n) const {
    spectrum_scaling<T> here;
    view_layer(layer, numbers_.data(), here);
    return {here.linear_factor(c, n), here.power_factor(c, n), here.step_factor(c)};
  }

  /// Let every factor be what values(layer, channel, state) says.
  template <class Values>
  void set(Values const& values) {
    for (index_t layer = 0; layer < shape_.layers; ++layer) {
      auto const to = gradient(layer, numbers_);  // views that can be written
      for (index_t c = 0; c < rows(); ++c)
        for (index_t n = 0; n < columns(); ++n) {
          factor_values const value = values(layer, c, n);
          if (kind_.linear) to.linear(c, n) = value.linear;
          if (kind_.power) to.power(c, n) = value.power;
          if (kind_.step) to.step(c) = value.step;
        }
    }
    require_valid();
  }

  void require_layer(index_t layer) const {
    require<domain_error>(layer >= 0 && layer < shape_.layers, "scaling_factors: layer ", layer,
                          ", expected one of the ", shape_.layers);
  }
  void require_count(std::size_t found) const {
    require<domain_error>(found == index_of(count()), "scaling_factors: ", found,
                          " numbers, expected ", count());
  }
  void require_valid(index_t layer) const {
    require_layer(layer);
    auto const is_finite = [](T const& x) { return x - x == T(0); };
    auto const reject = [&](char const* name, index_t c, index_t n, T const& found,
                            char const* expected) {
      require<domain_error>(false, "scaling_factors: ", name, " of layer ", layer, ", channel ", c,
                            ", state ", n, " is ", found, ", expected a ", expected, " number");
    };
    for (index_t c = 0; c < rows(); ++c)
      for (index_t n = 0; n < columns(); ++n) {
        auto const [linear, power, step] = at(layer, c, n);
        if (!(is_finite(linear) && linear > T(0)))
          reject("linear", c, n, linear, "finite positive");
        if (!is_finite(power)) reject("power", c, n, power, "finite");
        if (!(is_finite(step) && step > T(0))) reject("step", c, n, step, "finite positive");
      }
  }

  scaling_kind kind_;
  granularity each_;
  spectrum_shape shape_;
  std::vector<T> numbers_;
};

}  // namespace ssm
