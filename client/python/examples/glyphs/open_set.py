"""How well embeddings tell identities apart that were not trained on: evaluation jobs on the pool that trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import shardmax
from shardmax.v1 import control_pb2

#: False positive rates that the benchmark reports.
RATES = [1e-3, 1e-4, 1e-5, 1e-6]
#: Half of the identities look for their mates, the images of the others are distractors.
PROBE_SHARE = 0.5


def protocols(identities: np.ndarray) -> dict[str, dict[str, Any]]:
    """The three protocols for rows of `identities` [n], as evaluation jobs name them."""
    rows = np.unique(identities, return_counts=True)[1]
    genuine = int((rows * (rows - 1) // 2).sum())
    return {
        "verification": {"num_pairs": min(6000, 2 * genuine), "fars": RATES[:2]},
        "identification": {"probe_identities": max(1, round(PROBE_SHARE * len(rows))), "fars": RATES},
        "all_pairs": {"fprs": RATES},
    }


def evaluate(client: shardmax.Client, name: str, embeddings: Path, identities: Path, output: Path) -> dict[str, Any]:
    """Runs the three protocols on files of the server's data root; leaves OUTPUT/PROTOCOL/result.json and job.json.

    Shapes: embeddings .npy [n, D], identities .npy [n]. Returns the figures of summarize().
    """
    results = {}
    for protocol, settings in protocols(np.load(identities)).items():
        paths = {"embeddings": str(embeddings.resolve()), "identities": str(identities.resolve())}
        job = client.submit({"name": f"{name}-{protocol}", "evaluate": {**paths, protocol: settings}})
        job = succeeded(client.wait(job.id, quiet=True))
        keep(Path(job.folder), output / protocol, "result.json", "job.json")
        results[protocol] = json.loads((output / protocol / "result.json").read_text(encoding="utf-8"))
    return summarize(results)


def succeeded(job: control_pb2.Job) -> control_pb2.Job:
    """The job, or RuntimeError with the reason why it did not succeed."""
    if job.state != control_pb2.SUCCEEDED:
        raise RuntimeError(f"{job.id} is {control_pb2.JobState.Name(job.state)}: {job.reason}")
    return job


def keep(source: Path, target: Path, *names: str) -> None:
    """Copies files of a job's folder, which goes with its server."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)


def summarize(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures that are compared: accuracy, rank-1 among all distractors, and TPR for each resolvable FPR."""
    accuracy = results["verification"]["accuracy"]
    all_distractors = results["identification"]["cmc"][-1]
    return {
        "verification_accuracy": accuracy["mean"],
        "verification_deviation": accuracy["deviation"],
        "distractors": all_distractors["distractors"],
        "rank_1": all_distractors["rates"][0],
        "tpr_at_fpr": {f"{entry['fpr']:.0e}": entry["tpr"] for entry in results["all_pairs"]["tpr_at_fpr"]
                       if entry["resolvable"]},
    }


class PairCheck:
    """A quick look at how training stands: accuracy on fixed pairs of the open set, at the best threshold for them.

    The job's figure, with the threshold from other folds, is a little lower.
    """

    def __init__(self, images: np.ndarray, identities: np.ndarray, count: int = 3000, seed: int = 1) -> None:
        """Draws `count` genuine and `count` impostor pairs of images [n, 32, 32] with identities [n]."""
        random = np.random.default_rng(seed)
        few = np.isin(identities, random.permutation(np.unique(identities))[:500])
        self.images, of = images[few], identities[few]
        first, second = np.nonzero(np.triu(of[:, None] == of[None, :], 1))
        chosen = random.permutation(len(first))[:count]
        impostors = random.integers(0, len(of), (2, 2 * count))
        impostors = impostors[:, of[impostors[0]] != of[impostors[1]]][:, : len(chosen)]
        self._pairs = np.concatenate([np.stack([first[chosen], second[chosen]]), impostors], axis=1)
        self._genuine = np.arange(self._pairs.shape[1]) < len(chosen)

    def accuracy(self, embeddings: np.ndarray) -> float:
        """Of embeddings [m, D] of `images`."""
        x = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        scores = (x[self._pairs[0]] * x[self._pairs[1]]).sum(axis=1)
        genuine = self._genuine[np.argsort(-scores, kind="stable")]
        accepted_rightly, accepted_wrongly = np.cumsum(genuine), np.cumsum(~genuine)
        return float((accepted_rightly + (~genuine).sum() - accepted_wrongly).max() / len(genuine))
