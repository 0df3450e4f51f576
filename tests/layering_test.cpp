// SPDX-License-Identifier: Apache-2.0
// layering_test.cpp: the rules of the source tree that no compiler checks.
#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace {

/// A header may include those of its own line and of the lines before it. A folder stands for all
/// that is in it, scan for scan.hpp and for its CUDA twin scan.cuh. A new header needs a place
/// here.
constexpr char const* layers[] = {
    "config error scalar",
    "numerics random tensor_view tensor eigen detail/double_word detail/half detail/simd "
    "detail/simd_exp2 detail/simd_exp2_of_product detail/simd_math execution.cuh detail/device "
    "accumulate graph "
    "detail/element",
    "affine_map execution detail/early_launch detail/instruction_set detail/workers "
    "detail/parallel_for "
    "detail/require_writable "
    "detail/scratch "
    "detail/sum_into detail/require_apart detail/barrier detail/lock_step detail/copy_engine "
    "detail/cluster detail/tile_words "
    "detail/tile_pipeline "
    "detail/tile_walk detail/tile_launch detail/tile_porters workspace "
    "detail/device_math",
    "discretize recurrence diagonal scalar_identity readout step_size packed spectrum_scaling "
    "scaling_factors",
    "scan linear_scan detail/linear_step detail/linear_call detail/linear_rows_tile "
    "detail/linear_rows_chunk detail/linear_rows detail/linear_rows_engine "
    "detail/linear_rows_single "
    "detail/linear_rows_stretch detail/linear_rows_loose detail/linear_rows_launch "
    "detail/linear_columns_tile detail/linear_columns_words "
    "detail/linear_columns detail/linear_brief detail/linear_teams_problem "
    "detail/linear_teams_tile detail/linear_teams_piece detail/linear_teams_memory "
    "detail/linear_teams_block detail/linear_teams_states detail/linear_teams "
    "detail/linear_teams_launch "
    "detail/linear_bands_memory detail/linear_bands detail/linear_bands_launch "
    "detail/linear_launch",
    "causal_conv1d detail/causal_conv1d_block detail/causal_conv1d_fast "
    "detail/causal_conv1d_fast_vjp detail/causal_conv1d_inputs detail/causal_conv1d_reference "
    "detail/conv1d_elements detail/conv1d_problem detail/conv1d_columns detail/conv1d_rows "
    "detail/conv1d_step "
    "detail/conv1d_launch detail/conv1d_vjp_problem detail/conv1d_columns_vjp "
    "detail/conv1d_rows_vjp detail/conv1d_sums detail/conv1d_vjp_launch "
    "selective_scan detail/selective_scan_blocks detail/selective_scan_inputs "
    "detail/selective_scan_kernel "
    "detail/selective_scan_reference detail/selective_scan_step detail/selective_scan_vjp "
    "detail/selective_scan_vjp_kernel detail/selective_packets detail/selective_slots "
    "detail/selective_problem "
    "detail/selective_stage detail/selective_states detail/selective_steps "
    "detail/selective_porters "
    "detail/selective_entering detail/selective_warp_sums detail/selective_moments_tile "
    "detail/selective_moments_stage "
    "detail/selective_moments detail/selective_fold detail/selective_relay_tile "
    "detail/selective_relay_projections detail/selective_relay_sequences "
    "detail/selective_relay_porters detail/selective_relay detail/selective_relay_launch "
    "detail/selective_step_kernel detail/selective_launch selective_scan_vjp "
    "detail/selective_vjp_problem detail/selective_vjp_tile detail/selective_vjp_rows "
    "detail/selective_vjp_stage "
    "detail/selective_vjp_arriving detail/selective_vjp_fold detail/selective_vjp_step "
    "detail/selective_vjp_kernel "
    "detail/selective_vjp_sums detail/selective_vjp_launch state_space_dual detail/dual_problem "
    "detail/step_states detail/dual_step_kernel detail/dual_square detail/dual_chunk_tile "
    "detail/dual_chunk_stage "
    "detail/dual_chunk_states detail/dual_chunk_coupling detail/dual_chunk_kernel "
    "detail/dual_entering detail/dual_hopper_instructions detail/dual_hopper_products "
    "detail/dual_hopper_block detail/dual_hopper_state detail/dual_hopper_slab "
    "detail/dual_hopper_entering "
    "detail/dual_hopper_kernel detail/dual_hopper_launch detail/dual_launch "
    "state_space_dual_vjp detail/dual_vjp_problem detail/dual_vjp_copies "
    "detail/dual_vjp_products detail/dual_vjp_loads detail/dual_vjp_steps detail/dual_vjp_states "
    "detail/dual_vjp_entering detail/dual_vjp_chunk detail/dual_vjp_block detail/dual_vjp_head "
    "detail/dual_vjp_kernel "
    "detail/dual_vjp_sums detail/dual_vjp_hopper_block detail/dual_vjp_hopper_mixing "
    "detail/dual_vjp_hopper_projection detail/dual_vjp_hopper_kernel "
    "detail/dual_vjp_hopper_launch detail/dual_vjp_launch "
    "detail/state_space_dual_advance detail/state_space_dual_chunk "
    "detail/state_space_dual_inputs detail/state_space_dual_kernel detail/state_space_dual_layout "
    "detail/state_space_dual_products detail/state_space_dual_reference "
    "detail/state_space_dual_rows "
    "detail/state_space_dual_reference_vjp detail/state_space_dual_step "
    "detail/state_space_dual_vjp detail/state_space_dual_vjp_block "
    "detail/state_space_dual_vjp_group detail/state_space_dual_vjp_kernel "
    "detail/state_space_dual_vjp_part "
    "detail/state_space_dual_vjp_products spectrum spectrum_analysis data_free_scaling "
    "causal_convolution fft_convolution s4d s4d_kernel s4d_convolution detail/decay_powers "
    "recurrent_state",
    "detail/sha256 fingerprint optimize calibrate_data calibrate",
    "model detail/json detail/mapped_file detail/write_file",
    "ssm",
};

