"""Checkpoints that are written from a snapshot while training goes on, of shards that are large enough for it."""

import os
import re
import shutil
import signal

import numpy as np
import pytest

from harness import STOPPED, assert_same_tensors, training_case

C, D, B, ROWS = 36_000, 512, 16, 64  # 74 MB of weights and momentum on each of two ranks.


def make_case(folder, steps, every_steps):
    case = training_case(
        folder,
        "snapshots",
        C,
        D,
        B,
        steps,
        optimizer={"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
        checkpoint={"every_steps": every_steps, "keep": 2},
    )
    rng = np.random.default_rng(4)
    case.save(x=rng.standard_normal((ROWS, D)).astype(np.float32), y=rng.integers(0, C, ROWS))
    return case


def snapshots(case):
    log = case.log() if (case.out / "log.txt").exists() else ""
    if "training pauses for the checkpoint: a snapshot needs" in log:
        pytest.skip("this machine has no memory for a snapshot")
    return [int(step) for step in re.findall(r"step (\d+): took a snapshot", log)]


def test_a_resumed_run_repeats_one_that_wrote_from_snapshots(tmp_path):
    case = make_case(tmp_path / "job", 9, 3)
    case.run(2)
    assert snapshots(case) == [3, 6], "the last step waits for its own"
    log = case.log()
    assert [int(step) for step in re.findall(r"step (\d+): wrote a checkpoint behind the training", log)] == [3, 6]
    assert "step 9: wrote a checkpoint in" in log
    assert [path.name for path in case.checkpoints()] == ["step-00000006", "step-00000009"]

    again = case.in_new_folder("again", copy_out=True)
    shutil.rmtree(again.checkpoints()[-1])
    again.run(2, "--resume")
    assert "resuming after step 6" in again.log()
    assert_same_tensors(again.last_checkpoint(), case.last_checkpoint())


@pytest.mark.sanitized
def test_a_stop_waits_for_the_one_that_is_written(tmp_path):
    case = make_case(tmp_path / "job", 100_000, 20)
    with case.launch(2) as running:
        running.wait_until(lambda: len(snapshots(case)) > 0, "a snapshot")
        os.kill(running.ranks()[1], signal.SIGTERM)
        running.wait(STOPPED)
    left = [path.name for path in (case.out / "checkpoints").iterdir()]
    assert all(name.startswith("step-") for name in left), left
    last = case.last_checkpoint()
    assert last.step == case.metrics()[-1]["step"]
    case.change(steps=last.step + 1)
    case.run(2, "--resume")


def test_a_crash_leaves_the_one_before(tmp_path):
    case = make_case(tmp_path / "job", 100_000, 5)
    with case.launch(2) as running:
        running.wait_until(lambda: len(case.checkpoints()) > 0 and len(snapshots(case)) > 1, "a second snapshot")
        for process in running.ranks().values():
            os.kill(process, signal.SIGKILL)
        running.wait()
    newest = int(case.checkpoints()[-1].name.split("-")[1])
    assert newest % 5 == 0
    case.change(steps=newest + 1)
    case.run(2, "--resume")
    assert f"resuming after step {newest}" in case.log()
    assert "rejected" not in case.log()
