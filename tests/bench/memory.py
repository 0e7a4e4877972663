"""Measures how much memory the ranks of a job take together, and fails above a limit.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/memory.py

By default the case of the memory promise: C = 1 000 000, D = 512, B = 256, float32, SGD with momentum, 2 ranks, at most
4.6 GB together. Weights and momentum alone are 4.1 GB. Takes minutes, and as much disk as memory for the checkpoint,
which is removed. Not part of the test suite.

Two sums over the ranks are printed. VmHWM is the peak of each rank as the kernel keeps it, so none is missed, but pages
that ranks share (libraries, MPI's buffers) count once for each; the limit is held against this one. Pss shares such
pages out, but is a sample every 20 ms.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

import numpy as np
from bench_job import make_case
from machine import processor

GB = 1e9


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_classes", type=int, default=1_000_000, help="C")
    parser.add_argument("--dim", type=int, default=512, help="D")
    parser.add_argument("--batch_size", type=int, default=256, help="B")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", default="FLOAT32", choices=("FLOAT32", "BFLOAT16"))
    parser.add_argument("--preset", default="SV_AM_SOFTMAX")
    parser.add_argument("--limit_gb", type=float, default=4.6, help="of all ranks together; GB = 10^9 bytes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where the checkpoint is written, for the time of the run (default: TMPDIR)")
    return parser.parse_args()


def kib(path, field):
    for line in path.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def sample(pid):
    """VmHWM and Pss in bytes; zeros for a process that is gone."""
    folder = pathlib.Path("/proc") / str(pid)
    try:
        return kib(folder / "status", "VmHWM") * 1024, kib(folder / "smaps_rollup", "Pss") * 1024
    except OSError:
        return 0, 0


def measure(case, args):
    """Peak VmHWM of each rank, the largest sum of Pss, and seconds of the launch."""
    peaks, largest_pss = [0] * args.ranks, 0
    with case.launch(args.ranks, limit_s=3600, threads=args.threads) as running:
        pids = {}
        while running.process.poll() is None:
            if len(pids) < args.ranks:
                pids = running.ranks()
            samples = {rank: sample(pid) for rank, pid in pids.items()}
            for rank, (hwm, _) in samples.items():
                peaks[rank] = max(peaks[rank], hwm)
            largest_pss = max(largest_pss, sum(pss for _, pss in samples.values()))
            time.sleep(0.02)
        seconds = running.wait(expect=0).seconds
    return peaks, largest_pss, seconds


def main():
    args = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="shardmax-memory-", dir=args.folder))
    try:
        case = make_case(folder, args)
        peaks, pss, seconds = measure(case, args)
        together = sum(peaks) / GB
        state = 2 * args.num_classes * args.dim * 4 / GB
        speeds = [m["samples_per_second"] for m in case.metrics()]
        print(f"processor         {processor()}")
        print(f"shapes            C={args.num_classes} D={args.dim} B={args.batch_size}")
        print(f"job               {args.preset}, {args.precision}, SGD with momentum, {args.steps} steps, seed {args.seed}")
        print(f"launch            {args.ranks} ranks x {args.threads} threads, {seconds:.1f} s")
        print(f"median step       {args.batch_size / np.median(speeds):.2f} s")
        print(f"weights, momentum {state:.3f} GB")
        print(f"VmHWM             {together:.3f} GB = {' + '.join(f'{peak / GB:.3f}' for peak in peaks)}")
        print(f"Pss, sampled      {pss / GB:.3f} GB")
        print(f"limit             {args.limit_gb:.3f} GB: {'kept' if together <= args.limit_gb else 'EXCEEDED'}")
        return 0 if together <= args.limit_gb else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