/// A header as one includes it, "ssm/detail/half.hpp", and its text without comments.
struct header {
  std::string name;
  std::string text;
};

std::optional<std::size_t> line_of(std::string const& name) {
  for (std::size_t line = 0; line < std::size(layers); ++line) {
    std::istringstream words(layers[line]);
    for (std::string word; words >> word;) {
      if (name == word || name.starts_with(word + '/')) return line;
    }
  }
  return std::nullopt;
}

/// The line of the table that has "ssm/scan.hpp" or "ssm/scan.cuh".
std::optional<std::size_t> layer_of(std::string const& header_name) {
  std::string const name = std::regex_replace(header_name, std::regex(R"(^ssm/|\.hpp$)"), "");
  auto const own_line = line_of(name);
  return own_line ? own_line : line_of(std::regex_replace(name, std::regex(R"(\.cuh$)"), ""));
}

/// What `pattern` finds in `text`: its last group, or the whole match where it has none.
std::vector<std::string> find_all(std::string const& text, char const* pattern) {
  std::regex const expression(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator match(text.begin(), text.end(), expression), end; match != end;
       ++match) {
    found.push_back(match->str(match->size() - 1));
  }
  return found;
}

std::string without_comments(std::string const& text) {
  return std::regex_replace(text, std::regex("//[^\n]*"), "");
}

/// Every header below the folders `roots`.
std::vector<header> headers_in(std::initializer_list<char const*> roots) {
  namespace fs = std::filesystem;
  std::vector<header> headers;
  for (char const* root : roots) {
    fs::path const base = fs::path(SSM_SOURCE_DIR) / root;
    for (auto const& entry : fs::recursive_directory_iterator(base)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path());
      std::string const text(std::istreambuf_iterator<char>(file), {});
      headers.push_back(
          {entry.path().lexically_relative(base).generic_string(), without_comments(text)});
    }
  }
  return headers;
}

using violations = std::vector<std::string>;

