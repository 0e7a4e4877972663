"""Bad input ends the job soon, with the exit code of its kind, a message that says what is wrong and where, and no
checkpoint of weights that it would have spoilt."""

import os
import re
import resource
import struct

import numpy as np
import pytest
from safetensors.numpy import save as safetensors_bytes

from harness import (
    FAILED,
    INVALID_USE,
    Case,
    Name,
    assert_same_tensors,
    make_data,
    merged,
)

C, D, B, ROWS = 20, 8, 4, 30

HAS_CUDA = os.environ.get("SHARDMAX_HAS_CUDA") == "1"  # The build's; set by CMake.


def table(rows, names):
    """Parametrises a test by a dict: name of the case -> values."""
    return pytest.mark.parametrize(names, list(rows.values()), ids=list(rows))


def make_case(folder, **train):
    case = Case(
        folder,
        {
            "name": "bad",
            "train": {
                "num_classes": C,
                "dim": D,
                "batch_size": B,
                "steps": 10,
                "dataset": {"features": "x.npy", "labels": "y.npy"},
                "checkpoint": {"every_steps": 0},
            },
        },
    )
    case.change(**train)
    case.features, case.labels, case.weights = make_data(11, ROWS, C, D, ignored=0)
    case.save(x=case.features, y=case.labels)
    return case


@pytest.fixture
def case(tmp_path):
    return make_case(tmp_path / "job")


def assert_refused(case, code, *patterns, ranks=2, flags=(), **launch):
    """The job ends with `code`, says all patterns, also in log.txt if there is one, and left no checkpoint."""
    result = case.run(ranks, *flags, expect=code, **launch)
    result.says(*patterns)
    assert case.checkpoints() == []
    if code == FAILED and (case.out / "log.txt").exists():
        for pattern in patterns:
            assert re.search(pattern, case.log()), f"log.txt does not say {pattern!r}:\n{case.log()}"
    return result


# Data files


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


# Where files may lie


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


# Initial weights


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


# The spec


@pytest.mark.sanitized
def test_all_mistakes_of_a_spec_are_told_at_once(case):
    case.spec = merged(case.spec, {"name": "-bad", "train": {"dim": 0, "dataset": {"labels": None}}})
    case.change(
        loss={"scale": 0, "support_vector": {"t": 0.5}},
        optimizer={"sgd": {"nesterov": True}},
        schedule={"base_lr": 0.1, "cosine": {"end_lr": 0.5}},
        init={"weights": "w.safetensors", "stddev": 1},
    )
    result = assert_refused(
        case,
        INVALID_USE,
        r"job\.textproto",
        r'name is "-bad"',
        r"train\.dim is 0: allowed is 1 to 65536",
        r"train\.dataset\.labels is missing",
        r"train\.loss\.scale is 0",
        r"train\.loss\.support_vector\.t is 0\.5: allowed is 1 to 100",
        r"train\.optimizer\.sgd\.nesterov is true",
        r"train\.schedule\.cosine\.end_lr is 0\.5",
        r"train\.init\.stddev is 1",
    )
    assert result.text.count("train.dim is 0") == 1, "each rank printed it"
    assert not case.out.exists(), "an invalid spec should not begin a job"


SPEC_MISTAKES = {
    "no length": ({"steps": None}, r"train\.steps is missing: allowed is exactly one of train\.steps, train\.epochs"),
    "two lengths": ({"epochs": 2}, r'line \d+, column \d+: .*"(steps|epochs)"'),
    "no classes": ({"num_classes": None}, r"train\.num_classes is missing"),
    "one class": ({"num_classes": 1}, r"train\.num_classes is 1: allowed is 2 to"),
    "batch of 0": ({"batch_size": 0}, r"train\.batch_size is 0: allowed is 1 to 1048576"),
    "live": ({"dataset": None, "live": {"trainers": 2}}, r"train\.live: live jobs are not available"),
    "NaN": ({"loss": {"scale": Name("nan")}}, r"train\.loss\.scale is nan: allowed is greater than 0"),
    "unknown preset": ({"loss": {"preset": Name("MAGIC")}}, r"line \d+, column \d+: .*MAGIC"),
    "unknown field": ({"optimiser": {"sgd": {}}}, r"line \d+, column \d+: .*optimiser"),
    "word for a number": ({"dim": Name("eight")}, r"line \d+, column \d+: .*eight"),
    "number too large": ({"dim": Name("99999999999")}, r"line \d+, column \d+: .*99999999999"),
    "no milestones": ({"schedule": {"step": {}}}, r"train\.schedule\.step\.milestones is missing"),
}


