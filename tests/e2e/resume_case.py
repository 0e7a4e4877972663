"""What the tests of --resume share: a job of 300 steps, run in one go once a file, and what it is to be the same run."""

import pytest

from harness import assert_same_tensors, make_data, training_case

C, D, B, ROWS, STEPS = 4001, 64, 64, 1000, 300


def make_case(folder, **train):
    case = training_case(
        folder,
        "resume",
        C,
        D,
        B,
        STEPS,
        dataset={"shuffle": True},
        loss={"support_vector": {"t": 1.2}, "margin": {"m3": 0.35}, "warmup_steps": 50},
        optimizer={"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
        schedule={"base_lr": 0.1, "warmup_steps": 20, "cosine": {}},
        checkpoint={"every_steps": 50, "keep": 3},
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


def files_of(folder):
    """Every file of a job's folder but its log: path -> bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}
