#include "client/cli/completion.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <vector>

namespace shardmax {
namespace {

constexpr char kJobIds[] = "shardmax list --ids --limit=200 --timeout_s=1 2>/dev/null";

// What an argument of a verb or the value of an option may be.
enum class Values { kNone, kAny, kFiles, kJobs, kWords };

struct Argument {
  std::string name;  // Without dashes.
  std::string about;
  Values values = Values::kNone;
  std::string words;  // Of kWords, with blanks between.
};

struct VerbTree {
  std::string name;
  std::string about;
  std::vector<Argument> options;
  Argument positional;  // kNone: takes none.
};

// Those that an option or argument takes; empty if it takes others.
std::string WordsOf(const CLI::Option& option) {
  if (option.get_name() == "SHELL") return "bash zsh fish";
  if (option.get_type_name() == "STATE") return "PENDING RUNNING SUCCEEDED FAILED STOPPED";
  return option.get_type_name() == "FORMAT" ? "safetensors npy torch" : "";
}

Values ValuesOf(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (option.get_items_expected_max() == 0) return Values::kNone;
  if (type == "FILE" || option.get_name() == "FILE") return Values::kFiles;
  if (option.get_name() == "JOB") return Values::kJobs;
  return WordsOf(option).empty() ? Values::kAny : Values::kWords;
}

Argument ArgumentOf(const CLI::Option& option) {
  Argument argument = {option.get_name(), option.get_description(), ValuesOf(option), ""};
  argument.name.erase(0, argument.name.find_first_not_of('-'));
  if (argument.values == Values::kWords) argument.words = WordsOf(option);
  return argument;
}

std::vector<VerbTree> TreeOf(const CLI::App& app) {
  std::vector<VerbTree> verbs;
  for (const CLI::App* sub : app.get_subcommands({})) {
    VerbTree verb = {sub->get_name(), sub->get_description(), {}, {}};
    for (const CLI::Option* option : sub->get_options()) {
      const Argument argument = ArgumentOf(*option);
      if (option->get_positional()) {
        verb.positional = argument;
      } else {
        verb.options.push_back(argument);
      }
    }
    verbs.push_back(std::move(verb));
  }
  return verbs;
}

// `text` within single quotes of any of the shells.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string BashReply(const Argument& argument) {
  switch (argument.values) {
    case Values::kFiles:
      return "COMPREPLY=($(compgen -f -- \"$current\"))";
    case Values::kJobs:
      return fmt::format("COMPREPLY=($(compgen -W \"$({})\" -- \"$current\"))", kJobIds);
    case Values::kWords:
      return fmt::format("COMPREPLY=($(compgen -W \"{}\" -- \"$current\"))", argument.words);
    default:
      return ":";
  }
}

std::string BashVerb(const VerbTree& verb) {
  std::string names;
  std::string values;
  for (const Argument& option : verb.options) {
    names += fmt::format(" --{}{}", option.name, option.values == Values::kNone ? "" : "=");
    if (option.values != Values::kNone)
      values += fmt::format("        --{}) {}; return ;;\n", option.name, BashReply(option));
  }
  return fmt::format(
      "    {})\n"
      "      case $option in\n"
      "{}"
      "      esac\n"
      "      options=\"{}\"\n"
      "      [[ $current == -* ]] || {}\n"
      "      ;;\n",
      verb.name, values, names.substr(1), BashReply(verb.positional));
}

std::string Bash(const std::vector<VerbTree>& verbs) {
  std::string names;
  std::string cases;
  for (const VerbTree& verb : verbs) {
    names += verb.name + " ";
    cases += BashVerb(verb);
  }
  return fmt::format(
      R"sh(# Completion of shardmax for bash. Load it with: source <(shardmax completion bash)
_shardmax() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} option='' options=''
  # bash cuts words at "=": --state=RUN is three of them.
  if [[ $current == = ]]; then
    option=${{COMP_WORDS[COMP_CWORD-1]}} current=''
  elif [[ ${{COMP_WORDS[COMP_CWORD-1]}} == = ]]; then
    option=${{COMP_WORDS[COMP_CWORD-2]}}
  elif [[ $current != -* ]]; then
    option=${{COMP_WORDS[COMP_CWORD-1]}}
  fi
  COMPREPLY=()
  if [[ $COMP_CWORD == 1 ]]; then
    COMPREPLY=($(compgen -W "{}--help --version" -- "$current"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{}  esac
  if [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
    if [[ ${{COMPREPLY[0]}} == *= ]]; then compopt -o nospace 2> /dev/null; fi
  fi
}}
complete -o filenames -F _shardmax shardmax
)sh",
      names, cases);
}

