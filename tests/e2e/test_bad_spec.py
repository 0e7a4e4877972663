"""Specs and command lines that are wrong, or do not fit each other."""

import os

import numpy as np
import pytest

from bad_input import ROWS, assert_refused, case, table  # noqa: F401 (case is a fixture)
from harness import INVALID_USE, Name, merged

HAS_CUDA = os.environ.get("SHARDMAX_HAS_CUDA") == "1"  # The build's; set by CMake.


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
    "no trainers": ({"dataset": None, "live": {"trainers": 0}}, r"train\.live\.trainers is 0: allowed is 1 to 4096"),
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
