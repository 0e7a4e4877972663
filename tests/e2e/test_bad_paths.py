"""Files out of bounds, and initial weights that do not fit."""

import re
import struct

import numpy as np
import pytest
from safetensors.numpy import save as safetensors_bytes

from bad_input import C, assert_refused, case, make_case, table  # noqa: F401 (case is a fixture)
from harness import FAILED


@pytest.mark.sanitized
def test_paths_outside_the_data_root(case):
    root = case.folder / "root"
    root.mkdir()
    (case.folder / "y.npy").rename(root / "y.npy")
    case.change(dataset={"features": "../x.npy"})
    message = r"train\.dataset\.features: \.\./x\.npy is outside the data roots \(.*/root\)"
    assert_refused(case, FAILED, message, flags=[f"--data_root={root}"])


def test_absolute_paths_and_links_out_of_the_data_root(tmp_path):
    def refused(name, features):
        case = make_case(tmp_path / name)
        root = case.folder / "root"
        root.mkdir()
        (root / "link.npy").symlink_to(case.folder / "x.npy")
        (root / "linked").symlink_to(case.folder)
        case.change(dataset={"features": features.format(folder=case.folder), "labels": "y.npy"})
        case.save()
        (case.folder / "y.npy").rename(root / "y.npy")
        message = r"train\.dataset\.features: .* is outside the data roots"
        assert_refused(case, FAILED, message, flags=[f"--data_root={root}"])

    refused("absolute", "{folder}/x.npy")
    refused("link", "link.npy")
    refused("link-in-path", "linked/x.npy")


def test_initial_weights_outside_the_data_root(case):
    root = case.folder / "root"
    root.mkdir()
    for name in ("x.npy", "y.npy"):
        (case.folder / name).rename(root / name)
    case.save_weights(case.weights)
    case.change(init={"weights": "../w.safetensors"})
    message = r"train\.init\.weights: \.\./w\.safetensors is outside the data roots"
    assert_refused(case, FAILED, message, flags=[f"--data_root={root}"])


def test_several_data_roots_and_a_root_that_is_none(case):
    for root, name in (("a", "x.npy"), ("b", "y.npy")):
        (case.folder / root).mkdir()
        (case.folder / name).rename(case.folder / root / name)
    case.run(2, f"--data_root={case.folder / 'a'}", f"--data_root={case.folder / 'b'}")
    other = case.in_new_folder("other")
    flags = [f"--data_root={case.folder / 'nowhere'}"]
    assert_refused(other, FAILED, r"data root .*/nowhere: No such file", flags=flags)


def save(**tensors):
    return safetensors_bytes({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})


BAD_WEIGHTS = {
    "too narrow": (lambda w: save(weight=w[:, :4]), r'tensor "weight" is F32 \[20, 4\], F32 \[20, 8\] is needed'),
    "too few": (lambda w: save(weight=w[:19]), r'tensor "weight" is F32 \[19, 8\], F32 \[20, 8\] is needed'),
    "float64": (lambda w: save(weight=w.astype(np.float64)), r'tensor "weight" is F64 \[20, 8\], F32 \[20, 8\]'),
    "another name": (lambda w: save(weights=w), r'has no tensor "weight", F32 \[20, 8\] is needed'),
    "truncated": (lambda w: save(weight=w)[:-1], r'truncated: tensor "weight" needs 640 bytes of data'),
    "cut in the header": (lambda w: save(weight=w)[:20], r"truncated or not .*: the header claims \d+ bytes, the file"),
    "header of 2^60": (lambda w: struct.pack("<Q", 2**60) + b"{}", r".*claims 1152921504606846976 bytes, the file"),
    "header of 2^64 - 1": (lambda w: b"\xff" * 8 + b"{}", r".*claims 18446744073709551615 bytes, the file has 2"),
    "empty": (lambda w: b"", r"is 0 bytes long, too short"),
    "no JSON": (lambda w: struct.pack("<Q", 9) + b'{"weight"', r"header is not JSON"),
    "NaN": (lambda w: save(weight=np.full_like(w, np.nan)), r"weight of class 0: column 0 is nan"),
    "length zero": (lambda w: save(weight=w * (np.arange(C) != 13)[:, None]), r"weight of class 13: has length zero"),
}


@table(BAD_WEIGHTS, "make, message")
def test_initial_weights_that_do_not_fit(case, make, message):
    (case.folder / "w.safetensors").write_bytes(make(case.weights))
    case.change(init={"weights": "w.safetensors"})
    assert_refused(case, FAILED, r"/w\.safetensors: " + message)


def test_missing_initial_weights(case):
    case.change(init={"weights": "w.safetensors"})
    assert_refused(case, FAILED, r"train\.init\.weights: w\.safetensors: no such file")


def test_initial_weights_from_a_damaged_checkpoint(tmp_path):
    first = make_case(tmp_path / "first")
    first.run(2)
    folder = first.checkpoints()[-1]
    file = sorted(folder.glob("*.safetensors"))[1]
    data = bytearray(file.read_bytes())
    data[-9] ^= 64
    file.write_bytes(data)
    second = make_case(tmp_path / "second", init={"weights": str(folder)})
    assert_refused(second, FAILED, re.escape(file.name) + r": checksum is .*: the file is damaged")
