"""The jobs of the soak test: of every kind, each with the end that is right for it."""

import threading
import time

import grpc
import numpy as np

from control_cases import make_case
from control_client import Client
from control_harness import FINAL, PATIENCE_S

SHAPE = {"num_classes": 2001, "dim": 32, "batch_size": 32, "log_every_steps": 10}
LENGTHS = (200, 600, 1500)
ENDLESS = 10_000_000


def good_case(data, steps):
    return make_case(data, "soak", steps=steps, checkpoint={"every_steps": 100, "keep": 2}, **SHAPE)


class SoakJob:
    """A job to submit, and what may become of it: `ends` are the states that are right."""

    def __init__(self, key, spec, ends, stop_after_s=None):
        self.key, self.spec, self.ends, self.stop_after_s = key, spec, ends, stop_after_s
        self.id = None
        self.ended = None  # The state that the server gave it in the end.

    @property
    def steps(self):
        return self.spec["train"]["steps"]


class Submitter(threading.Thread):
    """Submits `count` jobs or more, spread until `end`, in a way that survives the server's death; stops some."""

    def __init__(self, plane, reference, random, count, end):
        super().__init__(daemon=True)
        self.plane, self.random, self.count, self.end = plane, random, count, end
        self.cases = {steps: reference.case(steps) for steps in LENGTHS}
        self.jobs, self._stops = [], []
        spoilt = np.load(plane.data / "x.npy")
        spoilt[-1, 0] = np.inf
        np.save(plane.data / "spoilt.npy", spoilt)
        self.client = Client(plane.server.address)

    def run(self):
        interval = (self.end - time.monotonic()) / self.count
        number = 0
        due = time.monotonic()
        while number < self.count or time.monotonic() < self.end:
            job = self._make(number)
            job.id = self._persist(lambda: self.client.submit(job.spec, key=job.key, timeout_s=5)).id
            self.jobs.append(job)
            if job.stop_after_s is not None:
                self._stops.append((time.monotonic() + job.stop_after_s, job))
            number += 1
            due += interval * self.random.uniform(0.2, 1.6)
            while time.monotonic() < due:
                self._stop_those_due()
                time.sleep(0.05)
        while self._stops:
            self._stop_those_due()
            time.sleep(0.05)

    def _make(self, number):
        spec = {**self.cases[self.random.choice(LENGTHS)].spec, "max_restarts": 1000}
        spec["name"] = f"soak{number % 7}"
        spec["priority"] = self.random.choice([0, 0, 0, 1, -1])
        if self.random.random() < 0.3:
            spec.update(self.random.choice([{"pool": "p2"}, {"min_ranks": 2}, {"max_ranks": 1}]))
        kind = self.random.choices(["good", "fragile", "bad", "stopped"], [70, 10, 8, 12])[0]
        key = f"soak-{number}-{kind}"
        if kind == "good":
            return SoakJob(key, spec, {"SUCCEEDED"})
        if kind == "fragile":
            return SoakJob(key, {**spec, "max_restarts": self.random.choice([0, 1])}, {"SUCCEEDED", "FAILED"})
        if kind == "bad":
            dataset = {**spec["train"]["dataset"], "features": "spoilt.npy"}
            return SoakJob(key, {**spec, "train": {**spec["train"], "dataset": dataset}}, {"FAILED"})
        spec["train"] = {**spec["train"], "steps": ENDLESS}
        return SoakJob(key, spec, {"STOPPED"}, stop_after_s=self.random.uniform(0, 15))

    def _stop_those_due(self):
        for due, job in list(self._stops):
            if time.monotonic() >= due:
                self._persist(lambda: self.client.call("StopJob", job=job.id, timeout_s=5))
                self._stops.remove((due, job))

    def _persist(self, call):
        """Until the server answers. The same key makes the same job, and a job may be stopped twice."""
        end = time.monotonic() + 60
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                assert time.monotonic() < end, f"no answer in a minute: {error}"
                time.sleep(0.1)

    def wait_for_ends(self, witness):
        """Until every accepted job is in a final state."""
        end = time.monotonic() + 4 * PATIENCE_S
        while left := [job for job in self.jobs if witness.state(job.id) not in FINAL]:
            states = [(job.id, witness.state(job.id)) for job in left]
            assert time.monotonic() < end, f"{len(left)} jobs do not end: {states}"
            time.sleep(1)
        for job in self.jobs:
            job.ended = witness.state(job.id)
