// Shell completion, made from the tree of verbs and options.
#pragma once

#include <string>

namespace CLI {  // NOLINT(readability-identifier-naming): of CLI11.
class App;
}  // namespace CLI

namespace shardmax {

// The script for "bash", "zsh" or "fish": verbs, their options, files, states, and the ids of jobs, for which it asks
// the server of SHARDMAX_SERVER.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace shardmax
