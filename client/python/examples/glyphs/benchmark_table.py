"""The table of a benchmark: means and deviations over seeds, and differences between losses seed by seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

#: What is compared, in percent: title and where a run's summary has it.
FIGURES: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "rank-1": lambda run: run["rank_1"],
    "TPR at 1e-4": lambda run: run["tpr_at_fpr"].get("1e-04"),
    "TPR at 1e-5": lambda run: run["tpr_at_fpr"].get("1e-05"),
    "verification": lambda run: run["verification_accuracy"],
}
#: Settings that tell variants apart, with what they are called and what is not worth a mention.
NAMED = {"t": None, "m2": None, "m3": None, "loss_warmup": 0.25, "t_until": 1.0, "width": 16, "epochs": 8, "lr": 0.2,
         "head_lr": 0.2, "label_noise": 0.0}


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The summaries of all runs in a benchmark's folder, settings and figures on one level."""
    found = []
    for path in sorted(folder.glob("*.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        found.append({**summary, **summary.pop("settings")})
    return found


def variant(run: dict[str, Any]) -> str:
    """How a run differs from the defaults, beside loss, size and seed: `t 1.1, width 8`; empty if it does not."""
    return ", ".join(f"{name.replace('_', ' ')} {run[name]:g}" for name, usual in NAMED.items() if run[name] != usual)


def group(runs: Iterable[dict[str, Any]]) -> dict[tuple[int, str, str], dict[int, dict[str, Any]]]:
    """(characters, variant, loss) to seed to run."""
    groups: dict[tuple[int, str, str], dict[int, dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["characters"], variant(run), run["loss"]), {})[run["seed"]] = run
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], item[0][1], loss_order(item[0][2]))))


def loss_order(loss: str) -> tuple[str, bool]:
    """Beside each loss that with support vectors."""
    return loss.removeprefix("SV_"), loss.startswith("SV_")


def spread(values: list[float | None]) -> str:
    """`91.3 ± 0.4` of shares; of one value no deviation."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    deviation = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.2f}{deviation}"


def baseline(run: dict[str, Any]) -> tuple[int, str, str]:
    """The group of the run without its support vectors. Without a margin the loss's warm-up is nothing then."""
    loss = run["loss"].removeprefix("SV_")
    plain = run | {"t": None, "t_until": 1.0}
    if loss == "SOFTMAX":
        plain["loss_warmup"] = 0.25
    return run["characters"], variant(plain), loss


def differences(seeds: dict[int, dict[str, Any]], plain: dict[int, dict[str, Any]]) -> list[str]:
    """For each figure what support vectors change, over the seeds that both have: `+0.55 ± 0.05 (3 of 3)`."""
    common = sorted(set(seeds) & set(plain))
    cells = []
    for figure in FIGURES.values():
        pairs = [(figure(seeds[seed]), figure(plain[seed])) for seed in common]
        known = [100 * (with_sv - without) for with_sv, without in pairs if with_sv is not None and without is not None]
        deviation = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
        cells.append(f"{statistics.mean(known):+.2f}{deviation} ({sum(value > 0 for value in known)} of {len(known)})"
                     if known else "–")
    return cells


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def table(runs: list[dict[str, Any]]) -> str:
    """Both tables as Markdown."""
    groups = group(runs)
    lines = [row("characters", "variant", "loss", "seeds", *FIGURES), "|---" * (4 + len(FIGURES)) + "|"]
    for (characters, name, loss), seeds in groups.items():
        cells = [spread([figure(run) for run in seeds.values()]) for figure in FIGURES.values()]
        lines.append(row(f"{characters:,}", name, loss, len(seeds), *cells))
    paired = []
    for (characters, name, loss), seeds in groups.items():
        plain = groups.get(baseline(next(iter(seeds.values()))))
        if loss.startswith("SV_") and plain and set(seeds) & set(plain):
            paired.append(row(f"{characters:,}", name, loss, *differences(seeds, plain)))
    if paired:
        lines += ["", "What support vectors change, in points, paired by seed (and in how many seeds it is a gain):", "",
                  row("characters", "variant", "loss", *FIGURES), "|---" * (3 + len(FIGURES)) + "|", *paired]
    return "\n".join(lines)
