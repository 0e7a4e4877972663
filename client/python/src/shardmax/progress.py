"""A progress bar for a job."""

from __future__ import annotations

from typing import Iterable

from tqdm.auto import tqdm

from shardmax.v1 import control_pb2


def show_progress(jobs: Iterable[control_pb2.Job], quiet: bool) -> control_pb2.Job:
    """Draws each state of a job, and returns the last."""
    last = control_pb2.Job()
    bar = tqdm(unit="step", disable=quiet, dynamic_ncols=True)
    try:
        for last in jobs:
            _draw(bar, last)
    finally:
        bar.close()
    return last


def _draw(bar: tqdm, job: control_pb2.Job) -> None:  # type: ignore[type-arg]
    if job.total_steps and bar.total != job.total_steps:
        bar.total = job.total_steps
    bar.set_description(f"{job.id} {control_pb2.JobState.Name(job.state)}", refresh=False)
    if job.HasField("pairs"):
        bar.unit = "pair"
        bar.unit_scale = True
        bar.total = job.pairs.total
        bar.n = job.pairs.done
    if job.HasField("progress"):
        # It goes back where a job starts again from a checkpoint.
        bar.n = job.progress.step
        bar.set_postfix_str(f"loss {job.progress.loss:.4f}, lr {job.progress.lr:.3g}", refresh=False)
    bar.refresh()
