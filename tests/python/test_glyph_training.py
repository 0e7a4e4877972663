"""The glyph example end to end: a small CNN and its head learn drawn characters, and know unseen ones apart."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch

import shardmax
from glyph_case import HELD_OUT_FACES, write_glyphs

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "client" / "python" / "examples"
TRAINED, UNSEEN, FACES, EPOCHS, BATCH = 60, 30, 8, 8, 32
STEPS = EPOCHS * (TRAINED * FACES // BATCH)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_glyphs(tmp_path_factory.mktemp("glyphs") / "images")


def run(script, *options, code=0):
    command = [sys.executable, str(EXAMPLES / script), *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, timeout=300
    )
    assert result.returncode == code, result.stdout
    return result.stdout


def train(images, output, *options, code=0):
    shape = [f"--characters={TRAINED}", f"--unseen={UNSEEN}", f"--faces={FACES}", f"--epochs={EPOCHS}"]
    small = ["--width=8", "--dim=32", f"--batch={BATCH}", "--scale=16", "--lr=0.2", "--head-lr=0.1", "--loss-warmup=0.8"]
    paths = [f"--images={images}", f"--output={output}"]
    return run("glyphs/train_backbone.py", *paths, *shape, *small, *options, code=code)


def steps_of(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_unseen_characters_are_told_apart_far_better_than_by_chance(images, tmp_path):
    output = tmp_path / "run"
    printed = train(images, output)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["verification_accuracy"] > 0.8, printed
    assert summary["rank_1"] > 0.5
    assert summary["held_out_top1"] > 0.7
    assert f"verification accuracy {summary['verification_accuracy']:.2%}" in printed
    assert set(summary["tpr_at_fpr"]) == {"1e-03"}, "3 915 impostor pairs resolve no smaller rate"
    assert (summary["train_images"], summary["unseen_images"]) == (TRAINED * FACES, UNSEEN * HELD_OUT_FACES)

    steps = steps_of(output)
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert np.sum(["unseen_accuracy" in line for line in steps]) == EPOCHS
    assert np.mean([line["label_cosine"] for line in steps[-10:]]) > 0.4
    assert all(0 <= line["support_vector_ratio"] <= 1 for line in steps)
    for protocol in ("verification", "identification", "all_pairs"):
        assert json.loads((output / protocol / "result.json").read_text())["protocol"] == protocol
    assert np.load(output / "class_weights.npy").shape == (TRAINED, 32)
    assert np.load(output / "unseen_embeddings.npy").shape == (UNSEEN * HELD_OUT_FACES, 32)
    assert torch.load(output / "backbone.pt")["layers.0.weight"].shape == (8, 1, 5, 5)

    run("glyphs/confusions.py", output, f"--images={images}")
    assert "pairs judged rightly" in run("plot_job.py", output)
    run("plot_evaluation.py", output / "identification", f"--output={output / 'roc.png'}")
    for picture in ("confusions.png", "plot.png", "roc.png"):
        assert (output / picture).read_bytes().startswith(b"\x89PNG")


def test_emphasis_that_ends_early_goes_on_as_a_second_job_of_a_given_server(images, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    with shardmax.local(ranks=2, threads=1, data_root=output) as cluster:
        options = ["--t-until=0.5", "--loss-warmup=0.25", "--epochs=4", "--label-noise=0.05", "--quiet"]
        train(images, output, f"--server={cluster.address}", *options)
        jobs = [job for job in cluster.client.list() if job.name == "glyph-head"]
        first, second = sorted(jobs, key=lambda job: int(job.id.rpartition("-")[2]))
        emphasis = [cluster.client.get(job.id).spec.train.loss.support_vector.t for job in (first, second)]
    assert emphasis == [1.2, 1.0]
    assert [first.total_steps, second.total_steps] == [30, 30]
    steps = steps_of(output)
    assert [line["step"] for line in steps] == list(range(1, 61))
    # A head that began anew would not know the features.
    assert steps[30]["label_cosine"] > 0.5 * steps[29]["label_cosine"] > 0.05


def test_what_cannot_be_trained_is_said(images, tmp_path):
    assert "has 90 characters: too few to train on 61 and keep 30" in train(
        images, tmp_path / "run", "--characters=61", code=1
    )
    assert "t_until is 0.1, and must be between loss_warmup" in train(images, tmp_path / "run", "--t-until=0.1", code=1)
