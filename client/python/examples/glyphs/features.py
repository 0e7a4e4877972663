"""Turns glyph images into frozen features: HOG, centred, projected on principal components.

    features.py --images=build/glyphs/images --output=build/glyphs/features --dim=128

Reads what render.py wrote. Writes into the output folder, D being --dim:
    train_features.npy       float32 (or float16) [n, D]   images of the training faces
    train_labels.npy         int32 [n]
    validation_features.npy  the same of the held-out faces
    validation_labels.npy
    projection.npz           mean [H] and matrix [H, D], float32: feature = (hog(image) - mean) @ matrix
    features.json            settings, row counts, share of variance kept
The principal components are those of training images. Each is divided by its standard deviation to the power --whiten:
0 keeps the scales of HOG, 1 whitens; between is best, as the first components hold the style of a face as much as the
character, and the last ones noise. The same images and options give the same files on the same machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hog import HogSettings, hog

#: Images handed to a process at once, and HOG descriptors in memory at once (they are 7 kB each).
TASK_ROWS, HOG_ROWS = 8192, 512
#: Training images that the principal components are fitted on.
FIT_ROWS = 32768


@dataclass(frozen=True)
class Projection:
    """A linear map of descriptors [n, H] to features [n, D]. Shapes: mean [H], matrix [H, D], float32."""

    mean: np.ndarray
    matrix: np.ndarray
    variance_kept: float

    def __call__(self, descriptors: np.ndarray) -> np.ndarray:
        return (descriptors - self.mean) @ self.matrix


def descriptors(images: np.ndarray, settings: HogSettings) -> Iterator[np.ndarray]:
    """HOG of images [n, h, w] uint8 in pieces [at most HOG_ROWS, H] float32."""
    for first in range(0, len(images), HOG_ROWS):
        yield hog(np.asarray(images[first : first + HOG_ROWS]), settings)


def moments(rows: np.ndarray, images: Path, settings: HogSettings) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the images `rows` of a file: of descriptors [H] and of their outer products [H, H], float64."""
    chosen = np.load(images, mmap_mode="r")[rows]
    total: np.ndarray | float = 0.0
    outer: np.ndarray | float = 0.0
    for piece in descriptors(chosen, settings):
        total = total + piece.sum(axis=0, dtype=np.float64)
        outer = outer + (piece.T @ piece).astype(np.float64)
    return np.asarray(total), np.asarray(outer)


def fit_projection(total: np.ndarray, outer: np.ndarray, count: int, dim: int, whiten: float) -> Projection:
    """The projection on the `dim` principal components of `count` descriptors, given their `moments`."""
    mean = total / count
    values, vectors = np.linalg.eigh(outer / count - np.outer(mean, mean))
    values, vectors = values[::-1], vectors[:, ::-1]
    if not 0 < dim <= (values > values[0] * 1e-9).sum():
        raise ValueError(f"--dim is {dim}: the descriptors have {(values > values[0] * 1e-9).sum()} dimensions")
    vectors = vectors[:, :dim]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(dim)]
    matrix = vectors * np.sign(largest) / values[:dim] ** (whiten / 2)
    return Projection(mean.astype(np.float32), matrix.astype(np.float32), float(values[:dim].sum() / values.sum()))


def project(rows: range, images: Path, settings: HogSettings, projection: Projection) -> np.ndarray:
    """Features float32 [n, D] of the images `rows` of a file."""
    chosen = np.load(images, mmap_mode="r")[rows.start : rows.stop]
    return np.concatenate([projection(piece) for piece in descriptors(chosen, settings)])


def check(features: np.ndarray, first_row: int) -> None:
    """Raises ValueError if a row of features [n, D] is not finite or has no direction."""
    lengths = np.linalg.norm(features.astype(np.float32), axis=1)
    wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if wrong.size:
        raise ValueError(f"image {first_row + wrong[0]}: its feature has length {lengths[wrong[0]]}")


def extract(args: argparse.Namespace) -> None:
    index = json.loads((args.images / "index.json").read_text(encoding="utf-8"))
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "features.json").unlink(missing_ok=True)  # Its presence means that the folder is complete.
    settings = HogSettings(args.orientations, args.cell, args.block)
    labels = np.load(args.images / "labels.npy")
    held_out = np.array([face["split"] == "validation" for face in index["faces"]])[np.load(args.images / "faces.npy")]
    images = args.images / "images.npy"

    # Processes that start afresh read this when they load numpy: one BLAS thread each.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        train = np.flatnonzero(~held_out)
        fitted = train[np.linspace(0, len(train) - 1, min(FIT_ROWS, len(train))).astype(np.int64)]
        pieces = np.array_split(fitted, max(1, len(fitted) // TASK_ROWS))
        sums = list(pool.map(functools.partial(moments, images=images, settings=settings), pieces))
        total, outer = (sum(parts) for parts in zip(*sums))
        projection = fit_projection(total, outer, len(fitted), args.dim, args.whiten)
        tasks = [range(first, min(first + TASK_ROWS, len(labels))) for first in range(0, len(labels), TASK_ROWS)]
        work = functools.partial(project, images=images, settings=settings, projection=projection)
        write(args.output, zip(tasks, pool.map(work, tasks)), held_out, args)

    np.savez(args.output / "projection.npz", mean=projection.mean, matrix=projection.matrix)
    np.save(args.output / "train_labels.npy", labels[~held_out])
    np.save(args.output / "validation_labels.npy", labels[held_out])
    summary = {
        "classes": len(index["characters"]), "dim": args.dim, "dtype": args.dtype, "train": int((~held_out).sum()),
        "validation": int(held_out.sum()), "hog": asdict(settings), "whiten": args.whiten,
        "variance_kept": projection.variance_kept,
    }
    (args.output / "features.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"features: {summary['train']} rows to train on, {summary['validation']} held out, {summary['classes']} classes, "
          f"D = {args.dim}, {projection.variance_kept:.1%} of the variance: {args.output}", file=sys.stderr)


def write(output: Path, done: Iterator[tuple[range, np.ndarray]], held_out: np.ndarray, args: argparse.Namespace) -> None:
    """Writes the two feature files from features of consecutive images; held_out is bool [n]."""
    files = {}
    for name, count in (("train", (~held_out).sum()), ("validation", held_out.sum())):
        files[name] = np.lib.format.open_memmap(
            output / f"{name}_features.npy", mode="w+", dtype=np.dtype(args.dtype), shape=(int(count), args.dim))
    filled = {"train": 0, "validation": 0}
    for rows, features in done:
        features = features.astype(args.dtype)
        check(features, rows.start)
        for name, mask in (("train", ~held_out[rows.start : rows.stop]), ("validation", held_out[rows.start : rows.stop])):
            first, count = filled[name], int(mask.sum())
            files[name][first : first + count] = features[mask]
            filled[name] += count
    for file in files.values():
        file.flush()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder that render.py wrote")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dim", type=int, default=128, help="D, the width of a feature")
    parser.add_argument("--whiten", type=float, default=0.5, help="0: HOG's own scales, 1: white")
    parser.add_argument("--orientations", type=int, default=9)
    parser.add_argument("--cell", type=int, default=4, help="pixels along a HOG cell's side")
    parser.add_argument("--block", type=int, default=2, help="cells along a HOG block's side")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args(argv)


if __name__ == "__main__":
    extract(parse())
