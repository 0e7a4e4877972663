"""The real server, a real pool and the command, for the tests of the command.

SHARDMAX_WORKER names the worker; the other binaries are beside it. Every wait has a limit, and what was started is ended.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from harness import MPIRUN, PATIENCE_S, make_data, textproto  # noqa: E402  (beside the path above)

import numpy as np  # noqa: E402

BIN = pathlib.Path(os.environ["SHARDMAX_WORKER"]).parent
SHARDMAX = BIN / "shardmax"
CLASSES, DIM = 40, 16


def wait_until(condition, what):
    """The first true value of `condition()`."""
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"still waiting for {what}"
        time.sleep(0.02)
    return value


class Program:
    """A process in a session of its own, whose output goes to a file."""

    def __init__(self, command, printed, env=None):
        self.printed = printed
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SHARDMAX_")}
        environment.update(env or {})
        with open(printed, "a") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True,
            )

    def text(self):
        return self.printed.read_text(errors="replace")

    def end(self, number=signal.SIGKILL):
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        self.process.wait(timeout=PATIENCE_S)


class Server:
    """shardmax-server; after a restart it has the same address and state."""

    def __init__(self, folder, *flags):
        self.folder, self.flags = folder, flags
        self.address = "127.0.0.1:0"
        (folder / "data").mkdir(parents=True)
        self.start()

    def start(self):
        state = self.folder / "state"
        (state / "server.json").unlink(missing_ok=True)
        command = [BIN / "shardmax-server", f"--listen={self.address}", "--metrics_listen=127.0.0.1:0",
                   f"--state_dir={state}", f"--data_root={self.folder / 'data'}", *self.flags]
        self.program = Program(command, self.folder / "server.txt")
        self.address = wait_until(lambda: self._told(state), "the server")["listen"]

    def _told(self, state):
        assert self.program.process.poll() is None, self.program.text()
        try:
            return json.loads((state / "server.json").read_text())
        except (OSError, ValueError):
            return None

    def end(self):
        self.program.end()


class Finished:
    def __init__(self, run):
        self.code, self.out, self.err = run.returncode, run.stdout, run.stderr

    def json(self):
        return json.loads(self.out)

    def lines(self):
        """The objects of a stream."""
        return [json.loads(line) for line in self.out.splitlines()]

    def says(self, *patterns):
        for pattern in patterns:
            assert re.search(pattern, self.err), f"nothing matches {pattern!r} in:\n{self.err}"
        return self


class Plane:
    """A server with data, and pools when asked for."""

    def __init__(self, folder, *flags):
        self.folder = folder
        self.server = Server(folder, *flags)
        self.pools = []
        features, labels, _ = make_data(1, 600, CLASSES, DIM)
        np.save(folder / "data" / "x.npy", features)
        np.save(folder / "data" / "y.npy", labels)
        np.save(folder / "data" / "wrong.npy", np.full(600, CLASSES))

    def environment(self, **env):
        own = {key: value for key, value in os.environ.items() if not key.startswith("SHARDMAX_")}
        return {**own, "SHARDMAX_SERVER": self.server.address, "NO_COLOR": "", **env}

    def start_pool(self, name, *flags, **env):
        command = [MPIRUN, "-n", 2, BIN / "shardmax-worker", f"--server={self.server.address}", f"--pool={name}",
                   "--threads=1", "--metrics_port_base=0", *flags]
        self.pools.append(Program(command, self.folder / f"pool-{name}.txt", env))

    def run(self, *arguments, expect=0, **env):
        """Runs the command to its end and checks the exit code."""
        run = subprocess.run([str(SHARDMAX), *map(str, arguments)], capture_output=True, text=True, cwd=self.folder,
                             stdin=subprocess.DEVNULL, timeout=PATIENCE_S, env=self.environment(**env))
        assert run.returncode == expect, f"{arguments}: exit code {run.returncode}\n{run.stdout}\n{run.stderr}"
        return Finished(run)

    def start(self, *arguments):
        """Starts the command; both streams are pipes."""
        return subprocess.Popen([str(SHARDMAX), *map(str, arguments)], stdin=subprocess.DEVNULL, cwd=self.folder,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment())

    def spec(self, name, steps=30, labels="y.npy", **train):
        """Writes a job, and returns its file."""
        path = self.folder / f"{name}.textproto"
        path.write_text(textproto({"name": name, "train": {
            "num_classes": CLASSES, "dim": DIM, "batch_size": 64, "steps": steps,
            "dataset": {"features": "x.npy", "labels": labels, "shuffle": True},
            "validation": {"features": "x.npy", "labels": "y.npy"}, **train}}))
        return path

    def job(self, id):
        return self.run("status", id, "--json").json()

    def wait_for_step(self, id, step):
        return wait_until(lambda: self.job(id).get("progress", {}).get("step", 0) >= step, f"step {step} of {id}")

    def end(self):
        for pool in self.pools:
            pool.end()
        self.server.end()
