"""A backbone that trains through a live job gets what plain autograd gives, whatever the number of trainers and ranks."""

import json
import signal
import time

import grpc
import numpy as np
import pytest

from harness import STOPPED, SUCCEEDED, assert_close
from live_case import C, D, LR, Backbone, Team, batch, make_case, plain_run, wait_for_endpoints
from trainer import (ABORTED, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, Refused, StreamEnded, Trainer, describe,
                     rank_of)

STEPS, HALF = 50, 20


@pytest.fixture(scope="module")
def plain():
    return plain_run(STEPS)


def connect(address, trainer):
    return Trainer(address, trainer)


@pytest.mark.parametrize("trainers, ranks", [(1, 1), (1, 2), (2, 1), pytest.param(2, 2, marks=pytest.mark.sanitized)])
def test_fifty_steps_equal_plain_autograd(tmp_path, plain, trainers, ranks):
    case = make_case(tmp_path / "job", trainers, STEPS)
    with case.launch(ranks, "--data_port_base=0") as launch:
        addresses = wait_for_endpoints(launch, ranks)
        team = Team(addresses, trainers, connect)
        welcome = team.trainers[0].welcome
        assert (welcome.job, welcome.num_classes, welcome.dim, welcome.max_rows) == ("live", C, D, 32)
        assert (welcome.trainers, welcome.total_steps, welcome.steps_done) == (trainers, STEPS, 0)
        assert list(welcome.endpoints) == addresses
        losses = []
        for step in range(STEPS):
            reply, gradient = team.step(step)
            losses.append(reply.loss)
            assert reply.lr == LR and reply.global_rows == 24
            assert reply.last == (step == STEPS - 1)
            if step == 0:
                assert_close(gradient, plain[1], 1e-5, "gradient of the features")
        for trainer in team.trainers:
            with pytest.raises(StreamEnded) as ended:
                trainer.receive()
            assert ended.value.code == grpc.StatusCode.OK
        assert reply.checkpoint_step == STEPS
        team.close()
        launch.wait(SUCCEEDED)
    error = np.abs(np.array(losses) - plain[0]) / np.abs(plain[0])
    assert error.max() <= 1e-4, f"step {error.argmax()}: {error.max():.3g}"
    lines = case.metrics()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == losses
    assert case.last_checkpoint().step == STEPS


@pytest.fixture
def one(tmp_path):
    """A job of one trainer on two ranks that is never done, and its address."""
    case = make_case(tmp_path / "job", steps=1_000_000)
    with case.launch(2, "--data_port_base=0") as launch:
        addresses = wait_for_endpoints(launch, 2)
        launch.addresses = addresses
        launch.case = case
        yield launch


def rows(step, count=8):
    inputs, labels = batch(step, count)
    return Backbone().net(inputs).detach().numpy(), labels


def test_a_step_that_is_sent_again_is_answered_from_memory(one):
    features, labels = rows(0)
    with Trainer(one.addresses[0]) as first:
        reply, gradient = first.step(0, features, labels)
    with Trainer(one.addresses[0]) as again:
        assert again.welcome.steps_done == 1
        repeated, repeated_gradient = again.step(0, features, labels)
        assert repeated == reply and np.array_equal(repeated_gradient, gradient)
        with pytest.raises(Refused, match="made with other bytes") as refused:
            again.step(0, features + 1, labels)
        assert (refused.value.code, refused.value.steps_done) == (FAILED_PRECONDITION, 1)
        # The weights are those of one step: an undisturbed run has the same loss.
        second, _ = again.step(1, features, labels)
    undisturbed = make_case(one.case.folder.parent / "undisturbed", steps=1_000_000)
    with undisturbed.launch(2, "--data_port_base=0") as launch:
        with Trainer(wait_for_endpoints(launch, 2)[0]) as trainer:
            trainer.step(0, features, labels)
            expected, _ = trainer.step(1, features, labels)
    assert second.loss == expected.loss


@pytest.mark.sanitized
def test_the_last_answer_is_there_for_a_trainer_that_lost_it(tmp_path):
    case = make_case(tmp_path / "job", steps=2)
    features, labels = rows(0)
    with case.launch(2, "--data_port_base=0") as launch:
        address = wait_for_endpoints(launch, 2)[0]
        with Trainer(address, confirms=False) as first:
            first.step(0, features, labels)
            reply, gradient = first.step(1, features, labels)
        assert reply.last and reply.checkpoint_step == 2
        with Trainer(address) as again:
            assert again.welcome.steps_done == 2
            repeated, repeated_gradient = again.step(1, features, labels)
            assert repeated == reply and np.array_equal(repeated_gradient, gradient)
            with pytest.raises(StreamEnded) as ended:
                again.receive()
            assert ended.value.code == grpc.StatusCode.OK
        launch.wait(SUCCEEDED)


