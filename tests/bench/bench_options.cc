#include "tests/bench/bench_options.h"

#include <CLI/CLI.hpp>
#include <map>
#include <sstream>

namespace shardmax::bench {
namespace {

std::map<std::string, shardmax::v1::Preset> Presets() {
  std::map<std::string, shardmax::v1::Preset> presets;
  const auto& type = *shardmax::v1::Preset_descriptor();
  for (int i = 0; i < type.value_count(); ++i) {
    presets[type.value(i)->name()] = static_cast<shardmax::v1::Preset>(type.value(i)->number());
  }
  return presets;
}

std::string CheckSampleRate(const std::string& value) {
  double rate = 0;
  if (CLI::detail::lexical_cast(value, rate) && rate > 0 && rate <= 1) return "";
  return "--sample_rate is " + value + ": allowed is greater than 0, at most 1";
}

void DescribeShapes(CLI::App& app, BenchOptions& options) {
  app.add_option("--classes", options.classes, "C, over all ranks")->check(CLI::Range(2, 1 << 30));
  app.add_option("--dim", options.dim, "D")->check(CLI::Range(1, 65536));
  app.add_option("--batch", options.batch, "B, over all ranks")->check(CLI::Range(1, 1 << 20));
  app.add_option("--ranks", options.ranks, "N; each is a process that head_bench starts with mpirun")
      ->check(CLI::Range(1, 1024));
  app.add_option("--threads", options.threads, "Of each rank")->check(CLI::Range(1, 1024));
  app.add_option("--steps", options.steps, "Timed steps, after two that are not")->check(CLI::Range(1, 1000000));
  app.add_option("--check_classes", options.check_classes, "Classes of the step that is compared with float64")
      ->check(CLI::Range(2, 1 << 30));
}

void DescribeChoices(CLI::App& app, BenchOptions& options) {
  const std::map<std::string, Precision> precisions = {{"FLOAT32", Precision::kFloat32},
                                                       {"BFLOAT16", Precision::kBfloat16}};
  app.add_option("--precision", options.precision, "FLOAT32 or BFLOAT16")
      ->transform(CLI::CheckedTransformer(precisions).description(""));
  const std::map<std::string, CosineStorage> storages = {{"RECOMPUTE", CosineStorage::kRecompute},
                                                         {"KEEP_INT16", CosineStorage::kKeepInt16},
                                                         {"KEEP_FLOAT32", CosineStorage::kKeepFloat32}};
  app.add_option("--cosines", options.cosines, "RECOMPUTE, KEEP_INT16 or KEEP_FLOAT32")
      ->transform(CLI::CheckedTransformer(storages).description(""));
  const std::map<std::string, StateType> states = {{"FLOAT32", StateType::kFloat32},
                                                   {"BFLOAT16", StateType::kBfloat16}};
  app.add_option("--state", options.state, "Of the momentum: FLOAT32 or BFLOAT16")
      ->transform(CLI::CheckedTransformer(states).description(""));
  app.add_option("--sample_rate", options.sample_rate, "Share of the classes in a step; 1 is all")
      ->check(CLI::Validator(CheckSampleRate, ""));
  const std::map<std::string, bool> samplings = {{"random", false}, {"nearest", true}};
  app.add_option("--sampling", options.nearest, "random (default) or nearest: how they are chosen")
      ->transform(CLI::CheckedTransformer(samplings).description(""));
  app.add_option("--neighbours", options.neighbours, "Of each class, for nearest")->check(CLI::Range(1, 1024));
  app.add_option("--loss", options.preset, "A preset of docs/job-spec.md")
      ->transform(CLI::CheckedTransformer(Presets()).description(""));
  app.add_option("--tile_classes", options.tile_classes, "Classes of a tile; 0 (default): as the engine chooses")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--pin_threads", options.pin_threads, "true (default) or false");
  app.add_flag("--gather_ahead", options.gather_ahead,
               "Gather the next step's rows while the weights are updated, as jobs on datasets do");
  app.add_flag("--json", options.json, "Print one JSON object, not a table");
}

}  // namespace

ParsedBenchOptions ParseBenchOptions(int argc, const char* const* argv) {
  ParsedBenchOptions parsed;
  CLI::App app("Times a step of the head beside the limits of this machine, and checks it against float64.",
               "head_bench");
  DescribeShapes(app, parsed.options);
  DescribeChoices(app, parsed.options);
  try {
    app.parse(argc, argv);
    parsed.run = true;
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    parsed.exit_code = app.exit(error, out, out) == 0 ? 0 : 2;
    parsed.text = out.str();
  }
  return parsed;
}

}  // namespace shardmax::bench
