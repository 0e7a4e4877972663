"""hog.hog gives what scikit-image gives."""

import numpy as np
import pytest
from hog import HogSettings, hog
from skimage.feature import hog as reference


def strokes(n: int, size: int, seed: int) -> np.ndarray:
    """Images [n, size, size] uint8 of a few bright bars on black, with soft edges."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, size, size), np.uint8)
    for image in images:
        for _ in range(5):
            row, column = rng.integers(0, size - 3, 2)
            image[row : row + 2, column:] = rng.integers(1, 256)
            image[row:, column : column + 2] = rng.integers(1, 256)
    return images


@pytest.mark.parametrize("settings", [HogSettings(), HogSettings(8, 8, 2), HogSettings(12, 8, 3), HogSettings(9, 5, 1)])
@pytest.mark.parametrize("kind", ["noise", "strokes", "flat"])
def test_equals_scikit_image(settings: HogSettings, kind: str) -> None:
    seed = 3
    images = {
        "noise": np.random.default_rng(seed).integers(0, 256, (12, 32, 32), dtype=np.uint8),
        "strokes": strokes(12, 32, seed),
        "flat": np.full((2, 32, 32), 77, np.uint8),
    }[kind]
    got = hog(images, settings)
    want = np.stack([
        reference(image, settings.orientations, (settings.cell,) * 2, (settings.block,) * 2, "L2-Hys")
        for image in images
    ])
    assert got.dtype == np.float32
    assert got.shape == want.shape == (len(images), settings.width(32, 32))
    worst = np.unravel_index(np.abs(got - want).argmax(), got.shape)
    assert np.abs(got - want).max() < 1e-5, f"seed {seed}, {settings}, image and value {worst}"


def test_does_not_depend_on_the_other_images_of_the_batch() -> None:
    images = strokes(9, 32, 5)
    np.testing.assert_array_equal(hog(images)[4:5], hog(images[4:5]))


def test_images_need_not_be_square_or_fill_whole_cells() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 30, 21), dtype=np.uint8)
    want = np.stack([reference(image, 9, (4, 4), (2, 2), "L2-Hys") for image in images])
    np.testing.assert_allclose(hog(images), want, atol=1e-5)