@pytest.mark.parametrize("stays", [True, False], ids=["stays connected", "leaves"])
def test_the_job_ends_at_once_for_a_trainer_that_does_not_say_that_it_has_the_last_answer(tmp_path, stays):
    case = make_case(tmp_path / "job", steps=1)
    with case.launch(1, "--data_port_base=0") as launch:
        with Trainer(wait_for_endpoints(launch, 1)[0], announces=False) as trainer:
            answered = time.monotonic()
            assert trainer.step(0, *rows(0))[0].last
            if stays:
                with pytest.raises(StreamEnded) as ended:
                    trainer.receive()
                assert ended.value.code == grpc.StatusCode.OK
        launch.wait(SUCCEEDED)
        assert time.monotonic() - answered < 30, "of the 60 s that the head would stay"


def broken(change):
    features, labels = rows(0)
    features, labels = features.copy(), labels.copy()
    labels[labels < 0] = 0
    fields = change(features, labels) or {}
    return features, labels, fields


BAD_STEPS = {
    "NaN": (lambda x, y: x.__setitem__((3, 5), np.nan), r"trainer 0: features row 3: column 5 is nan"),
    "infinity": (lambda x, y: x.__setitem__((2, 1), np.inf), r"trainer 0: features row 2: column 1 is inf"),
    "no direction": (lambda x, y: x.__setitem__(4, 0), r"trainer 0: features row 4: has length zero"),
    "label too large": (lambda x, y: y.__setitem__(1, C), rf"trainer 0: labels row 1 is {C}: allowed is -1 .* \[0, {C}\)"),
    "label below -1": (lambda x, y: y.__setitem__(1, -2), r"trainer 0: labels row 1 is -2"),
    "bad rate": (lambda x, y: {"lr": -1.0}, r"trainer 0: lr is -1: allowed is 0 to"),
}


@pytest.mark.sanitized
def test_bad_rows_are_refused_and_the_step_can_be_sent_again(one):
    with Trainer(one.addresses[0]) as trainer:
        for name, (change, message) in BAD_STEPS.items():
            features, labels, fields = broken(change)
            with pytest.raises(Refused, match=message) as refused:
                trainer.step(0, features, labels, **fields)
            assert (refused.value.code, refused.value.steps_done) == (INVALID_ARGUMENT, 0), name
        features, labels = rows(0)
        with pytest.raises(Refused, match="trainer 0: features has 448 bytes: 8 rows of width 16 in 4 bytes a value are 512"):
            trainer.step(0, features[:, :14], labels)
        with pytest.raises(Refused, match="trainer 0: rows is 33: allowed is 0 to train.batch_size, which is 32"):
            trainer.step(0, *rows(0, 33))
        with pytest.raises(Refused, match="no trainer brings a row"):
            trainer.step(0, *rows(0, 0))
        with pytest.raises(Refused, match="the head waits for step 0, not 1") as refused:
            trainer.step(1, features, labels)
        assert refused.value.code == FAILED_PRECONDITION
        reply, _ = trainer.step(0, features, labels)
        assert reply.loss > 0 and reply.global_rows == 8


def test_what_no_trainer_sends_ends_the_stream(one):
    cases = [
        ({"trainer": 1}, grpc.StatusCode.INVALID_ARGUMENT, "trainer is 1: the job has trainers 0 to 0"),
        ({"job": "other"}, grpc.StatusCode.FAILED_PRECONDITION, "the job here is live, not the one"),
    ]
    for hello, code, text in cases:
        with pytest.raises(StreamEnded, match=text) as ended:
            Trainer(one.addresses[0], **hello)
        assert ended.value.code == code
    with pytest.raises(StreamEnded, match=f"this is rank 1: trainer 0 of 1 connects to rank 0 at {one.addresses[0]}"):
        Trainer(one.addresses[1])
    with Trainer(one.addresses[0]) as trainer:
        trainer.send()
        with pytest.raises(StreamEnded, match="is a step or a load") as ended:
            trainer.receive()
        assert ended.value.code == grpc.StatusCode.INVALID_ARGUMENT
    with Trainer(one.addresses[0]) as trainer:
        trainer.send_step(0, np.ones((4000, D)), np.zeros(4000))
        with pytest.raises(StreamEnded, match="bytes: at most") as ended:
            trainer.receive()
        assert ended.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_newest_stream_has_the_place_of_the_trainer(one):
    features, labels = rows(0)
    with Trainer(one.addresses[0]) as old, Trainer(one.addresses[0]) as new:
        with pytest.raises(StreamEnded) as ended:
            old.receive()
        assert ended.value.code == grpc.StatusCode.ALREADY_EXISTS
        new.step(0, features, labels)


