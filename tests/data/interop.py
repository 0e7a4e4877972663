"""Python's safetensors opens what shardmax writes; shardmax opens what numpy writes.

Usage: interop.py INTEROP_SAMPLE
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file


def run(*arguments):
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.strip()


def check_safetensors(sample, folder):
    path = folder / "sample.safetensors"
    checksum = run(sample, "write", path)
    assert checksum.startswith("xxh3_128:") and len(checksum) == 41, checksum
    expected = 0.25 * np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = load_file(path)
    assert sorted(tensors) == ["momentum", "weight"], tensors
    np.testing.assert_array_equal(tensors["weight"], expected[0])
    np.testing.assert_array_equal(tensors["momentum"], expected[1])
    with safe_open(path, framework="numpy") as file:
        np.testing.assert_array_equal(file.get_slice("weight")[1:3], expected[0, 1:3])


def check_npy(sample, folder):
    arrays = [
        np.ones((3, 4), np.float32),
        np.ones((3, 1), np.float16),
        np.arange(5, dtype=np.int32),
        np.full(1000, -1, np.int64),
    ]
    for array in arrays:
        for version in [(1, 0), (2, 0), (3, 0)]:
            path = folder / "x.npy"
            with open(path, "wb") as file:
                np.lib.format.write_array(file, array, version)
            columns = array.shape[1] if array.ndim == 2 else 1
            expected = f"{array.dtype} {array.ndim} {array.shape[0]} {columns} {array.tobytes()[-1]}"
            assert run(sample, "npy", path) == expected, (array.dtype, version)


def main():
    sample = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        check_safetensors(sample, Path(folder))
        check_npy(sample, Path(folder))


if __name__ == "__main__":
    main()
