"""Measures how much slower steps are while a checkpoint is written from a snapshot, and fails above a limit.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/snapshot_steps.py

By default C = 500 000, D = 512, B = 256, float32, SGD with momentum, 2 ranks x 1 thread: a snapshot of 2.05 GB. Steps that
begin while a file is written are compared with all others of the same run, medians. Not part of the test suite.
"""

import argparse
import pathlib
import re
import shutil
import sys
import tempfile

import numpy as np
from bench_job import make_case
from machine import processor


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_classes", type=int, default=500_000, help="C")
    parser.add_argument("--dim", type=int, default=512, help="D")
    parser.add_argument("--batch_size", type=int, default=256, help="B")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--steps", type=int, default=61)
    parser.add_argument("--every_steps", type=int, default=20, help="between checkpoints")
    parser.add_argument("--precision", default="FLOAT32", choices=("FLOAT32", "BFLOAT16"))
    parser.add_argument("--preset", default="SV_AM_SOFTMAX")
    parser.add_argument("--most", type=float, default=1.10, help="times the steps without a write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="on the disk to measure (default: TMPDIR)")
    return parser.parse_args()


def writes(log):
    """(step, seconds that the snapshot took, seconds until it was on the disk) of each."""
    taken = {int(step): float(s) for step, s in re.findall(r"step (\d+): took a snapshot for a checkpoint in ([\d.]+) s", log)}
    done = {int(step): float(s) for step, s in re.findall(r"step (\d+): wrote a checkpoint behind .* in ([\d.]+) s", log)}
    return [(step, seconds, done[step]) for step, seconds in taken.items()]


def main():
    args = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="shardmax-snapshot-", dir=args.folder)).resolve()
    try:
        case = make_case(folder / "job", args)
        case.change(checkpoint={"every_steps": args.every_steps, "keep": 1})
        case.run(args.ranks, limit_s=3600, threads=args.threads)
        seconds = {m["step"]: args.batch_size / m["samples_per_second"] for m in case.metrics()}
        beside = set()
        for step, taking, writing in writes(case.log()):
            print(f"step {step}: snapshot in {taking:.2f} s, on the disk {writing - taking:.2f} s later")
            left = writing - taking
            while left > 0 and step + 1 in seconds:
                step += 1
                beside.add(step)
                left -= seconds[step]
        if not beside:
            print(case.log())
            print("no step began while a file was written: the job is too small, or there was no memory for a snapshot")
            return 1
        alone = [s for step, s in seconds.items() if step not in beside and step > 2]
        with_write = [seconds[step] for step in beside]
        ratio = np.median(with_write) / np.median(alone)
        print(f"processor  {processor()}")
        print(f"steps      {len(alone)} alone, median {np.median(alone):.3f} s ({min(alone):.3f} to {max(alone):.3f})")
        print(
            f"           {len(with_write)} beside a write, median {np.median(with_write):.3f} s "
            f"({min(with_write):.3f} to {max(with_write):.3f})"
        )
        print(f"ratio      {ratio:.3f}: {'kept' if ratio <= args.most else 'ABOVE'} {args.most}")
        return 0 if ratio <= args.most else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
