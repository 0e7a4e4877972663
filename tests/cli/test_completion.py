"""Shell completion, asked from the shells themselves."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from plane import BIN, PATIENCE_S, SHARDMAX


def complete(plane, *words, current=None):
    """What bash offers for the last of `words`; `current` words are cut at "=" as bash does."""
    cut = list(words) if current is None else current
    quoted = " ".join(f"'{word}'" for word in cut)
    script = (f"source <({SHARDMAX} completion bash); COMP_WORDS=({quoted}); COMP_CWORD={len(cut) - 1}; _shardmax; "
              'printf "%s\\n" "${COMPREPLY[@]}"')
    environment = plane.environment()
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment,
                         cwd=plane.folder, timeout=PATIENCE_S)
    assert run.stderr == ""
    return run.stdout.split()


def test_bash_completes_verbs_options_values_files_and_jobs(plane):
    assert complete(plane, "shardmax", "st") == ["status", "stop"]
    assert "completion" in complete(plane, "shardmax", "")
    assert complete(plane, "shardmax", "submit", "--w") == ["--wait"]
    assert complete(plane, "shardmax", "export", "x", "--out") == ["--output="]
    assert complete(plane, current=["shardmax", "list", "--state", "=", "SU"]) == ["SUCCEEDED"]
    assert complete(plane, "shardmax", "list", "--state", "P") == ["PENDING"]
    assert complete(plane, "shardmax", "completion", "") == ["bash", "zsh", "fish"]
    file = plane.spec("completed", steps=1)
    assert complete(plane, "shardmax", "submit", "compl") == [file.name]
    job = plane.run("submit", file).out.strip()
    assert complete(plane, "shardmax", "watch", job[:-1])[0].startswith("completed-")
    assert complete(plane, current=["shardmax", "export", job, "--output", "=", "compl"]) == [file.name]
    plane.run("watch", job)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_read_by_its_shell(plane, shell):
    script = plane.run("completion", shell).out
    assert len(script) > 1000
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish")
def test_fish_completes(plane):
    def offers(line):
        ask = f"{SHARDMAX} completion fish | source; complete -C '{line}'"
        environment = plane.environment(HOME=str(plane.folder), PATH=f"{BIN}:/usr/bin:/bin")
        run = subprocess.run(["fish", "-c", ask], capture_output=True, text=True, check=True, env=environment)
        return [offer.split("\t")[0] for offer in run.stdout.splitlines()]

    assert offers("shardmax st") == ["status", "stop"]
    assert "--wait" in offers("shardmax submit --w")
    assert offers("shardmax list --state=SU") == ["--state=SUCCEEDED"]


def test_the_document_is_what_the_help_says():
    script = pathlib.Path(__file__).resolve().parents[2] / "client" / "cli" / "make_docs.py"
    run = subprocess.run([sys.executable, script, SHARDMAX, "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
