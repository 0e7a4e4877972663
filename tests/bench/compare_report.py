"""Turns the runs of tests/bench/compare.sh into a Markdown table and two pictures, all in the folder of the runs."""

import collections
import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

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
            f"{classes:,}".replace(",", " "),
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
    for axis, precision in zip(axes, ("FLOAT32", "BFLOAT16")):
        for way, name in WAYS.items():
            points = sorted(
                (classes, median(these, field) / scale)
                for (loss, of, classes, this), these in runs.items()
                if (loss, of, this) == ("SV_AM_SOFTMAX", precision, way)
            )
            if points:
                axis.plot(*zip(*points), marker="o", label=name)
        axis.set(title=precision, xlabel="classes", xscale="log", yscale="log")
        axis.grid(True, which="both", alpha=0.3)
    axes[0].set_ylabel(label)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main():
    folder = pathlib.Path(sys.argv[1])
    runs = load(folder)
    (folder / "table.md").write_text(table(runs))
    picture(runs, "step_seconds", 1, "seconds a step", folder / "step_time.svg")
    picture(runs, "peak_rss_bytes", 1e9, "peak memory of all ranks, GB", folder / "memory.svg")
    print((folder / "table.md").read_text())


if __name__ == "__main__":
    main()
