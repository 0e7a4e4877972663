"""Output folders that cannot be used, disks that are full, and weights that must not be written."""

import os
import resource

import numpy as np
import pytest

from bad_input import ROWS, assert_refused, case, make_case  # noqa: F401 (case is a fixture)
from harness import FAILED, assert_same_tensors


def test_an_output_folder_that_cannot_be_made(case):
    (case.folder / "file").write_text("")
    case.out = case.folder / "file" / "out"
    result = case.run(2, expect=FAILED)
    result.says(r"--output .*/file/out: cannot make the folder: Not a directory")


def test_a_link_to_nowhere_in_the_place_of_the_output_folder(case):
    """The system says that it exists: that is no job that could be resumed."""
    case.out.symlink_to(case.folder / "nowhere" / "deep")
    case.run(2, expect=FAILED).says(r"--output .*/out: cannot make the folder: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_without_permission(case):
    case.out.mkdir(mode=0o555)
    case.run(2, expect=FAILED).says(r"--output: cannot write .*: Permission denied")


def test_a_file_in_the_place_of_the_checkpoints_folder(case):
    case.out.mkdir()
    (case.out / "checkpoints").write_text("mine")
    assert_refused(case, FAILED, r"/out/checkpoints: Not a directory", flags=["--resume"])
    assert (case.out / "checkpoints").read_text() == "mine"


LARGE = {"num_classes": 3000, "dim": 64, "steps": 1500, "checkpoint": {"every_steps": 300}}


@pytest.mark.sanitized
@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_fails_the_job_and_keeps_the_previous_checkpoint(tmp_path, rank):
    """A limit on the size of files stands in for the disk: it comes into force while the job runs, on one rank."""
    case = make_case(tmp_path / "job", **LARGE)
    case.save(x=np.random.default_rng(1).standard_normal((ROWS, 64)).astype(np.float32))
    with case.launch(2) as running:
        running.wait_until(lambda: len(case.checkpoints()) == 1, "the first checkpoint")
        # 300 kB: enough for the metrics, not for 1500 x 64 weights.
        resource.prlimit(running.ranks()[rank], resource.RLIMIT_FSIZE, (300_000, 300_000))
        before = case.last_checkpoint()
        result = running.wait(FAILED)
    result.says(rf"rank {rank}: .*/checkpoints/\.tmp-step-\d+/classes-\d+-\d+\.safetensors: File too large")
    assert "File too large" in case.log()
    assert before.step < LARGE["steps"], "the limit came too late to show anything"
    # The newest is whole: a first one, or one that was written between the look and the limit.
    after = case.last_checkpoint()
    assert after.step >= before.step
    left = [path.name for path in (case.out / "checkpoints").iterdir()]
    assert all(name.startswith("step-") for name in left), left
    if after.step == before.step:
        assert_same_tensors(after, before)

    case.run(2, "--resume")
    assert f"resuming after step {after.step}" in case.log()
    assert case.last_checkpoint().step == LARGE["steps"]


def test_metrics_that_cannot_be_written_fail_the_job(tmp_path):
    case = make_case(tmp_path / "job", **LARGE)
    case.save(x=np.random.default_rng(1).standard_normal((ROWS, 64)).astype(np.float32))
    with case.launch(2) as running:
        running.wait_for_step(10)
        resource.prlimit(running.ranks()[0], resource.RLIMIT_FSIZE, (1000, 1000))
        result = running.wait(FAILED)
    result.says(r"metrics\.jsonl: File too large")


def test_bad_weights_in_memory_are_not_written(case):
    """Rates that blow the weights up end the job before they reach a checkpoint."""
    case.save_weights(case.weights)
    case.change(
        init={"weights": "w.safetensors"},
        schedule={"base_lr": 1e6},
        optimizer={"sgd": {"momentum": 0.99, "weight_decay": 1.0}},
        steps=2000,
    )
    case.run(2, expect=FAILED).says(r"step \d+: .*not finite")
    assert case.checkpoints() == []
