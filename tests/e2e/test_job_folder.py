"""The folder of a job is a contract: job.json, metrics.jsonl, log.txt and checkpoints/step-00001000/."""

import json
import os
import re
import subprocess

import numpy as np
import pytest
from safetensors import safe_open

from harness import Checkpoint, Name, assert_same_tensors, make_data, training_case

C, D, B, ROWS = 21, 16, 8, 30
STEPS_PER_EPOCH = 4
METRICS_KEYS = {"step", "epoch", "loss", "lr", "samples_per_second", "support_vector_ratio", "label_cosine"}


def make_case(folder, **train):
    case = training_case(folder, "folder", C, D, B, 10, optimizer={"sgd": {"momentum": 0.9}})
    case.change(**train)
    case.features, case.labels, _ = make_data(3, ROWS, C, D)
    case.save(x=case.features, y=case.labels)
    return case


def top1(weight, features, labels):
    """Share of rows, ignored ones left out, whose nearest class centre is their label."""
    counted = labels >= 0
    cosines = features[counted].astype(np.float64) @ (
        weight.astype(np.float64) / np.linalg.norm(weight.astype(np.float64), axis=1, keepdims=True)
    ).T
    return (cosines.argmax(1) == labels[counted]).mean()


@pytest.mark.sanitized
def test_holds_what_the_contract_names(tmp_path):
    case = make_case(tmp_path / "job", checkpoint={"every_steps": 4, "keep": 2})
    case.run(2)
    assert sorted(path.name for path in case.out.iterdir()) == ["checkpoints", "job.json", "log.txt", "metrics.jsonl"]
    # Of 4, 8 and 10 the two newest.
    left = sorted(folder.name for folder in (case.out / "checkpoints").iterdir())
    assert left == ["step-00000008", "step-00000010"]
    for line in case.metrics():
        assert set(line) == METRICS_KEYS
        assert all(isinstance(line[key], (int, float)) for key in METRICS_KEYS)
        assert line["samples_per_second"] > 0
    assert "2 ranks" in case.log()
    assert re.search(r"step 10: wrote a checkpoint", case.log())


def test_metrics_count_steps_and_epochs(tmp_path):
    case = make_case(tmp_path / "job")
    case.run(1)
    metrics = case.metrics()
    assert [m["step"] for m in metrics] == list(range(1, 11))
    assert [m["epoch"] for m in metrics] == [0] * 4 + [1] * 4 + [2] * 2


def test_job_json_is_the_resolved_spec_and_a_job_itself(tmp_path):
    case = make_case(tmp_path / "job", loss={"preset": Name("SV_ARC_SOFTMAX"), "margin": {"m2": 0}})
    case.run(2)
    resolved = json.loads((case.out / "job.json").read_text())
    loss = resolved["train"]["loss"]
    assert resolved["name"] == "folder"
    assert loss["preset"] == "SV_ARC_SOFTMAX"
    assert loss["margin"] == {"m1": 1, "m2": 0, "m3": 0}
    assert loss["support_vector"] == {"t": 1.2}
    assert (loss["scale"], loss["focal"], loss["hard_mining"]) == (32, {"gamma": 0}, {"keep": 1})
    assert (loss["extension"], loss["warmup_steps"]) == ("MONOTONE", 0)
    assert resolved["train"]["optimizer"] == {
        "sgd": {"momentum": 0.9, "weight_decay": 0, "nesterov": False}, "state": "FLOAT32",
    }
    assert resolved["train"]["schedule"] == {"base_lr": 0.1, "warmup_steps": 0, "constant": {}}
    assert resolved["train"]["checkpoint"] == {"every_steps": 1000, "keep": 3}
    assert resolved["train"]["init"] == {"seed": 1, "stddev": 0.01}
    assert (resolved["train"]["precision"], resolved["train"]["log_every_steps"]) == ("FLOAT32", 1)

    again = case.in_new_folder("again")
    again.job = again.folder / "again.json"
    again.job.write_text((case.out / "job.json").read_text())
    again.run(2, write_job=False)
    assert_same_tensors(again.last_checkpoint(), case.last_checkpoint())
    assert json.loads((again.out / "job.json").read_text()) == resolved


def test_json_means_the_same_job_as_textproto(tmp_path):
    case = make_case(tmp_path / "text", loss={"preset": Name("SV_AM_SOFTMAX")})
    case.run(2)
    same = case.in_new_folder("json")
    same.job = same.folder / "job.json"
    same.run(2)
    assert_same_tensors(same.last_checkpoint(), case.last_checkpoint())


@pytest.mark.parametrize("every, expected", [(3, [3, 4, 6, 8, 9, 10]), (1000, [4, 8, 10])])
def test_log_every_steps_thins_metrics_but_keeps_the_ends_of_epochs(tmp_path, every, expected):
    case = make_case(tmp_path / "job", log_every_steps=every)
    case.run(2)
    assert [m["step"] for m in case.metrics()] == expected


