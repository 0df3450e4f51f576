// SPDX-License-Identifier: Apache-2.0
// closed_forms.hpp: exact gains, moments and estimator variances, to check simulations against.
#pragma once

#include "closed_forms/beta.hpp"       // the Beta law
#include "closed_forms/estimator.hpp"  // how well a simulation can know a gain
#include "closed_forms/extremes.hpp"   // the largest gain of many channels
#include "closed_forms/input.hpp"      // coloured inputs, complex eigenvalues, random steps
#include "closed_forms/law.hpp"        // what a law of decays is, and the gains it implies
#include "closed_forms/paper.hpp"      // what arXiv:2509.19633 prints, beside what is true
#include "closed_forms/scaling.hpp"    // eigenvalues or step sizes times s
#include "closed_forms/spectra.hpp"    // point, uniform, log-uniform, S4D-real, ring
#include "closed_forms/spsa.hpp"       // the estimate of a gradient by random perturbations
