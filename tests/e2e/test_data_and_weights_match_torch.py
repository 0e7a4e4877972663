"""Epochs, dtypes, ignored rows, precisions, initial weights and the order of the data, against PyTorch in float64."""

import itertools

import numpy as np
import pytest

import torch_head
from harness import Name, assert_close
from torch_case import BOUND, ROWS, SEED, SGD, STEPS, B, check, make_case, torch_run


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
