"""numpy trainers of a real head: they step, fail, save, go back and end together, with a server and without."""

import concurrent.futures
import contextlib
import subprocess
import time

import grpc
import numpy as np
import pytest
from safetensors.numpy import save_file

import shardmax
from certificates import Authority
from control_harness import BIN, steady_address
from harness import SUCCEEDED, Case
from live_case import C, D, LivePlane, batch, initial_weight, spec
from shardmax._route import NotThereError
from shardmax._session import Session
from shardmax.v1 import control_pb2


def features_and_labels(step, trainer):
    labels = batch(step, 8, trainer)[1]
    features = np.random.default_rng([9, step, trainer]).standard_normal((8, D)).astype(np.float32)
    return features, labels


def on_all(heads, call):
    """What `call(head)` returns or raises for each head, all at the same time."""
    with concurrent.futures.ThreadPoolExecutor(len(heads)) as threads:
        runs = [threads.submit(call, head) for head in heads]
        return [run.exception(120) or run.result() for run in runs]


def step(head):
    return head.step(*features_and_labels(head.steps_done, head.trainer))


def test_trainers_step_fail_save_and_go_back_together(tmp_path):
    with LivePlane(tmp_path, 2) as plane:
        job = plane.python.submit(spec(2, 6))
        with plane.heads(job.id, 2) as heads:
            described = heads[0].describe()
            assert (described.num_classes, described.dim, described.trainers) == (C, D, 2)
            assert len(described.endpoints) == 2
            first = on_all(heads, step)
            assert first[0].loss == first[1].loss and first[0].stats == first[1].stats
            assert first[0].stats.global_rows == 16
            assert not np.array_equal(first[0].feature_gradients, first[1].feature_gradients)

            def spoilt(head):
                features, labels = features_and_labels(1, head.trainer)
                return head.step(features, np.where(np.arange(8) == 5 * head.trainer, C, labels))

            for error in on_all(heads, spoilt):
                assert isinstance(error, shardmax.InvalidArgumentError)
                assert "row" in str(error) and "trainer 0" in str(error)
            heads[1].save(3)
            losses = [[result.loss for result in on_all(heads, step)] for _ in range(3)]
            assert heads[0].checkpoint_steps == [0, 3]
            assert on_all(heads, lambda head: head.load(3)) == [None, None]
            assert [result.loss for result in on_all(heads, step)] == losses[2]

            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                waiting = threads.submit(heads[0].load, 0)
                with pytest.raises(shardmax.HeadRewound) as told:
                    step(heads[1])
                assert told.value.steps_done == 0
                heads[1].load(0)
                waiting.result(120)
            again = on_all(heads, step)
            assert [result.loss for result in again] == [first[0].loss] * 2
            results = [on_all(heads, step) for _ in range(5)][-1]
            assert all(result.stats.last for result in results)
            assert all(isinstance(error, shardmax.JobEndedError) for error in on_all(heads, step))
        assert plane.python.wait(job.id, quiet=True).state == control_pb2.SUCCEEDED


def test_trainers_that_lose_the_last_answer_get_it_again(tmp_path, monkeypatch):
    """The connection of each breaks when the last step is made and its answer on the way."""
    lost = set()

    def losing(session, message, ask=Session.ask):
        answer = ask(session, message)
        if answer.step.last and message.step.features not in lost:
            lost.add(message.step.features)
            raise NotThereError(shardmax.UnavailableError("the connection broke", grpc.StatusCode.UNAVAILABLE))
        return answer

    monkeypatch.setattr(Session, "ask", losing)
    with LivePlane(tmp_path, 2) as plane:
        job = plane.python.submit(spec(2, 3))
        with plane.heads(job.id, 2) as heads:
            results = [on_all(heads, step) for _ in range(3)][-1]
            assert len(lost) == 2
            assert all(result.stats.last and result.stats.checkpoint_step == 3 for result in results)
            assert results[0].loss == results[1].loss
        began = time.monotonic()
        assert plane.python.wait(job.id, quiet=True).state == control_pb2.SUCCEEDED
        assert time.monotonic() - began < 30, "the head has heard that both have it"


def test_a_stopped_job_ends_for_its_trainer(tmp_path):
    with LivePlane(tmp_path, 1) as plane:
        job = plane.python.submit(spec(1, 10_000_000))
        with plane.heads(job.id, 1) as (head,):
            step(head)
            plane.python.stop(job.id)
            with pytest.raises(shardmax.JobEndedError):
                while True:
                    step(head)
        assert plane.python.wait(job.id, quiet=True).state == control_pb2.STOPPED


@contextlib.contextmanager
def guarded_worker(folder):
    """shardmax-worker --job whose data plane wants a certificate and a token: (endpoint, options of a trainer)."""
    authority = Authority(folder / "ca")
    server_cert, server_key = authority.sign("server")
    cert, key = authority.sign("trainer")
    command = [BIN / "shardmax-server", "--new_token=submitter:me"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    at = words.index("submitter")
    (folder / "tokens").write_text(" ".join(words[at : at + 3]) + "\n")
    (folder / "tokens").chmod(0o600)
    token = next(word for word in words if word.startswith("smx_"))

    case = Case(folder / "job", spec(1, 3))
    case.job = case.folder / "job.json"
    save_file({"weight": initial_weight()}, case.folder / "w.safetensors")
    endpoint = steady_address()
    flags = [
        f"--data_port_base={endpoint.split(':')[1]}",
        f"--data_tls_cert={server_cert}",
        f"--data_tls_key={server_key}",
        f"--data_tls_client_ca={authority.ca}",
        f"--data_tokens_file={folder / 'tokens'}",
    ]
    options = {"tls_ca": authority.ca, "tls_cert": cert, "tls_key": key, "token": token, "reconnect_s": 60}
    with case.launch(1, *flags) as running:
        yield running, endpoint, options


def test_a_head_without_a_server_by_mutual_tls_and_a_token(tmp_path):
    with guarded_worker(tmp_path) as (running, endpoint, options):
        with shardmax.Head(endpoint=endpoint, **{**options, "token": "wrong"}) as head:
            with pytest.raises(shardmax.UnauthenticatedError):
                step(head)
        with shardmax.Head(endpoint=endpoint, job="live", **options) as head:
            assert [step(head).stats.step for _ in range(3)] == [0, 1, 2]
        running.wait(SUCCEEDED)
