"""Class weights [C, D] in and out of shardmax, without torch and without a second copy in memory.

Read: the files of insightface's PartialFC (any number of ranks), other files of torch.save, .npy, safetensors, and a
checkpoint folder of shardmax. Written: safetensors, which `init.weights` of a job takes, .npy, and files for
torch.load.

    python -m shardmax.weights softmax_fc_gpu_*.pt --output=w.safetensors
"""

from __future__ import annotations

import json
import os
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np

from shardmax._channel import Path
from shardmax.errors import DataLossError, NotFoundError, invalid
from shardmax.weights._matrix import Array, Matrix
from shardmax.weights._partial_fc import open_torch_files
from shardmax.weights._safetensors import map_tensor
from shardmax.weights._writers import format_of, write

__all__ = ["convert", "open_weights"]


def convert(
    sources: Union[Path, Sequence[Path]],
    target: Path,
    *,
    format: str = "",
    tensor: str = "weight",
    num_classes: Optional[int] = None,
) -> Tuple[int, int]:
    """Writes the weights of `sources` to `target` in `format` ("safetensors", "npy" or "torch"; by default what the
    ending of the file says). Returns (C, D). Give `num_classes` to have C checked: where the files of the last ranks
    are missing, those of the others may look complete."""
    kind = format_of(target, format)
    matrix = open_weights(sources, tensor=tensor)
    if num_classes is not None and matrix.shape[0] != num_classes:
        invalid(f"{matrix.shape[0]} classes in all, not {num_classes}: are the files of all ranks there?")
    write(target, kind, matrix.shape, matrix.blocks())
    return matrix.shape


def open_weights(sources: Union[Path, Sequence[Path]], *, tensor: str = "weight") -> Matrix:
    """One file or checkpoint folder, or the files of all ranks of PartialFC. `tensor` is its name in a state dict or a
    safetensors file."""
    paths: List[Path] = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if not paths:
        invalid("no files of weights: give at least one")
    for path in paths:
        if not os.path.exists(path):
            raise NotFoundError(f"{os.fspath(path)}: no such file")
    kinds = {os.path.splitext(os.fspath(path))[1] for path in paths}
    if kinds <= {".pt", ".pth"}:
        return open_torch_files(paths, tensor)
    if len(paths) > 1:
        invalid("of several files only those of the ranks of PartialFC (.pt) can be put together")
    return Matrix(_open_one(paths[0], tensor))


def _open_one(path: Path, tensor: str) -> List[Tuple[str, Array]]:
    name = os.fspath(path)
    if os.path.isdir(path):
        return _open_checkpoint(name, tensor)
    if name.endswith(".safetensors"):
        return [(name, map_tensor(path, tensor))]
    if not name.endswith(".npy"):
        invalid(f"{name}: not a name of weights: .pt, .pth, .npy, .safetensors, or a checkpoint folder")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataLossError(f"{name}: not a .npy file, or a damaged one: {error}") from None
    if array.dtype == np.uint16:
        invalid(f"{name}: weights of type {array.dtype}: give float64, float32 or float16")
    return [(name, array)]


def _open_checkpoint(folder: str, tensor: str) -> List[Tuple[str, Array]]:
    try:
        with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        # A plain file name: never outside of the folder.
        files = [os.path.join(folder, os.path.basename(entry["path"])) for entry in manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataLossError(f"{folder}: not a checkpoint of shardmax: manifest.json: {error}") from None
    return [(file, map_tensor(file, tensor)) for file in files]
