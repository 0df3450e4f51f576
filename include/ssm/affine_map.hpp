// SPDX-License-Identifier: Apache-2.0
// affine_map.hpp: the algebra. Everything the library runs is a composition of these maps.
#pragma once

#include "ssm/config.hpp"
#include "ssm/scalar.hpp"

namespace ssm {

/// One step of a linear recurrence, h ↦ decay·h + drive. The default is the identity.
template <scalar T>
struct affine_map {
  T decay = T(1);
  T drive = T(0);

  SSM_HD constexpr T operator()(T const& h) const { return decay * h + drive; }
  friend constexpr bool operator==(affine_map const&, affine_map const&) = default;
};

template <scalar T>
affine_map(T, T) -> affine_map<T>;

/// Composition, the earlier map first: then{}(f, g)(h) = g(f(h)).
/// Associative and not commutative: only scans that keep the order may use it (never
/// std::reduce). A chunk, a block or a rank of any length reduces to one such map per state.
struct then {
  template <scalar T>
  SSM_HD constexpr affine_map<T> operator()(affine_map<T> const& earlier,
                                            affine_map<T> const& later) const {
    return {later.decay * earlier.decay, later.decay * earlier.drive + later.drive};
  }
};

}  // namespace ssm
