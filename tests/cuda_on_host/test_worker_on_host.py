"""The worker itself, under mpirun, with the stand-in for its GPUs: whole jobs, and what it says where one cannot run.

SHARDMAX_WORKER names shardmax-worker-on-host. CUDA_ON_HOST in the environment says which machine it sees.
"""

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from harness import FAILED, INVALID_USE, Case, Name, assert_close  # noqa: E402

C, D, SHOTS, HELD_OUT = 100, 32, 10, 4


def machine(monkeypatch, **settings):
    settings.setdefault("l2", 60000)
    monkeypatch.setenv("CUDA_ON_HOST", ",".join(f"{name}={value}" for name, value in settings.items()))


def rows(rng, centres, shots):
    labels = np.repeat(np.arange(len(centres)), shots)
    features = centres[labels] + 0.11 * rng.standard_normal((len(labels), centres.shape[1]))
    return features.astype(np.float32), labels.astype(np.int64)


def make_case(folder, **train):
    """Classes like glyphs: a centre each, and renderings around it that overlap a little with other classes."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((C, D)) / np.sqrt(D)
    case = Case(
        folder,
        {
            "name": "glyph-like",
            "train": {
                "num_classes": C,
                "dim": D,
                "batch_size": 99,
                "epochs": 4,
                "dataset": {"features": "x.npy", "labels": "y.npy"},
                "validation": {"features": "vx.npy", "labels": "vy.npy"},
                "loss": {"preset": Name("SV_AM_SOFTMAX"), "scale": 32},
                "optimizer": {"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
                "schedule": {"base_lr": 0.003, "cosine": {}},
                "init": {"seed": 1},
            },
        },
    )
    case.change(**train)
    x, y = rows(rng, centres, SHOTS)
    vx, vy = rows(rng, centres, HELD_OUT)
    case.save(x=x, y=y, vx=vx, vy=vy)
    return case


def accuracy(case):
    return case.metrics()[-1]["validation_top1"]


@pytest.mark.parametrize("precision", ["FLOAT32", "BFLOAT16"])
def test_a_job_ends_with_the_accuracy_of_the_cpu_engine(tmp_path, monkeypatch, precision):
    machine(monkeypatch, timing="sometimes", seed=3)
    cpu = make_case(tmp_path / "cpu", precision=Name(precision))
    cuda = make_case(tmp_path / "cuda", precision=Name(precision))
    cpu.run(2, "--backend=cpu")
    cuda.run(2, "--backend=cuda")
    assert "cuda engine, host stand-in" in cuda.log() and "cpu engine" in cpu.log()
    assert accuracy(cpu) > 0.8, "the job learns"
    if precision == "FLOAT32":
        assert accuracy(cuda) == accuracy(cpu)
        assert_close(cuda.last_checkpoint().weight, cpu.last_checkpoint().weight, 1e-3, "weights after 44 steps")
    else:
        assert accuracy(cuda) == pytest.approx(accuracy(cpu), abs=0.01)


def test_a_checkpoint_of_the_cuda_engine_goes_on_with_the_cpu_engine(tmp_path, monkeypatch):
    machine(monkeypatch)
    constant = {"base_lr": 0.003, "cosine": None, "constant": {}}
    whole = make_case(tmp_path / "whole", steps=12, epochs=None, schedule=constant)
    whole.run(3, "--backend=cuda")
    parts = make_case(tmp_path / "parts", steps=6, epochs=None, schedule=constant)
    parts.run(2, "--backend=cuda")
    parts.change(steps=12)
    parts.run(3, "--backend=cpu", "--resume")
    for name, tensor in whole.last_checkpoint().tensors.items():
        assert_close(parts.last_checkpoint().tensors[name], tensor, 1e-4, name)


def test_cuda_without_a_driver_says_so(tmp_path, monkeypatch):
    machine(monkeypatch, driver=0)
    case = make_case(tmp_path / "job")
    case.run(2, "--backend=cuda", expect=INVALID_USE).says(
        r"shardmax-worker: rank 0: no usable NVIDIA driver on this machine \(CUDA driver version is insufficient .*"
        r"install one for CUDA 13.0 or newer, or use --backend=cpu")


def test_auto_takes_the_cpu_where_no_rank_sees_a_device(tmp_path, monkeypatch):
    for missing in ("driver", "devices"):
        machine(monkeypatch, **{missing: 0})
        case = make_case(tmp_path / missing, steps=2, epochs=None)
        case.run(2, "--backend=auto")
        assert "cpu engine" in case.log()


def test_auto_takes_a_device_where_there_is_one(tmp_path, monkeypatch):
    machine(monkeypatch, devices=2)
    case = make_case(tmp_path / "job", steps=2, epochs=None)
    case.run(2, "--backend=auto")
    assert "cuda engine" in case.log()


def test_more_ranks_than_devices_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine(monkeypatch, devices=1)
    make_case(tmp_path / "job").run(2, "--backend=auto", expect=INVALID_USE).says(
        r"2 ranks on this machine, but 1 GPUs: start at most a rank a GPU \(mpirun --map-by ppr:1:node\)")


def test_too_little_memory_is_refused_with_what_fits(tmp_path, monkeypatch):
    machine(monkeypatch, memory=40_000_000)
    make_case(tmp_path / "job", num_classes=30_000).run(1, "--backend=cuda", expect=FAILED).says(
        r"a shard of 30000 classes x 32 with batches of 99 rows needs \d+ bytes of GPU 0 \(host stand-in\), \d+ of its "
        r"40000000 are usable: at most \d+ classes a rank fit; use more ranks")


def test_a_device_without_bfloat16_is_refused(tmp_path, monkeypatch):
    machine(monkeypatch, cc=75)
    make_case(tmp_path / "job").run(1, "--backend=cuda", expect=INVALID_USE).says(
        r"GPU 0 \(host stand-in\) has compute capability 7.5: bfloat16 products and this build's kernels need 8.0")
