"""Weights into files that are there completely or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
import zipfile
from typing import BinaryIO, Callable, Dict, Iterable, Iterator, Tuple, Union

import numpy as np
import numpy.typing as npt

from shardmax._channel import Path
from shardmax.errors import DataLossError, invalid
from shardmax.weights._safetensors import header_for
from shardmax.weights._torch_file import pickle_of_weight

Data = Union[bytes, memoryview, npt.NDArray[np.float32]]
Shape = Tuple[int, int]

_ENDINGS = {".safetensors": "safetensors", ".npy": "npy", ".pt": "torch", ".pth": "torch"}
# torch wants values at a multiple of this, to map them.
_TORCH_ALIGNMENT = 64


def format_of(path: Path, format: str = "") -> str:
    """The format that is asked for, or that the ending of the file says."""
    if not format:
        format = _ENDINGS.get(os.path.splitext(os.fspath(path))[1], "")
        if not format:
            invalid(f"{os.fspath(path)}: which format? End it with .safetensors, .npy, .pt or .pth, or give the format")
    if format not in _WRITERS:
        invalid(f'format "{format}" is none of {", ".join(_WRITERS)}')
    return format


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, that takes its name at the end of the `with`, or is gone after an exception."""
    temporary = f"{os.fspath(path)}.partial-{uuid.uuid4().hex[:8]}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write(path: Path, format: str, shape: Shape, data: Iterable[Data]) -> None:
    """float32 values, little-endian, row-major, in pieces of any length. DataLossError if they are not C·D."""
    with new_file(path) as file:
        _WRITERS[format](file, os.path.splitext(os.path.basename(os.fspath(path)))[0], shape, data)


def _append(file: BinaryIO, shape: Shape, data: Iterable[Data]) -> None:
    left = 4 * shape[0] * shape[1]
    for piece in data:
        view = memoryview(piece).cast("B")  # type: ignore[arg-type]
        left -= len(view)
        if left < 0:
            break
        file.write(view)
    if left:
        raise DataLossError(f"weights {list(shape)} need {4 * shape[0] * shape[1]} bytes, and there were others")


def _write_safetensors(file: BinaryIO, _: str, shape: Shape, data: Iterable[Data]) -> None:
    file.write(header_for(shape))
    _append(file, shape, data)


def _write_npy(file: BinaryIO, _: str, shape: Shape, data: Iterable[Data]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    _append(file, shape, data)


def _write_torch(file: BinaryIO, stem: str, shape: Shape, data: Iterable[Data]) -> None:
    def entry(name: str) -> zipfile.ZipInfo:
        return zipfile.ZipInfo(f"{stem}/{name}")

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry("data.pkl"), pickle_of_weight(shape))
        archive.writestr(entry("byteorder"), "little")
        values = entry("data/0")
        # The local header is 30 bytes, the name, this padding and 20 bytes for lengths of 64 bits.
        padding = -(file.tell() + 30 + len(values.filename) + 20 + 4) % _TORCH_ALIGNMENT
        values.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
        with archive.open(values, "w", force_zip64=True) as target:
            _append(target, shape, data)  # type: ignore[arg-type]
        archive.writestr(entry("version"), "3\n")


_WRITERS: Dict[str, Callable[[BinaryIO, str, Shape, Iterable[Data]], None]] = {
    "safetensors": _write_safetensors,
    "npy": _write_npy,
    "torch": _write_torch,
}
