"""The header of safetensors: 8 bytes of length, JSON, then the tensors."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Tuple

import numpy as np

from shardmax._channel import Path
from shardmax.errors import DataLossError
from shardmax.weights._matrix import Array

MAX_HEADER_BYTES = 100_000_000
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def header_for(shape: Tuple[int, int]) -> bytes:
    """Of a file with `weight` float32 of that shape."""
    size = 4 * shape[0] * shape[1]
    fields = {"weight": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def parse_header(text: bytes, name: str) -> Dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise DataLossError(f"{name}: the header of the safetensors file is damaged: {error}") from None
    if not isinstance(fields, dict):
        raise DataLossError(f"{name}: the header of the safetensors file is no object")
    return fields


def map_tensor(path: Path, tensor: str) -> Array:
    """One tensor of a file, memory-mapped. bfloat16 comes as uint16."""
    name = os.fspath(path)
    total = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or length > min(total - 8, MAX_HEADER_BYTES):
            raise DataLossError(f"{name}: not a safetensors file, or a truncated one")
        fields = parse_header(file.read(length), name)
    try:
        entry = fields[tensor]
        begin, end = entry["data_offsets"]
        shape = tuple(int(extent) for extent in entry["shape"])
        dtype = np.dtype(_TYPES[entry["dtype"]])
    except (KeyError, TypeError, ValueError):
        there = ", ".join(key for key in fields if key != "__metadata__")
        raise DataLossError(f"{name}: no tensor {tensor!r} of floats in it; there are: {there}") from None
    bytes_needed = dtype.itemsize * int(np.prod(shape, dtype=object))
    if begin < 0 or end - begin != bytes_needed or 8 + length + end > total or min(shape, default=0) < 1:
        raise DataLossError(f"{name}: tensor {tensor!r} is damaged, or the file is truncated")
    return np.memmap(path, dtype=dtype, mode="r", offset=8 + length + begin, shape=shape)
