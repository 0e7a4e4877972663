"""A job that is stopped or killed goes on with --resume as if nothing had happened.

On the same number of ranks: bit for bit. On another number: within rounding.
"""

import shutil
import signal
import time

import pytest

from harness import (
    FAILED,
    STOPPED,
    Checkpoint,
    assert_close,
    assert_same_tensors,
    largest_error,
    make_data,
)
from resume_case import ROWS, STEPS, C, D, assert_same_run, losses, make_case, uninterrupted  # noqa: F401 (a fixture)


@pytest.mark.sanitized
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_one_rank_stops_all_with_a_checkpoint_and_resume_goes_on(tmp_path, uninterrupted, number):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    with case.launch(2) as running:
        running.signal_rank(1, number, at_step=60)
        running.wait(STOPPED)
    at = case.metrics()[-1]["step"]
    assert 60 <= at < STEPS, "the signal came too late to show anything"
    assert case.last_checkpoint().step == at
    assert "--resume" in case.log()

    case.run(2, "--resume")
    assert f"resuming after step {at}" in case.log()
    assert_same_run(case, uninterrupted)


def test_a_signal_to_mpirun_stops_with_a_checkpoint(tmp_path):
    """Open MPI waits for the grace before it passes SIGTERM on, and as long again before it ends ranks for good."""
    case = make_case(tmp_path / "job", steps=1_000_000, checkpoint={"every_steps": 0})
    with case.launch(2, grace_s=4) as running:
        running.wait_for_step(20)
        running.process.send_signal(signal.SIGTERM)
        assert running.wait().code != 0  # mpirun's own code, whatever the ranks return.
        assert running.ranks() == {}
    assert "stopped on request" in case.log()
    assert case.last_checkpoint().step == case.metrics()[-1]["step"] < 1_000_000


