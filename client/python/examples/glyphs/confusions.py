"""Draws the hardest confusions of a trained glyph head: the strongest support vectors, side by side.

    confusions.py RUN --images=FOLDER [--output=PNG] [--count=24]

RUN is what train_backbone.py left. A glyph x of a held-out face has character y; another character k is a support vector
of it if its class is nearer than the target logit, cos(x, w_k) > f(cos(x, w_y)): the loss emphasises it. Shown are those
with the largest excess cos_k - f, each pair of characters once: the glyph, and k as the same face draws it (or, if it
does not, any other). Saves RUN/confusions.png by default.
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

ROWS = 2048
COLUMNS = 6


@dataclass(frozen=True)
class Confusion:
    """Row `row` of the held-out glyphs, of class y, and the class k that it is taken for."""

    row: int
    y: int
    k: int
    cos_y: float
    cos_k: float
    target: float


def target_logit(cosines: np.ndarray, margin: dict[str, float]) -> np.ndarray:
    """f of docs/math.md of label cosines [n], with extension MONOTONE."""
    m1, m2, m3 = (margin.get(name, neutral) for name, neutral in (("m1", 1.0), ("m2", 0.0), ("m3", 0.0)))
    phi = m1 * np.arccos(np.clip(cosines, -1, 1)) + m2
    turns = np.floor(phi / np.pi)
    return (-1.0) ** turns * np.cos(phi) - 2 * turns - m3


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def hardest(embeddings: np.ndarray, labels: np.ndarray, weights: np.ndarray, margin: dict[str, float],
            count: int) -> list[Confusion]:
    """The `count` largest excesses of embeddings [n, D] with labels [n] over weights [C, D], those of a pair of characters
    once: largest first. Fewer if there are fewer support vectors."""
    weights, found = unit(weights), []
    for first in range(0, len(labels), ROWS):
        cosines, y = unit(embeddings[first : first + ROWS]) @ weights.T, labels[first : first + ROWS]
        at = np.arange(len(y))
        cos_y = cosines[at, y]
        cosines[at, y] = -2
        k = cosines.argmax(axis=1)
        target = target_logit(cos_y, margin)
        found += [Confusion(first + i, int(y[i]), int(k[i]), float(cos_y[i]), float(cosines[i, k[i]]), float(target[i]))
                  for i in np.flatnonzero(cosines[at, k] > target)]
    chosen: dict[frozenset[int], Confusion] = {}
    for each in sorted(found, key=lambda each: each.target - each.cos_k):
        chosen.setdefault(frozenset((each.y, each.k)), each)
    return list(chosen.values())[:count]


class Album:
    """The images of a dataset by character and face."""

    def __init__(self, folder: Path, trained: np.ndarray) -> None:
        """`trained` [C] are the code points of the classes."""
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._labels, self._faces = np.load(folder / "labels.npy"), np.load(folder / "faces.npy")
        self._label_of_class = np.searchsorted(np.array(index["characters"]), trained)
        held_out = np.array([face["split"] == "validation" for face in index["faces"]])
        #: Rows of the dataset, in the order of held_out_embeddings.npy.
        self._held_out = np.flatnonzero(np.isin(self._labels, self._label_of_class) & held_out[self._faces])

    def pair(self, confusion: Confusion) -> tuple[np.ndarray, np.ndarray]:
        """The glyph, and the other character in the same face if that draws it: images [32, 32]."""
        row = self._held_out[confusion.row]
        others = np.flatnonzero(self._labels == self._label_of_class[confusion.k])
        same = others[self._faces[others] == self._faces[row]]
        return self._images[row], self._images[same[0] if same.size else others[0]]


def draw(confusions: list[Confusion], album: Album, trained: np.ndarray, title: str, output: Path) -> None:
    """Saves the picture."""
    rows = max(1, -(-len(confusions) // COLUMNS))
    figure, panels = plt.subplots(rows, COLUMNS, figsize=(2.1 * COLUMNS, 1.65 * rows + 0.7), squeeze=False,
                                  layout="constrained")
    for axes in panels.flat:
        axes.axis("off")
    for axes, each in zip(panels.flat, confusions):
        gap = np.zeros((32, 6), np.uint8)
        glyph, other = album.pair(each)
        axes.imshow(255 - np.concatenate([glyph, gap, other], axis=1), cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"U+{trained[each.y]:04X}, not U+{trained[each.k]:04X}\n"
                       f"cos {each.cos_k:.2f} over f = {each.target:.2f}", fontsize=7.5)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.savefig(output, dpi=130)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="the --output of train_backbone.py")
    parser.add_argument("--images", type=Path, required=True, help="folder that render.py wrote")
    parser.add_argument("--output", type=Path, metavar="PNG", help="default: RUN/confusions.png")
    parser.add_argument("--count", type=int, default=24)
    args = parser.parse_args()
    output = args.output or args.run / "confusions.png"
    try:
        loss = json.loads((args.run / "job.json").read_text(encoding="utf-8"))["train"]["loss"]
        embeddings, labels = (np.load(args.run / f"held_out_{name}.npy") for name in ("embeddings", "labels"))
        trained = np.load(args.run / "characters.npy")
        found = hardest(embeddings, labels, np.load(args.run / "class_weights.npy"), loss.get("margin", {}), args.count)
        draw(found, Album(args.images, trained), trained, "The hardest confusions: a held-out glyph, and its support vector",
             output)
    except (OSError, ValueError, KeyError) as error:
        print(f"confusions: {error}", file=sys.stderr)
        return 1
    print(f"picture: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