/// Includes that point up: to a later line of the table, or from the CPU to CUDA.
violations upward_includes(header const& from) {
  violations found;
  auto const own_layer = layer_of(from.name);
  if (!own_layer) found.push_back("has no place in the table of layers");
  for (auto const& name : find_all(from.text, R"(#include ["<](ssm/[^">]*)[">])")) {
    auto const layer = layer_of(name);
    bool const cpu_to_cuda = name.ends_with(".cuh") && !from.name.ends_with(".cuh");
    if (!layer || layer > own_layer || cpu_to_cuda) found.push_back("includes " + name);
  }
  return found;
}

/// Includes in quotes are the library's own: nothing in tests/, theory/, bench/ or examples/.
violations foreign_includes(header const& from) {
  return find_all(from.text, R"(#include "((?!ssm/)[^"]*)\")");
}

/// Elementary functions come from numerics.hpp, whose accuracy is tested.
violations elementary_calls(header const& from) {
  if (from.name == "ssm/numerics.hpp") return {};
  return find_all(from.text, R"(\b(std::|__)(exp|exp2|expm1|log|log2|log10|log1p|tanh|pow)f?\b)");
}

/// A library does not write to the terminal of the program that uses it.
violations output_calls(header const& from) {
  return find_all(from.text, R"(<iostream>|\bf?(printf|puts)\s*\(|std::(cout|cerr|clog|print)\b)");
}

void expect_none(violations (*rule)(header const&), std::initializer_list<char const*> roots) {
  auto const headers = headers_in(roots);
  ASSERT_FALSE(headers.empty());
  for (auto const& header : headers) {
    for (auto const& violation : rule(header)) ADD_FAILURE() << header.name << ": " << violation;
  }
}

TEST(Layering, HeadersIncludeOnlyTheirOwnAndLowerLayers) {
  expect_none(upward_includes, {"include", "cuda"});
}

TEST(Layering, HeadersIncludeNothingOutsideTheLibrary) {
  expect_none(foreign_includes, {"include", "cuda"});
}

TEST(Layering, OnlyNumericsCallsElementaryFunctions) {
  expect_none(elementary_calls, {"include"});
}

TEST(Layering, HeadersPrintNothing) {
  expect_none(output_calls, {"include", "cuda"});
}

// A rule that cannot fail would pass above whatever the headers hold.
TEST(Layering, RulesSeeViolations) {
  auto const count = [](violations (*rule)(header const&), char const* name, char const* text) {
    return rule({name, without_comments(text)}).size();
  };
  EXPECT_EQ(count(upward_includes, "ssm/scan.hpp", "#include \"ssm/readout.hpp\"\n"), 0u);
  EXPECT_EQ(count(upward_includes, "ssm/scan.hpp", "#include <ssm/spectrum.hpp>\n"), 1u);
  EXPECT_EQ(count(upward_includes, "ssm/scan.hpp", "#include \"ssm/scan.cuh\"\n"), 1u);
  EXPECT_EQ(count(upward_includes, "ssm/scan.cuh", "#include \"ssm/scan.hpp\"\n"), 0u);
  EXPECT_EQ(count(upward_includes, "ssm/tensor.cuh", "#include \"ssm/scan.cuh\"\n"), 1u);
  EXPECT_EQ(count(upward_includes, "ssm/model/new.hpp", "#include \"ssm/model/old.hpp\"\n"), 0u);
  EXPECT_EQ(count(upward_includes, "ssm/unknown.hpp", ""), 1u);
  EXPECT_EQ(count(foreign_includes, "ssm/scan.hpp", "#include \"support/oracle.hpp\"\n"), 1u);
  EXPECT_EQ(count(elementary_calls, "ssm/scan.hpp", "y = ssm::exp(x);  // not std::exp\n"), 0u);
  EXPECT_EQ(count(elementary_calls, "ssm/scan.hpp", "using std::log1p;\n"), 1u);
  EXPECT_EQ(count(elementary_calls, "ssm/scan.hpp", "return __expf(x);\n"), 1u);
  EXPECT_EQ(count(output_calls, "ssm/scan.hpp", "std::snprintf(text, size, format);\n"), 0u);
  EXPECT_EQ(count(output_calls, "ssm/scan.hpp", "std::cout << x;\n"), 1u);
}

}  // namespace
