"""What the worker trains is what PyTorch trains in float64: every loss, optimizer and schedule, on 1, 2 and 3 ranks."""

import numpy as np
import pytest

import torch_head
from harness import Name, make_data
from torch_case import ROWS, SEED, STEPS, C, D, check, make_case, torch_run


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
