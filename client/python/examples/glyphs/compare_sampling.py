"""Trains the glyph head on all classes, on sampled ones and on nearest ones, and prints a table of how they do.

    compare_sampling.py --features=FOLDER --runs=FOLDER [--epochs=4] [--ranks=2]

Each run is glyphs.textproto with another `sampling` and seed. A run that has succeeded before is not repeated, so an
interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import compare_losses

#: Recall and loss of the table are means over the measurements in so many last steps.
LAST_STEPS = 400
NEIGHBOURS = 64
REBUILD_EVERY_STEPS = 100
RECALL_EVERY_STEPS = 20


@dataclass(frozen=True)
class Case:
    """One row of the table. `kind` is random, nearest or all."""

    kind: str
    rate: float
    seeds: tuple[int, ...]

    def name(self, seed: int) -> str:
        return f"{self.kind}-{self.rate:g}-seed{seed}"

    def sampling(self) -> str:
        """The field of the job; none of a head of all classes."""
        if self.kind == "all":
            return ""
        more = f" neighbours: {NEIGHBOURS} rebuild_every_steps: {REBUILD_EVERY_STEPS}" if self.kind == "nearest" else ""
        return (f"  sampling {{ {self.kind} {{ rate: {self.rate:g}{more} }} "
                f"recall_every_steps: {RECALL_EVERY_STEPS} }}\n")


CASES = (Case("all", 1, (1, 2, 3)), Case("random", 0.1, (1, 2, 3)), Case("nearest", 0.1, (1, 2, 3)),
         Case("random", 0.05, (1,)), Case("nearest", 0.05, (1,)), Case("random", 0.01, (1,)),
         Case("nearest", 0.01, (1,)))


def job_text(case: Case, seed: int, epochs: int) -> str:
    """The job file of one run."""
    text = compare_losses.job_text("SV_AM_SOFTMAX", epochs)
    for pattern, value in ((r'name: "[\w-]+"', f'name: "glyphs-{case.name(seed)}"'), (r"seed: \d+", f"seed: {seed}"),
                           (r"train \{\n", "train {\n" + case.sampling())):
        text, count = re.subn(pattern, value, text)
        if count != 1:
            raise ValueError(f"{compare_losses.JOB}: {count} places match {pattern}, expected 1")
    return text


@dataclass(frozen=True)
class Outcome:
    """What one run came to. Recall is None of a head of all classes."""

    top1: float
    recall: float | None
    duration_s: float


def outcome(folder: Path) -> Outcome:
    """Reads a run that has ended."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    recalls = [float(line["support_vector_recall"]) for line in lines[-LAST_STEPS:] if "support_vector_recall" in line]
    return Outcome(lines[-1]["validation_top1"], statistics.fmean(recalls) if recalls else None,
                   float((folder / "duration_s").read_text(encoding="utf-8")))


def row(case: Case, outcomes: list[Outcome]) -> str:
    """A row of the table, of the runs of all seeds."""
    top1 = f"{statistics.fmean(each.top1 for each in outcomes):.2%}"
    if len(outcomes) > 1:
        top1 += f" ± {statistics.stdev(each.top1 for each in outcomes) * 100:.2f}"
    recalls = [each.recall for each in outcomes if each.recall is not None]
    recall = f"{statistics.fmean(recalls):.1%}" if recalls else ""
    seconds = statistics.median(each.duration_s for each in outcomes)
    return f"| {case.kind} | {case.rate:.0%} | {len(outcomes)} | {top1} | {recall} | {seconds:.0f} |"


def table(args: argparse.Namespace) -> str:
    """Markdown: a row for each case; of several seeds mean and standard deviation."""
    rows = [row(case, [outcome(args.runs / case.name(seed)) for seed in case.seeds]) for case in CASES]
    return "\n".join([
        "| classes of a step | rate | seeds | held-out top-1 | recall of support vectors | seconds |", "|---|---|---|---|---|---|",
        *rows
    ])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--features", type=Path, required=True, help="folder that features.py wrote")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the job folders")
    parser.add_argument("--worker", type=Path, default=compare_losses.ROOT / "build/release/bin/shardmax-worker")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    for case in CASES:
        for seed in case.seeds:
            try:
                compare_losses.train(case.name(seed), job_text(case, seed, args.epochs), args)
            except subprocess.CalledProcessError as error:
                print(f"compare_sampling: {case.name(seed)}: the worker ended with {error.returncode}", file=sys.stderr)
                return 1
    print(table(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
