"""Makes data sets and job specs, runs the real worker under the real mpirun, and reads what it leaves behind.

SHARDMAX_WORKER names the binary. Every wait has a limit, and a launch that overruns it is ended with all its ranks.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import uuid

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
MPIRUN = ROOT / "tests" / "support" / "mpirun.sh"
# Processes are started in folders of their own.
os.environ["SHARDMAX_WORKER"] = str(pathlib.Path(os.environ["SHARDMAX_WORKER"]).resolve())
# Sanitizers slow the worker down, and so do neighbours that run at the same time.
PATIENCE_S = float(os.environ.get("SHARDMAX_E2E_PATIENCE_S", "180"))
# When a rank returns an error, Open MPI waits twice this long before it ends the others and itself. It need not: ranks
# print what they have to say before they part. Sanitizers do so after that, so they get time.
GRACE_S = os.environ.get("SHARDMAX_E2E_GRACE_S", "0")

SUCCEEDED, FAILED, INVALID_USE, STOPPED = 0, 1, 2, 4


class Name(str):
    """A bare word of textproto: an enumerator."""


def textproto(message, indent=0):
    """A nested dict as textproto; a list is a repeated field, None is left out."""
    pad = "  " * indent
    lines = []
    for key, value in message.items():
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, dict):
                lines.append(f"{pad}{key} {{\n{textproto(item, indent + 1)}{pad}}}\n")
            elif isinstance(item, bool):
                lines.append(f"{pad}{key}: {str(item).lower()}\n")
            elif isinstance(item, str) and not isinstance(item, Name):
                lines.append(f"{pad}{key}: {json.dumps(item)}\n")
            else:
                lines.append(f"{pad}{key}: {item}\n")
    return "".join(lines)


def merged(base, changes):
    """`base` with `changes` laid over it, message by message; None removes a field."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return {key: value for key, value in result.items() if value is not None}


def make_data(seed, rows, num_classes, dim, ignored=0.1, spread=0.7):
    """Features [n, D] float32 around one centre per class, labels [n] int64 with some -1, weights [C, D] float32.

    Spread and norms vary from row to row, and the weights are near the centres, so that label cosines lie on both
    sides of every threshold of the margins.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_classes, dim)) / np.sqrt(dim)
    labels = rng.integers(0, num_classes, rows)
    noise = rng.standard_normal((rows, dim)) / np.sqrt(dim)
    signs = np.where(rng.random((rows, 1)) < 0.2, -1.0, 1.0)
    features = signs * centres[labels] + spread * rng.uniform(0.2, 2, (rows, 1)) * noise
    features *= rng.uniform(0.5, 20, (rows, 1))
    weights = (centres + 0.8 * rng.standard_normal((num_classes, dim)) / np.sqrt(dim)) * rng.uniform(
        0.5, 2, (num_classes, 1)
    )
    labels[rng.random(rows) < ignored] = -1
    return features.astype(np.float32), labels.astype(np.int64), weights.astype(np.float32)


class Case:
    """A folder with the files of one job, and the job's own folder `out` in it."""

    def __init__(self, folder, spec):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spec = spec
        self.job = self.folder / "job.textproto"
        self.out = self.folder / "out"

    def save(self, **arrays):
        """Writes each array as NAME.npy."""
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)

    def save_weights(self, weight, name="w.safetensors"):
        save_file({"weight": np.ascontiguousarray(weight)}, self.folder / name)

    def change(self, **train):
        self.spec = merged(self.spec, {"train": train})

    def write_job(self):
        self.job.parent.mkdir(parents=True, exist_ok=True)
        self.job.write_text(json.dumps(self.spec) if self.job.suffix == ".json" else textproto(self.spec))

    def launch(self, ranks, *flags, write_job=True, **popen):
        if write_job:
            self.write_job()
        return Launch(self, ranks, flags, **popen)

    def run(self, ranks, *flags, expect=SUCCEEDED, **launch):
        """Runs to the end and checks the exit code."""
        with self.launch(ranks, *flags, **launch) as running:
            return running.wait(expect)

    def in_new_folder(self, name, copy_out=False):
        """The same spec and data in another folder of its own, with a copy of `out` if asked for."""
        other = Case(self.folder.parent / name, self.spec)
        for file in self.folder.iterdir():
            if file.is_file():
                shutil.copy(file, other.folder / file.name)
        if copy_out:
            shutil.copytree(self.out, other.out)
        return other

    def metrics(self):
        """The objects of metrics.jsonl; a line that is being written right now is left out."""
        path = self.out / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def log(self):
        return (self.out / "log.txt").read_text()

    def checkpoints(self):
        """Complete checkpoint folders, oldest first."""
        return sorted((self.out / "checkpoints").glob("step-*"))

    def last_checkpoint(self):
        return Checkpoint(self.checkpoints()[-1])


def training_case(folder, name, num_classes, dim, batch_size, steps, **train):
    """A job that trains on x.npy and y.npy, which are still to be saved, with the fields of `train` laid over it."""
    shape = {"num_classes": num_classes, "dim": dim, "batch_size": batch_size, "steps": steps}
    case = Case(folder, {"name": name, "train": {**shape, "dataset": {"features": "x.npy", "labels": "y.npy"}}})
    case.change(**train)
    return case


