"""What a trainer does when the head, the connection or another trainer fails: shardmax.Head against FakeHead."""

import concurrent.futures
import socket
import threading
import time

import numpy as np
import pytest

import shardmax
from fake_head import FakeHead, loss_and_gradients

CLASSES, DIM = 7, 4


def batch(step, rows=5, trainer=0):
    rng = np.random.default_rng([step, trainer])
    return rng.standard_normal((rows, DIM)).astype(np.float32), rng.integers(-1, CLASSES, rows)


def connect(fake, **options):
    return shardmax.Head(endpoint=fake.endpoint, **{"reconnect_s": 30, **options})


def undisturbed(steps, trainers=1):
    """The weights after so many steps of batch()."""
    with FakeHead(CLASSES, DIM) as fake:
        for step in range(steps):
            parts = [batch(step, trainer=trainer) for trainer in range(trainers)]
            features, labels = (np.concatenate(each) for each in zip(*parts))
            fake.weight -= 0.1 * loss_and_gradients(fake.weight, features.astype(float), labels)[2]
        return fake.weight


def train(head, until, trainer=0):
    while head.steps_done < until:
        head.step(*batch(head.steps_done, trainer=trainer))


@pytest.mark.parametrize("wire, error", [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_loss_and_gradients_come_back_in_each_type_of_the_wire(wire, error):
    with FakeHead(CLASSES, DIM) as fake, connect(fake, wire=wire) as head:
        features, labels = batch(0)
        loss, gradients, _ = loss_and_gradients(fake.weight, features.astype(float), labels)
        result = head.step(features, labels)
        assert result.loss == pytest.approx(loss, rel=error)
        assert result.feature_gradients.dtype == np.float32
        np.testing.assert_allclose(result.feature_gradients, gradients, rtol=2 * error, atol=error * 0.1)
        assert result.stats.counted_rows == (labels >= 0).sum()
        assert result.stats.global_rows == 5


def test_bfloat16_is_rounded_to_nearest_even():
    from shardmax._wire import decode, encode

    values = np.array([[1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.0e38, 0.0, np.inf, np.nan]], np.float32)
    (back,) = decode(encode(values, "bfloat16"), 1, 7, "bfloat16")
    assert list(back[:3]) == [1.0, 1 + 2**-6, 1 + 2**-7]
    assert back[3] == pytest.approx(-3.0e38, rel=2**-8)
    assert back[4] == 0 and back[5] == np.inf and np.isnan(back[6])


def test_a_step_whose_answer_was_lost_is_sent_again_and_applied_once():
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        train(head, 2)
        fake.cut_answer_of = 2
        train(head, 5)
        assert fake.steps_made == 5
        assert len(fake.hellos) == 2
        np.testing.assert_allclose(fake.weight, undisturbed(5), rtol=1e-6)


def test_the_last_step_is_sent_again_too_and_its_answer_confirmed():
    with FakeHead(CLASSES, DIM, total_steps=3) as fake, connect(fake) as head:
        train(head, 2)
        fake.cut_answer_of = 2
        assert head.step(*batch(2)).stats.last
        assert fake.steps_made == 3
        assert fake.confirmed == [0]
        assert all(hello.says_received for hello in fake.hellos)


def test_a_trainer_whose_head_went_back_is_told_and_goes_on_from_there():
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        head.save(2)
        train(head, 5)
        fake.restart(from_step=2)
        with pytest.raises(shardmax.HeadRewound, match="done 5 steps, and the head goes on from 2") as told:
            train(head, 8)
        assert told.value.steps_done == 2
        assert head.newest_common([0, 2, 4]) == 2
        head.load(2)
        train(head, 8)
        np.testing.assert_allclose(fake.weight, undisturbed(8), rtol=1e-6)


def test_a_step_that_was_made_but_whose_answer_died_with_the_head_is_no_step_of_the_trainer():
    """The checkpoint holds the step, and nobody can say what its gradients were."""
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        train(head, 3)
        features, labels = batch(3)
        fake.weight = fake.weight - 0.1 * loss_and_gradients(fake.weight, features.astype(float), labels)[2]
        fake.checkpoints[4] = fake.weight.copy()
        fake.restart(from_step=4)
        with pytest.raises(shardmax.HeadRewound) as told:
            train(head, 5)
        assert told.value.steps_done == 4
        head.load(0)
        train(head, 5)
        np.testing.assert_allclose(fake.weight, undisturbed(5), rtol=1e-6)


def test_a_trainer_that_starts_anew_at_a_trained_head_is_told():
    with FakeHead(CLASSES, DIM) as fake:
        with connect(fake) as head:
            head.save(3)
            train(head, 4)
        with connect(fake) as head, pytest.raises(shardmax.HeadRewound, match="done 0 steps"):
            train(head, 1)
        with connect(fake) as head:
            head.load(3)
            train(head, 6)
        np.testing.assert_allclose(fake.weight, undisturbed(6), rtol=1e-6)


def test_all_trainers_go_back_together():
    def trainer(fake, number, dies_at):
        steps = []
        head = connect(fake, trainer=number)
        try:
            while head.steps_done < 8:
                if dies_at is not None and head.steps_done == dies_at:
                    dies_at = None
                    head.close()
                    head = connect(fake, trainer=number)
                    head.load(head.newest_common([0, 3]))
                if head.steps_done < 3:
                    head.save(3)
                try:
                    steps.append(head.step(*batch(head.steps_done, trainer=number)).stats.step)
                except shardmax.HeadRewound as rewound:
                    head.load(rewound.steps_done)
        finally:
            head.close()
        return steps

    with FakeHead(CLASSES, DIM, trainers=2) as fake, concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(trainer, fake, number, dies_at) for number, dies_at in ((0, 5), (1, None))]
        for run in runs:
            assert run.result(60) == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7]
        np.testing.assert_allclose(fake.weight, undisturbed(8, trainers=2), rtol=1e-6)


