"""What the worker trains is what PyTorch trains in float64: every loss, optimizer and schedule, on 1, 2 and 3 ranks.

Bound: 1e-5 relative to the largest element, for weights, optimizer state and every metric. float32 arithmetic has
6e-8 an operation; six steps of it stay within that bound, and a wrong formula does not.
"""

import itertools

import numpy as np
import pytest

import torch_head
from harness import Case, Name, assert_close, make_data

# C divides by no number of ranks, D by no vector width. 34 rows in batches of 13: 13, 13 and the last short one, 8.
C, D, B, ROWS, STEPS = 37, 27, 13, 34, 6
SEED = 20240611
BOUND = 1e-5
SGD = {"momentum": 0.9, "weight_decay": 5e-4}


def make_case(folder, seed=SEED, **train):
    case = Case(
        folder,
        {
            "name": "torch",
            "train": {
                "num_classes": C,
                "dim": D,
                "batch_size": B,
                "steps": STEPS,
                "dataset": {"features": "x.npy", "labels": "y.npy", "shuffle": False},
                "optimizer": {"sgd": SGD},
                "schedule": {"base_lr": 0.1},
                "init": {"weights": "w.safetensors"},
            },
        },
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


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.sanitized), 3])
@pytest.mark.parametrize("preset", torch_head.PRESETS)
def test_every_preset(tmp_path, preset, ranks):
    case = make_case(tmp_path / "job", loss={"preset": Name(preset)})
    case.run(ranks)
    check(case, torch_run(case, torch_head.Loss.preset(preset)))


@pytest.mark.parametrize("preset", ["A_SOFTMAX", "SV_ARC_SOFTMAX"])
@pytest.mark.parametrize("extension", ["MONOTONE", "EASY", "LINEAR"])
def test_extensions_past_pi(tmp_path, preset, extension):
    margin = {"m1": 1.0, "m2": 1.2, "m3": 0.1} if preset == "SV_ARC_SOFTMAX" else {"m1": 4.0, "m2": 0.3, "m3": 0.0}
    # A rate of 0.1 would turn some class to within 0.003 rad of its feature, where float32 is not that exact.
    case = make_case(
        tmp_path / "job",
        loss={"preset": Name(preset), "margin": margin, "extension": Name(extension)},
        schedule={"base_lr": 0.02},
    )
    case.run(2)
    expected = torch_run(case, torch_head.Loss.preset(preset, extension=extension, **margin), base_lr=0.02)
    check(case, expected)


def test_extensions_differ():
    """Guards the test above: the data reaches the angles where extensions matter."""
    features, labels, weight = make_data(SEED, ROWS, C, D)
    rows = labels >= 0
    x = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
    w = weight[labels[rows]] / np.linalg.norm(weight[labels[rows]], axis=1, keepdims=True)
    cosines = (x * w).sum(1)
    theta = np.arccos(cosines)
    assert (cosines < -0.2).any() and (cosines > 0.5).any()
    assert (theta + 1.2 > np.pi).any() and (theta + 1.2 < np.pi).any()