class Checkpoint:
    """A checkpoint folder as the safetensors package reads it: `tensors` are whole [C, D] arrays."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        self.step = self.manifest["step"]
        parts = [load_file(self.folder / file["path"]) for file in self.manifest["files"]]
        for file, part in zip(self.manifest["files"], parts):
            for name, tensor in part.items():
                expected = (file["num_classes"], self.manifest["dim"])
                assert tensor.shape == expected and tensor.dtype == np.float32, (file, name, tensor.shape)
            assert sorted(part) == sorted(self.manifest["tensors"])
        self.tensors = {name: np.concatenate([part[name] for part in parts]) for name in self.manifest["tensors"]}
        self.weight = self.tensors["weight"]


class Finished:
    def __init__(self, code, text, seconds):
        self.code = code
        self.text = text  # stdout and stderr of mpirun and all ranks.
        self.seconds = seconds

    def says(self, *patterns):
        """Checks that each regular expression is found in what was printed."""
        for pattern in patterns:
            assert re.search(pattern, self.text), f"nothing matches {pattern!r} in:\n{self.text}"


class Launch:
    """A running `mpirun -n N shardmax-worker`. Use it in a `with`: whatever is left at its end is killed."""

    def __init__(self, case, ranks, flags, grace_s=GRACE_S, limit_s=PATIENCE_S, threads=1, **popen):
        self.case = case
        self.limit_s = limit_s
        self.started = time.monotonic()
        defaults = ["--progress=none", "--timeout_s=60", f"--threads={threads}", "--metrics_port_base=0"]
        given = [flag.split("=")[0] for flag in flags]
        worker = [os.environ["SHARDMAX_WORKER"], f"--job={case.job}", f"--output={case.out}", *flags]
        worker += [flag for flag in defaults if flag.split("=")[0] not in given]
        command = [MPIRUN, "--mca", "odls_base_sigkill_timeout", str(grace_s), "-n", str(ranks), *worker]
        # A file, not a pipe: a rank that outlives mpirun would hold the pipe open and the reader with it.
        self.printed = open(case.folder / "printed.txt", "w+")
        self.mark = f"SHARDMAX_E2E_LAUNCH={uuid.uuid4()}"  # Inherited by the ranks, which are found by it.
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.printed,
            stderr=subprocess.STDOUT,
            cwd=case.folder,
            env={**os.environ, name: value},
            **popen,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for pid in self.ranks().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.printed.close()

    def text(self):
        return (self.case.folder / "printed.txt").read_text(errors="replace")

    def ranks(self):
        """The processes of this launch: rank -> process id."""
        found = {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                if arguments[0] != os.environ["SHARDMAX_WORKER"].encode():
                    continue
                environment = (folder / "environ").read_bytes().split(b"\0")
                if self.mark.encode() not in environment:
                    continue
            except OSError:
                continue
            for entry in environment:
                if entry.startswith(b"OMPI_COMM_WORLD_RANK="):
                    found[int(entry.split(b"=")[1])] = int(folder.name)
        return found

    def wait_until(self, condition, what):
        """Waits until `condition()` holds while the job runs."""
        while not condition():
            assert self.process.poll() is None, f"the job ended before {what}:\n{self.text()}"
            assert time.monotonic() - self.started < self.limit_s, f"still waiting for {what}:\n{self.text()}"
            time.sleep(0.005)

    def wait_for_step(self, step):
        def reached():
            metrics = self.case.metrics()
            return bool(metrics) and metrics[-1]["step"] >= step

        self.wait_until(reached, f"step {step}")

    def signal_rank(self, rank, number, at_step):
        """Sends signal `number` to the process of `rank`, soon after `at_step`."""
        self.wait_until(lambda: rank in self.ranks(), f"rank {rank}")
        process = self.ranks()[rank]
        self.wait_for_step(at_step)
        os.kill(process, number)

    def wait(self, expect=None):
        """Waits for the end. `expect` is the exit code to check, or None for any."""
        left = self.limit_s - (time.monotonic() - self.started)
        try:
            code = self.process.wait(timeout=max(left, 1))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {self.limit_s} s:\n{self.text()}") from None
        result = Finished(code, self.text(), time.monotonic() - self.started)
        if expect is not None:
            assert code == expect, f"exit code {code}, not {expect}:\n{result.text}"
        return result


def largest_error(actual, expected):
    """The largest difference relative to the largest expected value, and where it is."""
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    difference = np.abs(actual - expected)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    return difference[worst] / np.abs(expected).max(), worst


def assert_close(actual, expected, bound, what):
    error, worst = largest_error(actual, expected)
    assert error <= bound, (
        f"{what}: relative error {error:.3g} > {bound:g}, shape {np.shape(actual)}, worst element {worst}: "
        f"{np.asarray(actual)[worst]!r}, expected {np.asarray(expected)[worst]!r}"
    )


def assert_same_tensors(actual, expected):
    """Bit for bit, for two Checkpoints."""
    assert actual.step == expected.step
    assert sorted(actual.tensors) == sorted(expected.tensors)
    for name, tensor in expected.tensors.items():
        different = np.flatnonzero(actual.tensors[name].view(np.uint32) != tensor.view(np.uint32))
        assert different.size == 0, f"{name}: {different.size} of {tensor.size} elements differ, first {different[0]}"
