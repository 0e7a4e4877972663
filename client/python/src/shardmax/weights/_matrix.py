"""Class weights on disk, a block of rows at a time."""

from __future__ import annotations

from typing import Any, Iterator, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from shardmax.errors import invalid

FloatArray = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

_BLOCK_BYTES = 16 << 20


class Matrix:
    """[C, D], of parts that stand below each other; memory-mapped, so that only blocks are ever in memory."""

    def __init__(self, parts: Sequence[Tuple[str, Array]]) -> None:
        """Each part with its name for messages: float64, float32 or float16 [c, D], or bfloat16 as uint16 [c, D]."""
        for name, array in parts:
            if array.ndim != 2:
                invalid(f"{name}: weights have the shape [classes, width], not {list(array.shape)}")
            if array.dtype not in (np.float64, np.float32, np.float16, np.uint16):
                invalid(f"{name}: weights of type {array.dtype}: give float64, float32, float16 or bfloat16")
            width = parts[0][1].shape[1]
            if array.shape[1] != width:
                invalid(f"{name}: {array.shape[1]} wide, while {parts[0][0]} is {width} wide")
        self._parts = parts
        self.shape = (sum(array.shape[0] for _, array in parts), width)

    def blocks(self) -> Iterator[FloatArray]:
        """float32, little-endian, C order, all rows in order. InvalidArgumentError naming a row that is not finite."""
        rows = max(1, _BLOCK_BYTES // (4 * self.shape[1]))
        for name, array in self._parts:
            for first in range(0, array.shape[0], rows):
                block = float32(array[first : first + rows])
                finite = np.isfinite(block).all(axis=1)
                if not finite.all():
                    invalid(f"{name}: row {first + int(np.argmin(finite))} has a value that is not finite in float32")
                yield block


def float32(array: Array) -> FloatArray:
    """A copy in float32, C order; uint16 is taken for bfloat16."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.dtype("<f4"))
