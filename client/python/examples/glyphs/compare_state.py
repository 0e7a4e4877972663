"""Trains the glyph head with momentum in float32 and in bfloat16, and prints a table of how they do.

    compare_state.py --features=FOLDER --runs=FOLDER [--seeds 1 2 3] [--epochs=4] [--ranks=2]

Each run is glyphs.textproto with another `optimizer.state`, `precision` and seed. A run that has succeeded before is not
repeated, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

import compare_losses

#: (precision of products, how momentum is held)
CASES = (("FLOAT32", "FLOAT32"), ("FLOAT32", "BFLOAT16"), ("BFLOAT16", "BFLOAT16"))


def job_text(precision: str, state: str, seed: int, epochs: int) -> str:
    """The job file of one run."""
    text = compare_losses.job_text("SV_AM_SOFTMAX", epochs)
    for pattern, value in ((r"seed: \d+", f"seed: {seed}"), (r"optimizer \{", f"optimizer {{ state: {state}"),
                           (r"train \{\n", f"train {{\n  precision: {precision}\n")):
        text, count = re.subn(pattern, value, text)
        if count != 1:
            raise ValueError(f"{compare_losses.JOB}: {count} places match {pattern}, expected 1")
    return text


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--features", type=Path, required=True, help="folder that features.py wrote")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the job folders")
    parser.add_argument("--worker", type=Path, default=compare_losses.ROOT / "build/release/bin/shardmax-worker")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    print("| products | momentum | held-out top-1 by seed | mean |\n|---|---|---|---|")
    for precision, state in CASES:
        top1 = []
        for seed in args.seeds:
            name = f"{precision}-{state}-seed{seed}"
            compare_losses.train(name, job_text(precision, state, seed, args.epochs), args)
            last = (args.runs / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
            top1.append(json.loads(last)["validation_top1"])
        print(f"| {precision} | {state} | {', '.join(f'{each:.2%}' for each in top1)} | {statistics.fmean(top1):.2%} |",
              flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
