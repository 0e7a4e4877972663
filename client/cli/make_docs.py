"""Makes docs/cli.md from what `shardmax --help` says.

    make_docs.py SHARDMAX_BINARY [--check]

With --check nothing is written; exit code 1 if the document is not what would be written.
"""

import os
import pathlib
import re
import subprocess
import sys

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "cli.md"

HEAD = """\
# The command `shardmax`

*This page is made from `shardmax --help` by `client/cli/make_docs.py`; a test fails when it is out of date.*

`shardmax` submits jobs to a `shardmax-server` and shows what becomes of them.

```
shardmax submit job.textproto --wait     # progress until the job ends; the exit code says how
shardmax list                            # all jobs, newest first
shardmax watch glyphs                    # the newest job named glyphs
shardmax logs glyphs-7 --follow          # this job
shardmax stop glyphs
shardmax export glyphs --output=weights.safetensors
shardmax plot glyphs --output=glyphs.png
```

| exit code | meaning |
|---|---|
| 0 | the job succeeded; without a job to wait for: the command did what it was asked to |
| 1 | the job failed, or the command did |
| 2 | wrong usage, an invalid spec, an unknown job, a missing or unfit token |
| 3 | no answer from the server |
| 4 | the job was stopped |
| 130 | interrupted by Ctrl-C; the job goes on |

`watch`, `submit --wait` and `stop --wait` end with the exit code of the job. `status` and the others say with 0 that the call
worked.

**Output.** What was asked for goes to stdout, everything else to stderr: `id=$(shardmax submit job.textproto)`. `--json` prints one
JSON object, or one a line where there is a stream (`watch`, `submit --wait`, `stop --wait`, `logs`), with the field names of
[`control.proto`](../proto/shardmax/v1/control.proto); 64-bit integers are strings, as protobuf has it. Colours appear on a
terminal only, and not with `NO_COLOR`. The progress bar becomes a line every few seconds where there is no terminal. Control
characters in what a server says are shown as `\\xNN`.

**Server.** `SHARDMAX_SERVER` holds the address for all commands of a shell, `SHARDMAX_TOKEN` the token; a token never goes on the
command line. A file with a token must not be readable by every user of the machine.

**When the server goes away** while a command waits, the command says so, connects again and goes on; the job does not notice.
Calls that change something are repeated only where that is safe: a submit carries a key that makes two tries one job.

**Completion.** `source <(shardmax completion bash)`, or `zsh`, or `shardmax completion fish | source`. It completes verbs, options,
files, states, and the ids of jobs on the server of `SHARDMAX_SERVER`.
"""


def help_of(binary, *verb):
    """What --help prints, the same on every machine."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SHARDMAX_")}
    run = subprocess.run([binary, *verb, "--help"], capture_output=True, text=True, check=True, env=environment)
    return re.sub(r"\n{3,}", "\n\n", run.stdout).strip()


def document(binary):
    main = help_of(binary)
    # Of the list of verbs at the end of the help.
    verbs = re.findall(r"^  ([a-z]+) +\S", main.split("Subcommands:")[1], re.MULTILINE)
    footer = main.split("\n\n")[-1]
    texts = {verb: help_of(binary, verb).removesuffix(footer).strip() for verb in verbs}
    common = next(part for part in texts[verbs[0]].split("\n\n") if part.startswith("Server:\n"))
    sections = [f"## All verbs\n\n```\n{main}\n```", f"## Options of every verb but completion\n\n```\n{common}\n```"]
    sections += [f"## {verb}\n\n```\n{texts[verb].replace(common, '').strip()}\n```" for verb in verbs]
    return HEAD + "\n" + "\n\n".join(sections) + "\n"


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    text = document(arguments[0])
    if "--check" not in sys.argv:
        DOCUMENT.write_text(text, encoding="utf-8")
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text:
        return 0
    print(f"{DOCUMENT} is out of date: run client/cli/make_docs.py build/release/bin/shardmax", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
