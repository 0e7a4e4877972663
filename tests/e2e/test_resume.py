"""A job that is stopped, killed or damaged goes on with --resume as if nothing had happened.

On the same number of ranks: bit for bit. On another number: within rounding.
"""

import json
import os
import re
import shutil
import signal
import socket
import time

import pytest

from harness import (
    FAILED,
    INVALID_USE,
    STOPPED,
    Case,
    Checkpoint,
    Name,
    assert_close,
    assert_same_tensors,
    largest_error,
    make_data,
)

C, D, B, ROWS, STEPS = 4001, 64, 64, 1000, 300


def make_case(folder, **train):
    case = Case(
        folder,
        {
            "name": "resume",
            "train": {
                "num_classes": C,
                "dim": D,
                "batch_size": B,
                "steps": STEPS,
                "dataset": {"features": "x.npy", "labels": "y.npy", "shuffle": True},
                "loss": {"support_vector": {"t": 1.2}, "margin": {"m3": 0.35}, "warmup_steps": 50},
                "optimizer": {"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
                "schedule": {"base_lr": 0.1, "warmup_steps": 20, "cosine": {}},
                "checkpoint": {"every_steps": 50, "keep": 3},
            },
        },
    )
    case.change(**train)
    features, labels, _ = make_data(5, ROWS, C, D)
    case.save(x=features, y=labels)
    return case


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The job on 2 ranks, run in one go. Tests leave it as it is."""
    case = make_case(tmp_path_factory.mktemp("uninterrupted") / "job")
    case.run(2)
    return case


def losses(case):
    return {m["step"]: m["loss"] for m in case.metrics()}


def assert_same_run(case, expected):
    """Every step once, with the same loss to the last bit, and the same state at the end."""
    assert [m["step"] for m in case.metrics()] == list(range(1, STEPS + 1))
    assert losses(case) == losses(expected)
    assert [m["lr"] for m in case.metrics()] == [m["lr"] for m in expected.metrics()]
    assert_same_tensors(case.last_checkpoint(), expected.last_checkpoint())


@pytest.mark.sanitized
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_one_rank_stops_all_with_a_checkpoint_and_resume_goes_on(tmp_path, uninterrupted, number):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    with case.launch(2) as running:
        running.signal_rank(1, number, at_step=60)
        running.wait(STOPPED)
    at = case.metrics()[-1]["step"]
    assert 60 <= at < STEPS, "the signal came too late to show anything"
    assert case.last_checkpoint().step == at
    assert "--resume" in case.log()

    case.run(2, "--resume")
    assert f"resuming after step {at}" in case.log()
    assert_same_run(case, uninterrupted)


def test_a_signal_to_mpirun_stops_with_a_checkpoint(tmp_path):
    """Open MPI waits for the grace before it passes SIGTERM on, and as long again before it ends ranks for good."""
    case = make_case(tmp_path / "job", steps=1_000_000, checkpoint={"every_steps": 0})
    with case.launch(2, grace_s=4) as running:
        running.wait_for_step(20)
        running.process.send_signal(signal.SIGTERM)
        assert running.wait().code != 0  # mpirun's own code, whatever the ranks return.
        assert running.ranks() == {}
    assert "stopped on request" in case.log()
    assert case.last_checkpoint().step == case.metrics()[-1]["step"] < 1_000_000


def test_stopping_twice_still_repeats_the_run(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    for step, flags in [(30, []), (120, ["--resume"])]:
        with case.launch(2, *flags) as running:
            running.signal_rank(0, signal.SIGTERM, at_step=step)
            running.wait(STOPPED)
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_resume_on_other_numbers_of_ranks(tmp_path, uninterrupted):
    """1 -> 3 -> 2 ranks: equal within rounding, which 300 steps of momentum carry on and on."""
    case = uninterrupted.in_new_folder(tmp_path / "job")
    for ranks, step, flags in [(1, 40, []), (3, 110, ["--resume"])]:
        with case.launch(ranks, *flags) as running:
            running.signal_rank(ranks - 1, signal.SIGTERM, at_step=step)
            running.wait(STOPPED)
        assert len(case.last_checkpoint().manifest["files"]) == ranks
    case.run(2, "--resume")
    assert [m["step"] for m in case.metrics()] == list(range(1, STEPS + 1))
    assert case.metrics()[-1]["loss"] == pytest.approx(uninterrupted.metrics()[-1]["loss"], rel=1e-4)
    actual, expected = case.last_checkpoint(), uninterrupted.last_checkpoint()
    for name, tensor in expected.tensors.items():
        assert_close(actual.tensors[name], tensor, 1e-4, name)


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


def test_the_rest_of_an_interrupted_write_is_no_checkpoint(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    newest = case.checkpoints()[-1]
    newest.rename(newest.parent / f".tmp-{newest.name}")
    case.run(2, "--resume")
    assert "resuming after step 250" in case.log()
    assert_same_run(case, uninterrupted)
    assert sorted(path.name for path in newest.parent.iterdir()) == [f"step-{s:08}" for s in (200, 250, 300)]


@pytest.mark.sanitized
def test_a_rank_that_is_killed_ends_the_launch_and_resume_repeats_the_run(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    with case.launch(2) as running:
        running.signal_rank(1, signal.SIGKILL, at_step=110)
        killed = time.monotonic()
        result = running.wait()
        assert result.code != 0
        assert time.monotonic() - killed < 30
        assert running.ranks() == {}
    # As if the newest had been half written when it happened.
    (case.out / "checkpoints" / ".tmp-step-00000150").mkdir(exist_ok=True)

    at = case.last_checkpoint().step
    case.run(2, "--resume")
    assert f"resuming after step {at}" in case.log()
    assert_same_run(case, uninterrupted)


def test_a_rank_that_hangs_is_named_when_the_deadline_passes(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    with case.launch(3, "--timeout_s=2") as running:
        running.signal_rank(2, signal.SIGSTOP, at_step=5)
        stopped = time.monotonic()
        result = running.wait()
        assert result.code == FAILED
        assert time.monotonic() - stopped < 30
        assert running.ranks() == {}
    result.says(r"rank 2")
    assert "rank 2" in case.log()


def test_resuming_a_finished_job_changes_nothing(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    before = case.metrics()
    case.run(2, "--resume")
    assert case.metrics() == before
    assert_same_run(case, uninterrupted)


def test_resume_without_a_checkpoint_starts_from_the_first_step(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    shutil.rmtree(case.out / "checkpoints")
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_resume_in_a_new_folder_starts_the_job(tmp_path, uninterrupted):
    """So that a launcher can always pass --resume."""
    case = uninterrupted.in_new_folder(tmp_path / "job")
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_half_a_line_of_metrics_is_written_anew(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job", copy_out=True)
    shutil.rmtree(case.checkpoints()[-1])
    metrics = (case.out / "metrics.jsonl").read_text()
    (case.out / "metrics.jsonl").write_text(metrics[:-40])
    case.run(2, "--resume")
    assert_same_run(case, uninterrupted)


def test_a_job_that_failed_before_its_first_step_needs_no_resume(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    data = (case.folder / "x.npy").read_bytes()
    (case.folder / "x.npy").write_bytes(data[:-4])
    case.run(2, expect=FAILED)
    (case.folder / "x.npy").write_bytes(data)
    case.run(2)
    assert_same_run(case, uninterrupted)


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


def files_of(folder):
    """Every file of a job's folder but its log: path -> bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


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


def test_initial_weights_are_not_needed_any_more(tmp_path):
    """The checkpoint has the weights."""
    case = make_case(tmp_path / "job", steps=40, init={"weights": "w.safetensors"})
    case.save_weights(make_data(5, ROWS, C, D)[2])
    with case.launch(2) as running:
        running.signal_rank(0, signal.SIGTERM, at_step=10)
        running.wait(STOPPED)
    (case.folder / "w.safetensors").unlink()
    case.run(2, "--resume")
    assert case.last_checkpoint().step == 40


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


def test_more_steps_train_on_from_the_last_checkpoint(tmp_path):
    """A job with a constant rate may be prolonged: the result is that of the longer job."""
    short = make_case(tmp_path / "short", steps=40, schedule={"warmup_steps": 0, "cosine": None, "constant": {}})
    longer = short.in_new_folder("longer")
    longer.change(steps=60)
    longer.run(2)
    short.run(2)
    short.change(steps=60)
    short.run(2, "--resume")
    assert short.last_checkpoint().step == 60
    assert_same_tensors(short.last_checkpoint(), longer.last_checkpoint())
    assert losses(short) == losses(longer)


def test_adamw_state_survives(tmp_path):
    """Its bias correction depends on the step count, its moments on all steps before."""
    adamw = {"sgd": None, "adamw": {"weight_decay": 0.1}}
    whole = make_case(tmp_path / "whole", steps=40, optimizer=adamw, checkpoint={"every_steps": 20})
    whole.change(schedule={"base_lr": 0.001})
    whole.run(2)
    again = whole.in_new_folder("again", copy_out=True)
    shutil.rmtree(again.checkpoints()[-1])
    again.run(2, "--resume")
    assert_same_tensors(again.last_checkpoint(), whole.last_checkpoint())


def test_the_same_run_twice_is_the_same_bit_for_bit(tmp_path, uninterrupted):
    case = uninterrupted.in_new_folder(tmp_path / "job")
    case.run(2)
    assert_same_run(case, uninterrupted)


def test_guard_the_tests_above_from_a_job_that_does_not_learn(uninterrupted):
    first, last = uninterrupted.metrics()[0], uninterrupted.metrics()[-1]
    assert last["loss"] < first["loss"]
    early = Checkpoint(uninterrupted.checkpoints()[0])
    error, _ = largest_error(uninterrupted.last_checkpoint().weight, early.weight)
    assert error > 1e-3
