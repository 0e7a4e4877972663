"""Trainer and ranks are killed in the middle of the example: both go on from the last common checkpoint, and end as if
nothing had happened."""

import pathlib
import signal
import subprocess
import sys

import numpy as np
import torch

from control_harness import wait_until
from harness import PATIENCE_S
from live_case import LivePlane, spec

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "client/python/examples/live/train.py"
STEPS = 150


class Trainer:
    """The example as a process."""

    def __init__(self, plane, job, folder):
        self.log = plane.folder / f"{folder}.txt"
        arguments = [f"--job={job.id}", f"--steps={STEPS}", f"--folder={plane.folder / folder}", "--every=20"]
        with open(self.log, "a") as printed:
            command = [sys.executable, "-B", EXAMPLE, f"--server={plane.server.address}", *arguments]
            self.process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)

    def wait_for_step(self, step):
        def reached():
            assert self.process.poll() is None, self.log.read_text()
            return f"\nstep {step} loss" in self.log.read_text()

        wait_until(reached, f"step {step}", context=self.log.read_text)

    def finish(self):
        code = self.process.wait(PATIENCE_S)
        assert code == 0, self.log.read_text()

    def losses(self):
        lines = [line.split() for line in self.log.read_text().splitlines() if line.startswith("step")]
        return {int(line[1]): float(line[3]) for line in lines}


def test_a_killed_trainer_and_a_killed_rank_end_as_the_undisturbed_run(tmp_path):
    with LivePlane(tmp_path, ranks=2) as plane:
        job = plane.python.submit(spec(trainers=1, steps=STEPS))
        calm = Trainer(plane, job, "calm")
        calm.finish()
        expected = plane.python.wait(job.id, quiet=True)
        assert expected.progress.step == STEPS

        job = plane.python.submit(spec(trainers=1, steps=STEPS))
        trainer = Trainer(plane, job, "disturbed")
        trainer.wait_for_step(50)
        trainer.process.send_signal(signal.SIGKILL)
        trainer.process.wait()
        trainer = Trainer(plane, job, "disturbed")
        trainer.wait_for_step(90)
        plane.pools[-1].signal_rank(1, signal.SIGKILL)
        plane.new_pool("b", 2)
        trainer.finish()
        end = plane.python.wait(job.id, quiet=True)
        assert (end.progress.step, end.pool, end.restarts) == (STEPS, "b", 1)

        assert trainer.log.read_text().count("going on from step") == 2
        assert trainer.losses() == calm.losses()
        mine, theirs = (torch.load(tmp_path / folder / "backbone.pt") for folder in ("disturbed", "calm"))
        for name, tensor in theirs.items():
            np.testing.assert_array_equal(mine[name].numpy(), tensor.numpy())