@table(SPEC_MISTAKES, "changes, message")
def test_mistakes_in_a_spec(case, changes, message):
    case.change(**changes)
    assert_refused(case, INVALID_USE, message, ranks=1)


def test_what_only_the_dataset_can_tell(case):
    """30 rows in batches of 4 are 8 steps an epoch."""
    case.change(steps=None, epochs=2**31 - 1)
    message = r"train\.epochs is 2147483647: with 8 steps an epoch that is 17179869176 steps, allowed are at most 2147483647"
    assert_refused(case, INVALID_USE, message)


@pytest.mark.parametrize("suffix", ["textproto", "json"])
@pytest.mark.parametrize(
    "content",
    [bytes(range(256)) * 40, b"\x7fELF\x02\x01\x01\0" * 100, b"", b" \n\t", b"{" * 100000, b"train {" * 50000],
    ids=["all bytes", "binary", "empty", "blank", "braces", "nested"],
)
def test_rubbish_in_the_place_of_a_spec(case, suffix, content):
    case.job = case.folder / f"job.{suffix}"
    case.job.write_bytes(content)
    result = assert_refused(case, INVALID_USE, rf"job\.{suffix}: ", ranks=1, write_job=False)
    assert len(result.text) < 20000 and "\0" not in result.text


def test_a_spec_that_is_too_large(case):
    case.job.write_text("# " + "x" * (1 << 20) + "\n")
    assert_refused(case, INVALID_USE, r"job\.textproto: has .*at most 1048576", ranks=1, write_job=False)


def test_a_json_spec_with_an_unknown_field(case):
    case.job = case.folder / "job.json"
    case.change(dataset={"feature": "x.npy"})
    assert_refused(case, INVALID_USE, r"job\.json: .*train\.dataset\.feature: there is no such field")


def test_a_missing_spec(case):
    result = assert_refused(case, INVALID_USE, r"--job .*/job\.textproto: .*does not exist", write_job=False)
    assert not case.out.exists()
    assert result.seconds < 30


def test_a_folder_in_the_place_of_a_spec(case):
    case.job.mkdir()
    assert_refused(case, INVALID_USE, r"--job .*/job\.textproto: .*not a readable file", write_job=False)


# The launch


@pytest.mark.parametrize("ranks, classes", [(3, 2), (4, 3)])
def test_more_ranks_than_classes(case, ranks, classes):
    case.labels[:] = 0
    case.save(y=case.labels)
    case.change(num_classes=classes)
    assert_refused(case, INVALID_USE, rf"world size {ranks} is larger than num_classes {classes}", ranks=ranks)


def test_as_many_ranks_as_classes_is_fine(case):
    case.labels[:] = np.arange(ROWS) % 3
    case.save(y=case.labels)
    case.change(num_classes=3)
    case.run(3)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--no_such_flag"], r"--no_such_flag"),
        (["--backend=abacus"], r"--backend"),
        (["--threads=0"], r"--threads"),
        (["--timeout_s=0"], r"--timeout_s"),
    ],
)
def test_wrong_usage(case, flags, message):
    result = assert_refused(case, INVALID_USE, message, flags=flags)
    assert not case.out.exists()
    assert "terminate called" not in result.text


def test_all_mistakes_of_a_launch_are_told_at_once(case):
    """The backend that is not built, and more ranks than classes."""
    case.labels[:] = 0
    case.save(y=case.labels)
    case.change(num_classes=2)
    messages = [r"world size 3 is larger than num_classes 2"]
    if not HAS_CUDA:
        messages.append(r"--backend=cuda: this build has no CUDA engine")
    assert_refused(case, INVALID_USE, *messages, ranks=3, flags=["--backend=cuda"])
    assert not case.out.exists()


