"""A tiny set of glyphs in the form that render.py writes, drawn by the test: no font is needed."""

import json

import numpy as np

CHARACTERS, TRAINING_FACES, HELD_OUT_FACES = 90, 8, 3


def strokes(rng):
    """A character: five bars (left, top, right, bottom), in pixels."""
    left, top = rng.integers(2, 20, (2, 5))
    across = rng.random(5) < 0.5
    length = rng.integers(8, 14, 5)
    return np.stack([left, top, left + np.where(across, length, 1), top + np.where(across, 1, length)], axis=1)


def draw(bars, rng):
    """The character as one face draws it: [32, 32] uint8, of that face's weight, place and ink."""
    image = np.zeros((32, 32), np.float64)
    weight, shift, ink = rng.integers(1, 3), rng.integers(-2, 3, 2), rng.uniform(150, 255)
    for left, top, right, bottom in bars + rng.integers(0, 2, bars.shape):
        x, y = left + shift[0], top + shift[1]
        image[max(y, 0) : bottom + shift[1] + weight, max(x, 0) : right + shift[0] + weight] = ink
    return image.astype(np.uint8)


def write_glyphs(folder, seed=1):
    """images.npy, labels.npy, faces.npy and index.json; returns the folder."""
    folder.mkdir()
    faces = TRAINING_FACES + HELD_OUT_FACES
    characters = [strokes(np.random.default_rng([seed, character])) for character in range(CHARACTERS)]
    images = [
        draw(bars, np.random.default_rng([seed, 1000 + face, character]))
        for face in range(faces)
        for character, bars in enumerate(characters)
    ]
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "labels.npy", np.tile(np.arange(CHARACTERS, dtype=np.int32), faces))
    np.save(folder / "faces.npy", np.repeat(np.arange(faces, dtype=np.int32), CHARACTERS))
    names = [{"name": f"face-{i}", "split": "train" if i < TRAINING_FACES else "validation"} for i in range(faces)]
    (folder / "index.json").write_text(
        json.dumps({"faces": names, "characters": list(range(0x4E00, 0x4E00 + CHARACTERS))})
    )
    return folder
