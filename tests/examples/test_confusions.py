"""The strongest support vectors of held-out glyphs."""

import confusions
import numpy as np
import pytest


def at(*degrees: float) -> np.ndarray:
    """Directions [n, 2], of any length."""
    angles = np.radians(degrees)
    return (np.stack([np.cos(angles), np.sin(angles)], axis=1) * 3).astype(np.float32)


def test_target_logits_are_those_of_the_presets() -> None:
    cosines = np.cos(np.radians([20.0, 80.0]))
    np.testing.assert_allclose(confusions.target_logit(cosines, {"m3": 0.35}), cosines - 0.35)
    np.testing.assert_allclose(confusions.target_logit(cosines, {"m2": 0.5}), np.cos(np.radians([20, 80]) + 0.5))
    # 4 x 80 degrees is 320: one half turn on, and 140 degrees into it.
    expected = [np.cos(np.radians(80)), -np.cos(np.radians(320)) - 2]
    np.testing.assert_allclose(confusions.target_logit(cosines, {"m1": 4.0}), expected)


def test_the_largest_excess_comes_first_and_a_pair_of_characters_once() -> None:
    weights = at(0, 30, 90)
    embeddings, labels = at(25, 10, 2, 50, 90), np.array([0, 1, 0, 2, 2])
    found = confusions.hardest(embeddings, labels, weights, {}, 10)
    assert [(each.row, each.y, each.k) for each in found] == [(3, 2, 1), (0, 0, 1)]
    assert found[0].cos_k == pytest.approx(np.cos(np.radians(20)), abs=1e-6)
    assert found[0].cos_y == pytest.approx(np.cos(np.radians(40)), abs=1e-6)
    assert found[0].target == pytest.approx(found[0].cos_y, abs=1e-6)
    assert len(confusions.hardest(embeddings, labels, weights, {}, 1)) == 1


def test_a_margin_makes_a_support_vector_of_what_is_judged_rightly() -> None:
    assert confusions.hardest(at(10), np.array([0]), at(0, 60), {}, 10) == []
    assert len(confusions.hardest(at(10), np.array([0]), at(0, 60), {"m3": 0.35}, 10)) == 1
