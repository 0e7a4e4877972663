"""Trains the glyph head with each of the 13 loss presets and writes a table of how they do.

    compare_losses.py --features=FOLDER --runs=FOLDER [--table=docs/glyph-losses.md]

Each run is glyphs.textproto with another preset: the same features, seed, learning rate, steps and warm-up. A run that
has succeeded before is not repeated, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
JOB = Path(__file__).resolve().with_name("glyphs.textproto")
PRESETS = (
    "SOFTMAX", "F_SOFTMAX", "HM_SOFTMAX", "A_SOFTMAX", "AM_SOFTMAX", "ARC_SOFTMAX", "F_AM_SOFTMAX", "F_ARC_SOFTMAX",
    "HM_AM_SOFTMAX", "HM_ARC_SOFTMAX", "SV_SOFTMAX", "SV_AM_SOFTMAX", "SV_ARC_SOFTMAX",
)
#: Loss and support-vector ratio of the table are means over so many last steps.
LAST_STEPS = 100
# Root in a container, fewer cores than ranks, and containers without cross-memory attach must all do.
MPIRUN = ("mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "btl", "self,vader", "--mca",
          "btl_vader_single_copy_mechanism", "none")


@dataclass(frozen=True)
class Outcome:
    """What one run came to; loss in nats, duration in seconds."""

    preset: str
    steps: int
    top1: float
    loss: float
    support_vector_ratio: float
    label_cosine: float
    duration_s: float


def job_text(preset: str, epochs: int) -> str:
    """The job file of one preset: glyphs.textproto with another name, preset and length."""
    text = JOB.read_text(encoding="utf-8")
    for pattern, value in ((r'name: "\w+"', f'name: "glyphs-{preset}"'), (r"preset: \w+", f"preset: {preset}"),
                           (r"epochs: \d+", f"epochs: {epochs}")):
        text, count = re.subn(pattern, value, text)
        if count != 1:
            raise ValueError(f"{JOB}: {count} places match {pattern}, expected 1")
    return text


def train(name: str, text: str, args: argparse.Namespace) -> None:
    """Runs the job `text` to its end, in the folder `name` of --runs, and notes how long it took."""
    folder = args.runs / name
    if (folder / "duration_s").exists():
        return
    job = args.features / f"glyphs-{name}.textproto"  # Paths are relative to the features.
    job.write_text(text, encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)  # An interrupted run: start anew, to time it whole.
    environment = os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    start = time.monotonic()
    subprocess.run([*MPIRUN, "-n", str(args.ranks), str(args.worker), f"--job={job}", f"--output={folder}",
                    "--progress=lines"], check=True, env=environment)
    (folder / "duration_s").write_text(f"{time.monotonic() - start:.1f}\n", encoding="utf-8")


def outcome(preset: str, folder: Path) -> Outcome:
    """Reads a run that has ended."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = lines[-LAST_STEPS:]

    def mean(name: str) -> float:
        return sum(float(line[name]) for line in last) / len(last)

    return Outcome(preset, lines[-1]["step"], lines[-1]["validation_top1"], mean("loss"), mean("support_vector_ratio"),
                   mean("label_cosine"), float((folder / "duration_s").read_text(encoding="utf-8")))


def table(outcomes: list[Outcome], args: argparse.Namespace) -> str:
    """The markdown document."""
    features = json.loads((args.features / "features.json").read_text(encoding="utf-8"))
    best = max(each.top1 for each in outcomes)
    error = (best * (1 - best) / features["validation"]) ** 0.5
    lines = [
        "# The 13 losses on the glyph head",
        "",
        f"{features['classes']:,} Han characters, {features['train']:,} images of training faces, "
        f"{features['validation']:,} of held-out faces, D = {features['dim']} ([how they are made](glyphs.md)). Every run: "
        f"the same features, seed, learning rate and warm-up, {outcomes[0].steps:,} steps ({args.epochs} epochs) of 512 rows "
        f"on {args.ranks} ranks, `client/python/examples/glyphs/glyphs.textproto` with the preset changed.",
        "",
        "Made by",
        "```",
        "G=client/python/examples/glyphs",
        f".venv/bin/python $G/render.py --output=build/glyphs/images --characters={features['classes']}",
        f".venv/bin/python $G/features.py --images=build/glyphs/images --output=build/glyphs/features --dim={features['dim']}",
        f".venv/bin/python $G/compare_losses.py --features=build/glyphs/features --runs=build/glyph-losses --epochs={args.epochs}",
        "```",
        "",
        "| preset | held-out top-1 | loss | support-vector ratio | label cosine | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for each in outcomes:
        top1 = f"{each.top1:.2%}"
        lines.append(
            f"| {each.preset} | {f'**{top1}**' if each.top1 == best else top1} | {each.loss:.3f} | "
            f"{each.support_vector_ratio:.2e} | {each.label_cosine:.3f} | {each.duration_s:.0f} |")
    lines += [
        "",
        f"Loss, support-vector ratio and label cosine are means over the last {LAST_STEPS} steps. Losses of different presets "
        "measure different things: a margin raises the loss of the same weights. The support-vector ratio counts the "
        "classes above the target logit, so it too grows with the margin. Seconds are those of the whole run, start and "
        "validation included; they compare losses only on a machine that does nothing else.",
        "",
        f"Read the ranking with care. It is one seed; the standard error of a top-1 is {error:.2%} if held-out images were "
        "independent, and they are not, so it is more. Features and learning rate were chosen by the top-1 of SV_AM_SOFTMAX and "
        "of nearest class means on these same held-out faces ([choices](glyphs.md#choices-that-were-measured)): the numbers "
        "are a little too good, and no other preset had its learning rate tuned.",
        "",
    ]
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--features", type=Path, required=True, help="folder that features.py wrote")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the 13 job folders")
    parser.add_argument("--table", type=Path, default=ROOT / "docs/glyph-losses.md", metavar="FILE")
    parser.add_argument("--worker", type=Path, default=ROOT / "build/release/bin/shardmax-worker")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    for preset in PRESETS:
        try:
            train(preset, job_text(preset, args.epochs), args)
        except subprocess.CalledProcessError as error:
            print(f"compare_losses: {preset}: the worker ended with {error.returncode}", file=sys.stderr)
            return 1
    outcomes = [outcome(preset, args.runs / preset) for preset in PRESETS]
    args.table.write_text(table(outcomes, args), encoding="utf-8")
    print(args.table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
