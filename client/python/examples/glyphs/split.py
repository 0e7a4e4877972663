"""Which glyphs are trained on, and which are asked about afterwards.

               | training faces | held-out faces
    ---------- | -------------- | -----------------------------------
    trained    | train          | held_out: the closed set
    unseen     | (not used)     | unseen: the open set

The open set has characters that were not trained on, in faces that were not trained on: identities and photos that the
backbone has never met, as in face recognition. docs/glyphs.md tells how the images and the held-out faces came about.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: A face is trained on only if it draws this share of the trained characters.
MIN_DRAWN = 0.5


@dataclass(frozen=True)
class Glyphs:
    """Images [n, 32, 32] uint8 and labels [n] int32, counted from 0 within their set of characters."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Split:
    """Glyphs of the three sets; trained [C] int32 are code points of the characters trained on, in order of labels."""

    train: Glyphs
    held_out: Glyphs
    unseen: Glyphs
    trained: np.ndarray
    faces: list[str]


def load_split(folder: Path, characters: int, unseen: int, faces: int, seed: int = 1) -> Split:
    """Draws `characters` to train on, `unseen` others, and `faces` training faces, by the seed.

    `folder` is what render.py wrote. ValueError: it has too few of them.
    """
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels, drawn_by = np.load(folder / "labels.npy"), np.load(folder / "faces.npy")
    known = len(index["characters"])
    if characters < 2 or unseen < 2 or characters + unseen > known:
        raise ValueError(f"{folder} has {known} characters: too few to train on {characters} and keep {unseen} unseen "
                         "(at least 2 each)")
    random = np.random.default_rng(seed)
    order = random.permutation(known)
    trained, others = np.sort(order[:characters]), np.sort(order[characters : characters + unseen])
    held_out = np.array([face["split"] == "validation" for face in index["faces"]])
    chosen = choose_faces(np.flatnonzero(~held_out), labels, drawn_by, trained, faces, random)

    def take(which: np.ndarray, of_faces: np.ndarray) -> Glyphs:
        rows = np.flatnonzero(np.isin(labels, which) & of_faces[drawn_by])
        return Glyphs(images[rows], np.searchsorted(which, labels[rows]).astype(np.int32))

    in_training = np.zeros(len(held_out), bool)
    in_training[chosen] = True
    return Split(take(trained, in_training), take(trained, held_out), take(others, held_out),
                 np.array(index["characters"], np.int32)[trained], [index["faces"][face]["name"] for face in chosen])


def choose_faces(training: np.ndarray, labels: np.ndarray, drawn_by: np.ndarray, trained: np.ndarray, count: int,
                 random: np.random.Generator) -> np.ndarray:
    """`count` of the faces `training` [f], drawn at random among those that draw enough of `trained` [C]: ascending."""
    images = np.bincount(drawn_by[np.isin(labels, trained)], minlength=int(training.max(initial=0)) + 1)
    wide = training[images[training] >= MIN_DRAWN * len(trained)]
    if count > len(wide):
        raise ValueError(f"{len(wide)} training faces draw half of the characters: too few for {count}")
    return np.sort(random.permutation(wide)[:count])


def with_label_noise(glyphs: Glyphs, share: float, classes: int, seed: int) -> Glyphs:
    """The same images, of which `share` have a label drawn among all other classes."""
    random = np.random.default_rng([seed, 1])
    wrong = random.permutation(len(glyphs))[: round(share * len(glyphs))]
    labels = glyphs.labels.copy()
    labels[wrong] = (labels[wrong] + random.integers(1, classes, len(wrong))) % classes
    return Glyphs(glyphs.images, labels)
