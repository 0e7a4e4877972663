"""The projection of HOG descriptors, and the files that features.py writes."""

import json
from pathlib import Path

import features
import numpy as np
import pytest
from hog import HogSettings, hog


def spread(n: int, width: int, seed: int) -> np.ndarray:
    """Rows [n, width] float64 whose directions have very different variances."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, width)) * np.geomspace(10, 0.1, width) @ np.linalg.qr(rng.standard_normal((width,) * 2))[0]


def fit(rows: np.ndarray, dim: int, whiten: float) -> features.Projection:
    return features.fit_projection(rows.sum(axis=0), rows.T @ rows, len(rows), dim, whiten)


def test_features_are_centred_and_uncorrelated_by_falling_variance() -> None:
    rows = spread(2000, 20, 1) + 5
    projected = fit(rows, 8, 0.0)(rows)
    covariance = np.cov(projected.T, bias=True)
    assert np.abs(projected.mean(axis=0)).max() < 1e-4
    assert np.all(np.diff(np.diag(covariance)) < 0)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * covariance[0, 0]


def test_the_subspace_is_that_of_the_singular_vectors() -> None:
    rows = spread(500, 12, 2)
    projection = fit(rows, 5, 0.0)
    _, sizes, vectors = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(vectors[:5] @ projection.matrix), np.eye(5), atol=1e-4)
    assert projection.variance_kept == pytest.approx((sizes[:5] ** 2).sum() / (sizes**2).sum())


def test_whitening_is_a_power_of_the_standard_deviation() -> None:
    rows = spread(2000, 20, 3)
    plain = fit(rows, 6, 0.0)(rows).std(axis=0)
    np.testing.assert_allclose(fit(rows, 6, 1.0)(rows).std(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(fit(rows, 6, 0.5)(rows).std(axis=0), np.sqrt(plain), rtol=1e-4)


def test_more_dimensions_than_the_descriptors_have_are_refused() -> None:
    rows = np.concatenate([spread(100, 4, 4), np.zeros((100, 3))], axis=1)
    with pytest.raises(ValueError, match="--dim is 5: the descriptors have 4 dimensions"):
        fit(rows, 5, 0.0)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_feature_without_direction_is_refused(bad: float) -> None:
    rows = np.ones((3, 4), np.float32)
    rows[1] = bad
    with pytest.raises(ValueError, match="image 11: its feature has length"):
        features.check(rows, 10)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder as render.py leaves it: 3 faces of 40 characters, the second held out."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    np.save(folder / "images.npy", rng.integers(0, 256, (120, 32, 32), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(np.arange(40, dtype=np.int32), 3))
    np.save(folder / "faces.npy", np.repeat(np.arange(3, dtype=np.int32), 40))
    index = {"characters": list(range(40)), "faces": [{"split": split} for split in ("train", "validation", "train")]}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_hold_the_projected_hog_of_each_split(images: Path, tmp_path: Path, dtype: str, monkeypatch) -> None:
    monkeypatch.setattr(features, "TASK_ROWS", 50)  # Splits and tasks do not end together.
    out = tmp_path / "out"
    features.extract(features.parse([f"--images={images}", f"--output={out}", "--dim=16", f"--dtype={dtype}", "--processes=2"]))
    projection = np.load(out / "projection.npz")
    want = (hog(np.load(images / "images.npy"), HogSettings()) - projection["mean"]) @ projection["matrix"]
    for name, rows in (("train", np.r_[0:40, 80:120]), ("validation", np.r_[40:80])):
        got, labels = np.load(out / f"{name}_features.npy"), np.load(out / f"{name}_labels.npy")
        assert got.dtype == np.dtype(dtype) and labels.dtype == np.int32
        np.testing.assert_allclose(got, want[rows], atol=1e-4 if dtype == "float32" else 1e-2)
        np.testing.assert_array_equal(labels, rows % 40)
    summary = json.loads((out / "features.json").read_text())
    assert (summary["classes"], summary["dim"], summary["train"], summary["validation"]) == (40, 16, 80, 40)
