"""The files of insightface's PartialFC: one a rank, each with the classes of that rank."""

from __future__ import annotations

import collections.abc
import os
import re
from typing import Any, List, Sequence, Tuple

from shardmax._channel import Path
from shardmax.errors import invalid
from shardmax.weights._matrix import Array, Matrix
from shardmax.weights._torch_file import TensorRef, TorchFile

# checkpoint_gpu_0.pt of train_v2.py; softmax_fc_gpu_0.pt and rank_0_softmax_weight.pt of earlier ones.
_RANK = re.compile(r"(?:gpu|rank)_(\d+)")


def open_torch_files(paths: Sequence[Path], tensor: str) -> Matrix:
    """Files of all ranks of one training, in any order, or one file with all classes."""
    if len(paths) == 1 and not _RANK.search(os.path.basename(os.fspath(paths[0]))):
        return Matrix([_part(paths[0], tensor)])
    ranked = sorted((_rank(path), path) for path in paths)
    for expected, (rank, path) in enumerate(ranked):
        if rank != expected:
            problem = "is there twice" if rank < expected else f"is there, but not the one of rank {expected}"
            invalid(f"{os.fspath(path)}: the file of rank {rank} {problem}: give the files of all ranks, each once")
    parts = [_part(path, tensor) for _, path in ranked]
    _check_sizes(parts)
    return Matrix(parts)


def _rank(path: Path) -> int:
    match = _RANK.search(os.path.basename(os.fspath(path)))
    if not match:
        invalid(f"{os.fspath(path)}: of which rank? Name files of several ranks like softmax_fc_gpu_0.pt")
    return int(match.group(1))


def _check_sizes(parts: Sequence[Tuple[str, Array]]) -> None:
    """PartialFC deals classes out so that the first ranks have one more: else a file is of another training, or the
    last ranks are missing."""
    sizes = [array.shape[0] for _, array in parts]
    total, ranks = sum(sizes), len(sizes)
    for rank, (size, (name, _)) in enumerate(zip(sizes, parts)):
        wanted = total // ranks + (rank < total % ranks)
        if size != wanted:
            invalid(
                f"{name}: {size} classes, where {total} classes on {ranks} ranks make {wanted} on rank {rank}: are all "
                "files of one training, and none missing?"
            )


def _part(path: Path, tensor: str) -> Tuple[str, Array]:
    file = TorchFile(path)
    return file.name, file.map(_find(file, tensor))


def _find(file: TorchFile, tensor: str) -> TensorRef:
    content: Any = file.content
    if isinstance(content, TensorRef):
        return content
    if isinstance(content, collections.abc.Mapping):
        content = content.get("state_dict_softmax_fc", content)
    found = content.get(tensor) if isinstance(content, collections.abc.Mapping) else None
    if not isinstance(found, TensorRef):
        there: List[str] = [str(key) for key in content] if isinstance(content, collections.abc.Mapping) else []
        invalid(f"{file.name}: no tensor {tensor!r} in it; there are: {', '.join(there[:20]) or 'none'}")
    return found
