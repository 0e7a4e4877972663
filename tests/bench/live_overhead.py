"""What a live step costs beyond the step itself: one trainer over loopback, beside the same step in process.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/live_overhead.py --threads 2

The trainer is Python: it sends the bytes of a batch that is there already, and waits for the bytes of the gradients; so
backbone and numpy are not in the time. `round trip` is what it waits; `step` is that of the engine and its collectives in the
worker at the same time, from the worker's own metrics; their difference is the service. head_bench, run before and after,
takes the step alone, in a process of its own. Prints two lines of Markdown tables: the second says where the service goes.
`message` is what the trainer needs to make the next one from arrays, `answer` what rank 0 needs after its step until the
answer is handed to gRPC, and `way` the rest: both messages through gRPC and loopback, parsing, checking, and the meeting.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request

import numpy as np
from bench_job import make_case
from live_case import wait_for_endpoints  # Of tests/e2e, which bench_job has put into the path.
from machine import processor
from trainer import Trainer


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_classes", type=int, default=100_000, help="C")
    parser.add_argument("--dim", type=int, default=512, help="D")
    parser.add_argument("--batch_size", type=int, default=256, help="B")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--precision", default="FLOAT32", choices=("FLOAT32", "BFLOAT16"))
    parser.add_argument("--preset", default="SV_AM_SOFTMAX")
    parser.add_argument("--wire", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def step_in_process(args):
    """The median step of head_bench, in seconds."""
    program = pathlib.Path(os.environ["SHARDMAX_WORKER"]).resolve().parents[1] / "tests/bench/head_bench"
    flags = [f"--classes={args.num_classes}", f"--dim={args.dim}", f"--batch={args.batch_size}",
             f"--ranks={args.ranks}", f"--threads={args.threads}", f"--precision={args.precision}",
             f"--loss={args.preset}", f"--steps={args.steps}", "--cosines=KEEP_FLOAT32", "--json"]
    printed = subprocess.run([program, *flags], capture_output=True, text=True, check=True).stdout
    return json.loads(printed)["step_seconds"]["median"]


def sum_of(page, name):
    return sum(float(number) for number in re.findall(rf"^{name}{{.*?}} (\S+)$", page, re.MULTILINE))


def live_steps(args, folder):
    """(median round trip, and means: round trip, step of the worker, making a message, making an answer) in seconds."""
    case = make_case(folder, args)
    case.change(dataset=None, live={"trainers": 1}, steps=args.steps + 2)
    rng = np.random.default_rng(args.seed)
    features = rng.standard_normal((args.batch_size, args.dim)).astype(np.float32)
    labels = rng.integers(0, args.num_classes, args.batch_size)
    flags = ["--data_port_base=0", "--metrics_port_base=0"]
    seconds, messages = [], []
    with case.launch(args.ranks, *flags, threads=args.threads) as launch:
        said = r"rank 0 serves trainers at (\S+)"
        wait_for_endpoints(launch, args.ranks)
        metrics = re.search(r"rank 0 serves metrics at (\S+)", launch.text())[1]
        page = lambda: urllib.request.urlopen(metrics, timeout=30).read().decode()
        with Trainer(re.search(said, launch.text())[1]) as trainer:
            for step in range(args.steps + 1):
                if step == 2:  # The first two are not timed.
                    before = page()
                start = time.perf_counter()
                trainer.send_step(step, features, labels, args.wire)
                sent = time.perf_counter()
                reply = trainer.receive().step
                assert len(reply.feature_gradients) == features.size * (4 if args.wire == "float32" else 2)
                if step >= 2:
                    seconds.append(time.perf_counter() - start)
                    messages.append(sent - start)
            # The last answer comes before its line is written and counted.
            launch.wait_until(
                lambda: sum_of(page(), "shardmax_step_seconds_count") == args.steps + 1, "the last step to be counted")
            after = page()
    step, wait = ((sum_of(after, name) - sum_of(before, name)) / len(seconds)
                  for name in ("shardmax_step_seconds_sum", "shardmax_live_wait_seconds_sum"))
    mean = statistics.mean(seconds)
    return statistics.median(seconds), mean, step, statistics.mean(messages), mean - step - wait


def main():
    args = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="shardmax-live-"))
    try:
        first = step_in_process(args)
        median, mean, step, message, answer = live_steps(args, folder / "job")
        alone = (first + step_in_process(args)) / 2
    finally:
        shutil.rmtree(folder)
    print(f"<!-- {processor()}; B = {args.batch_size}, D = {args.dim}, C = {args.num_classes}, {args.precision}, "
          f"{args.wire} on the wire, {args.steps} steps -->")
    print("| ranks x threads | head_bench | round trip, median | mean | step of the worker, mean | service |")
    print(f"| {args.ranks} x {args.threads} | {alone * 1e3:.1f} ms | {median * 1e3:.1f} ms | {mean * 1e3:.1f} ms | "
          f"{step * 1e3:.1f} ms | {(mean - step) * 1e3:.2f} ms, {100 * (mean - step) / step:.1f} % |")
    print("\n| service | message | way | answer |\n|---|---|---|---|")
    parts = (mean - step, message, mean - step - message - answer, answer)
    print("| " + " | ".join(f"{1e3 * part:.2f} ms" for part in parts) + " |")


if __name__ == "__main__":
    main()
