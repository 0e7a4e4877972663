"""Times a step of a dataset job, phase by phase, beside PyTorch's float32 product measured in the same run.

    SHARDMAX_WORKER=build/release/bin/shardmax-worker .venv/bin/python tests/bench/step_time.py --precision FLOAT32

A step on frozen features has three products of 2 B C D operations: cosines twice, weight gradients. The last ratio is the
step over those three at the speed of torch.mm, 256 x 512 by 512 x 4096 in float32 on all cores. The speed is taken before
and after the job, and the mean is used, because such machines drift. Prints one line of a Markdown table.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from bench_job import make_case
from machine import processor

PHASES = ("gather", "label", "score", "normalise", "backward")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_classes", type=int, default=100_000, help="C")
    parser.add_argument("--dim", type=int, default=512, help="D")
    parser.add_argument("--batch_size", type=int, default=256, help="B")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--precision", default="FLOAT32", choices=("FLOAT32", "BFLOAT16"))
    parser.add_argument("--preset", default="SV_AM_SOFTMAX")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


# A process of its own: an OpenBLAS that is told a processor by the environment runs below the limit.
PRODUCT = """
import time, torch
a, b = torch.randn(256, 512), torch.randn(512, 4096)
seconds = []
for _ in range(100):
    start = time.perf_counter()
    torch.mm(a, b)
    seconds.append(time.perf_counter() - start)
print(2 * 256 * 512 * 4096 / sorted(seconds)[50] / 1e9)
"""


def product_gflops():
    """Median speed of a float32 product on all cores."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    return float(subprocess.run([sys.executable, "-c", PRODUCT], env=environment, capture_output=True, check=True).stdout)


def main():
    args = arguments()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="shardmax-step-"))
    try:
        case = make_case(folder, args)
        before = product_gflops()
        with case.launch(args.ranks, limit_s=1800, threads=args.threads) as running:
            running.wait(expect=0)
        product = (before + product_gflops()) / 2
        log = (case.out / "log.txt").read_text()
        phases = {name: float(re.search(rf"{name} ([0-9.]+)", log).group(1)) / args.steps for name in PHASES}
        speeds = [metrics["samples_per_second"] for metrics in case.metrics()[2:]]
        step = args.batch_size / np.median(speeds)
        three_products = 3 * 2 * args.batch_size * args.num_classes * args.dim / product / 1e9
        print(f"{processor()}; seed {args.seed}, {args.steps} steps, {args.preset}; torch.mm {product:.0f} GFLOP/s")
        print("| C | D | B | ranks x threads | precision | step s | step / 3 torch.mm | " + " | ".join(PHASES) + " |")
        print(
            f"| {args.num_classes} | {args.dim} | {args.batch_size} | {args.ranks} x {args.threads} | {args.precision} "
            f"| {step:.3f} | {step / three_products:.2f} | " + " | ".join(f"{phases[name]:.3f}" for name in PHASES) + " |"
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
