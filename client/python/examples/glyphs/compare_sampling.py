"""Trains the glyph head on all classes, on sampled ones and on nearest ones, and prints a table of how they do.

    compare_sampling.py --features=FOLDER --runs=FOLDER [--epochs=4] [--ranks=2] [--batch-size=512]
                        [--neighbours=64] [--kinds nearest] [--rates 0.1] [--seeds 1]

Each run is glyphs.textproto with another `sampling` and seed. With another batch size the learning rate is smaller in
proportion, and warm-up, graphs, recall and log come after as many rows as before. A run that has succeeded before is not
repeated, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import compare_losses

#: That of glyphs.textproto, of which the steps below are.
BATCH_SIZE = 512
#: Recall of the table is a mean over the measurements in so many last lines of the log, steps of BATCH_SIZE rows.
LAST_LINES = 400
NEIGHBOURS = 64
REBUILD_EVERY_STEPS = 100
RECALL_EVERY_STEPS = 20


@dataclass(frozen=True)
class Case:
    """One row of the table. `kind` is random, nearest or all."""

    kind: str
    rate: float
    seeds: tuple[int, ...]

    def name(self, args: argparse.Namespace, seed: int) -> str:
        neighbours = f"-neighbours{args.neighbours}" if self.kind == "nearest" and args.neighbours != NEIGHBOURS else ""
        return f"{self.kind}-{self.rate:g}{neighbours}-batch{args.batch_size}-seed{seed}"

    def sampling(self, times: int, neighbours: int) -> str:
        """The field of the job, whose steps are `times` as many; none of a head of all classes."""
        if self.kind == "all":
            return ""
        every = REBUILD_EVERY_STEPS * times
        more = f" neighbours: {neighbours} rebuild_every_steps: {every}" if self.kind == "nearest" else ""
        return (f"  sampling {{ {self.kind} {{ rate: {self.rate:g}{more} }} "
                f"recall_every_steps: {RECALL_EVERY_STEPS * times} }}\n")


CASES = (Case("all", 1, (1, 2, 3)), Case("random", 0.1, (1, 2, 3)), Case("nearest", 0.1, (1, 2, 3)),
         Case("random", 0.05, (1,)), Case("nearest", 0.05, (1,)), Case("random", 0.01, (1,)),
         Case("nearest", 0.01, (1,)))


def job_text(case: Case, seed: int, args: argparse.Namespace) -> str:
    """The job file of one run."""
    text = compare_losses.job_text("SV_AM_SOFTMAX", args.epochs)
    times = BATCH_SIZE // args.batch_size
    edits: list[tuple[str, Callable[[str], str]]] = [
        (r'name: "([\w-]+)"', lambda _: f"glyphs-{case.name(args, seed)}"),
        (r"seed: (\d+)", lambda _: f"{seed}"),
        (r"batch_size: (\d+)", lambda _: f"{args.batch_size}"),
        (r"base_lr: ([\d.]+)", lambda rate: f"{float(rate) / times:g}"),
        (r"loss \{.*warmup_steps: (\d+)", lambda steps: f"{int(steps) * times}"),
        (r"train \{(\n)", lambda _: f"\n  log_every_steps: {times}\n{case.sampling(times, args.neighbours)}"),
    ]
    for pattern, change in edits:
        found = list(re.finditer(pattern, text))
        if len(found) != 1:
            raise ValueError(f"{compare_losses.JOB}: {len(found)} places match {pattern}, expected 1")
        text = text[: found[0].start(1)] + change(found[0][1]) + text[found[0].end(1) :]
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
    recalls = [float(line["support_vector_recall"]) for line in lines[-LAST_LINES:] if "support_vector_recall" in line]
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


def cases(args: argparse.Namespace) -> list[Case]:
    """The cases of the rates and seeds that were asked for."""
    chosen = [replace(case, seeds=tuple(seed for seed in case.seeds if not args.seeds or seed in args.seeds))
              for case in CASES if (case.kind == "all" or not args.rates or case.rate in args.rates)
              and (not args.kinds or case.kind in args.kinds)]
    return [case for case in chosen if case.seeds]


def table(args: argparse.Namespace) -> str:
    """Markdown: a row for each case; of several seeds mean and standard deviation."""
    rows = [row(case, [outcome(args.runs / case.name(args, seed)) for seed in case.seeds]) for case in cases(args)]
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
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help=f"a divisor of {BATCH_SIZE}")
    parser.add_argument("--neighbours", type=int, default=NEIGHBOURS, help="of a class, of nearest sampling")
    parser.add_argument("--kinds", nargs="+", choices=("all", "random", "nearest"), help="only these (default: all)")
    parser.add_argument("--rates", type=float, nargs="+", help="only these (default: all of the table)")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these (default: all of the table)")
    args = parser.parse_args(argv)
    if args.batch_size < 1 or BATCH_SIZE % args.batch_size:
        parser.error(f"argument --batch-size: {args.batch_size} does not divide {BATCH_SIZE}")
    return args


def main() -> int:
    args = parse()
    for case in cases(args):
        for seed in case.seeds:
            name = case.name(args, seed)
            try:
                compare_losses.train(name, job_text(case, seed, args), args)
            except subprocess.CalledProcessError as error:
                print(f"compare_sampling: {name}: the worker ended with {error.returncode}", file=sys.stderr)
                return 1
    print(table(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
