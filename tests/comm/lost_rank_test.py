"""A pool that loses a rank ends: soon, with a non-zero exit code, naming the rank, and leaving no process behind.

Usage: lost_rank_test.py MPIRUN PROGRAM
"""

import pathlib
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

TIMEOUT_MS = 2000
# On top of the deadline: start and end of mpirun on a busy machine, under a sanitizer.
SLACK_S = 20
# mpirun 4.1 may hang while it ends, in PMIx_server_finalize, though its ranks are gone: it is killed after that long.
HUNG_S = 5

mpirun, program = sys.argv[1:3]


def processes_with(token: str) -> list[str]:
    """Command lines of processes, zombies aside, that have `token` as an argument."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue  # It ended meanwhile.
        if token.encode() in arguments:
            found.append(b" ".join(arguments).decode())
    return found


def wait_until_gone(token: str) -> list[str]:
    """What is left after mpirun returned; it may take a moment to reap."""
    end = time.monotonic() + 5
    while (left := processes_with(token)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


class LostRank(unittest.TestCase):
    def lose(self, how: str, timeout_ms: int = TIMEOUT_MS) -> tuple[str, float]:
        """What the ranks said, and the seconds until the last was gone."""
        token = uuid.uuid4().hex
        with tempfile.TemporaryFile("w+") as stderr:
            start = time.monotonic()
            launch = subprocess.Popen([mpirun, "-n", "3", program, how, str(timeout_ms), token], stderr=stderr)
            seconds = self.await_ranks(launch, token, start + timeout_ms / 1000 + SLACK_S) - start
            try:
                exit_code = launch.wait(HUNG_S)
            except subprocess.TimeoutExpired:
                print(f"mpirun hung after its ranks had ended: killed after {HUNG_S} s", file=sys.stderr)
                launch.kill()
                exit_code = launch.wait()
            stderr.seek(0)
            said = stderr.read()
        self.assertNotEqual(exit_code, 0, said)
        self.assertEqual(wait_until_gone(token), [])
        return said, seconds

    def await_ranks(self, launch: subprocess.Popen, token: str, end: float) -> float:
        """When the last rank was seen for the last time."""
        started, last = False, time.monotonic()
        while launch.poll() is None:
            running = any(process.startswith(program) for process in processes_with(token))
            now = time.monotonic()
            self.assertLess(now, end, "ranks do not end")
            started = started or running
            if running or not started:
                last = now
            elif now - last > 1:
                break
            time.sleep(0.05)
        return last

    def test_a_killed_rank_ends_the_pool(self):
        stderr, _ = self.lose("killed")
        self.assertIn("signal 9", stderr)

    def test_a_rank_that_exits_without_a_word_ends_the_pool(self):
        self.lose("exits")

    def test_a_rank_that_hangs_is_named_after_the_deadline(self):
        stderr, seconds = self.lose("stopped")
        self.assertIn("DEADLINE_EXCEEDED: AllReduceSum: no call within 2000 ms from rank 2", stderr)
        self.assertGreater(seconds, TIMEOUT_MS / 1000)

    def test_a_rank_that_returns_is_named_at_once(self):
        stderr, seconds = self.lose("returns", timeout_ms=60000)
        self.assertIn("UNAVAILABLE: AllReduceSum: lost rank 2", stderr)
        self.assertLess(seconds, SLACK_S)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
