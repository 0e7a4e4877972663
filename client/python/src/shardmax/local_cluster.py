"""A server and a pool on this machine, for notebooks and tests.

    with shardmax.local(ranks=2) as cluster:
        job = cluster.client.submit(spec)
        head = cluster.head(job.id)
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Type

from shardmax._channel import Path
from shardmax.client import Client
from shardmax.errors import InternalError, NotFoundError, UnavailableError
from shardmax.head import Head
from shardmax.v1 import control_pb2

_LOG_LINES = 30
_END_S = 20.0


def local(
    ranks: int = 1,
    *,
    threads: Optional[int] = None,
    backend: str = "auto",
    data_root: Path = ".",
    folder: Optional[Path] = None,
    start_s: float = 60.0,
    bin: Optional[Path] = None,
) -> LocalCluster:
    """Starts shardmax-server and a pool of `ranks` workers by mpirun, and waits until both are ready.

    The programs are those in `bin`, SHARDMAX_BIN or PATH. `data_root` is what the paths of jobs are relative to.
    `folder` keeps jobs and checkpoints; without it they are in a temporary folder that close() removes.
    """
    cluster = LocalCluster(folder)
    try:
        cluster._start(bin, ranks, threads, backend, os.path.abspath(data_root), start_s)
    except BaseException:
        cluster.close()
        raise
    return cluster


class LocalCluster:
    """Made by local(). Ends with its `with`, with close(), or with the interpreter."""

    client: Client

    def __init__(self, folder: Optional[Path]) -> None:
        self._temporary = folder is None
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="shardmax-")).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = ""
        self._programs: List[Tuple[str, subprocess.Popen[bytes]]] = []
        atexit.register(self.close)

    def head(self, job: str, **options: Any) -> Head:
        """A Head of a job here; options are those of Head."""
        return Head(self.address, job, **options)

    def close(self) -> None:
        """Ends the pool, which writes a checkpoint of a running job, then the server."""
        atexit.unregister(self.close)
        with contextlib.suppress(AttributeError):
            self.client.close()
        while self._programs:
            _end(self._programs.pop()[1])
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, name: str) -> str:
        """What "server" or "pool" has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _start(
        self, bin: Optional[Path], ranks: int, threads: Optional[int], backend: str, data_root: str, start_s: float
    ) -> None:
        end = time.monotonic() + start_s
        state = self.folder / "state"
        options = ["--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0", f"--state_dir={state}"]
        server = self._launch("server", [find("shardmax-server", bin), *options, f"--data_root={data_root}"])

        def address() -> Any:
            told = _read_json(state / "server.json")
            return told.get("listen") if told.get("pid") == server.pid else None

        self.address = self._wait(address, end)
        self.client = Client(self.address)
        # mpirun 4.1 may crash while it collects the messages of ranks that abort together.
        mpirun = ["mpirun", "--mca", "orte_base_help_aggregate", "0"]
        mpirun += ["--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
        worker = [find("shardmax-worker", bin), f"--server={self.address}", "--pool=local", f"--backend={backend}"]
        worker += ["--metrics_port_base=0", "--data_port_base=0", *([f"--threads={threads}"] if threads else [])]
        self._launch("pool", [find("mpirun", None), *mpirun[1:], *worker])
        # BUSY at once where a job of before goes on.
        ready = (control_pb2.IDLE, control_pb2.BUSY)
        self._wait(lambda: any(pool.state in ready for pool in self.client.pools()), end)

    def _launch(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SHARDMAX_")}
        # Containers run as root, which Open MPI wants to be told twice.
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder,
                env=environment, start_new_session=True,
            )
        self._programs.append((name, process))
        return process

    def _wait(self, condition: Callable[[], Any], end: float) -> Any:
        while True:
            value = condition()
            if value:
                return value
            for name, process in self._programs:
                if process.poll() is not None:
                    raise InternalError(f"the {name} ended with exit code {process.returncode}:\n{self._tail(name)}")
            if time.monotonic() > end:
                logs = "\n".join(self._tail(name) for name, _ in self._programs)
                raise UnavailableError(f"not ready in time; give it more with start_s:\n{logs}")
            time.sleep(0.02)

    def _tail(self, name: str) -> str:
        return "\n".join(self.log(name).splitlines()[-_LOG_LINES:])


def find(program: str, bin: Optional[Path]) -> str:
    """The path of a program in `bin`, SHARDMAX_BIN or PATH."""
    folder = bin if bin is not None else os.environ.get("SHARDMAX_BIN")
    path = shutil.which(program, path=os.fspath(folder)) if folder and program != "mpirun" else shutil.which(program)
    if path is None:
        where = f"in {os.fspath(folder)}" if folder and program != "mpirun" else "in PATH"
        hint = "install Open MPI" if program == "mpirun" else "build it, and name its folder with SHARDMAX_BIN or bin="
        raise NotFoundError(f"{program} is not {where}: {hint}")
    return os.path.abspath(path)


def _read_json(path: pathlib.Path) -> Dict[str, Any]:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, which a rank answers with a checkpoint, and SIGKILL to what is left a while later."""
    family = _descendants(process.pid)
    # mpirun would kill its ranks a second later: it ends by itself once they have.
    asked = family[1:] or family
    for pids, number, patience_s in ((asked, signal.SIGTERM, _END_S), (family, signal.SIGKILL, 5.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience_s)
            return


def _descendants(pid: int) -> List[int]:
    """A process, and those that it started, and so on."""
    parents: Dict[int, int] = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name of the program, in parentheses, may have blanks.
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family
