"""Killing the server disturbs no job, and it finds them all again."""

import pytest

from control_cases import STEPS, assert_same_run, endless, make_case
from control_harness import ControlPlane, wait_until


@pytest.fixture
def plane(tmp_path):
    with ControlPlane(tmp_path, grace_s=5) as plane:
        yield plane


@pytest.mark.sanitized
def test_a_server_killed_in_the_middle_finds_the_job_still_running(plane):
    case = endless(plane.data)
    plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(100)
    plane.server.kill()
    at = job.metrics()[-1]["step"]
    job.wait_for_step(at + 200)  # It does not mind.
    plane.server.start()
    again = job.wait_for_state("RUNNING")
    assert (again.attempt, again.restarts, again.pool) == (1, 0, "a")
    wait_until(lambda: job.get().progress.step > at + 200, "progress to go on", context=job.story)
    plane.client.call("StopJob", job=job.id)
    stopped = job.wait_for_state("STOPPED")
    assert (stopped.attempt, stopped.restarts) == (1, 0)
    assert stopped.progress.step == stopped.checkpoint_step == job.last_checkpoint().step


def test_what_happened_while_the_server_was_away_is_told_later(plane, tmp_path):
    """The job even ends meanwhile."""
    case = make_case(plane.data)
    expected = make_case(tmp_path / "expected")
    expected.run(2)
    plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(100)
    plane.server.kill()
    wait_until(lambda: job.checkpoints() and job.checkpoints()[-1].name == f"step-{STEPS:08}", "the end of the job")
    plane.server.start()
    ended = job.wait_for_state("SUCCEEDED")
    assert (ended.attempt, ended.restarts) == (1, 0)
    assert ended.progress.step == ended.total_steps == ended.checkpoint_step == STEPS
    assert [line.step for line in plane.client.call("StreamMetrics", job=job.id)] == list(range(1, STEPS + 1))
    said = job.said()
    for step in range(100, STEPS + 1, 100):
        assert sum(f"step {step}: wrote a checkpoint" in line for line in said) == 1, (step, said)
    assert_same_run(job, expected)
    plane.wait_for_pool("a", "IDLE")
    plane.submit(case).wait_for_state("SUCCEEDED")


def test_a_job_that_was_done_when_its_pool_was_lost_has_its_progress(plane):
    """The next attempt has no step left to do, and tells what the one before could not."""
    case = make_case(plane.data, steps=300)
    pool = plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(50)
    plane.server.kill()
    wait_until(lambda: job.checkpoints() and job.checkpoints()[-1].name == "step-00000300", "the end of the job")
    pool.kill()
    plane.server.start()
    plane.pool("a", wait=False)
    ended = job.wait_for_state("SUCCEEDED")
    assert ended.attempt == 2
    assert ended.progress.step == ended.checkpoint_step == 300
    assert ended.progress.loss == job.metrics()[-1]["loss"]


def test_jobs_that_wait_are_there_after_a_kill_and_a_key_still_makes_one_job(plane):
    case = endless(plane.data)
    jobs = [plane.submit(case, key=f"key-{i}", priority=i) for i in range(5)]
    plane.server.kill()
    plane.server.start()
    assert [plane.submit(case, key=f"key-{i}", priority=i).id for i in range(5)] == [job.id for job in jobs]
    plane.pool("a", wait=False)
    jobs[4].wait_for_state("RUNNING")
    assert [job.state() for job in jobs[:4]] == ["PENDING"] * 4
    assert len({plane.submit(case).id, *(job.id for job in jobs)}) == 6, "ids are never used twice"


def test_a_pool_that_does_not_come_back_after_a_server_restart_loses_its_job(plane):
    case = endless(plane.data)
    pool = plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(200)
    plane.server.kill()
    pool.kill()
    plane.server.start()
    waiting = job.wait_for_state("PENDING")
    assert waiting.restarts == 1 and "pool a" in waiting.reason


def test_a_pool_may_be_there_before_its_server(tmp_path):
    with ControlPlane(tmp_path) as plane:
        address = plane.server.address
        plane.server.terminate()
        pool = plane.pool("a", wait=False)
        wait_until(lambda: address in pool.text(), "the pool to say that it cannot reach the server", context=pool.text)
        plane.server.start()
        plane.wait_for_pool("a", "IDLE")


def test_a_server_told_to_leave_does_so_with_a_watcher_and_a_running_job(plane):
    plane.pool("a")
    job = plane.submit(endless(plane.data))
    job.wait_for_step(10)
    watcher = plane.client.call("WatchJob", job=job.id)
    next(watcher)
    plane.server.terminate(0)
    assert plane.server.program.running() is False
    plane.server.start()
    assert job.wait_for_state("RUNNING").attempt == 1
