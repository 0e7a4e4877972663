"""Starts the real server and real pools, talks to them as their users do, kills them, and leaves nothing behind.

The binaries are those beside SHARDMAX_WORKER. Every process inherits a mark in its environment, by which it is found
and ended whoever its parent was. Every wait has a limit.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.request
import uuid

from control_client import Client, spec_message, stubs
from harness import MPIRUN, PATIENCE_S, Case, Finished, textproto

BIN = pathlib.Path(os.environ["SHARDMAX_WORKER"]).parent
MARK = "SHARDMAX_TEST_RUN"
FINAL = {"SUCCEEDED", "FAILED", "STOPPED"}


def wait_until(condition, what, limit_s=PATIENCE_S, context=lambda: ""):
    """The first true value of `condition()`."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, f"still waiting for {what} after {limit_s} s\n{context()}"
        time.sleep(0.005)
    return value


def processes(mark):
    """Process id -> (arguments, environment) of what runs with this mark; zombies are left out."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            if f"{MARK}={mark}".encode() not in environment:
                continue
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        found[int(folder.name)] = ([text.decode() for text in arguments], environment)
    return found


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Program:
    """A process whose output goes to a file. Its descendants carry the same mark."""

    def __init__(self, command, folder, name, mark, env):
        self.mark = mark
        self.file = folder / f"{name}.txt"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SHARDMAX_")}
        environment.update(env, **{MARK: mark})
        # A file, not a pipe: what outlives it would hold the pipe open, and the reader with it.
        with open(self.file, "a") as printed:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT,
                cwd=folder, env=environment,
            )

    def text(self):
        return self.file.read_text(errors="replace")

    def running(self):
        return self.process.poll() is None

    def wait(self, expect=None, limit_s=PATIENCE_S):
        try:
            code = self.process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.file.name} still runs after {limit_s} s:\n{self.text()}") from None
        assert expect is None or code == expect, f"exit code {code}, not {expect}:\n{self.text()}"
        return code

    def kill(self):
        """kill -9 for it and all that it started."""
        self.process.kill()
        for pid in processes(self.mark):
            send(pid, signal.SIGKILL)
        self.process.wait()


def steady_address():
    """A free address that stays free while a server is down: the kernel gives ports from 32768 on to whoever asks."""
    while True:
        address = ("127.0.0.1", random.randrange(20000, 32768))
        with contextlib.suppress(OSError), socket.create_server(address):
            return "%s:%d" % address


class Server:
    """shardmax-server with its state in `folder`/state. After a restart it listens at the same address."""

    def __init__(self, folder, data_root, flags=(), env=None):
        self.folder = folder
        self.state = folder / "state"
        self.flags = [f"--state_dir={self.state}", f"--data_root={data_root}", *flags]
        self.env = env or {}
        self.address, self.metrics_address = steady_address(), None
        self.program = None

    def start(self):
        ports = [f"--listen={self.address}", "--metrics_listen=127.0.0.1:0"]
        command = [BIN / "shardmax-server", *ports, *self.flags]
        self.program = Program(command, self.folder, "server", uuid.uuid4().hex, self.env)
        wait_until(self._is_up, "the server to listen", context=self.program.text)

    def _is_up(self):
        assert self.program.running(), f"the server ended:\n{self.program.text()}"
        try:
            told = json.loads((self.state / "server.json").read_text())
        except (OSError, ValueError):
            return False
        if told["pid"] != self.program.process.pid:
            return False
        self.address, self.metrics_address = told["listen"], told["metrics"]
        return True

    def kill(self):
        self.program.kill()

    def terminate(self, expect=0):
        self.program.process.terminate()
        self.program.wait(expect)

    def pid(self):
        return self.program.process.pid


class Pool:
    """mpirun -n `ranks` shardmax-worker --pool=`name`."""

    def __init__(self, folder, name, ranks, address, flags=(), env=None, grace_s=0):
        self.name = name
        self.size = ranks
        defaults = ["--threads=1", "--timeout_s=60", "--metrics_port_base=0"]
        given = [flag.split("=")[0] for flag in flags]
        worker = [BIN / "shardmax-worker", f"--server={address}", f"--pool={name}", *flags]
        worker += [flag for flag in defaults if flag.split("=")[0] not in given]
        mpirun = [MPIRUN, "--mca", "odls_base_sigkill_timeout", grace_s, "-n", ranks]
        self.program = Program([*mpirun, *worker], folder, f"pool-{name}", uuid.uuid4().hex, env or {})

    def ranks(self):
        """Rank -> process id."""
        found = {}
        for pid, (arguments, environment) in processes(self.program.mark).items():
            if pathlib.Path(arguments[0]).name != "shardmax-worker":
                continue
            for entry in environment:
                if entry.startswith(b"OMPI_COMM_WORLD_RANK="):
                    found[int(entry.split(b"=")[1])] = pid
        return found

    def signal_rank(self, rank, number):
        send(self.ranks()[rank], number)

    def kill(self):
        self.program.kill()

    def terminate(self):
        """SIGTERM to every rank, as systemd sends it."""
        for pid in self.ranks().values():
            send(pid, signal.SIGTERM)

    def text(self):
        return self.program.text()


class Job(Case):
    """A submitted job: what the server says of it, and its folder as Case reads it."""

    def __init__(self, plane, case, id):
        self.plane, self.id, self.spec, self.folder = plane, id, case.spec, case.folder
        self.out = plane.server.state / "jobs" / id

    def get(self):
        return self.plane.client.get(self.id)

    def state(self):
        return self.plane.state_name(self.get().state)

    def said(self):
        """The log of the job as the server has it."""
        return [line.text for line in self.plane.client.call("StreamLogs", job=self.id)]

    def wait_for_state(self, *states, limit_s=PATIENCE_S):
        def reached():
            now = self.get()
            name = self.plane.state_name(now.state)
            if name in states:
                return now
            assert name not in FINAL, f"{self.id} is {name}: {now.reason}\n{self.story()}"
            return None

        return wait_until(reached, f"{self.id} to be {' or '.join(states)}", limit_s, self.story)

    def wait_for_step(self, step, limit_s=PATIENCE_S):
        """A step in metrics.jsonl, which is there whether or not the server is."""

        def reached():
            lines = self.metrics()
            return bool(lines) and lines[-1]["step"] >= step

        wait_until(reached, f"step {step} of {self.id}", limit_s, self.story)

    def story(self):
        log = self.out / "log.txt"
        parts = [self.plane.server.program.text(), *self.plane.said_by_pools()]
        return "\n".join([*parts, log.read_text() if log.exists() else "no log.txt"])


class ControlPlane:
    """A server and pools in a folder. Use it in a `with`: at its end everything is killed, and nothing may be left."""

    def __init__(self, folder, *flags, data_root=None, grace_s=1, env=None, token=None, start=True):
        self.folder = pathlib.Path(folder)
        self.data = pathlib.Path(data_root or self.folder / "data")
        self.data.mkdir(parents=True, exist_ok=True)
        self.env, self.token = env or {}, token
        self.pools = []
        self._client = None
        self.server = Server(self.folder, self.data, [f"--pool_grace_s={grace_s}", *flags], self.env)
        if start:
            self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._client:
            self._client.close()
        for program in [self.server.program, *(pool.program for pool in self.pools)]:
            if program:
                program.kill()
                wait_until(lambda: not processes(program.mark), f"the processes of {program.file.name} to be gone")

    @property
    def client(self):
        if not self._client:
            self._client = Client(self.server.address, token=self.token)
        return self._client

    def state_name(self, number):
        return stubs("control_pb2").JobState.Name(number)

    def pool(self, name, ranks=2, *flags, address=None, wait=True, **options):
        """Launches a pool, and waits until the server knows it."""
        env = {**self.env, **options.pop("env", {})}
        pool = Pool(self.folder, name, ranks, address or self.server.address, flags, env, **options)
        self.pools.append(pool)
        if wait:
            self.wait_for_pool(name, "IDLE", "BUSY")
        return pool

    def wait_for_pool(self, name, *states, limit_s=PATIENCE_S):
        """Waits until the pool is in one of `states`; "GONE" means that the server does not know it."""

        def reached():
            pool = self.client.list_pools().get(name)
            return (stubs("control_pb2").PoolState.Name(pool.state) if pool else "GONE") in states

        story = lambda: "\n".join(self.said_by_pools())
        wait_until(reached, f"pool {name} to be {' or '.join(states)}", limit_s, story)

    def said_by_pools(self):
        return [file.read_text(errors="replace") for file in sorted({pool.program.file for pool in self.pools})]

    def submit(self, case, key="", **changes):
        """`changes` are fields of the spec beside `train`."""
        job = self.client.submit(spec_message({**case.spec, **changes}), key)
        return self.job(job.id, case)

    def job(self, id, case):
        return Job(self, case, id)

    def run_cli(self, *arguments, expect=0, limit_s=PATIENCE_S):
        """The `shardmax` command, to its end."""
        started = time.monotonic()
        name = f"cli-{arguments[0]}-{uuid.uuid4().hex[:6]}"
        address = f"--server={self.server.address}"
        program = Program([BIN / "shardmax", *arguments, address], self.folder, name, uuid.uuid4().hex, self.env)
        code = program.wait(expect, limit_s)
        return Finished(code, program.text(), time.monotonic() - started)

    def write_spec(self, case, name="job.textproto", **changes):
        path = self.folder / name
        path.write_text(textproto({**case.spec, **changes}))
        return path

    def metrics(self):
        return scrape(self.server.metrics_address)


def scrape(address):
    """{name: {frozenset of (label, value): number}} of a /metrics page."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        head, number = line.rsplit(" ", 1)
        name, _, labels = head.partition("{")
        pairs = [pair.split("=", 1) for pair in labels.rstrip("}").split(",") if pair]
        found.setdefault(name, {})[frozenset((key, value.strip('"')) for key, value in pairs)] = float(number)
    return found


def value(metrics, name, **labels):
    """The sum of the series of `name` that have these labels."""
    wanted = set(labels.items())
    return sum(number for pairs, number in metrics.get(name, {}).items() if wanted <= pairs)
