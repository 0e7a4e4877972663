"""What a server under load does to those who submit, and what those who watch do to the job that trains.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/load.py

One server, one pool of 2 ranks that trains all the time, on this machine. First watchers come and go every --window
seconds: the time of a step with them over that without them, in one run. Then --queued jobs wait, the watchers watch,
and --rate submits a second arrive for --seconds, each timed from when it was due. The submits and the watchers are of a
program of their own (build/PRESET/tests/load_client), on the same processors as all the rest.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import bench_job  # noqa: F401  Puts tests/e2e on the path.
from machine import processor
from control_cases import make_case
from control_harness import BIN, ControlPlane, scrape, value

LOAD_CLIENT = BIN.parent / "tests" / "load_client"


def start(plane, command, **options):
    flags = [f"--{name}={given}" for name, given in options.items()]
    command = [LOAD_CLIENT, f"--server={plane.server.address}", command, *flags]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)


def finish(process):
    out, _ = process.communicate()
    assert process.returncode == 0, out
    return json.loads(out)


class StepClock:
    """The mean time of the steps of rank 0 between two looks."""

    def __init__(self, plane):
        (endpoint,) = [e for e in plane.client.list_pools()["train"].endpoints if e.rank == 0]
        self.address = f"127.0.0.1:{endpoint.metrics_port}"

    def look(self):
        metrics = scrape(self.address)
        return value(metrics, "shardmax_step_seconds_sum"), value(metrics, "shardmax_step_seconds_count")

    def during(self, seconds):
        before = self.look()
        time.sleep(seconds)
        after = self.look()
        return (after[0] - before[0]) / (after[1] - before[1])


def cost_of_watchers(plane, job, args):
    clock = StepClock(plane)
    ratios = []
    for _ in range(args.rounds):
        alone = clock.during(args.window)
        watchers = start(plane, "watch", job=job.id, watchers=args.watchers, seconds=args.window + 2)
        time.sleep(1)  # They connect.
        watched = clock.during(args.window)
        seen = finish(watchers)
        assert seen["open_at_the_end"] == args.watchers, seen
        time.sleep(0.5)
        ratios.append(watched / alone)
        print(
            f"  step {alone * 1e3:.2f} ms alone, {watched * 1e3:.2f} ms with {args.watchers} watchers"
            f" ({seen['messages'] / (args.window + 2):.0f} messages/s): ratio {watched / alone:.4f}",
            flush=True,
        )
    return statistics.median(ratios), min(ratios), max(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=1000)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=9, help="with and without watchers")
    parser.add_argument("--window", type=int, default=8, help="seconds of each")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, ControlPlane(pathlib.Path(folder)) as plane:
        shape = {"num_classes": 50_000, "dim": 64, "batch_size": 256, "steps": 10_000_000}
        case = make_case(plane.data, "train", **shape, checkpoint={"every_steps": 0})
        plane.pool("train", 2)
        job = plane.submit(case, priority=1000)
        job.wait_for_step(50)
        spec = plane.write_spec(case, "waiting.textproto", pool="nowhere")
        print(f"{processor()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, seed 5, {shape}", flush=True)

        median, least, most = cost_of_watchers(plane, job, args)
        print(f"step with {args.watchers} watchers / without: {median:.4f} ({least:.4f} to {most:.4f})", flush=True)

        queue = finish(start(plane, "queue", spec=spec, jobs=args.queued))
        print(f"{args.queued} jobs queued, 16 at a time: {queue}", flush=True)
        assert queue["failed"] == 0
        watchers = start(plane, "watch", job=job.id, watchers=args.watchers, seconds=args.seconds + 4)
        time.sleep(1)
        before = job.get().progress.step
        submits = finish(start(plane, "submit", spec=spec, rate=args.rate, seconds=args.seconds))
        steps = job.get().progress.step - before
        seen = finish(watchers)
        print(f"{args.rate} submits/s for {args.seconds} s: {submits}")
        print(f"  meanwhile {steps} steps of training; watchers: {seen}")
        assert submits["failed"] == 0 and seen["open_at_the_end"] == args.watchers
        assert value(plane.metrics(), "shardmax_jobs", state="pending") == args.queued + args.rate * args.seconds
        good = median <= 1.03 and submits["p50_ms"] <= 10 and submits["p99_ms"] <= 100
        print("within the limits" if good else "BEYOND THE LIMITS: ratio 1.03, p50 10 ms, p99 100 ms")
        return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
