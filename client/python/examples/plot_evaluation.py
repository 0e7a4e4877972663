"""Draws what an evaluation job found: its ROC curve, and with identification the ranks of the mates.

    plot_evaluation.py JOB_FOLDER… [--output=PNG]

Reads result.json of each folder, and job.json for its name; all must be of one protocol, and share the axes. Saves
evaluation.png in the first folder by default, and prints the path.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import PercentFormatter  # noqa: E402

COLOURS = ["#1f6fb4", "#e07b1a", "#2a9050", "#c23b3b", "#7a5bb0", "#8a8f98"]
GREY = "#8a8f98"


def read_result(folder: Path) -> tuple[str, dict]:
    """The name of the job in `folder`, and its result."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    job = folder / "job.json"
    name = json.loads(job.read_text(encoding="utf-8")).get("name") if job.exists() else None
    return name or folder.resolve().name, result


def rate_names(result: dict) -> tuple[str, str]:
    """What the result calls the rates of accepted impostor and genuine pairs."""
    return ("fpr", "tpr") if "fpr" in result["roc"] else ("far", "tar")


def roc_steps(result: dict) -> tuple[np.ndarray, np.ndarray]:
    """The curve's rates of accepted impostor and genuine pairs, [n] each, from the first impostor on: a logarithmic axis
    has no zero."""
    false_name, true_name = rate_names(result)
    false_rates, true_rates = np.array(result["roc"][false_name]), np.array(result["roc"][true_name])
    return false_rates[false_rates > 0], true_rates[false_rates > 0]


def draw_roc(axes: Axes, result: dict, colour: str, name: str) -> None:
    """TAR over the logarithm of FAR, with the rates that were asked for as dots."""
    false_name, true_name = rate_names(result)
    axes.step(*roc_steps(result), where="post", color=colour, linewidth=1.8, label=name)
    entries = [entry for entry in result[f"{true_name}_at_{false_name}"] if entry["resolvable"]]
    axes.plot([entry[false_name] for entry in entries], [entry[true_name] for entry in entries], "o", color=colour,
              markersize=4)
    axes.set_xscale("log")
    axes.set_xlabel(f"{false_name.upper()}, {result['impostor_pairs']:,} impostor pairs")
    axes.set_ylabel(f"{true_name.upper()}, {result['genuine_pairs']:,} genuine pairs")


def draw_cmc(axes: Axes, result: dict, colour: str, name: str) -> None:
    """Shares of mates of rank k or better among all distractors."""
    whole = result["cmc"][-1]
    axes.plot(np.arange(1, len(whole["rates"]) + 1), whole["rates"], color=colour, linewidth=1.8, label=name)
    axes.set_xscale("log")
    axes.set_xlabel(f"rank among {whole['distractors']:,} distractors")
    axes.set_ylabel("mates at that rank or better")


def draw_rank_1(axes: Axes, result: dict, colour: str, name: str) -> None:
    """Rank-1 as the gallery grows."""
    entries = [entry for entry in result["rank_1"] if entry["resolvable"]]
    axes.plot([entry["distractors"] for entry in entries], [entry["rate"] for entry in entries], "o-", color=colour,
              markersize=4, linewidth=1.8, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("distractors")
    axes.set_ylabel("rank-1")


def plot(folders: list[Path], output: Path) -> None:
    """Saves one picture of the jobs in `folders`. ValueError: they are of different protocols."""
    results = [read_result(folder) for folder in folders]
    protocols = {result["protocol"] for _, result in results}
    if len(protocols) > 1:
        raise ValueError(f"the jobs are of different protocols: {', '.join(sorted(protocols))}")
    drawings = [draw_roc]
    if protocols == {"identification"}:
        drawings += [draw_cmc, draw_rank_1]
    style = {"axes.grid": True, "grid.color": "#e4e6ea", "axes.spines.top": False, "axes.spines.right": False,
             "axes.edgecolor": GREY, "font.size": 9.5, "axes.axisbelow": True}
    with plt.rc_context(style):
        figure, panels = plt.subplots(1, len(drawings), figsize=(2 + 4.6 * len(drawings), 4.4), squeeze=False,
                                      layout="constrained")
        for axes, draw in zip(panels[0], drawings):
            for i, (name, result) in enumerate(results):
                draw(axes, result, COLOURS[i % len(COLOURS)], name)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.legend(frameon=False)
        figure.suptitle(protocols.pop().replace("_", " "), fontsize=13, fontweight="bold")
        figure.savefig(output, dpi=130)
        plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="JOB_FOLDER", help="the --output of shardmax-worker")
    parser.add_argument("--output", type=Path, metavar="PNG", help="default: evaluation.png in the first folder")
    args = parser.parse_args()
    output = args.output or args.folders[0] / "evaluation.png"
    try:
        plot(args.folders, output)
    except (OSError, ValueError, KeyError) as error:
        print(f"plot_evaluation: {error}", file=sys.stderr)
        return 1
    print(f"picture: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