@pytest.mark.parametrize(
    "name, settings",
    {
        "plain SGD": {"sgd": {}},
        "momentum alone": {"sgd": {"momentum": 0.5}},
        "nesterov": {"sgd": {"momentum": 0.9, "weight_decay": 1e-2, "nesterov": True}},
        "AdamW": {"adamw": {}},
        "AdamW with settings": {"adamw": {"beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.1}},
    }.items(),
)
def test_optimizers(tmp_path, name, settings):
    # Adam divides by sqrt(v): a gradient element near zero has its rounding error magnified, and eps bounds by how
    # much. The weights move by about lr a step whatever the gradient, so a small lr keeps that within the bound.
    lr = 0.001 if "adamw" in settings else 0.1
    case = make_case(tmp_path / "job", optimizer=None, loss={"preset": Name("SV_AM_SOFTMAX")}, schedule={"base_lr": lr})
    case.change(optimizer=settings)
    case.run(2)
    check(case, torch_run(case, torch_head.Loss.preset("SV_AM_SOFTMAX"), base_lr=lr, **settings))


@pytest.mark.parametrize("warmup_steps", [0, 2, STEPS + 2])
@pytest.mark.parametrize(
    "curve",
    [
        ("constant", {}),
        ("cosine", {}),
        ("cosine", {"end_lr": 0.02}),
        ("step", {"milestones": [1, 3, 5, STEPS, 99], "gamma": 0.5}),
        ("polynomial", {}),
        ("polynomial", {"power": 2.5}),
    ],
    ids=lambda curve: "-".join([curve[0], *curve[1]]),
)
def test_schedules(tmp_path, curve, warmup_steps):
    name, settings = curve
    case = make_case(
        tmp_path / "job", schedule={"base_lr": 0.2, "warmup_steps": warmup_steps, name: settings}
    )
    case.run(1)
    expected = torch_run(case, torch_head.Loss(), base_lr=0.2, warmup_steps=warmup_steps, curve=curve)
    check(case, expected)


def test_polynomial_that_ends_above_zero(tmp_path):
    """PyTorch has none, so the rates are those of the formula in job.proto."""
    case = make_case(tmp_path / "job", schedule={"base_lr": 0.2, "polynomial": {"power": 2, "end_lr": 0.05}})
    case.run(1)
    expected = [0.05 + 0.15 * (1 - k / STEPS) ** 2 for k in range(STEPS)]
    assert [m["lr"] for m in case.metrics()] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("preset", ["A_SOFTMAX", "SV_ARC_SOFTMAX", "SV_AM_SOFTMAX"])
def test_loss_warmup(tmp_path, preset):
    case = make_case(tmp_path / "job", loss={"preset": Name(preset), "warmup_steps": 4})
    case.run(2)
    check(case, torch_run(case, torch_head.Loss.preset(preset, warmup_steps=4)))


@pytest.mark.parametrize("zeros", ["margin", "gamma"])
def test_explicit_zero_wins_over_the_preset(tmp_path, zeros):
    if zeros == "margin":
        loss = {"preset": Name("SV_ARC_SOFTMAX"), "margin": {"m2": 0}}
        expected = torch_head.Loss.preset("SV_SOFTMAX")
    else:
        loss = {"preset": Name("F_AM_SOFTMAX"), "focal": {"gamma": 0}}
        expected = torch_head.Loss.preset("AM_SOFTMAX")
    case = make_case(tmp_path / "job", loss=loss)
    case.run(2)
    check(case, torch_run(case, expected))


def test_every_term_at_once(tmp_path):
    """Margins of all three kinds, support vectors, focal and hard mining in one loss."""
    terms = {"m1": 1.5, "m2": 0.3, "m3": 0.2, "t": 1.3, "gamma": 1.5, "keep": 0.55, "scale": 17.0}
    loss = {
        "scale": terms["scale"],
        "margin": {m: terms[m] for m in ("m1", "m2", "m3")},
        "support_vector": {"t": terms["t"]},
        "focal": {"gamma": terms["gamma"]},
        "hard_mining": {"keep": terms["keep"]},
    }
    case = make_case(tmp_path / "job", loss=loss)
    case.run(3)
    check(case, torch_run(case, torch_head.Loss(**terms)))


def test_epochs_are_steps(tmp_path):
    """Two epochs of 34 rows in batches of 13 are six steps, the last of each with 8 rows."""
    case = make_case(tmp_path / "job", steps=None, epochs=2)
    case.run(2)
    check(case, torch_run(case, torch_head.Loss()))
    assert [m["epoch"] for m in case.metrics()] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("features, labels", itertools.product([np.float32, np.float16], [np.int32, np.int64]))
def test_every_dtype_of_a_dataset(tmp_path, features, labels):
    case = make_case(tmp_path / "job")
    case.features, case.labels = case.features.astype(features), case.labels.astype(labels)
    case.save(x=case.features, y=case.labels)
    case.run(2)
    check(case, torch_run(case, torch_head.Loss()))


def test_batches_of_ignored_rows_only_decay_the_weights(tmp_path):
    case = make_case(tmp_path / "job")
    case.labels[B : 2 * B] = -1  # The second of three batches.
    case.save(y=case.labels)
    case.run(2)
    check(case, torch_run(case, torch_head.Loss()))
    assert [m["loss"] == 0 for m in case.metrics()] == [False, True, False] * 2


def test_fewer_rows_than_ranks(tmp_path):
    """Batches of 2 rows on 3 ranks: one rank always brings nothing."""
    case = make_case(tmp_path / "job", batch_size=2)
    case.run(3)
    expected = torch_head.train(
        torch_head.Loss(), case.initial, case.features, case.labels, 2, STEPS, base_lr=0.1, sgd=SGD
    )
    check(case, expected)


@pytest.mark.sanitized
@pytest.mark.parametrize("preset", ["SOFTMAX", "SV_AM_SOFTMAX"])
def test_the_reference_backend_agrees_with_cpu(tmp_path, preset):
    cpu = make_case(tmp_path / "cpu", loss={"preset": Name(preset)})
    cpu.run(2, "--backend=cpu")
    reference = make_case(tmp_path / "reference", loss={"preset": Name(preset)})
    reference.run(2, "--backend=reference")
    expected = torch_run(cpu, torch_head.Loss.preset(preset))
    check(cpu, expected)
    check(reference, expected)


def test_bfloat16_is_near(tmp_path):
    """Operands of products have 8 bits, so single logits are off by up to s * 2^-8 = 0.1, with random signs.

    Bound: the whole update differs from that of float64 by less than 2 % of its length, and so does each loss. That
    it differs by more than float32 does shows that the setting does something.
    """
    case = make_case(tmp_path / "job", precision=Name("BFLOAT16"), loss={"preset": Name("AM_SOFTMAX")})
    case.run(2)
    expected = torch_run(case, torch_head.Loss.preset("AM_SOFTMAX"))
    update = expected.weight - case.initial
    error = np.linalg.norm(case.last_checkpoint().weight - expected.weight) / np.linalg.norm(update)
    assert 1e-4 < error < 2e-2, f"seed {SEED}"
    for line, outcome in zip(case.metrics(), expected.outcomes):
        assert line["loss"] == pytest.approx(outcome.loss, rel=2e-2)


def test_weights_start_from_a_checkpoint_folder(tmp_path):
    """Only the weights are taken: momentum starts at zero, steps at 0."""
    first = make_case(tmp_path / "first")
    first.run(3)
    second = make_case(tmp_path / "second", init={"weights": str(first.checkpoints()[-1])})
    second.run(2)
    second.initial = first.last_checkpoint().weight
    check(second, torch_run(second, torch_head.Loss()))


def test_drawn_weights_and_order_depend_on_the_seed_alone(tmp_path):
    """Same seed: the same run on 1 and 3 ranks within rounding. Another seed: other weights, another order."""

    def run(name, ranks, seed):
        case = make_case(tmp_path / name, dataset={"shuffle": True})
        case.change(init=None)
        case.change(init={"seed": seed, "stddev": 0.3})
        case.run(ranks)
        return case

    one, three, other = run("one", 1, 7), run("three", 3, 7), run("other", 3, 8)
    assert_close(three.last_checkpoint().weight, one.last_checkpoint().weight, BOUND, "weight")
    losses = [[m["loss"] for m in case.metrics()] for case in (one, three, other)]
    assert losses[1] == pytest.approx(losses[0], rel=BOUND)
    assert losses[2] != pytest.approx(losses[0], rel=1e-2)


def test_drawn_weights_have_the_standard_deviation_asked_for(tmp_path):
    case = make_case(tmp_path / "job", steps=1, schedule={"base_lr": 1e-6}, optimizer={"sgd": {"weight_decay": 0}})
    case.change(init=None)
    case.change(init={"stddev": 0.3})
    case.run(2)
    weight = case.last_checkpoint().weight
    # 999 draws: the standard error of the deviation is 2.2 %, that of the mean 0.0095.
    assert weight.std() == pytest.approx(0.3, rel=0.1)
    assert weight.mean() == pytest.approx(0, abs=0.04)
    assert len(np.unique(weight)) > 0.99 * weight.size


def test_shuffling_visits_each_row_once_an_epoch(tmp_path):
    """With batches of one row, a loss tells which row it was: weights stand still at lr 1e-12."""
    case = make_case(
        tmp_path / "job",
        batch_size=1,
        steps=2 * ROWS,
        dataset={"shuffle": True},
        schedule={"base_lr": 1e-12},
        optimizer={"sgd": {"momentum": 0, "weight_decay": 0}},
    )
    case.run(2)
    expected = torch_head.train(
        torch_head.Loss(), case.initial, case.features, case.labels, 1, ROWS, base_lr=1e-12, sgd={}
    )
    in_file_order = np.array([outcome.loss for outcome in expected.outcomes])
    losses = np.array([m["loss"] for m in case.metrics()]).reshape(2, ROWS)
    for epoch in losses:
        assert np.sort(epoch) == pytest.approx(np.sort(in_file_order), rel=BOUND)
    assert not np.allclose(losses[0], in_file_order)
    assert not np.allclose(losses[0], losses[1])
