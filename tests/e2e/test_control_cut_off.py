"""A pool that the server cannot reach: its job goes elsewhere, and never runs in two places at a time."""

import os
import pathlib
import threading
import time

import pytest

from control_cases import endless
from control_harness import ControlPlane, wait_until
from tcp_proxy import TcpProxy


@pytest.fixture
def plane(tmp_path):
    with ControlPlane(tmp_path, grace_s=1) as plane:
        yield plane


class WriterWatch:
    """Looks all the time which processes have the job's metrics open, and keeps every set of them that it sees."""

    def __init__(self, pools, path):
        self.pools, self.path, self.seen = pools, str(path), set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self):
        self.ranks0 = {pool.ranks()[0]: pool.name for pool in self.pools}
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    def _look(self):
        while not self._end.is_set():
            self.seen.add(frozenset(name for pid, name in self.ranks0.items() if self._writes(pid)))
            time.sleep(0.002)

    def _writes(self, pid):
        try:
            return any(os.readlink(fd) == self.path for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            return False


def test_the_job_of_a_pool_that_is_cut_off_moves_and_never_runs_twice_at_a_time(plane):
    with TcpProxy(plane.server.address) as network:
        cut_off = plane.pool("a", 2, address=network.address)
        job = plane.submit(endless(plane.data))
        job.wait_for_state("RUNNING")
        job.wait_for_step(200)
        other = plane.pool("b", 2)
        with WriterWatch([cut_off, other], job.out / "metrics.jsonl") as watch:
            network.cut()
            wait_until(lambda: job.get().attempt == 2, "the second attempt", context=job.story)
            resumed = lambda: job.get().progress.step > job_step_of_attempt(job, 2) + 100
            wait_until(resumed, "steps on pool b", context=job.story)
        moved = job.get()
        assert (moved.pool, moved.restarts) == ("b", 1)
        assert watch.seen <= {frozenset(), frozenset("a"), frozenset("b")}, watch.seen
        assert {frozenset("a"), frozenset("b")} <= watch.seen

        # The pool that was cut off found out by the job's folder, and is there for the next job.
        network.mend()
        plane.wait_for_pool("a", "IDLE")
        assert cut_off.program.running()
        plane.client.call("StopJob", job=job.id)
        job.wait_for_state("STOPPED")
        steps = [line["step"] for line in job.metrics()]
        assert steps == sorted(set(steps)), "a step was written twice"


def job_step_of_attempt(job, attempt):
    """The step that an attempt started from; a large number while it has not."""
    for line in job.plane.client.call("StreamLogs", job=job.id):
        if line.attempt == attempt and "resuming after step" in line.text:
            return int(line.text.split("resuming after step ")[1].split()[0].rstrip(".,;"))
    return 1 << 40


def test_a_short_cut_disturbs_nothing(plane_with_long_grace):
    plane = plane_with_long_grace
    with TcpProxy(plane.server.address) as network:
        plane.pool("a", 2, address=network.address)
        job = plane.submit(endless(plane.data))
        job.wait_for_step(100)
        network.cut()
        at = job.metrics()[-1]["step"]
        job.wait_for_step(at + 500)
        network.mend()
        wait_until(lambda: job.get().progress.step > at + 500, "progress after the cut", context=job.story)
        now = job.get()
        assert (now.attempt, now.restarts) == (1, 0)


@pytest.fixture
def plane_with_long_grace(tmp_path):
    with ControlPlane(tmp_path, grace_s=60) as plane:
        yield plane


def test_another_launch_of_the_same_pool_takes_over_from_one_that_is_gone(plane):
    """Without waiting for the grace."""
    first = plane.pool("a")
    job = plane.submit(endless(plane.data))
    job.wait_for_step(200)
    first.kill()
    plane.pool("a", wait=False)
    again = wait_until(lambda: job.get() if job.get().attempt == 2 else None, "the second attempt", context=job.story)
    assert again.restarts == 1


@pytest.mark.sanitized
def test_a_second_pool_of_the_same_name_is_refused(plane):
    plane.pool("a")
    second = plane.pool("a", 1, wait=False)
    assert second.program.wait() != 0
    assert "connected already (2 ranks" in second.text() and "--pool" in second.text(), second.text()
    assert plane.client.list_pools()["a"].ranks == 2