@pytest.mark.parametrize("wire, bound", [("float16", 4e-3), ("bfloat16", 3e-2)])
def test_short_types_on_the_wire_bring_gradients_of_that_type(one, wire, bound):
    features, labels = rows(0)
    with Trainer(one.addresses[0]) as trainer:
        _, exact = trainer.step(0, features, labels, lr=0.0)
        _, gradient = trainer.step(1, features, labels, wire, lr=0.0)
        assert_close(gradient, exact, bound, wire)


def test_a_trainer_sets_rates_and_asks_for_checkpoints(one):
    features, labels = rows(0)
    with Trainer(one.addresses[0]) as trainer:
        reply, _ = trainer.step(0, features, labels, lr=0.0, checkpoint=True)
        assert (reply.lr, reply.checkpoint_step) == (0.0, 1)
        assert [path.name for path in one.case.checkpoints()] == ["step-00000001"]
        assert_close(one.case.last_checkpoint().weight, one.case.initial, 1e-7, "weights at rate 0")
        second, _ = trainer.step(1, features, labels)
        assert second.lr == LR and second.loss == reply.loss
        assert list(describe(one.addresses[1]).checkpoint_steps) == [1]
        assert json.loads((one.case.out / "metrics.jsonl").read_text().splitlines()[0])["lr"] == 0.0


def test_trainers_go_back_together(tmp_path):
    case = make_case(tmp_path / "job", trainers=2, steps=1_000_000)
    with case.launch(2, "--data_port_base=0") as launch:
        team = Team(wait_for_endpoints(launch, 2), 2, connect)
        a, b = team.trainers
        start = team.model.state()
        first = [team.step(step, checkpoint=step == 1)[0].loss for step in range(4)]
        features, labels = rows(4)
        a.send_step(4, features, labels)
        b.send(load={"step": 2})
        with pytest.raises(Refused, match="checkpoint after step 2: load it too") as refused:
            a.receive()
        assert (refused.value.code, refused.value.steps_done) == (ABORTED, 2)
        # Of two that ask for different ones the lower counts.
        a.send(load={"step": 0})
        with pytest.raises(Refused) as refused:
            b.receive()
        assert (refused.value.code, refused.value.steps_done) == (ABORTED, 0)
        b.send(load={"step": 0})
        assert a.receive().load.step == 0 and b.receive().load.step == 0
        team.model.restore(start)
        assert [team.step(step)[0].loss for step in range(2)] == first[:2]
        # An answer may come before its line.
        launch.wait_until(lambda: [line["step"] for line in case.metrics()] == [1, 2], "the lines of these two steps alone")
        with pytest.raises(Refused, match="no checkpoint of step 7 can be loaded") as refused:
            b.send(load={"step": 7})
            a.send(load={"step": 7})
            a.receive()
        assert (refused.value.code, refused.value.steps_done) == (NOT_FOUND, 2)
        with pytest.raises(Refused):
            b.receive()
        assert team.step(2)[0].loss == first[2], "nothing has changed"


@pytest.mark.sanitized
def test_a_job_that_waits_for_trainers_stops_on_a_signal_with_a_checkpoint(one):
    features, labels = rows(0)
    with Trainer(one.addresses[0]) as trainer:
        trainer.step(0, features, labels)
    one.wait_until(lambda: one.case.metrics(), "the line of the step")
    one.signal_rank(1, signal.SIGTERM, at_step=1)
    one.wait(STOPPED)
    assert one.case.last_checkpoint().step == 1


def test_a_connected_trainer_is_told_that_its_step_is_the_last(one):
    features, labels = rows(0)
    with Trainer(one.addresses[0]) as trainer:
        trainer.step(0, features, labels)
        one.signal_rank(0, signal.SIGTERM, at_step=1)
        for step in range(1, 1000):
            reply, _ = trainer.step(step, features, labels)
            if reply.last:
                break
        assert reply.last and reply.checkpoint_step == step + 1
        with pytest.raises(StreamEnded) as ended:
            trainer.receive()
        assert ended.value.code == grpc.StatusCode.OK
    one.wait(STOPPED)
    assert one.case.last_checkpoint().step == step + 1


def test_trainers_find_their_ranks():
    assert [rank_of(t, 5, 3) for t in range(5)] == [0, 0, 1, 1, 2]
    assert [rank_of(t, 2, 3) for t in range(2)] == [0, 1]
