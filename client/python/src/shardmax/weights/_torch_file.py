"""Files of torch.save, read and written without torch.

Reading maps tensors into memory, and runs no code that a file brings: what is not a tensor or a plain container
comes as an opaque object.
"""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple

import numpy as np

from shardmax._channel import Path
from shardmax.errors import DataLossError, invalid
from shardmax.weights._matrix import Array

_MAX_PICKLE_BYTES = 1 << 28
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
}


@dataclass(frozen=True)
class TensorRef:
    """Where a tensor is in a file. `kind` is the name of its storage class."""

    kind: str
    key: str
    offset: int
    shape: Tuple[int, ...]
    stride: Tuple[int, ...]


class Opaque:
    """Whatever else a file holds."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str


@dataclass(frozen=True)
class _StorageKind:
    name: str


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Any:
    if not isinstance(storage, _Storage):
        return Opaque()
    return TensorRef(storage.kind, storage.key, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if module == "torch" and name.endswith("Storage"):
            return _StorageKind(name)
        return known.get((module, name), Opaque)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 3 and isinstance(pid[1], _StorageKind):
            return _Storage(pid[1].name, str(pid[2]))
        return Opaque()


class TorchFile:
    """An open file of torch.save; `content` is what was saved, with a TensorRef for each tensor."""

    def __init__(self, path: Path) -> None:
        self.name = os.fspath(path)
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
                (index,) = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
                self._prefix = index.filename[: -len("data.pkl")]
                if index.file_size > _MAX_PICKLE_BYTES:
                    invalid(f"{self.name}: {index.filename} is longer than {_MAX_PICKLE_BYTES} bytes")
                self.content = _Unpickler(io.BytesIO(archive.read(index))).load()
        except (zipfile.BadZipFile, ValueError, EOFError, pickle.UnpicklingError, TypeError, AttributeError) as error:
            raise DataLossError(
                f"{self.name}: not a file of torch.save, or a damaged one: {error}\n"
                "  A file of a torch before 1.6: load it with torch.load() and save it again."
            ) from None

    def map(self, tensor: TensorRef) -> Array:
        """A tensor, memory-mapped. bfloat16 comes as uint16."""
        if tensor.kind not in _TYPES:
            invalid(f"{self.name}: a tensor of torch.{tensor.kind}: give float64, float32, float16 or bfloat16")
        dtype = np.dtype(_TYPES[tensor.kind])
        entry = self._entries.get(f"{self._prefix}data/{tensor.key}")
        if entry is None or entry.compress_type != zipfile.ZIP_STORED:
            raise DataLossError(f"{self.name}: the values of a tensor are missing or compressed: save the file again")
        reach = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride)) + 1
        sound = len(tensor.shape) == len(tensor.stride) and min(tensor.shape, default=0) > 0
        if not sound or tensor.offset < 0 or min(tensor.stride) < 0 or reach * dtype.itemsize > entry.file_size:
            raise DataLossError(f"{self.name}: a tensor {list(tensor.shape)} goes beyond its values: a damaged file")
        flat = np.memmap(self.name, dtype=dtype, mode="r", offset=self._begin(entry), shape=(reach,))
        strides = [stride * dtype.itemsize for stride in tensor.stride]
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)

    def _begin(self, entry: zipfile.ZipInfo) -> int:
        with open(self.name, "rb") as file:
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise DataLossError(f"{self.name}: damaged at byte {entry.header_offset}")
        fields = _LOCAL_HEADER.unpack(header)
        begin = entry.header_offset + _LOCAL_HEADER.size + int(fields[9]) + int(fields[10])
        if begin + entry.file_size > os.path.getsize(self.name):
            raise DataLossError(f"{self.name}: truncated")
        return begin


def pickle_of_weight(shape: Tuple[int, int]) -> bytes:
    """data.pkl of {"weight": a float32 tensor of this shape whose values are in data/0}."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: int) -> bytes:
        encoded = pickle.encode_long(value)
        return b"\x8a" + bytes([len(encoded)]) + encoded

    def tuple_of(*items: bytes) -> bytes:
        return b"(" + b"".join(items) + b"t"

    empty = b"ccollections\nOrderedDict\n)R"
    values = tuple_of(
        text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), number(shape[0] * shape[1])
    )
    parts: List[bytes] = [
        values + b"Q",
        number(0),
        tuple_of(number(shape[0]), number(shape[1])),
        tuple_of(number(shape[1]), number(1)),
        b"\x89",
        empty,
    ]
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + tuple_of(*parts) + b"R"
    return b"\x80\x02" + empty + text("weight") + tensor + b"s."
