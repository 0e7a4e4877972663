"""Turns the runs of tests/bench/compare.sh into Markdown tables and pictures, all in the folder of the runs.

Over classes: table.md, step_time.svg, memory.svg. Over ranks: ranks.md, over_ranks.svg; there 1 and 2 ranks are measured, on one
machine, and more are the model of rank_model.py, drawn dashed.
"""

import collections
import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from rank_model import BATCH, DIM, Model, byte_table, contributed, prediction_table, spaced  # noqa: E402

LOSS = "SV_AM_SOFTMAX"  # Of the pictures.
PRECISIONS = ("FLOAT32", "BFLOAT16")
MODELLED_RANKS = (1, 8, 64, 512)
PREDICTED_CLASSES = 10_000_000

WAYS = {
    "keep-1": "shardmax, cosines kept, 1 rank x 2 threads",
    "keep-2": "shardmax, cosines kept, 2 ranks x 1 thread",
    "recompute-1": "shardmax, cosines recomputed, 1 rank x 2 threads",
    "torch-1": "PyTorch head, tuned",
}


def load(folder):
    """{(loss, precision, classes, way): [run, …]}"""
    runs = collections.defaultdict(list)
    for path in sorted(folder.glob("*.json")):
        loss, precision, classes, _, way, ranks = path.stem.rsplit("-", 5)
        runs[loss, precision, int(classes), f"{way}-{ranks}"].append(json.loads(path.read_text()))
    return runs


def median(runs, field):
    values = [run[field]["median"] if isinstance(run[field], dict) else run[field] for run in runs if field in run]
    return statistics.median(values) if values else None


