"""Which glyphs are trained on, in which order, with which labels."""

import json
from pathlib import Path

import numpy as np
import pytest
from batches import Batches
from split import Glyphs, load_split, with_label_noise


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """10 characters in 4 training faces, of which the last draws 2 characters, and 2 held-out faces.

    Every pixel of an image is 10 face + character.
    """
    drawn = [(face, character) for face in range(6) for character in range(2 if face == 3 else 10)]
    faces, labels = np.array(drawn, np.int32).T
    np.save(tmp_path / "images.npy", np.tile((10 * faces + labels).astype(np.uint8)[:, None, None], (1, 32, 32)))
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "faces.npy", faces)
    described = [{"name": f"face-{face}", "split": "train" if face < 4 else "validation"} for face in range(6)]
    (tmp_path / "index.json").write_text(json.dumps({"characters": list(range(100, 110)), "faces": described}))
    return tmp_path


def test_the_open_set_shares_neither_characters_nor_faces_with_training(images: Path) -> None:
    split = load_split(images, characters=6, unseen=4, faces=3)
    assert (len(split.train), len(split.held_out), len(split.unseen)) == (18, 12, 8)
    pixels = {name: getattr(split, name).images[:, 0, 0] for name in ("train", "held_out", "unseen")}
    assert set(pixels["train"] % 10) == set(pixels["held_out"] % 10) == set(split.trained - 100)
    assert set(pixels["unseen"] % 10).isdisjoint(pixels["train"] % 10)
    assert set(pixels["unseen"] // 10) == set(pixels["held_out"] // 10) == {4, 5}
    assert split.faces == ["face-0", "face-1", "face-2"], "face-3 draws too few"
    assert (split.trained[split.train.labels] - 100 == pixels["train"] % 10).all()
    assert sorted(set(split.unseen.labels)) == [0, 1, 2, 3]


def test_too_few_characters_or_faces_are_told(images: Path) -> None:
    with pytest.raises(ValueError, match="has 10 characters: too few to train on 7 and keep 4 unseen"):
        load_split(images, characters=7, unseen=4, faces=3)
    with pytest.raises(ValueError, match="3 training faces draw half of the characters: too few for 4"):
        load_split(images, characters=6, unseen=4, faces=4)


def test_label_noise_makes_exactly_its_share_wrong(images: Path) -> None:
    train = load_split(images, characters=6, unseen=4, faces=3).train
    noisy = with_label_noise(train, 0.5, 6, seed=1)
    assert (noisy.labels != train.labels).sum() == 9
    assert set(noisy.labels) <= set(range(6)) and noisy.labels.dtype == np.int32
    assert (with_label_noise(train, 0.5, 6, seed=1).labels == noisy.labels).all()


def test_an_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    glyphs = Glyphs(np.arange(1, 8, dtype=np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2), np.arange(7))
    batches = Batches(glyphs, rows=3, seed=1)
    assert batches.per_epoch == 2
    epochs = [list(batches.epoch(epoch)) for epoch in (0, 1, 0)]
    labels = [np.concatenate([batch[1] for batch in epoch]) for epoch in epochs]
    assert len(set(labels[0])) == 6
    assert (labels[0] == labels[2]).all() and (labels[0] != labels[1]).any()
    for images, of in epochs[0]:
        assert images.shape == (3, 32, 32)
        assert (images[:, 16, 16] == of + 1).all(), "images and labels belong together"


def test_images_move_by_up_to_two_pixels_over_paper() -> None:
    dot = np.zeros((400, 32, 32), np.uint8)
    dot[:, 16, 16] = 255
    (images, _), = Batches(Glyphs(dot, np.zeros(400, np.int32)), rows=400, seed=1).epoch(0)
    _, rows, columns = np.nonzero(images)
    assert set(rows) == set(columns) == set(range(14, 19))
    assert (images.sum(axis=(1, 2)) == 255).all()
