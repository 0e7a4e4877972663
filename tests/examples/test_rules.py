"""What the glyph dataset keeps and drops, on arrays."""

import numpy as np
import rules


def drawings(n: int, seed: int) -> np.ndarray:
    """n different images [n, 32, 32] uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32), dtype=np.uint8)


NO_PLACEHOLDER = np.zeros((32, 32), np.uint8)


def test_identical_images_under_two_characters_are_both_dropped() -> None:
    images = drawings(5, 0)
    images[3] = images[1]
    assert rules.drawn_once(images, NO_PLACEHOLDER).tolist() == [True, False, True, False, True]


def test_images_without_ink_are_dropped() -> None:
    images = drawings(3, 0)
    images[1] = 0
    assert rules.drawn_once(images, NO_PLACEHOLDER).tolist() == [True, False, True]


def test_the_placeholder_is_dropped_though_it_appears_once() -> None:
    images = drawings(3, 0)
    assert rules.drawn_once(images, images[2]).tolist() == [True, True, False]


def test_likeness_is_the_share_of_characters_drawn_alike() -> None:
    a, b = drawings(100, 1), drawings(100, 2)
    b[:30] = a[:30]
    assert rules.likeness(a, b) == 0.3
    assert rules.likeness(a, a) == 1.0


def test_likeness_forgives_rounding() -> None:
    a = drawings(64, 1)
    b = np.clip(a.astype(int) + 5, 0, 255).astype(np.uint8)
    assert rules.likeness(a, b) == 1.0


def test_likeness_counts_only_characters_that_both_draw() -> None:
    a, b = drawings(100, 1), drawings(100, 2)
    b[:40] = a[:40]
    b[40:] = 0
    assert rules.likeness(a, b) == 1.0
    b[20:] = 0
    assert rules.likeness(a, b) == 0.0, "20 common characters are too few to tell"


def test_of_faces_with_the_same_drawings_the_fullest_is_kept() -> None:
    samples = np.stack([drawings(64, 1), drawings(64, 2), drawings(64, 1)])
    kept, dropped = rules.distinct_faces(samples, characters=[1000, 500, 2000])
    assert kept == [1, 2]
    assert dropped == {0: 2}


def test_of_equally_full_faces_the_first_is_kept() -> None:
    samples = np.stack([drawings(64, 1), drawings(64, 1)])
    assert rules.distinct_faces(samples, characters=[10, 10]) == ([0], {1: 0})


def test_a_face_of_few_common_characters_is_dropped() -> None:
    samples = np.stack([drawings(64, 1), drawings(64, 2)])
    samples[1, 10:] = 0
    assert rules.distinct_faces(samples, characters=[64, 9000]) == ([0], {1: "draws 10 of 64 common characters"})


def test_related_faces_form_one_group_through_others() -> None:
    a, b, c, d, e = (drawings(100, seed) for seed in range(5))
    b[:10] = a[:10]  # a and b share drawings, b and d a package, c and e nothing.
    samples = np.stack([a, c, b, d, e])
    assert rules.related_groups(samples, ["p", "q", "r", "r", "s"]) == [[0, 2, 3], [1], [4]]


def test_whole_groups_are_held_out_and_the_seed_decides() -> None:
    groups = [[0, 1, 2, 3], [4, 5], [6], [7], [8, 9]]
    seen = set()
    for seed in range(20):
        held = rules.hold_out(groups, 3, seed)
        assert len(held) <= 3
        assert all(set(group) <= set(held) or not set(group) & set(held) for group in groups)
        assert held == rules.hold_out(groups, 3, seed)
        seen.add(tuple(held))
    assert len(seen) > 1


def test_characters_need_enough_faces() -> None:
    drawn = [np.array([1, 2, 3]), np.array([2, 3]), np.array([3, 9])]
    assert rules.choose_characters(drawn, 2, None).tolist() == [2, 3]
    assert rules.choose_characters(drawn, 1, None).dtype == np.int32


def test_a_limit_keeps_the_most_widely_drawn_then_the_lower() -> None:
    drawn = [np.array([1, 2, 3]), np.array([2, 3]), np.array([3, 9])]
    assert rules.choose_characters(drawn, 1, 3).tolist() == [1, 2, 3]
