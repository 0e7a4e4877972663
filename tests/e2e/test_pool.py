"""A pool by itself: its command line, and how it waits for a server."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import pytest

from harness import FAILED, GRACE_S, INVALID_USE, MPIRUN, PATIENCE_S

WORKER = os.environ["SHARDMAX_WORKER"]
# Sanitizers, which are what GRACE_S is for, make everything dearer.
IDLE_SHARE = 0.02 if GRACE_S == "0" else 0.2


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "nothing to do: give --job and --output"),
        (["--job=a", "--output=b", "--pool=c"], "give one or the other"),
        (["--job=a"], "--job needs --output"),
        (["--output=b"], "--output needs --job"),
        (["--server=127.0.0.1:7700"], "--server needs --pool"),
        (["--pool=c", "--resume"], "--resume is of --job"),
        (["--job=a", "--output=b", "--tls_ca=system"], "--tls_ca is of a pool"),
        (["--pool=../c"], '--pool is "../c": allowed is 1 to 64'),
        (["--pool=c", "--server=nowhere"], '--server is "nowhere": give HOST:PORT'),
        (["--pool=c", "--tls_cert=a.pem"], "--tls_cert and --tls_key go together"),
        (["--pool=c", "--metrics_port_base=70000"], "--metrics_port_base"),
    ],
)
def test_wrong_usage_is_told_before_anything_runs(tmp_path, flags, message):
    # A world of one needs no launcher.
    done = subprocess.run([WORKER, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, message in done.stderr) == (INVALID_USE, True), done.stderr


def test_a_certificate_or_token_that_cannot_be_read_is_named(tmp_path):
    for flag, name in [("--tls_ca=none.pem", "none.pem"), ("--token_file=none.txt", "none.txt")]:
        done = subprocess.run([WORKER, "--pool=c", flag], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, name in done.stderr) == (FAILED, True), done.stderr


def cpu_seconds(pid):
    fields = (pathlib.Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class WaitingPool:
    """mpirun -n 3 shardmax-worker with a server that never comes. Use it in a `with`."""

    def __init__(self, folder, *flags):
        self.printed = folder / "printed.txt"
        command = [MPIRUN, "-n", "3", WORKER, "--pool=c", "--server=127.0.0.1:1", "--metrics_port_base=0", *flags]
        with open(self.printed, "w") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [*self.ranks(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def text(self):
        return self.printed.read_text(errors="replace")

    def ranks(self):
        """Process ids."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def wait_until_it_says(self, text):
        end = time.monotonic() + PATIENCE_S
        while text not in self.text():
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.01)


@pytest.mark.sanitized
def test_an_idle_pool_waits_for_ever_with_next_to_no_processor_and_leaves_when_told(tmp_path):
    # --timeout_s is for ranks that are late, not for servers.
    with WaitingPool(tmp_path, "--timeout_s=2") as pool:
        pool.wait_until_it_says("no connection to server 127.0.0.1:1")
        ranks = pool.ranks()
        assert len(ranks) == 3
        before = {pid: cpu_seconds(pid) for pid in ranks}
        started = time.monotonic()
        time.sleep(4)
        elapsed = time.monotonic() - started
        assert pool.process.poll() is None, pool.text()
        for pid in ranks:
            share = (cpu_seconds(pid) - before[pid]) / elapsed
            assert share < IDLE_SHARE, f"a rank used {share:.1%} of a processor"
        os.kill(ranks[1], signal.SIGTERM)
        assert pool.process.wait(timeout=PATIENCE_S) == 0, pool.text()