@pytest.mark.skipif(not HAS_CUDA or os.path.exists("/proc/driver/nvidia"), reason="a build with CUDA, and no driver")
def test_cuda_without_a_driver(case):
    message = r"no usable NVIDIA driver on this machine .*: install one for CUDA \d+\.\d+ or newer, or use --backend=cpu"
    assert_refused(case, INVALID_USE, message, ranks=2, flags=["--backend=cuda"])


# The output folder


def test_an_output_folder_that_cannot_be_made(case):
    (case.folder / "file").write_text("")
    case.out = case.folder / "file" / "out"
    result = case.run(2, expect=FAILED)
    result.says(r"--output .*/file/out: cannot make the folder: Not a directory")


def test_a_link_to_nowhere_in_the_place_of_the_output_folder(case):
    """The system says that it exists: that is no job that could be resumed."""
    case.out.symlink_to(case.folder / "nowhere" / "deep")
    case.run(2, expect=FAILED).says(r"--output .*/out: cannot make the folder: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_without_permission(case):
    case.out.mkdir(mode=0o555)
    case.run(2, expect=FAILED).says(r"--output: cannot write .*: Permission denied")


def test_a_file_in_the_place_of_the_checkpoints_folder(case):
    case.out.mkdir()
    (case.out / "checkpoints").write_text("mine")
    assert_refused(case, FAILED, r"/out/checkpoints: Not a directory", flags=["--resume"])
    assert (case.out / "checkpoints").read_text() == "mine"


LARGE = {"num_classes": 3000, "dim": 64, "steps": 1500, "checkpoint": {"every_steps": 300}}


@pytest.mark.sanitized
@pytest.mark.parametrize("rank", [0, 1])
def test_a_full_disk_fails_the_job_and_keeps_the_previous_checkpoint(tmp_path, rank):
    """A limit on the size of files stands in for the disk: it comes into force while the job runs, on one rank."""
    case = make_case(tmp_path / "job", **LARGE)
    case.save(x=np.random.default_rng(1).standard_normal((ROWS, 64)).astype(np.float32))
    with case.launch(2) as running:
        running.wait_until(lambda: len(case.checkpoints()) == 1, "the first checkpoint")
        # 300 kB: enough for the metrics, not for 1500 x 64 weights.
        resource.prlimit(running.ranks()[rank], resource.RLIMIT_FSIZE, (300_000, 300_000))
        before = case.last_checkpoint()
        result = running.wait(FAILED)
    result.says(rf"rank {rank}: .*/checkpoints/\.tmp-step-\d+/classes-\d+-\d+\.safetensors: File too large")
    assert "File too large" in case.log()
    assert before.step < LARGE["steps"], "the limit came too late to show anything"
    # The newest is whole: a first one, or one that was written between the look and the limit.
    after = case.last_checkpoint()
    assert after.step >= before.step
    left = [path.name for path in (case.out / "checkpoints").iterdir()]
    assert all(name.startswith("step-") for name in left), left
    if after.step == before.step:
        assert_same_tensors(after, before)

    case.run(2, "--resume")
    assert f"resuming after step {after.step}" in case.log()
    assert case.last_checkpoint().step == LARGE["steps"]


def test_metrics_that_cannot_be_written_fail_the_job(tmp_path):
    case = make_case(tmp_path / "job", **LARGE)
    case.save(x=np.random.default_rng(1).standard_normal((ROWS, 64)).astype(np.float32))
    with case.launch(2) as running:
        running.wait_for_step(10)
        resource.prlimit(running.ranks()[0], resource.RLIMIT_FSIZE, (1000, 1000))
        result = running.wait(FAILED)
    result.says(r"metrics\.jsonl: File too large")


def test_bad_weights_in_memory_are_not_written(case):
    """Rates that blow the weights up end the job before they reach a checkpoint."""
    case.save_weights(case.weights)
    case.change(
        init={"weights": "w.safetensors"},
        schedule={"base_lr": 1e6},
        optimizer={"sgd": {"momentum": 0.99, "weight_decay": 1.0}},
        steps=2000,
    )
    case.run(2, expect=FAILED).says(r"step \d+: .*not finite")
    assert case.checkpoints() == []
