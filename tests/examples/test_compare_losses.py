"""The comparison of losses, with a launcher that starts one process and a worker that only writes metrics."""

import re
from pathlib import Path

import compare_losses
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
echo '{"step": 1, "loss": 4, "support_vector_ratio": 0.02, "label_cosine": 0.1}' >"$out/metrics.jsonl"
echo '{"step": 2, "loss": 2, "support_vector_ratio": 0.01, "label_cosine": 0.3, "validation_top1": 0.75}' >>"$out/metrics.jsonl"
test ! -e "$out/../fail" || ! grep -q 'preset: A_SOFTMAX' "$job"
"""


@pytest.fixture(autouse=True)
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "features/features.json").write_text('{"classes": 8000, "dim": 128, "train": 10, "validation": 5}')
    for name, text in (("launcher", LAUNCHER), ("worker", WORKER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(compare_losses, "MPIRUN", (str(tmp_path / "launcher"),))
    folders = {"features": "features", "runs": "runs", "worker": "worker", "table": "table.md"}
    options = [f"--{option}={tmp_path / name}" for option, name in folders.items()]
    monkeypatch.setattr("sys.argv", ["compare_losses.py", *options, "--epochs=3"])


def test_the_table_has_a_row_for_every_preset(tmp_path: Path) -> None:
    assert compare_losses.main() == 0
    text = (tmp_path / "table.md").read_text()
    rows = re.findall(r"^\| ([A-Z_]+) \| \*\*75.00%\*\* \| 3.000 \| 1.50e-02 \| 0.200 \| \d+ \|$", text, re.M)
    assert tuple(rows) == compare_losses.PRESETS
    for preset in rows:
        job = (tmp_path / "runs" / preset / "job").read_text()
        assert f"preset: {preset} " in job
        assert f'name: "glyphs-{preset}"' in job
        assert "epochs: 3" in job


def test_a_failed_run_ends_the_comparison_and_finished_runs_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs/fail").touch()
    assert compare_losses.main() == 1
    assert "compare_losses: A_SOFTMAX: the worker ended with 1" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()
    (tmp_path / "runs/fail").unlink()
    assert compare_losses.main() == 0
    assert len((tmp_path / "runs/calls").read_text().splitlines()) == len(compare_losses.PRESETS) + 1
