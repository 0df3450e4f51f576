// SPDX-License-Identifier: Apache-2.0
// ssm.hpp: the whole library for the CPU, in the order of its layers. A header includes only
// headers of the lines above its own and of its own line.
#pragma once

// words and errors
#include "ssm/config.hpp"
#include "ssm/error.hpp"
#include "ssm/scalar.hpp"

// arithmetic and memory
#include "ssm/eigen.hpp"
#include "ssm/numerics.hpp"
#include "ssm/random.hpp"
#include "ssm/tensor.hpp"
#include "ssm/tensor_view.hpp"

// the algebra, and who runs it
#include "ssm/affine_map.hpp"
#include "ssm/execution.hpp"

// physics to maps, maps to outputs
#include "ssm/diagonal.hpp"
#include "ssm/discretize.hpp"
#include "ssm/packed.hpp"
#include "ssm/readout.hpp"
#include "ssm/recurrence.hpp"
#include "ssm/scalar_identity.hpp"
#include "ssm/scaling_factors.hpp"
#include "ssm/spectrum_scaling.hpp"
#include "ssm/step_size.hpp"

// the engine
#include "ssm/scan.hpp"

// operators, and what a spectrum does
#include "ssm/causal_conv1d.hpp"
#include "ssm/causal_convolution.hpp"
#include "ssm/data_free_scaling.hpp"
#include "ssm/fft_convolution.hpp"
#include "ssm/recurrent_state.hpp"
#include "ssm/s4d.hpp"
#include "ssm/s4d_convolution.hpp"
#include "ssm/s4d_kernel.hpp"
#include "ssm/selective_scan.hpp"
#include "ssm/spectrum.hpp"
#include "ssm/spectrum_analysis.hpp"
#include "ssm/state_space_dual.hpp"

// choosing factors
#include "ssm/calibrate.hpp"
#include "ssm/calibrate_data.hpp"
#include "ssm/fingerprint.hpp"
#include "ssm/optimize/adam.hpp"
#include "ssm/optimize/choose_step.hpp"
#include "ssm/optimize/gain_sequence.hpp"
#include "ssm/optimize/objective.hpp"
#include "ssm/optimize/perturbation.hpp"
#include "ssm/optimize/published_spsa.hpp"
#include "ssm/optimize/spsa.hpp"

// trained models
#include "ssm/model/calibration_file.hpp"
#include "ssm/model/calibration_json.hpp"
#include "ssm/model/checkpoint.hpp"
#include "ssm/model/safetensors.hpp"