def test_stopping_twice_still_repeats_the_run(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    for step, flags in [(30, []), (120, ["--resume"])]:
        with case.launch(2, *flags) as running:
            running.signal_rank(0, signal.SIGTERM, at_step=step)
            running.wait(STOPPED)
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_resume_on_other_numbers_of_ranks(tmp_path, uninterrupted):
    """1 -> 3 -> 2 ranks: equal within rounding, which 300 steps of momentum carry on and on."""
    case = uninterrupted.in_new_folder(tmp_path / "job")
    for ranks, step, flags in [(1, 40, []), (3, 110, ["--resume"])]:
        with case.launch(ranks, *flags) as running:
            running.signal_rank(ranks - 1, signal.SIGTERM, at_step=step)
            running.wait(STOPPED)
        assert len(case.last_checkpoint().manifest["files"]) == ranks
    case.run(2, "--resume")
    assert [m["step"] for m in case.metrics()] == list(range(1, STEPS + 1))
    assert case.metrics()[-1]["loss"] == pytest.approx(uninterrupted.metrics()[-1]["loss"], rel=1e-4)
    actual, expected = case.last_checkpoint(), uninterrupted.last_checkpoint()
    for name, tensor in expected.tensors.items():
        assert_close(actual.tensors[name], tensor, 1e-4, name)


def test_the_rest_of_an_interrupted_write_is_no_checkpoint(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    newest = case.checkpoints()[-1]
    newest.rename(newest.parent / f".tmp-{newest.name}")
    case.run(2, "--resume")
    assert "resuming after step 250" in case.log()
    assert_same_run(case, uninterrupted)
    assert sorted(path.name for path in newest.parent.iterdir()) == [f"step-{s:08}" for s in (200, 250, 300)]


@pytest.mark.sanitized
def test_a_rank_that_is_killed_ends_the_launch_and_resume_repeats_the_run(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    with case.launch(2) as running:
        running.signal_rank(1, signal.SIGKILL, at_step=110)
        killed = time.monotonic()
        result = running.wait()
        assert result.code != 0
        assert time.monotonic() - killed < 30
        assert running.ranks() == {}
    # As if the newest had been half written when it happened.
    (case.out / "checkpoints" / ".tmp-step-00000150").mkdir(exist_ok=True)

    at = case.last_checkpoint().step
    case.run(2, "--resume")
    assert f"resuming after step {at}" in case.log()
    assert_same_run(case, uninterrupted)


def test_a_rank_that_hangs_is_named_when_the_deadline_passes(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    with case.launch(3, "--timeout_s=2") as running:
        running.signal_rank(2, signal.SIGSTOP, at_step=5)
        stopped = time.monotonic()
        result = running.wait()
        assert result.code == FAILED
        assert time.monotonic() - stopped < 30
        assert running.ranks() == {}
    result.says(r"rank 2")
    assert "rank 2" in case.log()


def test_resuming_a_finished_job_changes_nothing(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    before = case.metrics()
    case.run(2, "--resume")
    assert case.metrics() == before
    assert_same_run(case, uninterrupted)


def test_resume_without_a_checkpoint_starts_from_the_first_step(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    shutil.rmtree(case.out / "checkpoints")
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_resume_in_a_new_folder_starts_the_job(tmp_path, uninterrupted):
    """So that a launcher can always pass --resume."""
    case = uninterrupted.in_new_folder(tmp_path / "job")
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_half_a_line_of_metrics_is_written_anew(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    shutil.rmtree(case.checkpoints()[-1])
    metrics = (case.out / "metrics.jsonl").read_text()
    (case.out / "metrics.jsonl").write_text(metrics[:-40])
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_a_job_that_failed_before_its_first_step_needs_no_resume(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    data = (case.folder / "x.npy").read_bytes()
    (case.folder / "x.npy").write_bytes(data[:-4])
    case.run(2, expect=FAILED)
    (case.folder / "x.npy").write_bytes(data)
    case.run(2)
    assert_same_run(case, uninterrupted)


def test_initial_weights_are_not_needed_any_more(tmp_path):
    """The checkpoint has the weights."""
    case = make_case(tmp_path / "job", steps=40, init={"weights": "w.safetensors"})
    case.save_weights(make_data(5, ROWS, C, D)[2])
    with case.launch(2) as running:
        running.signal_rank(0, signal.SIGTERM, at_step=10)
        running.wait(STOPPED)
    (case.folder / "w.safetensors").unlink()
    case.run(2, "--resume")
    assert case.last_checkpoint().step == 40


def test_more_steps_train_on_from_the_last_checkpoint(tmp_path):
    """A job with a constant rate may be prolonged: the result is that of the longer job."""
    short = make_case(tmp_path / "short", steps=40, schedule={"warmup_steps": 0, "cosine": None, "constant": {}})
    longer = short.in_new_folder("longer")
    longer.change(steps=60)
    longer.run(2)
    short.run(2)
    short.change(steps=60)
    short.run(2, "--resume")
    assert short.last_checkpoint().step == 60
    assert_same_tensors(short.last_checkpoint(), longer.last_checkpoint())
    assert losses(short) == losses(longer)


def test_adamw_state_survives(tmp_path):
    """Its bias correction depends on the step count, its moments on all steps before."""
    adamw = {"sgd": None, "adamw": {"weight_decay": 0.1}}
    whole = make_case(tmp_path / "whole", steps=40, optimizer=adamw, checkpoint={"every_steps": 20})
    whole.change(schedule={"base_lr": 0.001})
    whole.run(2)
    again = whole.in_new_folder("again", copy_out=True)
    shutil.rmtree(again.checkpoints()[-1])
    again.run(2, "--resume")
    assert_same_tensors(again.last_checkpoint(), whole.last_checkpoint())


def test_the_same_run_twice_is_the_same_bit_for_bit(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    case.run(2)
    assert_same_run(case, uninterrupted)


def test_guard_the_tests_above_from_a_job_that_does_not_learn(uninterrupted):
    first, last = uninterrupted.metrics()[0], uninterrupted.metrics()[-1]
    assert last["loss"] < first["loss"]
    early = Checkpoint(uninterrupted.checkpoints()[0])
    error, _ = largest_error(uninterrupted.last_checkpoint().weight, early.weight)
    assert error > 1e-3
