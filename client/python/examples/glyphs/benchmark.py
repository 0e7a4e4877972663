"""Trains the glyph backbone with one loss after another, and tells which knows unseen characters best.

    benchmark.py --images=build/glyphs/images --runs=build/glyph-benchmark                  the 13 losses, 3 seeds, size small
    benchmark.py --images=… --runs=… --losses SV_AM_SOFTMAX AM_SOFTMAX --t 1 1.1 1.3        a sweep: all combinations
    benchmark.py --runs=… --table-only                                                      of the runs that are there

Each run is train_backbone.py with the same schedule, steps and warm-up, and leaves RUNS/NAME.json; one that is there is
not repeated, so an interrupted benchmark goes on. Prints the table as Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmark_table import read_runs, table

#: Characters to train on, and unseen ones.
SIZES = {"small": (4000, 2000), "large": (10000, 5000)}
LOSSES = (
    "SOFTMAX", "F_SOFTMAX", "HM_SOFTMAX", "A_SOFTMAX", "AM_SOFTMAX", "ARC_SOFTMAX", "F_AM_SOFTMAX", "F_ARC_SOFTMAX",
    "HM_AM_SOFTMAX", "HM_ARC_SOFTMAX", "SV_SOFTMAX", "SV_AM_SOFTMAX", "SV_ARC_SOFTMAX",
)
TRAIN = Path(__file__).resolve().with_name("train_backbone.py")
#: Options of train_backbone.py that may be swept, and the losses that each means something to.
SWEPT = {"t": "SV_", "t_until": "SV_", "m2": "ARC", "m3": "AM_", "loss_warmup": "", "width": "", "epochs": "",
         "label_noise": "", "characters": "", "lr": "", "head_lr": ""}


@dataclass(frozen=True)
class Run:
    """One training: `options` are those of train_backbone.py that are not its defaults."""

    name: str
    options: tuple[str, ...]


def runs(args: argparse.Namespace) -> list[Run]:
    """Every combination of losses, swept options and seeds, once; all losses of a seed before the next seed."""
    characters, unseen = SIZES[args.size]
    swept = {name: getattr(args, name) for name in SWEPT if getattr(args, name)}
    found: dict[str, Run] = {}
    for seed, *values, loss in itertools.product(args.seeds, *swept.values(), args.losses):
        chosen = {name: value for name, value in zip(swept, values) if SWEPT[name] in loss}
        options = {"characters": characters, "unseen": unseen, "loss": loss, "seed": seed} | chosen
        name = "-".join([args.size, loss, *(f"{name}{value:g}" for name, value in chosen.items()), f"seed{seed}"])
        found[name] = Run(name, tuple(f"--{key.replace('_', '-')}={value}" for key, value in options.items()))
    return list(found.values())


def train(run: Run, args: argparse.Namespace) -> None:
    """Makes RUNS/NAME.json, if it is not there. CalledProcessError: the training failed; NAME.log tells why."""
    result, folder, log = (args.runs / f"{run.name}{ending}" for ending in (".json", "", ".log"))
    if result.exists():
        return
    print(f"benchmark: {run.name}", file=sys.stderr, flush=True)
    command = [sys.executable, str(TRAIN), f"--images={args.images}", f"--output={folder}", "--quiet", *run.options]
    command += [f"--bin={args.bin}"] if args.bin else []
    command += ["--threads=1"] if args.jobs > 1 else []
    with log.open("w", encoding="utf-8") as output:
        subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT)
    unfinished = result.with_suffix(".new")
    shutil.copyfile(folder / "summary.json", unfinished)
    unfinished.rename(result)
    shutil.copyfile(folder / "metrics.jsonl", args.runs / f"{run.name}.metrics.jsonl")
    shutil.rmtree(folder)
    log.unlink()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the results")
    parser.add_argument("--images", type=Path, help="folder that render.py wrote")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES, metavar="PRESET")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; torch has one thread in each of several")
    parser.add_argument("--bin", type=Path, help="folder of shardmax-server and shardmax-worker")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    sweeps = parser.add_argument_group("sweeps", "values of options of train_backbone.py")
    for name in SWEPT:
        kind = int if name in ("width", "epochs", "characters") else float
        sweeps.add_argument(f"--{name.replace('_', '-')}", nargs="+", type=kind, default=[])
    args = parser.parse_args(argv)
    if not args.table_only and args.images is None:
        parser.error("--images is needed to train")
    return args


def main() -> int:
    args = parse()
    args.runs.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not args.table_only:
        with ThreadPoolExecutor(args.jobs) as pool:
            for run, done in [(run, pool.submit(train, run, args)) for run in runs(args)]:
                error = done.exception()
                if error is not None:
                    print(f"benchmark: {run.name}: {error}; see {args.runs / run.name}.log", file=sys.stderr)
                    failed += 1
    print(table(read_runs(args.runs)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
