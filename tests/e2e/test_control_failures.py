"""Nothing that dies takes a job with it: it goes on where it was, or says why it cannot."""

import resource
import signal

import numpy as np
import pytest

from control_cases import STEPS, assert_complete, assert_same_curve, assert_same_run, make_case
from control_harness import ControlPlane, value, wait_until

MIDDLE = STEPS // 3


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The job on 2 ranks, in one go, without a server."""
    case = make_case(tmp_path_factory.mktemp("uninterrupted") / "job")
    case.run(2)
    return case


@pytest.fixture
def plane(tmp_path):
    with ControlPlane(tmp_path) as plane:
        yield plane


@pytest.fixture
def case(plane):
    return make_case(plane.data)


def flip_a_bit(checkpoint):
    path = sorted(checkpoint.glob("*.safetensors"))[1]
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def assert_restarted(plane, job, cause):
    """It waits again, after one failure."""
    waiting = job.wait_for_state("PENDING")
    assert (waiting.attempt, waiting.restarts) == (1, 1), waiting
    assert value(plane.metrics(), "shardmax_job_restarts_total", cause=cause) == 1
    return waiting.reason


@pytest.mark.sanitized
def test_a_job_whose_rank_is_killed_repeats_the_run_bit_for_bit(plane, case, uninterrupted):
    pool = plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(MIDDLE)
    pool.signal_rank(1, signal.SIGKILL)
    assert pool.program.wait() != 0
    wait_until(lambda: pool.ranks() == {}, "the other rank to end")
    waiting = job.wait_for_state("PENDING")
    assert (waiting.attempt, waiting.restarts) == (1, 1), waiting
    assert "pool a" in waiting.reason

    plane.pool("a", wait=False)
    ended = job.wait_for_state("SUCCEEDED")
    assert (ended.attempt, ended.restarts, ended.ranks) == (2, 1, 2)
    assert ended.progress.step == ended.total_steps == STEPS
    assert any("resuming after step" in line for line in job.said())
    assert_same_run(job, uninterrupted)


def test_a_job_whose_pool_is_killed_goes_on_with_another_number_of_ranks(plane, case, uninterrupted):
    pool = plane.pool("a", 2)
    job = plane.submit(case)
    job.wait_for_step(MIDDLE)
    pool.kill()
    assert "pool a" in assert_restarted(plane, job, "pool_lost")

    plane.pool("b", 3, wait=False)
    ended = job.wait_for_state("SUCCEEDED")
    assert (ended.pool, ended.ranks, ended.attempt) == ("b", 3, 2)
    assert_same_curve(job, uninterrupted, 1e-4)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(plane, case, uninterrupted):
    pool = plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(MIDDLE)
    pool.kill()
    newest = job.checkpoints()[-1]
    flip_a_bit(newest)

    plane.pool("a", wait=False)
    job.wait_for_state("SUCCEEDED")
    rejected = [line for line in job.said() if "rejected" in line]
    assert len(rejected) == 1 and newest.name in rejected[0], job.said()
    assert_same_run(job, uninterrupted)


def test_a_rank_that_hangs_is_named_when_the_deadline_passes(plane, case, uninterrupted):
    pool = plane.pool("a", 2, "--timeout_s=2")
    job = plane.submit(case)
    job.wait_for_step(MIDDLE)
    pool.signal_rank(1, signal.SIGSTOP)
    assert "rank 1" in assert_restarted(plane, job, "pool_failed")
    assert pool.program.wait() != 0
    wait_until(lambda: pool.ranks() == {}, "the rank that hung to end")

    plane.pool("a", wait=False)
    job.wait_for_state("SUCCEEDED")
    assert_same_run(job, uninterrupted)


def test_a_job_gives_up_after_max_restarts(plane, case):
    case.change(steps=10_000_000, log_every_steps=10)
    job = plane.submit(case, max_restarts=1)
    for attempt in (1, 2):
        pool = plane.pool("a", wait=False)
        wait_until(lambda: job.get().attempt == attempt, f"attempt {attempt}", context=job.story)
        job.wait_for_step(200 * attempt)
        pool.kill()
    ended = job.wait_for_state("FAILED")
    assert (ended.attempt, ended.restarts) == (2, 1)
    assert "gave up after 1 restart" in ended.reason and "pool a" in ended.reason
    assert value(plane.metrics(), "shardmax_jobs_finished_total", state="failed") == 1


def test_a_job_that_cannot_succeed_fails_at_once_and_the_pool_takes_the_next(plane, case):
    spoilt = np.load(case.folder / "x.npy")
    row = 700 + int(np.flatnonzero(np.load(case.folder / "y.npy")[700:] >= 0)[0])
    spoilt[row, 3] = np.nan
    np.save(case.folder / "spoilt.npy", spoilt)
    pool = plane.pool("a")
    before = pool.ranks()
    bad = plane.submit(case, train={**case.spec["train"], "dataset": {"features": "spoilt.npy", "labels": "y.npy"}})
    good = plane.submit(case)
    ended = bad.wait_for_state("FAILED")
    assert (ended.attempt, ended.restarts) == (1, 0)
    assert "spoilt.npy" in ended.reason and f"row {row}" in ended.reason, ended.reason
    good.wait_for_state("SUCCEEDED")
    assert pool.ranks() == before, "the pool should not have been launched anew"
    plane.wait_for_pool("a", "IDLE")


def test_a_job_without_any_whole_checkpoint_fails_with_the_reason_of_each(plane, case):
    pool = plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(MIDDLE)
    pool.kill()
    for checkpoint in job.checkpoints():
        flip_a_bit(checkpoint)
    damaged = [checkpoint.name for checkpoint in job.checkpoints()]

    plane.pool("a", wait=False)
    ended = job.wait_for_state("FAILED")
    assert all(name in ended.reason for name in damaged), ended.reason


def test_a_pool_told_to_leave_hands_its_job_on_without_a_restart(plane, case, uninterrupted):
    pool = plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(MIDDLE)
    pool.terminate()
    pool.program.wait(0)
    waiting = job.wait_for_state("PENDING")
    assert (waiting.attempt, waiting.restarts) == (1, 0)
    # With everything that it had done.
    assert job.last_checkpoint().step == job.metrics()[-1]["step"] == waiting.progress.step

    plane.pool("b", wait=False)
    assert job.wait_for_state("SUCCEEDED").restarts == 0
    assert_same_run(job, uninterrupted)


def test_an_idle_pool_told_to_leave_ends_at_once(plane):
    pool = plane.pool("a")
    pool.terminate()
    pool.program.wait(0, limit_s=30)
    plane.wait_for_pool("a", "GONE")


def test_a_full_disk_is_the_fault_of_the_pool_not_of_the_job(plane, case):
    """Files may grow to 300 kB all of a sudden: no checkpoint fits."""
    case.change(steps=10_000_000, log_every_steps=1000)
    pool = plane.pool("a")
    job = plane.submit(case, max_restarts=0)
    wait_until(lambda: job.checkpoints(), "the first checkpoint", context=job.story)
    resource.prlimit(pool.ranks()[1], resource.RLIMIT_FSIZE, (300_000, 300_000))
    ended = job.wait_for_state("FAILED")
    assert "gave up after 0 restarts" in ended.reason, ended.reason
    assert "File too large" in ended.reason and "rank 1" in ended.reason, ended.reason
    assert job.last_checkpoint().step == ended.checkpoint_step