@pytest.mark.sanitized
@pytest.mark.parametrize("ranks", [1, 3])
def test_validation_is_the_top1_of_the_weights_at_that_step(tmp_path, ranks):
    # 20 held-out rows: batches of 8, 8 and 4. A checkpoint at each end of an epoch to compare with.
    case = make_case(
        tmp_path / "job",
        steps=10,
        checkpoint={"every_steps": STEPS_PER_EPOCH, "keep": 10},
        validation={"features": "vx.npy", "labels": "vy.npy"},
        schedule={"base_lr": 0.001},
    )
    features, labels, _ = make_data(3, 20, C, D, spread=0.4)
    features, labels = features.astype(np.float16), labels.astype(np.int32)
    case.save(vx=features, vy=labels)
    case.run(ranks)
    reported = {m["step"]: m["validation_top1"] for m in case.metrics() if "validation_top1" in m}
    assert list(reported) == [4, 8, 10]
    for folder in case.checkpoints():
        checkpoint = Checkpoint(folder)
        assert reported[checkpoint.step] == pytest.approx(top1(checkpoint.weight, features, labels), abs=1e-12)
    assert len(set(reported.values())) > 1, "the weights should have changed some row's nearest class"


def test_a_validation_set_without_labels_has_no_top1_to_be_proud_of(tmp_path):
    case = make_case(tmp_path / "job", validation={"features": "x.npy", "labels": "none.npy"}, steps=4)
    case.save(none=np.full(ROWS, -1, dtype=np.int64))
    case.run(2)
    assert [m.get("validation_top1", 0) for m in case.metrics()] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "optimizer, tensors",
    [
        ({"sgd": {}}, ["weight"]),
        ({"sgd": {"momentum": 0.9}}, ["weight", "momentum"]),
        ({"adamw": {}}, ["weight", "exp_avg", "exp_avg_sq"]),
    ],
)
def test_a_manifest_describes_its_files(tmp_path, optimizer, tensors):
    case = make_case(tmp_path / "job", optimizer=None)
    case.change(optimizer=optimizer)
    case.run(3)
    (folder,) = case.checkpoints()
    assert folder.name == "step-00000010"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert (manifest["step"], manifest["num_classes"], manifest["dim"]) == (10, C, D)
    assert manifest["optimizer"] == next(iter(optimizer))
    assert manifest["tensors"] == tensors
    assert [(f["first_class"], f["num_classes"]) for f in manifest["files"]] == [(0, 7), (7, 7), (14, 7)]
    names = [f["path"] for f in manifest["files"]]
    assert sorted([*names, "manifest.json"]) == sorted(path.name for path in folder.iterdir())
    for file in manifest["files"]:
        assert re.fullmatch(r"xxh3_128:[0-9a-f]{32}", file["checksum"])
        with safe_open(folder / file["path"], framework="numpy") as opened:
            assert sorted(opened.keys()) == sorted(tensors)
            assert opened.get_tensor("weight").shape == (7, D)


def test_ranges_are_balanced_where_ranks_do_not_divide_the_classes(tmp_path):
    case = make_case(tmp_path / "job", num_classes=C + 1)
    case.run(3)
    files = case.last_checkpoint().manifest["files"]
    assert sorted(f["num_classes"] for f in files) == [7, 7, 8]


def test_every_steps_zero_writes_only_the_last(tmp_path):
    case = make_case(tmp_path / "job", checkpoint={"every_steps": 0})
    case.run(2)
    assert [folder.name for folder in case.checkpoints()] == ["step-00000010"]


def test_the_checkpoint_of_the_last_step_is_not_written_twice(tmp_path):
    case = make_case(tmp_path / "job", checkpoint={"every_steps": 5})
    case.run(2)
    assert [folder.name for folder in case.checkpoints()] == ["step-00000005", "step-00000010"]
    assert case.log().count("wrote a checkpoint") == 2


def test_the_output_folder_is_made_with_its_parents(tmp_path):
    case = make_case(tmp_path / "job")
    case.out = tmp_path / "some" / "where" / "deep"
    case.run(1)
    assert case.checkpoints()


def test_runs_without_mpirun_as_a_world_of_one(tmp_path):
    case = make_case(tmp_path / "job")
    case.write_job()
    command = [os.environ["SHARDMAX_WORKER"], f"--job={case.job}", f"--output={case.out}", "--threads=1"]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert case.last_checkpoint().step == 10


@pytest.mark.parametrize("style, expected", [("lines", ["step 1/10", "step 10/10"]), ("bar", ["] step 10/10"])])
def test_progress_is_shown_as_asked_for(tmp_path, style, expected):
    case = make_case(tmp_path / "job")
    shown = case.run(2, f"--progress={style}").text
    assert all(text in shown for text in expected), shown


def test_progress_none_is_quiet(tmp_path):
    case = make_case(tmp_path / "job")
    assert "step 1/10" not in case.run(2, "--progress=none").text


def test_paths_are_looked_for_beside_the_job_file(tmp_path):
    """The launch's current folder is another one."""
    case = make_case(tmp_path / "job")
    (tmp_path / "elsewhere").mkdir()
    case.job = tmp_path / "elsewhere" / "job.textproto"
    for name in ("x.npy", "y.npy"):
        (case.folder / name).rename(tmp_path / "elsewhere" / name)
    case.run(2)
