"""Damaged checkpoints are passed over, with the reason; if there are no others the job fails and keeps its folder."""

import json
import os
import re

import pytest

from harness import FAILED
from resume_case import assert_same_run, files_of, uninterrupted  # noqa: F401 (a fixture)


def flip_a_bit(checkpoint):
    path = sorted(checkpoint.glob("*.safetensors"))[1]
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def truncate(checkpoint):
    path = sorted(checkpoint.glob("*.safetensors"))[0]
    os.truncate(path, path.stat().st_size - 4)


def remove_manifest(checkpoint):
    (checkpoint / "manifest.json").unlink()


def change_checksum(checkpoint):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][0]["checksum"] = "xxh3_128:" + "0" * 32
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def remove_a_file(checkpoint):
    sorted(checkpoint.glob("*.safetensors"))[1].unlink()


def garble_manifest(checkpoint):
    (checkpoint / "manifest.json").write_bytes(b"\x00\xff{" * 100)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (flip_a_bit, r"checksum is xxh3_128:[0-9a-f]{32}, the manifest says xxh3_128:[0-9a-f]{32}"),
        pytest.param(truncate, r"safetensors: truncated", marks=pytest.mark.sanitized),
        (remove_manifest, r"manifest\.json: No such file"),
        (change_checksum, r"the manifest says xxh3_128:0{32}"),
        (remove_a_file, r"safetensors: No such file"),
        (garble_manifest, r"manifest\.json: .*is not a manifest"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_its_reason(tmp_path, uninterrupted, damage, reason):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    newest = case.checkpoints()[-1]
    damage(newest)
    case.run(2, "--resume")
    log = case.log()
    assert "resuming after step 250" in log
    rejected = [line for line in log.splitlines() if "rejected" in line]
    assert len(rejected) == 1 and newest.name in rejected[0], log
    assert re.search(reason, rejected[0]), rejected[0]
    assert_same_run(case, uninterrupted)


def test_two_damaged_checkpoints_are_both_passed_over(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    truncate(case.checkpoints()[-1])
    flip_a_bit(case.checkpoints()[-2])
    case.run(2, "--resume")
    assert "resuming after step 200" in case.log()
    assert case.log().count("rejected") == 2
    assert_same_run(case, uninterrupted)


def test_damaged_checkpoints_alone_are_no_reason_to_start_over(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    for damage, checkpoint in zip((truncate, flip_a_bit, remove_manifest), case.checkpoints()):
        damage(checkpoint)
    before = files_of(case.out)
    result = case.run(2, "--resume", expect=FAILED)
    result.says(
        r"no checkpoint in .*/out/checkpoints is valid",
        r"step-00000200 is not valid: .*truncated",
        r"step-00000250 is not valid: .*checksum",
        r"step-00000300 is not valid: .*manifest\.json",
    )
    assert files_of(case.out) == before
    assert "no checkpoint in" in case.log()
