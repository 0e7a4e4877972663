"""The comparison of samplings, with a launcher that starts one process and a worker that only writes metrics."""

import sys
from pathlib import Path

import compare_losses
import compare_sampling
import pytest

LAUNCHER = """#!/bin/sh
shift 2  # -n RANKS
exec "$@"
"""

WORKER = """#!/bin/sh
for option; do case $option in --output=*) out=${option#--output=};; --job=*) job=${option#--job=};; esac; done
mkdir "$out" || exit 2
cp "$job" "$out/job"
echo run >>"$out/../calls"
top1=0.7$(sed -n 's/.*seed: \\([0-9]\\).*/\\1/p' "$job")
recall=
if grep -q sampling "$job"; then recall='"support_vector_recall": 0.5, '; fi
echo '{"step": 1, '"$recall"'"validation_top1": '"$top1"'}' >"$out/metrics.jsonl"
"""


@pytest.fixture(autouse=True)
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "runs").mkdir()
    for name, text in (("launcher", LAUNCHER), ("worker", WORKER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(compare_losses, "MPIRUN", (str(tmp_path / "launcher"),))
    options = [f"--{name}={tmp_path / name}" for name in ("features", "runs", "worker")]
    monkeypatch.setattr("sys.argv", ["compare_sampling.py", *options, "--epochs=3"])


def test_the_table_has_mean_deviation_and_recall_and_runs_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare_sampling.main() == 0
    out = capsys.readouterr().out
    assert "| all | 100% | 3 | 72.00% ± 1.00 |  | 0 |" in out
    assert "| nearest | 10% | 3 | 72.00% ± 1.00 | 50.0% | 0 |" in out
    assert "| random | 1% | 1 | 71.00% | 50.0% | 0 |" in out
    job = (tmp_path / "runs/nearest-0.05-batch512-seed1/job").read_text()
    assert "sampling { nearest { rate: 0.05 neighbours: 64 rebuild_every_steps: 100 } recall_every_steps: 20 }" in job
    assert 'name: "glyphs-nearest-0.05-batch512-seed1"' in job
    assert "sampling" not in (tmp_path / "runs/all-1-batch512-seed2/job").read_text()
    assert "seed: 2" in (tmp_path / "runs/all-1-batch512-seed2/job").read_text()
    runs = len((tmp_path / "runs/calls").read_text().splitlines())
    assert compare_sampling.main() == 0
    assert len((tmp_path / "runs/calls").read_text().splitlines()) == runs == 13


def test_a_smaller_batch_makes_more_steps_of_a_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [*sys.argv, "--batch-size=8", "--rates", "0.1", "--seeds", "2"])
    assert compare_sampling.main() == 0
    assert len((tmp_path / "runs/calls").read_text().splitlines()) == 3
    assert "| nearest | 10% | 1 | 72.00% | 50.0% | 0 |" in capsys.readouterr().out
    job = (tmp_path / "runs/nearest-0.1-batch8-seed2/job").read_text()
    assert "sampling { nearest { rate: 0.1 neighbours: 64 rebuild_every_steps: 6400 } recall_every_steps: 1280 }" in job
    for text in ("log_every_steps: 64", "batch_size: 8", "base_lr: 0.00046875", "loss { preset: SV_AM_SOFTMAX warmup_steps: 25600 }"):
        assert text in job


def test_a_batch_that_does_not_divide_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [*sys.argv, "--batch-size=48"])
    with pytest.raises(SystemExit):
        compare_sampling.main()
    assert "argument --batch-size: 48 does not divide 512" in capsys.readouterr().err


def test_one_kind_of_other_neighbours_has_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [*sys.argv, "--neighbours=96", "--kinds", "nearest", "--rates", "0.1", "--seeds", "1"])
    assert compare_sampling.main() == 0
    assert len((tmp_path / "runs/calls").read_text().splitlines()) == 1
    job = (tmp_path / "runs/nearest-0.1-neighbours96-batch512-seed1/job").read_text()
    assert "nearest { rate: 0.1 neighbours: 96 rebuild_every_steps: 100 }" in job
