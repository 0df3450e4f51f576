// SPDX-License-Identifier: Apache-2.0
// A model that was trained on short sequences of a task of long memory, and factors for its
// spectrum that let it run on sequences sixteen times as long. Prints losses in nats on held-out
// examples,
//   as trained     short 0.087 ± 0.023   long 0.333 ± 0.029
//   as published   long 0.331 ± 0.029    100 evaluations
//   calibrated     long 0.190 ± 0.034    180 evaluations, all_iterations_done
//   factors        0.340
// --json FILE saves the calibration (--resume FILE goes on with one), --picture FILE draws it.
#include <unistd.h>  // isatty

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>

#include "report/files.hpp"
#include "report/svg.hpp"
#include "support/tracking_task.hpp"

namespace {

using namespace tracking;

struct options {
  std::string method = "spsa", kind = "linear", granularity = "layer";
  index_t iterations = 80, examples = 40, threads = 0;
  std::uint64_t seed = 1;
  std::string json, picture, resume;
};

options read_options(CLI::App& app, int count, char** arguments) {
  options o;
  app.add_option("--method", o.method, "spsa or adam")->check(CLI::IsMember({"spsa", "adam"}));
  app.add_option("--kind", o.kind, "linear, power, step, or some of them: linear+step");
  app.add_option("--granularity", o.granularity, "layer, channel or channel-and-state");
  app.add_option("--iterations", o.iterations, "Iterations, with --resume in all")
      ->check(CLI::Range(1, 100000));
  app.add_option("--examples", o.examples, "To calibrate on")->check(CLI::Range(1, 100000));
  app.add_option("--threads", o.threads, "0: one for each processor")->check(CLI::Range(0, 1024));
  app.add_option("--seed", o.seed, "Of data and perturbations");
  app.add_option("--json", o.json, "Save the calibration here");
  app.add_option("--picture", o.picture, "Draw loss and factors here, as SVG");
  app.add_option("--resume", o.resume, "Go on with this calibration")->check(CLI::ExistingFile);
  app.parse(count, arguments);
  return o;
}

/// A line on a terminal that is written over: loss so far and time left.
class progress {
 public:
  explicit progress(index_t iterations) : iterations_{iterations} {}
  ~progress() {
    if (is_shown_) std::fputs("\r\033[K", stderr);
  }

  void operator()(calibration const& c) {
    if (!is_shown_ || c.found().history.empty()) return;
    auto const& now = c.found().history.back();
    index_t const done = now.iteration + 1;
    if (first_ < 0) first_ = done - 1;
    std::chrono::duration<double> const passed = std::chrono::steady_clock::now() - start_;
    double const each = passed.count() / static_cast<double>(done - first_);
    std::fprintf(stderr, "\r\033[Kiteration %d of %d   loss %.4f   %.0f s left",
                 static_cast<int>(done), static_cast<int>(iterations_), now.loss,
                 each * static_cast<double>(iterations_ - done));
  }

