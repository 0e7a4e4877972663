#include "server/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <sstream>

#include "rpc/auth.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

struct CommandLine {
  ServerOptions options;
  std::string new_token;
  double pool_grace_s = 30;
  double heartbeat_s = 2;
};

void Describe(CLI::App& app, CommandLine& line) {
  ServerOptions& options = line.options;
  app.set_version_flag("--version", "shardmax-server " SHARDMAX_VERSION);
  app.add_option("--listen", options.listen, "Where clients and pools connect; port 0: any (default: 127.0.0.1:7700)")
      ->type_name("HOST:PORT");
  app.add_option("--metrics_listen", options.metrics_listen,
                 "Where Prometheus finds /metrics; port 0: any (default: 127.0.0.1:7701)")
      ->type_name("HOST:PORT");
  app.add_option("--state_dir", options.state_dir,
                 "Folder of the database and of the jobs' folders, which the pools must see too; made if absent")
      ->type_name("DIR");
  app.add_option("--data_root", options.data_roots, "Folder that the jobs' files must lie in; may be repeated")
      ->type_name("DIR");
  app.add_option("--tls_cert", options.tls_cert, "Certificate of this server, with its chain; switches TLS on")
      ->type_name("PEM");
  app.add_option("--tls_key", options.tls_key, "Key of the certificate")->type_name("PEM");
  app.add_option("--tls_client_ca", options.tls_client_ca,
                 "Authorities that must have signed the certificate of every client and pool (mutual TLS)")
      ->type_name("PEM");
  app.add_option("--tokens_file", options.tokens_file,
                 "Who may do what: lines ROLE NAME SHA256HEX; read again on SIGHUP. Without it everyone may do all")
      ->type_name("FILE");
  app.add_option("--new_token", line.new_token,
                 "Print a new token and its line of the tokens file, and exit. ROLE: viewer, submitter, admin, worker")
      ->type_name("ROLE:NAME");
  app.add_flag("--insecure", options.insecure, "Listen beyond this machine although there is no TLS");
  app.add_option("--pool_grace_s", line.pool_grace_s,
                 "How long a pool that is not heard of may take to come back before its job goes to another "
                 "(default: 30)")
      ->check(CLI::Range(0.05, 86400.0).description(""))
      ->type_name("SECONDS");
  app.add_option("--heartbeat_s", line.heartbeat_s,
                 "How often a pool says that it lives; after three times in silence it counts as lost (default: 2)")
      ->check(CLI::Range(0.05, 60.0).description(""))
      ->type_name("SECONDS");
}

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

std::string MistakeOf(const ServerOptions& options) {
  if (options.state_dir.empty()) return "--state_dir is required";
  if (options.data_roots.empty()) return "--data_root is required: files of jobs are read there only";
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    return "--tls_cert and --tls_key go together: give both or neither";
  }
  if (!options.tls_client_ca.empty() && options.tls_cert.empty()) return "--tls_client_ca needs --tls_cert";
  return "";
}

void PrintToken(const std::string& role_and_name, ParsedServerOptions& parsed) {
  const auto token = MakeToken(role_and_name);
  if (!token.ok()) {
    parsed.exit_code = kExitUsage;
    parsed.text = fmt::format("--new_token: {}\n", Message(token.status()));
    return;
  }
  parsed.text =
      fmt::format("Token, for the one who is to have it (it is stored nowhere):\n{}\n\nLine for --tokens_file:\n{}\n",
                  token->token, token->line);
}

}  // namespace

ParsedServerOptions ParseServerOptions(int argc, const char* const* argv) {
  ParsedServerOptions parsed;
  CommandLine line;
  CLI::App app("Takes jobs, gives them to pools of workers, and starts them again after failures.", "shardmax-server");
  Describe(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    parsed.exit_code = app.exit(error, out, out) == 0 ? kExitStopped : kExitUsage;
    parsed.text = out.str();
    return parsed;
  }
  if (!line.new_token.empty()) {
    PrintToken(line.new_token, parsed);
    return parsed;
  }
  if (const std::string mistake = MistakeOf(line.options); !mistake.empty()) {
    parsed.exit_code = kExitUsage;
    parsed.text = fmt::format("{}\nRun with --help for more information.\n", mistake);
    return parsed;
  }
  parsed.options = std::move(line.options);
  parsed.options.pool_grace = Milliseconds(line.pool_grace_s);
  parsed.options.heartbeat = Milliseconds(line.heartbeat_s);
  parsed.run = true;
  return parsed;
}

}  // namespace shardmax
