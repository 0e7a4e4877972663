"""Jobs for the tests of the control plane: long enough to be hit in the middle, short enough to end soon."""

import numpy as np

from harness import Case, assert_same_tensors, make_data

C, D, B, ROWS, STEPS = 4001, 64, 64, 1000, 900


def make_case(folder, name="control", **train):
    """`folder` is the data root; paths in the spec are relative to it."""
    case = Case(
        folder,
        {
            "name": name,
            "train": {
                "num_classes": C,
                "dim": D,
                "batch_size": B,
                "steps": STEPS,
                "dataset": {"features": "x.npy", "labels": "y.npy", "shuffle": True},
                "loss": {"support_vector": {"t": 1.2}, "margin": {"m3": 0.35}, "warmup_steps": 50},
                "optimizer": {"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
                "schedule": {"base_lr": 0.02, "warmup_steps": 20, "cosine": {}},
                "checkpoint": {"every_steps": 100, "keep": 3},
            },
        },
    )
    case.change(**train)
    train = case.spec["train"]
    features, labels, _ = make_data(5, ROWS, train["num_classes"], train["dim"])
    case.save(x=features, y=labels)
    return case


def endless(folder, **train):
    """A job that is still running whenever a test looks at it; `checkpoint.every_steps` is 100."""
    return make_case(folder, **{"name": "endless", "steps": 10_000_000, "log_every_steps": 10, **train})


def losses(case):
    return {line["step"]: line["loss"] for line in case.metrics()}


def assert_complete(case, steps=STEPS):
    """Every step is there, once, in order."""
    assert [line["step"] for line in case.metrics()] == list(range(1, steps + 1))


def assert_same_run(case, expected):
    """Every step once, with the same loss to the last bit, and the same state at the end."""
    assert_complete(case)
    assert losses(case) == losses(expected)
    assert_same_tensors(case.last_checkpoint(), expected.last_checkpoint())


def assert_same_curve(case, expected, bound):
    """Every step once, with the same loss up to rounding."""
    assert_complete(case)
    actual, wanted = (np.array(list(losses(each).values())) for each in (case, expected))
    error = np.abs(actual - wanted) / np.abs(wanted)
    assert error.max() <= bound, f"step {error.argmax() + 1}: relative error {error.max():.3g} > {bound:g}"
