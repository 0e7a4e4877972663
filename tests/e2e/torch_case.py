"""What the tests against PyTorch share: a job, the run of torch_head on the same data, and the bound between them.

Bound: 1e-5 relative to the largest element, for weights, optimizer state and every metric. float32 arithmetic has
6e-8 an operation; six steps of it stay within that bound, and a wrong formula does not.
"""

import pytest

import torch_head
from harness import assert_close, make_data, training_case

# C divides by no number of ranks, D by no vector width. 34 rows in batches of 13: 13, 13 and the last short one, 8.
C, D, B, ROWS, STEPS = 37, 27, 13, 34, 6
SEED = 20240611
BOUND = 1e-5
SGD = {"momentum": 0.9, "weight_decay": 5e-4}


def make_case(folder, seed=SEED, **train):
    case = training_case(
        folder,
        "torch",
        C,
        D,
        B,
        STEPS,
        optimizer={"sgd": SGD},
        schedule={"base_lr": 0.1},
        init={"weights": "w.safetensors"},
    )
    case.change(**train)
    case.features, case.labels, case.initial = make_data(seed, ROWS, C, D)
    case.save(x=case.features, y=case.labels)
    case.save_weights(case.initial)
    return case


def torch_run(case, loss, steps=STEPS, base_lr=0.1, **settings):
    if "adamw" not in settings:
        settings.setdefault("sgd", SGD)
    return torch_head.train(
        loss, case.initial, case.features, case.labels, B, steps, base_lr=base_lr, **settings
    )


def check(case, expected, bound=BOUND):
    closest_call = min(outcome.closest_call for outcome in expected.outcomes)
    smallest_sine = min(outcome.smallest_sine for outcome in expected.outcomes)
    context = f"seed {SEED}, closest call {closest_call:.2g}, smallest sine {smallest_sine:.2g}"
    checkpoint = case.last_checkpoint()
    assert checkpoint.step == len(expected.outcomes)
    assert sorted(checkpoint.tensors) == sorted(["weight", *expected.state])
    assert_close(checkpoint.weight, expected.weight, bound, f"weight ({context})")
    for name, tensor in expected.state.items():
        assert_close(checkpoint.tensors[name], tensor, bound, f"{name} ({context})")

    metrics = case.metrics()
    assert [m["step"] for m in metrics] == list(range(1, len(expected.outcomes) + 1))
    for line, outcome, lr in zip(metrics, expected.outcomes, expected.lrs):
        where = f"step {line['step']} ({context})"
        assert line["lr"] == pytest.approx(lr, rel=1e-12, abs=1e-15), where
        assert line["loss"] == pytest.approx(outcome.loss, rel=bound), where
        assert line["label_cosine"] == pytest.approx(outcome.label_cosine, rel=bound, abs=bound), where
        # A count over a count: exact, unless a cosine is within rounding of its threshold.
        assert line["support_vector_ratio"] == pytest.approx(outcome.support_vector_ratio, rel=1e-9), where
