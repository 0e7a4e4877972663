"""The benchmark of losses, with a training that only writes a summary."""

import json
from pathlib import Path

import benchmark
import benchmark_table
import pytest

TRAINING = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name in ("images", "output", "characters", "unseen", "loss", "seed", "t", "width", "threads"):
    parser.add_argument("--" + name)
args = parser.parse_args([word for word in __import__("sys").argv[1:] if word != "--quiet"])
output = pathlib.Path(args.output)
if (output.parent / "fail").exists() and args.loss == "AM_SOFTMAX":
    raise SystemExit("no memory")
output.mkdir()
(output / "metrics.jsonl").write_text("")
with open(output.parent / "calls", "a") as calls:
    calls.write(output.name + chr(10))
settings = dict(loss=args.loss, seed=int(args.seed), t=args.t and float(args.t), m2=None, m3=None, loss_warmup=0.25,
                t_until=1.0, width=int(args.width or 16), epochs=8, lr=0.2, head_lr=0.2)
gain = 0.01 * (args.loss[:2] == "SV") - 0.02 * (args.loss == "SV_SOFTMAX" and args.seed == "2")
figures = dict(rank_1=0.9 + gain, tpr_at_fpr={"1e-04": 0.5 + gain}, verification_accuracy=0.95)
summary = dict(settings=settings, characters=int(args.characters), label_noise=0.0, **figures)
(output / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture(autouse=True)
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "train.py").write_text(TRAINING)
    monkeypatch.setattr(benchmark, "TRAIN", tmp_path / "train.py")


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmark.py", f"--runs={tmp_path / 'runs'}", "--images=images", *options])
    return benchmark.main()


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "runs/calls").read_text().split()


def test_the_table_has_means_and_differences_by_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, "--losses", "SV_SOFTMAX", "SOFTMAX", "--seeds", "1", "2") == 0
    rows = capsys.readouterr().out.splitlines()
    assert "| 4,000 |  | SOFTMAX | 2 | 90.00 ± 0.00 | 50.00 ± 0.00 | – | 95.00 ± 0.00 |" in rows
    assert "| 4,000 |  | SV_SOFTMAX | 2 | 90.00 ± 1.41 | 50.00 ± 1.41 | – | 95.00 ± 0.00 |" in rows
    assert "| 4,000 |  | SV_SOFTMAX | +0.00 ± 1.41 (1 of 2) | +0.00 ± 1.41 (1 of 2) | – | +0.00 ± 0.00 (0 of 2) |" in rows


def test_a_sweep_means_something_only_to_some_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--losses", "AM_SOFTMAX", "SV_AM_SOFTMAX", "--seeds", "1", "--t", "1", "1.3", "--width", "8"]
    assert run(tmp_path, monkeypatch, *options, "--size=large") == 0
    assert calls(tmp_path) == ["large-AM_SOFTMAX-width8-seed1", "large-SV_AM_SOFTMAX-t1-width8-seed1",
                               "large-SV_AM_SOFTMAX-t1.3-width8-seed1"]
    found = benchmark_table.group(benchmark_table.read_runs(tmp_path / "runs"))
    assert [key[:2] for key in found] == [(10000, "t 1, width 8"), (10000, "t 1.3, width 8"), (10000, "width 8")]
    text = benchmark_table.table(benchmark_table.read_runs(tmp_path / "runs"))
    assert "| 10,000 | t 1.3, width 8 | SV_AM_SOFTMAX | +1.00 (1 of 1) |" in text


def test_a_failed_run_is_told_and_only_that_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs/fail").touch()
    options = ["--losses", "AM_SOFTMAX", "SOFTMAX", "--seeds", "1", "--jobs=2"]
    assert run(tmp_path, monkeypatch, *options) == 1
    told = capsys.readouterr()
    assert "benchmark: small-AM_SOFTMAX-seed1: Command" in told.err and "seed1.log" in told.err
    assert (tmp_path / "runs/small-AM_SOFTMAX-seed1.log").read_text() == "no memory\n"
    assert "| SOFTMAX | 1 |" in told.out and "AM_SOFTMAX |" not in told.out
    (tmp_path / "runs/fail").unlink()
    assert run(tmp_path, monkeypatch, *options) == 0
    assert calls(tmp_path) == ["small-SOFTMAX-seed1", "small-AM_SOFTMAX-seed1"]
    assert json.loads((tmp_path / "runs/small-SOFTMAX-seed1.json").read_text())["rank_1"] == 0.9
