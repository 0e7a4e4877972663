"""Data files and initial weights that are wrong, hostile or out of bounds."""

import os
import struct

import numpy as np
import pytest

from bad_input import ROWS, C, D, assert_refused, case, make_case, table  # noqa: F401 (case is a fixture)
from harness import FAILED


def test_the_job_that_the_others_spoil_is_good(case):
    case.run(2)


FEATURES_OF_THE_WRONG_KIND = {
    "float64": (np.ones((ROWS, D), np.float64), r'dtype "<f8" is not supported'),
    "int32": (np.ones((ROWS, D), np.int32), r"dtype is int32, float32 or float16 is needed"),
    "big-endian": (np.ones((ROWS, D), ">f4"), r'dtype ">f4" is big-endian'),
    "Fortran order": (np.ones((D, ROWS), np.float32).T, r"is in Fortran order"),
    "too wide": (np.ones((ROWS, D + 1), np.float32), r"has shape \[30, 9\], \[n, 8\] is needed"),
    "flat": (np.ones(ROWS * D, np.float32), r"has shape \[240\], \[n, 8\] is needed"),
    "three dimensions": (np.ones((ROWS, D, 1), np.float32), r"has 3 dimensions"),
    "no rows": (np.ones((0, D), np.float32), r"has no rows"),
    "pickled objects": (np.array([{}], dtype=object), r'dtype "\|O" is not supported'),
}

LABELS_OF_THE_WRONG_KIND = {
    "float32": (np.zeros(ROWS, np.float32), r"dtype is float32, int32 or int64 is needed"),
    "uint8": (np.zeros(ROWS, np.uint8), r'dtype "\|u1" is not supported'),
    "two columns": (np.zeros((ROWS, 2), np.int64), r"has shape \[30, 2\], \[30\] is needed"),
    "too few": (np.zeros(ROWS - 1, np.int64), r"has 29 rows, the features .*x\.npy have 30"),
    "C": (np.array([0] * 29 + [C]), r"row 29: label 20 is neither -1 nor in \[0, 20\)"),
    "-2": (np.array([0] * 17 + [-2] + [0] * 12), r"row 17: label -2 is neither -1"),
    "2^40": (np.array([2**40] + [0] * 29), r"row 0: label 1099511627776 is neither -1"),
}


@table(FEATURES_OF_THE_WRONG_KIND, "array, message")
def test_features_of_the_wrong_kind(case, array, message):
    case.save(x=array)
    assert_refused(case, FAILED, r"train\.dataset\.features: .*/x\.npy: " + message)


@table(LABELS_OF_THE_WRONG_KIND, "array, message")
def test_labels_of_the_wrong_kind(case, array, message):
    case.save(y=array)
    assert_refused(case, FAILED, r"train\.dataset\.labels: .*/y\.npy: " + message)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_found_while_reading(case, value):
    # Row 22 is read in the sixth step; rank 1 reads rows 22 and 23 of it.
    case.features[22, 5] = value
    case.save(x=case.features)
    assert_refused(case, FAILED, r"step 6: .*train\.dataset\.features: .*x\.npy: row 22: column 5 is -?(nan|inf)")
    assert [m["step"] for m in case.metrics()] == [1, 2, 3, 4, 5]


@pytest.mark.sanitized
@pytest.mark.parametrize("row", [0, 29])
def test_a_feature_of_length_zero_names_its_row(case, row):
    case.features[row] = 0
    case.save(x=case.features)
    assert_refused(case, FAILED, rf"train\.dataset\.features: .*x\.npy: row {row}: has length zero")


def test_the_row_is_named_however_long_the_path_is(tmp_path):
    case = make_case(tmp_path / "/".join(["a-folder-with-a-long-name-of-64-characters-" + "x" * 20] * 8))
    case.features[3] = np.nan
    case.save(x=case.features)
    assert_refused(case, FAILED, r"row 3: column 0 is nan")


