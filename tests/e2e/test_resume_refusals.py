"""What --resume refuses: another job, fewer steps than are done, a folder that another launch is in."""

import json
import re
import shutil
import signal
import socket

import pytest

from harness import FAILED, INVALID_USE, STOPPED, Case, Name, assert_same_tensors
from resume_case import assert_same_run, files_of, make_case, uninterrupted  # noqa: F401 (a fixture)


def test_a_folder_that_holds_a_job_is_refused_without_resume(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    before = {path: path.read_bytes() for path in case.out.rglob("*") if path.is_file()}
    case.run(2, expect=INVALID_USE).says(r"--output .*/out: .*--resume")
    assert {path: path.read_bytes() for path in case.out.rglob("*") if path.is_file()} == before


CHANGES = {
    "dim": ({"dim": 32}, r"train\.dim was 64, is 32"),
    "num_classes": ({"num_classes": 5000}, r"train\.num_classes was 4001, is 5000"),
    "batch_size": ({"batch_size": 32}, r"train\.batch_size was 64, is 32"),
    "seed": ({"init": {"seed": 9}}, r"train\.init\.seed was 1, is 9"),
    "dataset": ({"dataset": {"labels": "z.npy"}}, r'train\.dataset\.labels was "y\.npy", is "z\.npy"'),
    "loss": ({"loss": {"support_vector": {"t": 1.3}}}, r"train\.loss\.support_vector\.t was 1\.2, is 1\.3"),
    "optimizer": ({"optimizer": {"sgd": None, "adamw": {}}}, r"train\.optimizer was sgd, is adamw"),
    "length of a cosine": ({"steps": 400}, r"train\.steps was 300 steps, is 400: .*train\.schedule\.cosine"),
}


@pytest.mark.parametrize("change, message", list(CHANGES.values()), ids=list(CHANGES))
def test_resuming_another_job_is_refused_and_told_what_to_do(tmp_path, uninterrupted, change, message):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    before = files_of(case.out)
    case.change(**change)
    result = case.run(2, "--resume", expect=INVALID_USE)
    result.says(message, r"out/job\.json", r'new folder .*train\.init\.weights: ".*checkpoints/step-00000300"')
    assert files_of(case.out) == before


def test_all_changes_are_told_at_once(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    case.change(batch_size=32, schedule={"base_lr": 0.2}, precision=Name("BFLOAT16"))
    result = case.run(2, "--resume", expect=INVALID_USE)
    result.says(r"batch_size was 64, is 32\n", r"base_lr was 0\.1, is 0\.2\n", r"precision was FLOAT32, is BFLOAT16\n")


def test_what_does_not_touch_the_steps_already_made_may_change(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    case.spec["name"] = "renamed"
    shutil.rmtree(case.checkpoints()[-1])
    case.change(
        log_every_steps=2, checkpoint={"every_steps": 10, "keep": 2}, validation={"features": "x.npy", "labels": "y.npy"}
    )
    case.run(2, "--resume")
    assert "resuming after step 250" in case.log()
    assert_same_tensors(case.last_checkpoint(), uninterrupted.last_checkpoint())
    assert [path.name for path in case.checkpoints()] == ["step-00000290", "step-00000300"]
    assert json.loads((case.out / "job.json").read_text())["name"] == "renamed"
    assert "validation_top1" in case.metrics()[-1]


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    case = make_case(tmp_path / "job", steps=40, schedule={"cosine": None, "constant": {}})
    case.run(2)
    before = files_of(case.out)
    case.change(steps=30)
    result = case.run(2, "--resume", expect=INVALID_USE)
    result.says(r"40 steps are done, .*step-00000040 .*train\.steps makes 30: ask for as many or more")
    assert files_of(case.out) == before


def test_a_folder_without_job_json_is_compared_by_its_manifest(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    (case.out / "job.json").unlink()
    case.change(optimizer={"sgd": None, "adamw": {}})
    case.run(2, "--resume", expect=INVALID_USE).says(r"no tensor 'exp_avg'.*written with sgd")
    case.change(optimizer={"adamw": None, "sgd": {"momentum": 0.9, "weight_decay": 5e-4}})
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_a_damaged_job_json_is_named(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    (case.out / "job.json").write_text('{"name": "resu')
    case.run(2, "--resume", expect=FAILED).says(r"out/job\.json: ")


@pytest.mark.sanitized
def test_two_launches_do_not_share_a_folder(tmp_path):
    case = make_case(tmp_path / "job", steps=1_000_000, checkpoint={"every_steps": 0})
    with case.launch(2) as running:
        running.wait_for_step(5)
        holder = running.ranks()[0]
        second = Case(case.folder / "second", case.spec)
        second.job, second.out = case.job, case.out
        for flags in ([], ["--resume"]):
            result = second.run(2, *flags, expect=INVALID_USE, write_job=False)
            result.says(rf"--output: .*/out is in use by pid {holder} on {re.escape(socket.gethostname())}, job resume")
        running.signal_rank(0, signal.SIGTERM, at_step=6)
        running.wait(STOPPED)
    assert not (case.out / ".lock").exists()
