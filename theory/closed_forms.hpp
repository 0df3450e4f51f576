// SPDX-License-Identifier: Apache-2.0
// closed_forms.hpp: exact gains, moments and estimator variances, to check simulations against.
#pragma once

#include "closed_forms/estimator.hpp"  // how well a simulation can know a gain
#include "closed_forms/law.hpp"        // laws of decays and the gains they imply
#include "closed_forms/paper.hpp"      // what arXiv:2509.19633 prints, beside what is true
#include "closed_forms/spectra.hpp"    // point, uniform, log-uniform, beta, S4D-real, ring
