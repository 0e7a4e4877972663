#include "client/cli/options.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>
#include <sstream>

#include "absl/strings/ascii.h"
#include "client/cli/text.h"
#include "rpc/channel.h"

namespace shardmax {
namespace {

constexpr char kExitCodes[] =
    "Exit codes: 0 succeeded, 1 the job (or the command) failed, 2 wrong usage, invalid spec, unknown job or not\n"
    "allowed, 3 server not reachable, 4 the job was stopped.";
constexpr char kDocumentOfJobs[] = "A job is the id that submit prints, or a name: the newest job of that name.";

void AddServerOptions(CLI::App& app, CliOptions& options) {
  const std::string group = "Server";
  app.add_option("--server", options.server,
                 "Address of shardmax-server (default: $SHARDMAX_SERVER, or 127.0.0.1:7700)")
      ->type_name("HOST:PORT")
      ->group(group);
  app.add_option("--tls_ca", options.tls_ca,
                 "Use TLS; PEM file of the authority of the server's certificate, or \"system\"")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--tls_cert", options.tls_cert, "PEM file of your own certificate, for mutual TLS")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--tls_key", options.tls_key, "PEM file of the key of --tls_cert")->type_name("FILE")->group(group);
  app.add_option("--token_file", options.token_file, "File with your token (default: the token in $SHARDMAX_TOKEN)")
      ->type_name("FILE")
      ->group(group);
  app.add_option("--timeout_s", options.timeout_s, "Longest wait for an answer of the server (default: 10)")
      ->check(CLI::Range(1, 86400).description(""))
      ->type_name("SECONDS")
      ->group(group);
  app.add_flag("--json", options.json, "Print JSON: one object, or one a line for streams")->group(group);
}

CLI::App* AddVerb(CLI::App& app, CliOptions& options, Verb verb, const std::string& name, const std::string& about) {
  CLI::App* sub = app.add_subcommand(name, about);
  sub->callback([&options, verb] { options.verb = verb; });
  AddServerOptions(*sub, options);
  return sub;
}

CLI::App* AddJobVerb(CLI::App& app, CliOptions& options, Verb verb, const std::string& name, const std::string& about) {
  CLI::App* sub = AddVerb(app, options, verb, name, about);
  sub->add_option("JOB", options.job, "Id or name of the job")->required()->type_name("");
  return sub;
}

void AddReconnect(CLI::App* verb, CliOptions& options) {
  verb->add_option("--reconnect_s", options.reconnect_s,
                   "While waiting, how long to try to reach a server that went away (default: 600)")
      ->check(CLI::Range(0, 1000000).description(""))
      ->type_name("SECONDS");
}

void AddOutput(CLI::App* verb, CliOptions& options, const std::string& about) {
  verb->add_option("--output", options.output, about)->required()->type_name("FILE");
}

void AddSubmit(CLI::App& app, CliOptions& options) {
  CLI::App* submit = AddVerb(app, options, Verb::kSubmit, "submit", "Submit a job; prints its id");
  submit->add_option("FILE", options.file, "JobSpec in textproto, or in JSON if the name ends in .json")
      ->required()
      ->type_name("");
  submit->add_flag("--wait", options.wait, "Show progress until the job ends; the exit code says how it ended");
  submit
      ->add_option("--idempotency_key", options.idempotency_key,
                   "Submits with the same key make one job (default: a random key)")
      ->type_name("TEXT");
  AddReconnect(submit, options);
}

// Replaces the name of a state by its number, for CLI11 to read; returns what is wrong.
std::string StateNumber(std::string& text) {
  const std::string name = absl::AsciiStrToUpper(text);
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  if (!v1::JobState_Parse(name, &state) || state == v1::JOB_STATE_UNSPECIFIED) {
    return "\"" + text + "\" is none of PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED";
  }
  text = std::to_string(static_cast<int>(state));
  return "";
}

void AddList(CLI::App& app, CliOptions& options) {
  CLI::App* list = AddVerb(app, options, Verb::kList, "list", "List jobs, newest first");
  list->add_option("--state", options.states,
                   "Only jobs in this state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; may be repeated")
      ->transform(CLI::Validator(StateNumber, ""))
      ->allow_extra_args(false)
      ->type_name("STATE");
  list->add_option("--name", options.name, "Only jobs of this name")->type_name("NAME");
  list->add_option("--pool", options.pool, "Only jobs of this pool")->type_name("NAME");
  list->add_option("--limit", options.limit, "At most so many jobs (default: all)")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000'000}).description(""))
      ->type_name("N");
  list->add_flag("--ids", options.ids, "Print ids only, one a line");
}

void AddVerbs(CLI::App& app, CliOptions& options) {
  AddSubmit(app, options);
  AddJobVerb(app, options, Verb::kStatus, "status", "Show how a job stands");
  AddList(app, options);
  CLI::App* logs = AddJobVerb(app, options, Verb::kLogs, "logs", "Print what the server and the workers said");
  logs->add_flag("--follow", options.follow, "Go on until the job ends");
  AddReconnect(logs, options);
  AddReconnect(AddJobVerb(app, options, Verb::kWatch, "watch",
                          "Show the progress of a job until it ends; the exit code says how"),
               options);
  CLI::App* stop = AddJobVerb(app, options, Verb::kStop, "stop", "Stop a job: it writes a checkpoint first");
  stop->add_flag("--wait", options.wait, "Wait until it has; the exit code says how the job ended (4: stopped)");
  AddReconnect(stop, options);
  AddJobVerb(app, options, Verb::kDelete, "delete", "Forget a job that has ended, and remove its folder");
  CLI::App* checkpoints =
      AddJobVerb(app, options, Verb::kCheckpoints, "checkpoints", "List the checkpoints of a job, newest first");
  checkpoints->add_flag("--now", options.now, "Have the running job write one first");
  AddReconnect(checkpoints, options);
  CLI::App* exported =
      AddJobVerb(app, options, Verb::kExport, "export", "Save the class weights of a checkpoint as one file");
  AddOutput(exported, options, "File to write; replaced when it is complete");
  exported->add_option("--step", options.step, "Step of the checkpoint (default: the newest)")
      ->check(CLI::Range(1, 2147483647).description(""))
      ->type_name("N");
  const std::map<std::string, WeightFormat> formats = {
      {"safetensors", WeightFormat::kSafetensors}, {"npy", WeightFormat::kNpy}, {"torch", WeightFormat::kTorch}};
  exported
      ->add_option("--format", options.format,
                   "safetensors, npy, or torch: a state dict for torch.load (default: safetensors)")
      ->transform(CLI::CheckedTransformer(formats).description(""))
      ->type_name("FORMAT");
  AddReconnect(exported, options);
  AddVerb(app, options, Verb::kPools, "pools", "List the pools of workers");
  CLI::App* plot = AddJobVerb(app, options, Verb::kPlot, "plot", "Draw the curves of a job: loss, accuracy, rates");
  AddOutput(plot, options, "PNG file to write");
  CLI::App* completion = app.add_subcommand("completion", "Print a script that completes verbs, options and jobs");
  completion->callback([&options] { options.verb = Verb::kCompletion; });
  completion->add_option("SHELL", options.shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}).description(""))
      ->type_name("");
}

}  // namespace

