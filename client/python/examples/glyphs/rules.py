"""What belongs into the glyph dataset: rules on arrays of images, without any font.

An image is [32, 32] uint8, 0 paper and 255 ink; one without ink stands for a character that the face does not draw.
Everything here is deterministic.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

#: Two images are one drawing if they differ by less than this share of their ink: room for another size and rounding.
SAME_DRAWING = 0.15
#: Faces are the same if they draw at least this share of the characters alike, …
SAME_FACE = 0.5
#: … and related, so that they must not be split between training and validation, from this share on.
RELATED_FACE = 0.05
#: Faces with fewer sampled characters than this in common are not compared.
MIN_COMMON = 32


def has_ink(images: np.ndarray) -> np.ndarray:
    """Which of images [n, 32, 32] show anything: bool [n]."""
    return images.reshape(len(images), -1).any(axis=1)


def drawn_once(images: np.ndarray, placeholder: np.ndarray) -> np.ndarray:
    """Which images of one face are a character's own drawing: bool [n].

    False for an image without ink, for every image of a set of identical ones (they cannot be told apart, and usually
    are placeholder boxes), and for `placeholder` [32, 32], the face's glyph for a missing character.
    """
    packed = [image.tobytes() for image in images]
    uses: dict[bytes, int] = {placeholder.tobytes(): 2}
    for key in packed:
        uses[key] = uses.get(key, 0) + 1
    return has_ink(images) & np.array([uses[key] == 1 for key in packed], bool)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The share of characters that two faces draw alike, of those that both draw; 0 if these are too few to tell.

    Shapes: a, b [n, 32, 32] uint8, the same n characters in each.
    """
    common = has_ink(a) & has_ink(b)
    if common.sum() < MIN_COMMON:
        return 0.0
    first, second = (images[common].reshape(common.sum(), -1).astype(np.int32) for images in (a, b))
    difference = np.abs(first - second).sum(axis=1)
    ink = np.minimum(first.sum(axis=1), second.sum(axis=1))
    return float(np.mean(difference < SAME_DRAWING * ink))


def distinct_faces(samples: np.ndarray, characters: Sequence[int]) -> tuple[list[int], dict[int, str | int]]:
    """Keeps one of the faces that hold the same drawings: the one with the most characters, then the first.

    Shapes: samples [faces, n, 32, 32] uint8, the same n characters of every face; characters: how many each claims.
    Returns the faces kept, ascending, and why each other one is dropped: the kept face it repeats, or a sentence.
    """
    kept: list[int] = []
    dropped: dict[int, str | int] = {}
    for face in sorted(range(len(samples)), key=lambda face: (-characters[face], face)):
        inked = int(has_ink(samples[face]).sum())
        if inked < MIN_COMMON:
            dropped[face] = f"draws {inked} of {samples.shape[1]} common characters"
            continue
        same = [other for other in kept if likeness(samples[face], samples[other]) >= SAME_FACE]
        if same:
            dropped[face] = max(same, key=lambda other: (likeness(samples[face], samples[other]), -other))
        else:
            kept.append(face)
    return sorted(kept), dropped


def related_groups(samples: np.ndarray, packages: Sequence[str]) -> list[list[int]]:
    """Groups of faces that are of one package or share some drawings, through others too: ascending lists.

    Shapes: samples [faces, n, 32, 32] uint8; packages [faces].
    """
    group = list(range(len(samples)))
    for face in range(len(samples)):
        for other in range(face):
            related = packages[face] == packages[other] or likeness(samples[face], samples[other]) >= RELATED_FACE
            if related and group[face] != group[other]:
                old, new = max(group[face], group[other]), min(group[face], group[other])
                group = [new if member == old else member for member in group]
    return [[face for face in range(len(samples)) if group[face] == name] for name in sorted(set(group))]


def hold_out(groups: Sequence[Sequence[int]], count: int, seed: int) -> list[int]:
    """Draws whole groups until exactly `count` faces are held out, or as many as whole groups allow: ascending.

    A face is therefore held out together with everything related to it, and validation asks for unknown hands.
    """
    order = [list(group) for group in groups]
    random.Random(seed).shuffle(order)
    held: list[int] = []
    for group in order:
        if len(held) + len(group) <= count:
            held += group
    return sorted(held)


def choose_characters(drawn: Sequence[np.ndarray], min_faces: int, limit: int | None) -> np.ndarray:
    """The characters drawn by at least `min_faces` faces: code points [C] int32, ascending.

    Shapes: drawn: for each face the code points that it draws, each once. With a limit the most widely drawn win, then
    the lower code point.
    """
    codes, faces = np.unique(np.concatenate(list(drawn)), return_counts=True)
    codes, faces = codes[faces >= min_faces], faces[faces >= min_faces]
    best = np.lexsort((codes, -faces))[:limit]
    return np.sort(codes[best]).astype(np.int32)
