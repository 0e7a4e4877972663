"""The weights that a server streams, into a file."""

from __future__ import annotations

from typing import Iterator, Tuple

from shardmax._channel import Path
from shardmax.errors import DataLossError
from shardmax.v1 import control_pb2
from shardmax.weights._safetensors import MAX_HEADER_BYTES, parse_header
from shardmax.weights._writers import format_of, new_file
from shardmax.weights._writers import write as write_weights

__all__ = ["format_of", "write"]


def write(chunks: Iterator[control_pb2.ExportChunk], path: Path, format: str) -> None:
    """The chunks are those of a safetensors file with `weight` [C, D] float32."""
    pieces = _checked(chunks)
    if format == "safetensors":
        with new_file(path) as file:
            for piece in pieces:
                file.write(piece)
        return
    shape, data = _without_header(pieces)
    write_weights(path, format, shape, data)


def _checked(chunks: Iterator[control_pb2.ExportChunk]) -> Iterator[bytes]:
    total, received = -1, 0
    for chunk in chunks:
        total = chunk.total_bytes if total < 0 else total
        received += len(chunk.data)
        yield chunk.data
    if received != total:
        raise DataLossError(f"the server sent {received} bytes of {max(total, 0)}")


def _without_header(pieces: Iterator[bytes]) -> Tuple[Tuple[int, int], Iterator[bytes]]:
    start, needed = b"", 8
    for piece in pieces:
        start += piece
        if len(start) >= 8:
            needed = 8 + int.from_bytes(start[:8], "little")
        if needed > MAX_HEADER_BYTES:
            raise DataLossError("the server sent no safetensors file")
        if len(start) >= needed:
            break
    fields = parse_header(start[8:needed], "the export")
    try:
        classes, width = fields["weight"]["shape"]
    except (KeyError, TypeError, ValueError):
        raise DataLossError("the server sent no weights [C, D]") from None

    def data() -> Iterator[bytes]:
        yield start[needed:]
        yield from pieces

    return (int(classes), int(width)), data()