std::shared_ptr<CLI::App> MakeApp(CliOptions& options) {
  const char* server = std::getenv("SHARDMAX_SERVER");
  options.server = server != nullptr && *server != '\0' ? server : kDefaultServer;
  auto app = std::make_shared<CLI::App>(
      "Submits jobs to a shardmax-server and watches them.\n" + std::string(kDocumentOfJobs), "shardmax");
  app->set_version_flag("--version", "shardmax " SHARDMAX_VERSION);
  app->footer(kExitCodes);
  app->require_subcommand(1);
  AddVerbs(*app, options);
  return app;
}

ParsedCommand ParseCommandLine(int argc, const char* const* argv) {
  ParsedCommand parsed;
  const auto app = MakeApp(parsed.options);
  const auto is_it = [&](const CLI::App* verb) { return verb->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && app->get_subcommands(is_it).empty()) {
    parsed.exit_code = kExitInvalidUse;
    parsed.text = "shardmax: unknown verb \"" + Harmless(argv[1]) + "\"; see: shardmax --help\n";
    return parsed;
  }
  try {
    app->parse(argc, argv);
    parsed.run = true;
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    parsed.exit_code = app->exit(error, out, out) == 0 ? kExitSucceeded : kExitInvalidUse;
    parsed.text = out.str();
  }
  return parsed;
}

}  // namespace shardmax