 private:
  index_t iterations_;
  index_t first_ = -1;
  bool is_shown_ = ::isatty(STDERR_FILENO) == 1;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Loss and factors over the iterations, one chart above the other.
std::string picture_of(calibration const& c) {
  namespace report = theory::report;
  report::series losses{.name = "calibration loss (nats)", .line = true};
  std::vector<report::series> factors(c.factors.numbers().size());
  for (auto& each : factors) each.line = true;
  for (auto const& r : c.found().history) {
    auto const at = static_cast<double>(r.iteration + 1);
    losses.x.push_back(at);
    losses.y.push_back(r.loss);
    for (std::size_t i = 0; i < r.factors.size(); ++i) {
      factors[i].x.push_back(at);
      factors[i].y.push_back(r.factors[i]);
    }
  }
  report::chart const upper{.title = "Calibration of a tracking task",
                            .x = {},
                            .y = {.label = "loss"},
                            .curves = {losses},
                            .height = 260};
  report::chart const lower{.title = to_string(c.factors.kind()) + " factors",
                            .x = {.label = "iteration"},
                            .y = {.label = "factor", .kind = report::scale::log},
                            .curves = factors,
                            .guides = {{.name = "as trained", .at = 1}},
                            .height = 300};
  auto const below = [](std::string svg, int y) {
    return svg.replace(svg.find("<svg "), 5, "<svg y=\"" + std::to_string(y) + "\" ");
  };
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 560\" width=\"720\" "
         "height=\"560\">\n" +
         below(report::draw(upper), 0) + below(report::draw(lower), 260) + "</svg>\n";
}

calibration calibrated(tracker const& m, calibration_set<example> const& data, options const& o,
                       calibration_observer const& show) {
  auto const threads = static_cast<int>(o.threads);
  auto const start = unscaled(m, scaling_kind_named(o.kind), granularity_named(o.granularity));
  // Logarithms keep factors positive; a step changes none by more than e^0.5.
  optimize::factor_domain const positive{.is_logarithmic = true};
  if (!o.resume.empty()) {
    auto c = model::load_calibration(o.resume);
    auto const go_on = [&](auto& run) {
      run.settings.iterations = o.iterations;
      if (run.iteration < o.iterations) run.best.status = optimize::status::running;
    };
    std::visit(go_on, c.run);
    if (std::holds_alternative<optimize::adam_run>(c.run)) {
      resume(m, data, loss_and_gradient, c, threads, show);
    } else {
      resume(m, data, loss, c, threads, show);
    }
    return c;
  }
  if (o.method == "adam") {
    return calibrate(
        m, data, loss_and_gradient, start,
        optimize::adam_settings{
            .iterations = o.iterations, .rate = 0.1, .domain = positive, .seed = o.seed},
        {.threads = threads}, show);
  }
  optimize::spsa_settings const settings{.iterations = o.iterations,
                                         .step = {.offset = 8, .exponent = 0.602},
                                         .perturbation = {.scale = 0.2, .exponent = 0.101},
                                         .domain = positive,
                                         .largest_change = 0.5,
                                         .seed = o.seed};
  return calibrate(m, data, loss, start, settings, {.threads = threads, .distance = 0.5}, show);
}

int run(options const& o) {
  random_stream const stream{o.seed};
  for (auto const& file : {o.json, o.picture}) {
    if (!file.empty()) theory::report::require_writable(file);
  }
  index_t const short_length = 64, long_length = 1024;
  double const short_gap = 8, long_gap = 256;
  tracker const m = trained_on(examples(1000, short_length, short_gap, stream.child(0)), 6, 4);
  held_out_set const short_test(examples(400, short_length, short_gap, stream.child(1)));
  held_out_set const long_test(examples(400, long_length, long_gap, stream.child(2)));
  calibration_set const data(examples(o.examples, long_length, long_gap, stream.child(3)));
  auto const start = unscaled(m, scaling_kind_named(o.kind), granularity_named(o.granularity));

  auto const judge = [&](held_out_set<example> const& on, scaling_factors<double> const& with) {
    return held_out_loss(m, on, loss, with, static_cast<int>(o.threads));
  };
  auto const before = judge(long_test, start), trained = judge(short_test, start);
  std::printf("as trained     short %.3f ± %.3f   long %.3f ± %.3f\n", trained.loss,
              trained.standard_error, before.loss, before.standard_error);

  // The constants of the paper, from the same start: its steps are too short to matter.
  auto const mean_loss = [&](std::span<double const> numbers) {
    scaling_factors<double> const at(start.kind(), start.each(), start.shape(), numbers);
    double sum = 0;
    for (auto const& e : data.examples()) sum += loss(m, at, e);
    return sum / static_cast<double>(data.examples().size());
  };
  auto const paper =
      published_spsa(optimize::published::paper, mean_loss, mean_loss, start.numbers(), o.seed);
  scaling_factors<double> const as_published(start.kind(), start.each(), start.shape(),
                                             paper.found.factors);
  auto const by_paper = judge(long_test, as_published);
  std::printf("as published   long %.3f ± %.3f    %d evaluations\n", by_paper.loss,
              by_paper.standard_error, static_cast<int>(paper.found.evaluations));

  auto const c = [&] {
    progress show(o.iterations);
    return calibrated(m, data, o, [&](calibration const& now) { show(now); });
  }();
  auto const after = judge(long_test, c.factors_for(m));
  std::printf("calibrated     long %.3f ± %.3f    %d evaluations, %s\nfactors       ", after.loss,
              after.standard_error, static_cast<int>(c.found().evaluations),
              to_string(c.found().status));
  for (double const each : c.factors.numbers()) std::printf(" %.3f", each);
  std::puts("");
  if (!o.json.empty()) model::save(c, o.json);
  if (!o.picture.empty()) theory::report::write_file(o.picture, picture_of(c));
  return after.loss < before.loss ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app{
      "Calibrate the spectrum of a small model to sequences longer than it was trained on"};
  try {
    return run(read_options(app, count, arguments));
  } catch (CLI::ParseError const& error) {
    return app.exit(error);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "calibrate: %s\n", error.what());
    return 2;
  }
}
