"""Features and gradients as bytes: little-endian, row-major."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shardmax.errors import invalid
from shardmax.v1 import head_pb2

FloatArray = npt.NDArray[np.float32]
_INT32_MAX = 2**31 - 1

WIRE_TYPES = {
    "float32": head_pb2.WIRE_FLOAT32,
    "float16": head_pb2.WIRE_FLOAT16,
    "bfloat16": head_pb2.WIRE_BFLOAT16,
}


def check_wire(wire: str) -> str:
    if wire not in WIRE_TYPES:
        invalid(f'wire is "{wire}": give one of {", ".join(WIRE_TYPES)}')
    return wire


def encode(values: FloatArray, wire: str) -> bytes:
    """Rounds to nearest, ties to even. What is too large for float16 becomes infinite, which the head refuses."""
    if wire == "float32":
        return np.ascontiguousarray(values, dtype="<f4").tobytes()
    if wire == "float16":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, dtype="<f2").tobytes()
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # Rounding would carry a NaN over to another value.
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2").tobytes()


def decode(data: bytes, rows: int, dim: int, wire: str) -> FloatArray:
    if wire == "bfloat16":
        values = (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, dtype="<f4" if wire == "float32" else "<f2").astype(np.float32)
    return values.reshape(rows, dim)


def feature_array(features: Any) -> FloatArray:
    array = np.asarray(features)
    if array.ndim != 2 or array.dtype.kind != "f":
        invalid(f"features are {array.dtype} {list(array.shape)}: give floats [rows, width]")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def label_bytes(labels: Any, rows: int) -> bytes:
    array = np.asarray(labels)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        invalid(f"labels are {array.dtype} {list(array.shape)}: give integers [{rows}], one for each row of features")
    if rows and not (-_INT32_MAX <= int(array.min()) and int(array.max()) <= _INT32_MAX):
        invalid("a label does not fit into 32 bits: labels are class ids, or -1 for rows to ignore")
    return array.astype("<i4").tobytes()
