"""The metrics that a rank serves are those of docs/metrics.md."""

import re
import subprocess
import urllib.request

import pytest

from harness import ROOT, Case, Name, make_data

CLASSES, DIM, ROWS = 40, 16, 96


@pytest.fixture
def running(tmp_path):
    """A job of two ranks that runs until it is told to stop, and has written a checkpoint."""
    features, labels, _ = make_data(3, ROWS, CLASSES, DIM)
    train = {
        "num_classes": CLASSES, "dim": DIM, "batch_size": 32, "steps": 100_000_000,
        "dataset": {"features": "x.npy", "labels": "y.npy"},
        "loss": {"preset": Name("SV_AM_SOFTMAX")}, "checkpoint": {"every_steps": 200},
    }
    case = Case(tmp_path / "job", {"name": "metrics", "train": train})
    case.save(x=features, y=labels)
    with case.launch(2, "--metrics_port_base=0") as launch:
        launch.wait_until(case.checkpoints, "a checkpoint")
        yield launch


def addresses(launch):
    """Rank -> where it serves, as the ranks say on stderr."""
    return {int(rank): url for rank, url in re.findall(r"rank (\d+) serves metrics at (http://\S+)", launch.text())}


def documented():
    """Name -> (type, labels) of the table of workers in docs/metrics.md."""
    text = (ROOT / "docs" / "metrics.md").read_text().split("## Workers")[1]
    found = {}
    for names, kind, labels in re.findall(r"^\| (`shardmax_.*?) \| (\w+) \| (.*?) \|", text, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            found[name] = (kind, frozenset(re.findall(r"`(\w+)`", labels)) | {"pool", "rank"})
    return found


def served(text):
    """The same of a /metrics page; the library's own metrics (exposer_…) are left out."""
    kinds = dict(re.findall(r"^# TYPE (shardmax_\w+) (\w+)$", text, re.MULTILINE))
    found = {}
    for name, labels in re.findall(r"^(shardmax_\w+)\{(.*?)\} ", text, re.MULTILINE):
        name = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        found[name] = (kinds[name], frozenset(re.findall(r"(\w+)=", labels)) - {"le"})
    assert found.keys() == kinds.keys()
    return found


def page(address):
    return urllib.request.urlopen(address, timeout=30).read().decode()


@pytest.mark.sanitized
def test_every_rank_serves_what_the_documentation_says_and_nothing_else(running):
    running.wait_until(lambda: len(addresses(running)) == 2, "both ranks to say where their metrics are")
    for rank, address in addresses(running).items():
        # The checkpoint that the fixture waits for may be counted a moment later, by this rank or another.
        running.wait_until(lambda: not re.search(r"^shardmax_checkpoint_bytes\{.*\} 0$", page(address), re.M), "its size")
        text = page(address)
        assert served(text) == documented()
        value = {name: float(number) for name, number in re.findall(r"^(\w+)\{[^}]*\} (\S+)$", text, re.MULTILINE)}
        assert f'rank="{rank}"' in text and value["shardmax_job_running"] == 1
        # The line of step 200 is rank 0's: others may be one step behind.
        assert value["shardmax_steps_total"] >= 199 and value["shardmax_samples_total"] == 32 * value["shardmax_steps_total"]
        assert value["shardmax_checkpoint_bytes"] >= 4 * CLASSES * DIM
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        assert checked.returncode == 0 and not checked.stdout and not checked.stderr, checked.stdout + checked.stderr
