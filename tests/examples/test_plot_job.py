"""The picture of a job, from the files of its folder."""

import json
from pathlib import Path

import numpy as np
import plot_job
import pytest


def write_job(folder: Path, steps: int, **changes: object) -> Path:
    folder.mkdir()
    lines = []
    for step in range(1, steps + 1):
        line = {"step": step, "epoch": 0, "loss": 5.0 / step, "lr": 0.1, "samples_per_second": 1e4,
                "support_vector_ratio": 0.1 / step, "label_cosine": 0.5} | changes
        if step == steps:
            line["validation_top1"] = 0.9
        lines.append(json.dumps(line) + "\n")
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("changes", [{}, {"support_vector_ratio": 0.0}, {"loss": "NaN"}])
def test_a_job_gives_a_png(tmp_path: Path, changes: dict) -> None:
    plot_job.plot(write_job(tmp_path / "job", 30, **changes), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_job_without_validation_and_of_one_step_gives_a_png(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0, "lr": 0.1, "support_vector_ratio": 0.5, "label_cosine": 0.0}\n')
    plot_job.plot(folder, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", 3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in plot_job.read_metrics(folder)] == [1, 2, 3]


def test_a_metric_is_taken_from_the_lines_that_have_it(tmp_path: Path) -> None:
    metrics = plot_job.read_metrics(write_job(tmp_path / "job", 8))
    accuracy = plot_job.curve(metrics, "validation_top1")
    assert (accuracy.steps.tolist(), accuracy.values.tolist()) == ([8], [0.9])


def test_smoothing_keeps_a_constant_and_skips_nan() -> None:
    values = np.full(400, 3.0)
    values[100] = np.nan
    np.testing.assert_allclose(plot_job.Curve(np.arange(400), values).smooth(), 3.0)


def test_the_title_tells_job_loss_and_size(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", 1)
    assert plot_job.job_title(folder) == "job"
    (folder / "job.json").write_text(json.dumps(
        {"name": "glyphs", "train": {"num_classes": 8000, "dim": 128, "loss": {"preset": "SV_AM_SOFTMAX"}}}))
    assert plot_job.job_title(folder) == "glyphs: SV_AM_SOFTMAX, 8,000 classes, D = 128"


def test_a_job_without_steps_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics.jsonl: no step yet"):
        plot_job.read_metrics(write_job(tmp_path / "job", 0))


def test_the_summary_tells_the_last_step_and_accuracy(tmp_path: Path) -> None:
    metrics = plot_job.read_metrics(write_job(tmp_path / "job", 5))
    assert plot_job.summary(metrics) == "step 5, epoch 1: loss 1.000, held-out top-1 90.00 %"
    assert plot_job.summary(metrics[:2]) == "step 2, epoch 1: loss 2.500"
