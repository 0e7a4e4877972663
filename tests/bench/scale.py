"""Runs a head that fills the machine, or its disk, and says what each phase took: start, steps, checkpoint, resume.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/scale.py --num_classes=5000000 --dim=512

The rows are random. Ends the job, and fails, when the machine has less than --spare_mb left. Without --checkpoint the job is
killed after its steps, so that no disk is needed for one. Takes minutes. Not part of the test suite.
"""

import argparse
import datetime
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

import numpy as np
from bench_job import Name, make_case
from machine import processor
from memory import kib, sample


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_classes", type=int, default=5_000_000, help="C")
    parser.add_argument("--dim", type=int, default=512, help="D")
    parser.add_argument("--batch_size", type=int, default=256, help="B")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--preset", default="SV_AM_SOFTMAX")
    parser.add_argument("--precision", default="FLOAT32", choices=("FLOAT32", "BFLOAT16"))
    parser.add_argument("--state", default="FLOAT32", choices=("FLOAT32", "BFLOAT16"))
    parser.add_argument("--storage", default="MEMORY", choices=("MEMORY", "MMAP"))
    parser.add_argument("--rate", type=float, help="of sampling; default: all classes")
    parser.add_argument("--checkpoint", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--resume", action="store_true", help="resume from it and make one step more")
    parser.add_argument("--limit_s", type=float, default=3600)
    parser.add_argument("--spare_mb", type=int, default=700)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="for files and checkpoints (default: TMPDIR)")
    return parser.parse_args()


def be_the_first_to_go():
    """If memory runs out all the same, it is this job that the system ends."""
    pathlib.Path("/proc/self/oom_score_adj").write_text("1000")


def watch(case, args, steps, *flags):
    """Runs the job; (when each step was seen, peak VmHWM of each rank, least memory that was available, seconds)."""
    seen, peaks, least = {}, {}, 1 << 60
    begin = time.time()
    done = len(case.metrics())
    with case.launch(args.ranks, "--timeout_s=900", *flags, limit_s=args.limit_s, threads=args.threads, preexec_fn=be_the_first_to_go) as run:
        while run.process.poll() is None:
            for rank, pid in run.ranks().items():
                peaks[rank] = max(peaks.get(rank, 0), sample(pid)[0])
            left = kib(pathlib.Path("/proc/meminfo"), "MemAvailable") * 1024
            least = min(least, left)
            for line in case.metrics()[done + len(seen) :]:
                seen[line["step"]] = time.time()
            if left < args.spare_mb << 20 or time.time() - begin > args.limit_s:
                print(f"ended: {left / 1e6:.0f} MB are left, {time.time() - begin:.0f} s have passed, steps {list(seen)}")
                print(case.log(), flush=True)
                sys.exit(1)
            if not args.checkpoint and len(seen) >= steps:
                for pid in run.ranks().values():
                    os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.1)
        run.wait(0 if args.checkpoint else None)
    return begin, seen, peaks, least


def report(case, args, begin, seen, peaks, least):
    log = case.log()
    stamps = [
        (datetime.datetime.strptime(line.split(" ", 1)[0], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp(), line)
        for line in log.splitlines()
    ]
    stamps = [(stamp, line) for stamp, line in stamps if stamp >= begin]
    ready = min((stamp for stamp, line in stamps if " classes x " in line), default=begin)
    speeds = {m["step"]: args.batch_size / m["samples_per_second"] for m in case.metrics() if m["step"] in seen}
    first = min(speeds)
    print(f"start     {seen[first] - speeds[first] - begin:.1f} s to the first step")
    for _, line in stamps:
        if resumed := re.search(r"resuming after step", line):
            stamp = next(stamp for stamp, text in stamps if "resuming after step" in text)
            size = checkpoint_bytes(args)
            print(f"resume    {stamp - ready:.1f} s, {size / (stamp - ready) / 1e9:.2f} GB/s", resumed[0])
    rest = [s for step, s in speeds.items() if step > first] or list(speeds.values())
    print(
        f"steps     {' '.join(f'{s:.2f}' for s in speeds.values())} s; median after the first {np.median(rest):.2f} s, "
        f"{args.batch_size / np.median(rest):.1f} samples/s"
    )
    for seconds in re.findall(r"wrote a checkpoint in ([\d.]+) s", "\n".join(line for _, line in stamps)):
        print(f"write     {float(seconds):.1f} s, {checkpoint_bytes(args) / float(seconds) / 1e9:.2f} GB/s")
    for _, line in stamps:
        if "training pauses" in line:
            print(f"log       {line.split(' info ')[1]}")
    together = sum(peaks.values())
    print(
        f"memory    VmHWM {' + '.join(f'{peak / 1e9:.2f}' for peak in peaks.values())} GB, "
        f"{together / args.num_classes:.0f} bytes a class; at least {least / 1e9:.2f} GB were available"
    )


def checkpoint_bytes(args):
    return args.num_classes * args.dim * (4 + (2 if args.state == "BFLOAT16" else 4))


def main():
    args = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="shardmax-scale-", dir=args.folder)).resolve()
    try:
        case = make_case(folder / "job", args)
        case.change(
            storage=Name(args.storage),
            optimizer={"state": Name(args.state)},
            checkpoint={"keep": 1},
            sampling={"random": {"rate": args.rate}} if args.rate else None,
        )
        if not args.checkpoint:
            case.change(steps=args.steps + 1000)
        print(f"processor {processor()}, {args.ranks} ranks x {args.threads} threads")
        print(
            f"job       C={args.num_classes} D={args.dim} B={args.batch_size} {args.precision}, state {args.state}, "
            f"{args.storage}, {'rate %g' % args.rate if args.rate else 'all classes'}: "
            f"{checkpoint_bytes(args) / 1e9:.1f} GB of weights and momentum",
            flush=True,
        )
        report(case, args, *watch(case, args, args.steps))
        if args.resume:
            case.change(steps=args.steps + 1)
            report(case, args, *watch(case, args, 1, "--resume"))
        return 0
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
