"""Checkpoints that are written from a snapshot while training goes on, of shards that are large enough for it."""

import os
import re
import shutil
import signal

import numpy as np
import pytest

from harness import STOPPED, SUCCEEDED, Case, Name, assert_same_tensors, training_case
from live_case import wait_for_endpoints
from trainer import Trainer, describe

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


LIVE_STEPS = 12


def make_live_case(folder):
    train = {
        "num_classes": C, "dim": D, "batch_size": B, "steps": LIVE_STEPS, "live": {"trainers": 1},
        "loss": {"preset": Name("SV_AM_SOFTMAX")}, "optimizer": {"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
        "schedule": {"base_lr": 0.1}, "checkpoint": {"every_steps": 4, "keep": 9}, "init": {"seed": 1},
    }
    return Case(folder, {"name": "live", "train": train})


def train(trainer, first, end, **fields):
    """The replies to the steps [first, end); the last of them has `fields`."""
    replies = []
    for step in range(first, end):
        rng = np.random.default_rng(step)
        features, labels = rng.standard_normal((B, D)), rng.integers(0, C, B)
        replies.append(trainer.step(step, features, labels, **(fields if step == end - 1 else {}))[0])
    return replies


def test_a_live_job_trains_on_while_it_writes_and_goes_on_after_a_crash_as_if_nothing_was(tmp_path):
    calm = make_live_case(tmp_path / "calm")
    with calm.launch(2, "--data_port_base=0") as launch:
        with Trainer(wait_for_endpoints(launch, 2)[0]) as trainer:
            losses = [reply.loss for reply in train(trainer, 0, LIVE_STEPS)]
        launch.wait(SUCCEEDED)
    assert snapshots(calm) == [4, 8], "the last step waits for its own"

    case = make_live_case(tmp_path / "job")
    with case.launch(2, "--data_port_base=0") as launch:
        address = wait_for_endpoints(launch, 2)[0]
        with Trainer(address) as trainer:
            reply = train(trainer, 0, 4)[-1]
            assert (reply.snapshot_step, reply.checkpoint_step) == (4, 0), "the answer does not wait"
            # It is published while no trainer brings anything.
            launch.wait_until(lambda: list(describe(address).checkpoint_steps) == [4], "the checkpoint")
            reply = train(trainer, 4, 6, checkpoint=True)[-1]
            assert (reply.snapshot_step, reply.checkpoint_step) == (6, 6), "this one does"
            reply = train(trainer, 6, 7, checkpoint_behind=True)[-1]
            assert (reply.snapshot_step, reply.checkpoint_step) == (7, 6)
            for process in launch.ranks().values():
                os.kill(process, signal.SIGKILL)
            launch.wait()
    newest = int(case.checkpoints()[-1].name.split("-")[1])
    assert newest in (6, 7)
    with case.launch(2, "--data_port_base=0", "--resume") as launch:
        with Trainer(wait_for_endpoints(launch, 2)[0]) as trainer:
            assert trainer.welcome.steps_done == newest
            assert [reply.loss for reply in train(trainer, newest, LIVE_STEPS)] == losses[newest:]
        launch.wait(SUCCEEDED)
    assert_same_tensors(case.last_checkpoint(), calm.last_checkpoint())


def test_a_live_job_goes_back_to_the_checkpoint_that_is_being_written(tmp_path):
    case = make_live_case(tmp_path / "job")
    with case.launch(2, "--data_port_base=0") as launch:
        with Trainer(wait_for_endpoints(launch, 2)[0]) as trainer:
            losses = [reply.loss for reply in train(trainer, 0, 5)]
            assert trainer.load(4) == 4
            assert train(trainer, 4, 5)[0].loss == losses[4]
        assert snapshots(case) == [4]
