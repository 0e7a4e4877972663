"""Many jobs through one server while ranks, pools and the server are killed at random.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/soak.py --minutes=20 --seed=1

Three pools of 1, 2 and 3 ranks take small jobs that arrive all the time. Something is hit every few seconds; pools that
end are launched anew, as systemd would. The server is killed in the first two thirds only, so that its memory can be
watched in the last. In the end every accepted job must be in the state that is right for it, once, with every step once
and the loss of a run that nothing happened to; no two attempts of a job may have overlapped; no process may be left.
"""

import argparse
import collections
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

import bench_job  # noqa: F401  Puts tests/e2e on the path.
from machine import processor
from control_harness import ControlPlane, processes
from soak_chaos import Chaos, PoolKeeper
from soak_checks import Reference, Witness, check_jobs
from soak_jobs import Submitter


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


class MemoryWatch(threading.Thread):
    """(seconds, process id, KiB) of the server, every two seconds."""

    def __init__(self, plane):
        super().__init__(daemon=True)
        self.plane, self.samples, self.end = plane, [], threading.Event()

    def run(self):
        start = time.monotonic()
        while not self.end.wait(2):
            try:
                pid = self.plane.server.pid()
                self.samples.append((time.monotonic() - start, pid, resident_kib(pid)))
            except OSError:
                pass  # It is down right now.

    def report(self):
        """Growth in the last life of the server, its first minute left out."""
        last = self.samples[-1][1]
        life = [(at, kib) for at, pid, kib in self.samples if pid == last]
        settled = [(at, kib) for at, kib in life if at >= life[0][0] + min(60, (life[-1][0] - life[0][0]) / 4)]
        minutes = max((settled[-1][0] - settled[0][0]) / 60, 1e-9)
        for at, kib in settled[:: max(1, len(settled) // 10)]:
            print(f"  server after {at:6.0f} s: {kib / 1024:.1f} MiB")
        growth = settled[-1][1] - settled[0][1]
        first, newest = settled[0][1] / 1024, settled[-1][1] / 1024
        print(f"server memory, last life: {first:.1f} -> {newest:.1f} MiB in {minutes:.1f} min")
        print(f"largest of all lives: {max(kib for *_, kib in self.samples) / 1024:.1f} MiB")
        return growth / 1024, minutes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--jobs", type=int, default=200, help="at least; more if time is left")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="folder to work in, which is kept")
    args = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {vars(args)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with ControlPlane(folder, grace_s=2) as plane:
            return soak(plane, args)


def soak(plane, args):
    end = time.monotonic() + args.minutes * 60
    reference = Reference(plane.folder / "reference", plane.data)
    keeper = PoolKeeper(plane, {"p1": 1, "p2": 2, "p3": 3}, random.Random(args.seed))
    memory, witness = MemoryWatch(plane), Witness(plane, keeper)
    chaos = Chaos(plane, keeper, random.Random(args.seed + 1), end - args.minutes * 20)
    submitter = Submitter(plane, reference, random.Random(args.seed + 2), args.jobs, end - 20)
    workers = [memory, witness, keeper, chaos, submitter]
    for worker in workers:
        worker.start()
    while time.monotonic() < end:
        time.sleep(1)
        for worker in workers:
            assert worker.is_alive() or worker is submitter, f"{worker} ended too soon"
    chaos.stop()
    submitter.join()
    print(f"{len(submitter.jobs)} jobs accepted; hits: {dict(chaos.hits)}", flush=True)
    submitter.wait_for_ends(witness)
    witness.stop()
    memory.end.set()

    keeper.settle()
    mistakes = check_jobs(plane, submitter.jobs, reference, witness)
    keeper.stop()
    left = [pid for mark in keeper.marks for pid in processes(mark)]
    mistakes += [f"{len(left)} processes of pools are left: {left}"] if left else []
    mistakes += keeper.mistakes
    growth, minutes = memory.report()
    if growth > 8 and growth / minutes > 0.5:
        mistakes.append(f"the server grew by {growth:.1f} MiB in {minutes:.1f} minutes")
    ends = collections.Counter(job.ended for job in submitter.jobs)
    print(f"{len(submitter.jobs)} jobs: {dict(ends)}; {witness.attempts} attempts, {witness.restarts} restarts")
    for mistake in mistakes:
        print(f"MISTAKE: {mistake}")
    print("soak: " + ("FAILED" if mistakes else "every job ended as it should, once"))
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