def table(runs):
    lines = [
        "| loss | precision | C | head | step s | of the runs | step / bound | dX error | peak GB | PyTorch / this |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (loss, precision, classes, way), these in sorted(runs.items()):
        seconds = [run["step_seconds"]["median"] for run in these]
        ratio, error = median(these, "bound_ratio"), median(these, "max_relative_error_dx")
        torch = runs.get((loss, precision, classes, "torch-1"))
        gain = median(torch, "step_seconds") / statistics.median(seconds) if torch else None
        cells = [
            loss,
            precision,
            spaced(classes),
            WAYS[way],
            f"{statistics.median(seconds):.3f}",
            f"{min(seconds):.3f} to {max(seconds):.3f}",
            f"{ratio:.2f}" if ratio else "",
            f"{error:.1e}" if error else "",
            f"{median(these, 'peak_rss_bytes') / 1e9:.2f}",
            f"{gain:.2f}" if gain and way != "torch-1" else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(runs, field, scale, label, path):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, precision in zip(axes, PRECISIONS):
        for way, name in WAYS.items():
            points = sorted(
                (classes, median(these, field) / scale)
                for (loss, of, classes, this), these in runs.items()
                if (loss, of, this) == (LOSS, precision, way)
            )
            if points:
                axis.plot(*zip(*points), marker="o", label=name)
        axis.set(title=precision, xlabel="classes", xscale="log", yscale="log")
        axis.grid(True, which="both", alpha=0.3)
    axes[0].set_ylabel(label)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def over_ranks(runs, precision, field):
    """{classes: (of 1 rank, of 2 ranks)} where both were measured, cosines kept."""
    pairs = {classes: [median(runs.get((LOSS, precision, classes, way), []), field) for way in ("keep-1", "keep-2")]
             for _, _, classes, _ in list(runs)}
    return {classes: pair for classes, pair in sorted(pairs.items()) if None not in pair}


def model_of(runs, precision, classes):
    """The model from the runs of so many classes."""
    fields = ("step_seconds", "peak_rss_bytes", "collective_bytes")
    step, memory, sent = (over_ranks(runs, precision, field)[classes] for field in fields)
    model = Model(seconds_a_class=step[0] / classes, bytes_a_class=(2 * memory[0] - memory[1]) / classes,
                  bytes_a_rank=memory[1] - memory[0], verdict_bytes=round(sent[0]) - contributed(1, 0))
    if round(sent[1]) != contributed(2, model.verdict_bytes):
        raise ValueError(f"2 ranks counted {sent[1]:.0f} bytes, the formulas give {contributed(2, model.verdict_bytes)}")
    return model


def rank_tables(runs):
    classes = max(over_ranks(runs, PRECISIONS[0], "step_seconds"))
    models = {precision: model_of(runs, precision, classes) for precision in PRECISIONS}
    first = next(iter(models.values()))
    lines = [f"B = {BATCH}, D = {DIM}. Bytes that a rank contributes, counted at N = 1 and 2:", "",
             byte_table(first.verdict_bytes)]
    for name, model in models.items():
        lines.append(f"{name}, measured at {spaced(classes)} classes: {model.seconds_a_class * 1e6:.2f} µs and "
                     f"{model.bytes_a_class:.0f} bytes a class, {model.bytes_a_rank / 1e6:.0f} MB a rank.")
    predicted = [f"{spaced(PREDICTED_CLASSES)} classes, predicted:", "", prediction_table(models, PREDICTED_CLASSES)]
    return "\n".join([*lines, "", *predicted])


def draw_ranks(step_axis, memory_axis, runs, precision):
    """Draws one precision; {classes: colour}."""
    steps, memory = (over_ranks(runs, precision, field) for field in ("step_seconds", "peak_rss_bytes"))
    measured = sorted({min(steps), max(steps)})
    colours = {classes: f"C{number}" for number, classes in enumerate([*measured, PREDICTED_CLASSES])}
    for classes, colour in colours.items():
        model = model_of(runs, precision, min(classes, max(steps)))
        ranks = [n for n in MODELLED_RANKS if n > 1 or classes in steps]
        each = [model.memory_of_a_rank(classes, n) / 1e9 for n in ranks]
        step_axis.plot(ranks, [model.step(classes, n) for n in ranks], "x--", color=colour)
        memory_axis.plot(ranks, [n * gb for n, gb in zip(ranks, each)], "x--", color=colour)
        memory_axis.plot(ranks, each, "x:", color=colour)
        if classes in steps:
            step_axis.plot((1, 2), steps[classes], "o-", linewidth=3, color=colour)
            memory_axis.plot((1, 2), [peak / 1e9 for peak in memory[classes]], "o-", linewidth=3, color=colour)
    return colours


def rank_picture(runs, path):
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), sharex=True, sharey="row")
    for column, precision in zip(axes.T, PRECISIONS):
        colours = draw_ranks(*column, runs, precision)
        column[0].set(title=precision)
        column[1].set(xlabel="ranks N")
        for axis in column:
            axis.set(xscale="log", yscale="log", xticks=(1, 2, 8, 64, 512), xticklabels=(1, 2, 8, 64, 512))
            axis.minorticks_off()
            axis.grid(True, alpha=0.3)
    axes[0, 0].set_ylabel("seconds a step")
    axes[1, 0].set_ylabel("peak memory, GB")
    lines = [plt.Line2D([], [], color=colour, linewidth=3, label=f"{spaced(classes)} classes")
             for classes, colour in colours.items()]
    for style, label in {"o-": "measured: N ranks share one machine", "x--": "model, not measured: N machines, one rank each",
                         "x:": "model: memory of one rank (else of all)"}.items():
        lines += plt.plot([], [], style, color="black", label=label)
    figure.legend(handles=lines, loc="lower center", ncol=2, fontsize=9)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path)


def main():
    folder = pathlib.Path(sys.argv[1])
    runs = load(folder)
    (folder / "table.md").write_text(table(runs))
    picture(runs, "step_seconds", 1, "seconds a step", folder / "step_time.svg")
    picture(runs, "peak_rss_bytes", 1e9, "peak memory of all ranks, GB", folder / "memory.svg")
    if over_ranks(runs, PRECISIONS[0], "step_seconds"):
        (folder / "ranks.md").write_text(rank_tables(runs))
        rank_picture(runs, folder / "over_ranks.svg")
    for name in ("table.md", "ranks.md"):
        if (folder / name).exists():
            print((folder / name).read_text())


if __name__ == "__main__":
    main()