// The part of a specification of _arguments after the name: what comes, and how to complete it.
std::string ZshAction(const Argument& argument) {
  switch (argument.values) {
    case Values::kFiles:
      return ":file:_files";
    case Values::kJobs:
      return ":job:_shardmax_jobs";
    case Values::kWords:
      return fmt::format(":value:({})", argument.words);
    case Values::kAny:
      return ":value: ";
    default:
      return "";
  }
}

// Text between brackets or colons of a specification.
std::string ZshText(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == ':' || c == '[' || c == ']' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string Zsh(const std::vector<VerbTree>& verbs) {
  std::string names;
  std::string cases;
  for (const VerbTree& verb : verbs) {
    names += fmt::format("    {}\n", Quoted(verb.name + ":" + ZshText(verb.about)));
    cases += fmt::format("    {}) _arguments", verb.name);
    for (const Argument& option : verb.options) {
      const std::string name = fmt::format("--{}{}", option.name, option.values == Values::kNone ? "" : "=");
      cases += " \\\n      " + Quoted(fmt::format("{}[{}]{}", name, ZshText(option.about), ZshAction(option)));
    }
    if (verb.positional.values != Values::kNone) cases += " \\\n      " + Quoted("1" + ZshAction(verb.positional));
    cases += " ;;\n";
  }
  return fmt::format(
      R"sh(#compdef shardmax
# Completion of shardmax for zsh. Save it as _shardmax in a folder of $fpath, or: source <(shardmax completion zsh)
_shardmax_jobs() {{
  local -a ids
  ids=(${{(f)"$({})"}})
  compadd -a ids
}}
_shardmax() {{
  local -a verbs
  verbs=(
{}  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case $verb in
{}  esac
}}
if (( $+functions[compdef] )); then compdef _shardmax shardmax; fi
)sh",
      kJobIds, names, cases);
}

std::string FishAction(const Argument& argument) {
  switch (argument.values) {
    case Values::kFiles:
      return " -r -F";
    case Values::kJobs:
      return fmt::format(" -x -a '({})'", kJobIds);
    case Values::kWords:
      return fmt::format(" -x -a '{}'", argument.words);
    case Values::kAny:
      return " -x";
    default:
      return "";
  }
}

std::string Fish(const std::vector<VerbTree>& verbs) {
  std::string script =
      "# Completion of shardmax for fish. Load it with: shardmax completion fish | source\n"
      "complete -c shardmax -f\n";
  for (const VerbTree& verb : verbs) {
    script += fmt::format("complete -c shardmax -n __fish_use_subcommand -a {} -d {}\n", verb.name, Quoted(verb.about));
    const std::string condition = fmt::format("complete -c shardmax -n '__fish_seen_subcommand_from {}'", verb.name);
    for (const Argument& option : verb.options) {
      script += fmt::format("{} -l {}{} -d {}\n", condition, option.name, FishAction(option), Quoted(option.about));
    }
    if (verb.positional.values == Values::kFiles) {
      script += condition + " -F\n";
    } else if (verb.positional.values != Values::kNone) {
      script += condition + FishAction(verb.positional) + "\n";
    }
  }
  return script;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  const std::vector<VerbTree> verbs = TreeOf(app);
  if (shell == "zsh") return Zsh(verbs);
  return shell == "fish" ? Fish(verbs) : Bash(verbs);
}

}  // namespace shardmax
