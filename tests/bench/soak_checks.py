"""What the soak test sees while it runs, and holds against every job in the end."""

import json
import os
import pathlib
import threading
import time

import grpc

from control_client import Client
from control_harness import FINAL, Job
from soak_jobs import LENGTHS, good_case

# Of the mean loss, after thousands of steps with momentum on other numbers of ranks. A lost or repeated step is worse.
CURVE_BOUND = 1e-2


class Reference:
    """The loss of the jobs of each length, run in one go without a server."""

    def __init__(self, folder, data):
        self.folder, self.data = folder, data
        self._cases, self._losses = {}, {}

    def case(self, steps):
        if steps not in self._cases:
            alone = good_case(self.folder / str(steps), steps)
            alone.run(2)
            self._losses[steps] = {line["step"]: line["loss"] for line in alone.metrics()}
            self._cases[steps] = good_case(self.data, steps)
        return self._cases[steps]

    def losses(self, steps):
        return self._losses[steps]


class Witness(threading.Thread):
    """Asks the server for all jobs every second, and looks all the time who writes into the jobs' folders."""

    def __init__(self, plane, keeper):
        super().__init__(daemon=True)
        self.plane, self.keeper = plane, keeper
        self.client = Client(plane.server.address)
        self.jobs, self.mistakes = {}, []
        self._end = threading.Event()
        self._looker = threading.Thread(target=self._look, daemon=True)

    @property
    def attempts(self):
        return sum(job.attempt for job in self.jobs.values())

    @property
    def restarts(self):
        return sum(job.restarts for job in self.jobs.values())

    def state(self, id):
        return self.plane.state_name(self.jobs[id].state) if id in self.jobs else "UNKNOWN"

    def run(self):
        self._looker.start()
        while not self._end.wait(1):
            try:
                self._ask()
            except grpc.RpcError:
                pass  # It was killed.

    def stop(self):
        self._end.set()
        self.join()
        self._looker.join()
        self._ask()

    def _ask(self):
        token = ""
        while True:
            page = self.client.call("ListJobs", page_size=1000, page_token=token, timeout_s=10)
            for job in page.jobs:
                self._saw(job)
            token = page.next_page_token
            if not token:
                return

    def _saw(self, job):
        before = self.jobs.get(job.id)
        self.jobs[job.id] = job
        if before is None:
            return
        if self.plane.state_name(before.state) in FINAL:
            if (before.state, before.attempt, before.finished) != (job.state, job.attempt, job.finished):
                self.mistakes.append(f"{job.id} ended twice: {before}\nthen {job}")
        # A lost pool that comes back while its job still waits goes on with the same attempt, and no restart counts.
        readopted = job.attempt == before.attempt
        if job.attempt < before.attempt or (job.restarts < before.restarts and not readopted):
            self.mistakes.append(f"{job.id} forgot an attempt: {before}\nthen {job}")

    def _look(self):
        """Two processes with the metrics of one job open for writing would be two that run it."""
        writers, looked_for = {}, 0
        while not self._end.wait(0.01):
            if time.monotonic() - looked_for > 0.3:
                writers = {pool.ranks().get(0): pool.name for pool in self.keeper.pools()}
                looked_for = time.monotonic()
            seen = {}
            for pid, name in writers.items():
                for path in self._metrics_of(pid) if pid else []:
                    if path in seen:
                        self.mistakes.append(f"{path} is written by {seen[path]} and {name} at a time")
                    seen[path] = name

    @staticmethod
    def _metrics_of(pid):
        try:
            paths = [os.readlink(fd) for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            return []
        return {path for path in paths if path.endswith("/metrics.jsonl")}


def check_jobs(plane, jobs, reference, witness):
    """The mistakes, of all jobs."""
    mistakes = list(witness.mistakes)
    ids = [job.id for job in jobs]
    if len(set(ids)) != len(ids) or set(ids) != set(witness.jobs):
        mistakes.append(f"{len(ids)} jobs were accepted, {len(set(ids))} ids, and the server has {len(witness.jobs)}")
    for job in jobs:
        mistakes += [f"{job.key} ({job.id}): {text}" for text in check_job(plane, job, reference, witness.jobs[job.id])]
    return mistakes


def check_job(plane, job, reference, told):
    if job.ended not in job.ends:
        yield f"is {job.ended}, not one of {sorted(job.ends)}: {told.reason}"
        return
    if told.restarts > job.spec["max_restarts"]:
        yield f"was restarted {told.restarts} times of {job.spec['max_restarts']}"
    if job.ended == "FAILED" and job.ends == {"FAILED"} and "spoilt.npy" not in told.reason:
        yield f"failed for another reason: {told.reason}"
    if job.ended == "FAILED" and "SUCCEEDED" in job.ends and "gave up after" not in told.reason:
        yield f"failed without a restart: {told.reason}"
    folder = Job(plane, reference.case(LENGTHS[0]), job.id)
    yield from check_lines(folder.metrics(), job, reference)
    yield from check_attempts(plane, job.id)
    if told.attempt and (folder.out / "attempt").exists():
        fence = int((folder.out / "attempt").read_text())
        if fence != told.attempt:
            yield f"the folder is of attempt {fence}, the server says {told.attempt}"
    if job.ended == "SUCCEEDED":
        manifest = json.loads((folder.checkpoints()[-1] / "manifest.json").read_text())
        if not manifest["step"] == told.progress.step == told.checkpoint_step == job.steps:
            yield f"ended at step {manifest['step']}, the server says {told.progress.step} and {told.checkpoint_step}"


def check_lines(lines, job, reference):
    """Every tenth step once; the loss of an undisturbed run."""
    steps = [line["step"] for line in lines]
    if steps != sorted(set(steps)):
        yield "has a step twice"
    if job.ended != "SUCCEEDED":
        return
    expected = reference.losses(job.steps)
    if steps != list(expected):
        yield f"has {len(steps)} lines of metrics, not {len(expected)}"
        return
    worst = max(lines, key=lambda line: abs(line["loss"] - expected[line["step"]]))
    error = abs(worst["loss"] - expected[worst["step"]]) / (sum(expected.values()) / len(expected))
    if error > CURVE_BOUND:
        wanted = expected[worst["step"]]
        yield f"at step {worst['step']} its loss is {worst['loss']}, not {wanted}: {error:.2g} of the mean"


def check_attempts(plane, id):
    """What workers said of one attempt ends before what they say of the next begins."""
    spans = {}
    for line in plane.client.call("StreamLogs", job=id):
        if line.source == "server":
            continue
        at = line.time.seconds + line.time.nanos * 1e-9
        first, last = spans.get(line.attempt, (at, at))
        spans[line.attempt] = (min(first, at), max(last, at))
    ordered = sorted(spans.items())
    for (earlier, (_, end)), (later, (start, _)) in zip(ordered, ordered[1:]):
        if start < end:
            yield f"attempt {later} began {end - start:.3f} s before attempt {earlier} ended"