def test_ignored_rows_may_hold_anything(case):
    case.labels[[2, 7]] = -1
    case.features[2], case.features[7] = np.nan, 0
    case.save(x=case.features, y=case.labels)
    case.run(2)
    assert np.isfinite(case.last_checkpoint().weight).all()


def npy(header, data=b"", version=b"\x01\x00", length=None):
    text = header.encode()
    size = len(text) if length is None else length
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", size) + text + data


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"


HOSTILE_NPY = {
    "empty": (b"", r"is not an \.npy file"),
    "cut in the magic": (b"\x93NUM", r"is not an \.npy file"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, r"is not an \.npy file"),
    "truncated data": (npy(HEADER % "30, 8", b"\0" * 100), r"truncated: needs 960 bytes of data, has 100"),
    "data after the data": (npy(HEADER % "30, 8", b"\0" * 964), r"has 4 bytes after the 960 bytes of data"),
    "long header": (npy(HEADER % "30, 8", length=65000), r"truncated: the header claims 65000 bytes"),
    "huge header": (
        npy(HEADER % "30, 8", version=b"\x02\x00", length=2**32 - 1),
        r"truncated: the header claims 4294967295 bytes",
    ),
    "2^60 rows": (npy(HEADER % f"{2**60}, 8"), r"shape \[1152921504606846976, 8\] of float32 is larger than any file"),
    "10^20 rows": (npy(HEADER % f"{10**20}, 8"), r"a dimension of 'shape' is larger than 2\^63 - 1"),
    "negative rows": (npy(HEADER % "-30, 8"), r"header is not the dict that numpy writes: expected a dimension"),
    "missing key": (npy("{'descr': '<f4', 'shape': (30, 8)}\n"), r"header has no key 'fortran_order'"),
    "code": (npy("__import__('os').system('true')\n"), r"header is not the dict that numpy writes"),
    "nested": (npy("{" * 60000), r"header is not the dict that numpy writes"),
    "version 9": (npy(HEADER % "30, 8", version=b"\x09\x00"), r"is \.npy version 9\.0"),
}


@table(HOSTILE_NPY, "content, message")
def test_hostile_npy_files(case, content, message):
    (case.folder / "x.npy").write_bytes(content)
    assert_refused(case, FAILED, r"train\.dataset\.features: .*/x\.npy: " + message, ranks=1)


@pytest.mark.parametrize("field", ["features", "labels"])
def test_a_missing_file_is_named_with_its_field(case, field):
    case.change(dataset={field: "nowhere.npy"})
    assert_refused(case, FAILED, rf"train\.dataset\.{field}: nowhere\.npy: no such file")


def test_a_folder_in_the_place_of_a_file(case):
    (case.folder / "x.npy").unlink()
    (case.folder / "x.npy").mkdir()
    assert_refused(case, FAILED, r"train\.dataset\.features: .*x\.npy: is a folder")


def test_a_pipe_in_the_place_of_a_file_does_not_hang(case):
    (case.folder / "x.npy").unlink()
    os.mkfifo(case.folder / "x.npy")
    assert_refused(case, FAILED, r"train\.dataset\.features: .*x\.npy: is not a regular file")


def test_bad_validation_data_is_found_before_training(case):
    case.change(validation={"features": "vx.npy", "labels": "vy.npy"})
    case.save(vx=case.features, vy=case.labels + 1)
    assert_refused(case, FAILED, r"train\.validation\.labels: .*vy\.npy: row \d+: label 20 is neither -1")
    assert case.metrics() == []


def test_files_that_only_one_rank_finds_wrong_fail_all(tmp_path):
    """Rows are shared out: of 4 rows rank 2 of 3 reads one only. The others must not wait for it."""
    case = make_case(tmp_path / "job")
    case.features[3] = np.nan
    case.save(x=case.features)
    result = assert_refused(case, FAILED, r"rank 2: .*row 3: column 0 is nan", ranks=3)
    assert result.seconds < 45


