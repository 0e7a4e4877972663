"""The batches of a training: a new order every epoch, every image moved a little."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from split import Glyphs

#: Images move by up to so many pixels along either axis.
MAX_SHIFT = 2


class Batches:
    """Full batches of `glyphs`, the rows that are left of an epoch are left out. They depend on seed and step alone."""

    def __init__(self, glyphs: Glyphs, rows: int, seed: int) -> None:
        if rows > len(glyphs):
            raise ValueError(f"a batch has {rows} rows, the training set {len(glyphs)}")
        padding = ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
        #: [n, shifts down, shifts right, h, w], a view of the padded images.
        self._windows = sliding_window_view(np.pad(glyphs.images, padding), glyphs.images.shape[1:], axis=(1, 2))
        self._labels = glyphs.labels
        self._rows, self._seed = rows, seed
        self.per_epoch = len(glyphs) // rows

    def epoch(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images [rows, 32, 32] uint8 and labels [rows] int32 of one epoch, counted from 0."""
        random = np.random.default_rng([self._seed, epoch])
        order = random.permutation(len(self._labels))
        for first in range(0, self.per_epoch * self._rows, self._rows):
            chosen = order[first : first + self._rows]
            down, right = random.integers(0, 2 * MAX_SHIFT + 1, (2, self._rows))
            yield self._windows[chosen, down, right], self._labels[chosen]
