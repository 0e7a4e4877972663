"""Draws the course of a job: loss, held-out accuracy, support-vector ratio, label cosine and learning rate.

    plot_job.py JOB_FOLDER [--output=PNG]

Reads metrics.jsonl and job.json of the folder, or of one that glyphs/train_backbone.py wrote; saves JOB_FOLDER/plot.png
by default, and prints how the job stands. A job that still runs can be drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import PercentFormatter  # noqa: E402

BLUE, ORANGE, GREEN, RED, GREY = "#1f6fb4", "#e07b1a", "#2a9050", "#c23b3b", "#8a8f98"
#: Accuracies that lines of metrics.jsonl may have at the end of an epoch, and what they are called.
ACCURACIES = {"validation_top1": "held-out top-1", "unseen_accuracy": "unseen identities, pairs judged rightly"}
#: A smoothed curve averages about this share of all steps.
SMOOTHING = 0.02


@dataclass(frozen=True)
class Curve:
    """One metric over the steps that report it. Shapes: steps [n] int64, values [n] float64."""

    steps: np.ndarray
    values: np.ndarray

    def smooth(self) -> np.ndarray:
        """Running mean [n] over SMOOTHING of the curve, windows cut at its ends; NaN only where all of a window is."""
        half = int(len(self.values) * SMOOTHING / 2)
        known = np.isfinite(self.values)
        sums = np.concatenate([[0.0], np.cumsum(np.where(known, self.values, 0.0))])
        counts = np.concatenate([[0], np.cumsum(known)])
        at = np.arange(len(self.values))
        first, end = np.maximum(at - half, 0), np.minimum(at + half + 1, len(self.values))
        with np.errstate(invalid="ignore"):
            return (sums[end] - sums[first]) / (counts[end] - counts[first])


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The objects of metrics.jsonl; a last line that is still being written is left out."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    metrics = [json.loads(line) for line in lines if line.endswith("\n")]
    if not metrics:
        raise ValueError(f"{folder / 'metrics.jsonl'}: no step yet")
    return metrics


def curve(metrics: list[dict[str, float]], name: str) -> Curve:
    """The metric `name` where it is reported; a value written as a string ("NaN") becomes a number."""
    found = [(line["step"], float(line[name])) for line in metrics if name in line]
    return Curve(np.array([step for step, _ in found], np.int64), np.array([value for _, value in found], np.float64))


def job_title(folder: Path) -> str:
    """`name: SV_AM_SOFTMAX, 8000 classes, D = 128`, as far as job.json tells; else the folder's name."""
    path = folder / "job.json"
    if not path.exists():
        return folder.resolve().name
    job = json.loads(path.read_text(encoding="utf-8"))
    train = job.get("train", {})
    facts = [str(train.get("loss", {}).get("preset", ""))]
    facts += [f"{train['num_classes']:,} classes"] if "num_classes" in train else []
    facts += [f"D = {train['dim']}"] if "dim" in train else []
    return f"{job.get('name', folder.resolve().name)}: " + ", ".join(fact for fact in facts if fact)


def draw_curve(axes: Axes, data: Curve, colour: str, label: str) -> None:
    """Every step faintly, the running mean over it."""
    axes.plot(data.steps, data.values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(data.steps, data.smooth(), color=colour, linewidth=1.8)
    axes.set_ylabel(label)


def accuracy_curve(metrics: list[dict[str, float]]) -> tuple[Curve, str]:
    """The accuracy that the job reports, which has no steps if there is none, and its name."""
    name = next((name for name in ACCURACIES if any(name in line for line in metrics)), "validation_top1")
    return curve(metrics, name), ACCURACIES[name]


def draw_accuracy(axes: Axes, accuracy: Curve, name: str) -> None:
    axes.set_ylabel(name)
    if not accuracy.steps.size:
        axes.text(0.5, 0.5, "no validation in this job", ha="center", va="center", color=GREY, transform=axes.transAxes)
        return
    axes.plot(accuracy.steps, accuracy.values, color=GREEN, marker="o", markersize=4, linewidth=1.8)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=sum(np.ptp(accuracy.values) < limit for limit in (0.02, 0.2))))
    axes.annotate(f"{accuracy.values[-1]:.2%}", (accuracy.steps[-1], accuracy.values[-1]), xytext=(-4, -14),
                  textcoords="offset points", ha="right", color=GREEN, fontweight="bold")


def draw_support_vectors(axes: Axes, ratio: Curve) -> None:
    """On a logarithmic axis, where a ratio of zero leaves a gap."""
    positive = Curve(ratio.steps, np.where(ratio.values > 0, ratio.values, np.nan))
    axes.plot(positive.steps, positive.values, color=ORANGE, alpha=0.25, linewidth=0.8)
    means = ratio.smooth()
    axes.plot(ratio.steps, np.where(means > 0, means, np.nan), color=ORANGE, linewidth=1.8)
    axes.set_ylabel("support-vector ratio")
    if np.any(ratio.values > 0):
        axes.set_yscale("log")


def draw_cosine_and_rate(axes: Axes, cosine: Curve, rate: Curve) -> None:
    draw_curve(axes, cosine, RED, "label cosine")
    axes.yaxis.label.set_color(RED)
    right = axes.twinx()
    right.plot(rate.steps, rate.values, color=GREY, linestyle="--", linewidth=1.2)
    right.set_ylabel("learning rate", color=GREY)
    right.set_ylim(bottom=0)
    right.grid(False)
    right.spines["top"].set_visible(False)


def plot(folder: Path, output: Path) -> None:
    """Saves the picture of the job in `folder`."""
    metrics = read_metrics(folder)
    style = {"axes.grid": True, "grid.color": "#e4e6ea", "axes.spines.top": False, "axes.spines.right": False,
             "axes.edgecolor": GREY, "font.size": 9.5, "axes.axisbelow": True}
    with plt.rc_context(style):
        figure, panels = plt.subplots(2, 2, figsize=(11, 6.6), sharex=True, layout="constrained")
        draw_curve(panels[0, 0], curve(metrics, "loss"), BLUE, "loss (nats)")
        draw_accuracy(panels[0, 1], *accuracy_curve(metrics))
        draw_support_vectors(panels[1, 0], curve(metrics, "support_vector_ratio"))
        draw_cosine_and_rate(panels[1, 1], curve(metrics, "label_cosine"), curve(metrics, "lr"))
        for axes in panels[1]:
            axes.set_xlabel("step")
            axes.set_xlim(left=0)
        figure.suptitle(job_title(folder), fontsize=13, fontweight="bold")
        figure.savefig(output, dpi=130)
        plt.close(figure)


def summary(metrics: list[dict[str, float]]) -> str:
    """The last step in a sentence: `step 1200, epoch 3: loss 2.51, held-out top-1 98.70 %`."""
    last, (accuracy, name) = metrics[-1], accuracy_curve(metrics)
    text = f"step {last['step']}, epoch {last['epoch'] + 1}: loss {float(last['loss']):.3f}"
    return text + (f", {name} {100 * accuracy.values[-1]:.2f} %" if accuracy.steps.size else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="JOB_FOLDER", help="the --output of shardmax-worker")
    parser.add_argument("--output", type=Path, metavar="PNG", help="default: JOB_FOLDER/plot.png")
    args = parser.parse_args()
    output = args.output or args.folder / "plot.png"
    try:
        plot(args.folder, output)
        print(summary(read_metrics(args.folder)))
    except (OSError, ValueError) as error:
        print(f"plot_job: {error}", file=sys.stderr)
        return 1
    print(f"picture: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
