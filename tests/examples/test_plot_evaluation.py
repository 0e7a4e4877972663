"""The picture of an evaluation, from result.json."""

import json
from pathlib import Path

import plot_evaluation
import pytest


def write_result(folder: Path, protocol: str, **more: object) -> Path:
    folder.mkdir()
    false_name, true_name = ("fpr", "tpr") if protocol == "all_pairs" else ("far", "tar")
    result = {
        "protocol": protocol, "genuine_pairs": 50, "impostor_pairs": 1000,
        f"{true_name}_at_{false_name}": [
            {false_name: 0.01, "resolvable": True, true_name: 0.8},
            {false_name: 1e-6, "resolvable": False, "reason": "takes 1000000 impostor pairs, there are 1000"},
        ],
        "roc": {false_name: [0.0, 0.001, 0.01, 1.0], true_name: [0.2, 0.6, 0.8, 1.0], "threshold": [0.9, 0.7, 0.5, 0]},
    }
    (folder / "result.json").write_text(json.dumps(result | more))
    return folder


RANKS = {"rank_1": [{"distractors": 10, "resolvable": True, "rate": 0.9},
                    {"distractors": 99, "resolvable": True, "rate": 0.7},
                    {"distractors": 1000, "resolvable": False, "reason": "there are 99 distractors"}],
         "cmc": [{"distractors": 99, "rates": [0.7, 0.8, 1.0]}]}


@pytest.mark.parametrize("protocol, more", [("verification", {}), ("all_pairs", {}), ("identification", RANKS)])
def test_each_protocol_gives_a_png(tmp_path: Path, protocol: str, more: dict) -> None:
    folders = [write_result(tmp_path / name, protocol, **more) for name in ("a", "b")]
    plot_evaluation.plot(folders, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_begins_at_the_first_impostor(tmp_path: Path) -> None:
    _, result = plot_evaluation.read_result(write_result(tmp_path / "a", "all_pairs"))
    false_rates, true_rates = plot_evaluation.roc_steps(result)
    assert (false_rates.tolist(), true_rates.tolist()) == ([0.001, 0.01, 1.0], [0.6, 0.8, 1.0])


def test_the_name_is_that_of_the_job_else_of_the_folder(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "a", "verification")
    assert plot_evaluation.read_result(folder)[0] == "a"
    (folder / "job.json").write_text('{"name": "arc", "evaluate": {}}')
    assert plot_evaluation.read_result(folder)[0] == "arc"


def test_two_protocols_share_no_picture(tmp_path: Path) -> None:
    folders = [write_result(tmp_path / "a", "verification"), write_result(tmp_path / "b", "all_pairs")]
    with pytest.raises(ValueError, match="different protocols: all_pairs, verification"):
        plot_evaluation.plot(folders, tmp_path / "plot.png")