def test_a_refused_step_changes_nothing_and_can_be_made_again():
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        train(head, 1)
        features, labels = batch(1)
        with pytest.raises(shardmax.InvalidArgumentError, match="trainer 0: row 2: label out of range"):
            head.step(features, np.where(np.arange(5) == 2, CLASSES, labels))
        train(head, 4)
        assert len(fake.hellos) == 1
        np.testing.assert_allclose(fake.weight, undisturbed(4), rtol=1e-6)


@pytest.mark.parametrize(
    "features, labels, message",
    [
        (np.zeros((2, DIM + 1), np.float32), [0, 1], "5 wide, and the head of fake-1 4"),
        (np.zeros((2, DIM), np.int64), [0, 1], "features are int64"),
        (np.zeros(DIM, np.float32), [0], "features are float32"),
        (np.zeros((2, DIM), np.float32), [0, 1, 2], r"labels are int64 \[3\]: give integers \[2\]"),
        (np.zeros((2, DIM), np.float32), [0.0, 1.0], "labels are float64"),
        (np.zeros((2, DIM), np.float32), [0, 2**40], "does not fit into 32 bits"),
    ],
)
def test_what_no_head_would_take_is_refused_before_it_is_sent(features, labels, message):
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        with pytest.raises(shardmax.InvalidArgumentError, match=message):
            head.step(features, labels)
        train(head, 2)


def test_the_newest_stream_of_a_trainer_wins():
    with FakeHead(CLASSES, DIM, trainers=2) as fake, connect(fake) as head, connect(fake) as thief:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(head.step, *batch(0))
            while not fake.hellos:
                time.sleep(0.01)
            stolen = pool.submit(thief.step, *batch(0))
            with pytest.raises(shardmax.AlreadyExistsError, match="another stream is trainer 0 now"):
                waiting.result(30)
            with connect(fake, trainer=1) as other:
                other.step(*batch(0))
            assert stolen.result(30).stats.global_rows == 10


def test_the_learning_rate_is_that_of_the_step_or_of_the_schedule():
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        assert head.step(*batch(0), lr=0.5).stats.lr == 0.5
        assert head.step(*batch(1), lr=0.0).stats.lr == 0.0
        assert head.step(*batch(2)).stats.lr == 0.1
        assert fake.lrs == [0.5, 0.0, 0.1]


def test_checkpoints_are_asked_for_before_the_step_that_ends_in_them():
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        assert head.save() == 1
        head.save(3)
        train(head, 4)
        assert head.checkpoint_steps == [0, 1, 3]
        head.save(3)
        with pytest.raises(shardmax.InvalidArgumentError, match="step 4 is done.*ask for step 5"):
            head.save(4)
        with pytest.raises(shardmax.NotFoundError, match="no checkpoint of step 2"):
            head.load(2)
        with pytest.raises(shardmax.NotFoundError, match="those are 0, 1, 3"):
            head.newest_common([2])
        assert head.step(*batch(4), checkpoint=True).stats.checkpoint_step == 5


def test_a_checkpoint_that_is_not_waited_for_is_complete_later():
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        head.save(1, wait=False)
        head.save(3)
        head.save(3, wait=False)  # The wish to wait is not forgotten.
        steps = [head.step(*batch(step)).stats for step in range(3)]
        assert [(stats.snapshot_step, stats.checkpoint_step) for stats in steps] == [(1, 0), (1, 1), (3, 3)]


def test_after_the_last_step_there_is_no_other():
    with FakeHead(CLASSES, DIM, total_steps=2) as fake, connect(fake) as head:
        assert not head.step(*batch(0)).stats.last
        assert head.step(*batch(1)).stats.last
        with pytest.raises(shardmax.JobEndedError, match="last step"):
            head.step(*batch(2))


def test_a_job_that_failed_says_why_at_once():
    with FakeHead(CLASSES, DIM) as fake, connect(fake) as head:
        train(head, 1)
        fake.failure = "rank 1: no space left on /scratch"
        with pytest.raises(shardmax.FailedPreconditionError, match="no space left on /scratch"):
            train(head, 2)


def test_a_head_that_wants_a_token_gets_it(monkeypatch):
    monkeypatch.setenv("SHARDMAX_TOKEN", "good")
    with FakeHead(CLASSES, DIM, token="good") as fake:
        with connect(fake) as head:
            train(head, 1)
        with connect(fake, token="bad") as head, pytest.raises(shardmax.UnauthenticatedError, match="token_file="):
            train(head, 1)


def test_a_head_that_is_not_there_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
    with shardmax.Head(endpoint=address, reconnect_s=0.5) as head:
        with pytest.raises(shardmax.UnavailableError, match=address):
            head.step(*batch(0))


def test_a_head_that_comes_late_is_waited_for():
    with FakeHead(CLASSES, DIM) as fake:
        with connect(fake) as head:
            train(head, 1)
            fake._server.stop(0).wait()
            port = int(fake.endpoint.rsplit(":", 1)[1])
            late = FakeHead(CLASSES, DIM)
            late.weight, late.steps_done = fake.weight, 1

            def come_back():
                assert late._server.add_insecure_port(f"127.0.0.1:{port}") == port
                late._server.start()

            timer = threading.Timer(0.5, come_back)
            timer.start()
            late.endpoint = fake.endpoint
            train(head, 3)
            timer.join()
            np.testing.assert_allclose(late.weight, undisturbed(3), rtol=1e-6)
            late.__exit__()
