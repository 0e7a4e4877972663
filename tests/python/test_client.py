"""A user's day in Python: jobs are submitted, watched, stopped, exported, on a real server with a real pool."""

import contextlib
import io
import json
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file

import shardmax
from certificates import Authority
from control_cases import C, D, endless, make_case
from control_harness import BIN, ControlPlane
from harness import textproto
from shardmax.spec import job_spec
from shardmax.v1 import control_pb2


@pytest.fixture
def plane(tmp_path):
    with ControlPlane(tmp_path) as plane:
        yield plane


@pytest.fixture
def client(plane):
    with shardmax.Client(plane.server.address) as client:
        yield client


def test_a_job_is_the_same_from_a_file_a_dict_and_a_message(tmp_path):
    case = make_case(tmp_path)
    (tmp_path / "job.textproto").write_text(textproto(case.spec))
    (tmp_path / "job.json").write_text(json.dumps(case.spec))
    message = job_spec(case.spec)
    assert message.train.loss.support_vector.t == 1.2
    for other in (tmp_path / "job.textproto", str(tmp_path / "job.json"), message):
        assert job_spec(other) == message
    with pytest.raises(shardmax.InvalidArgumentError, match="the spec: not a job.*num_clases"):
        job_spec({"train": {"num_clases": 3}})
    (tmp_path / "bad.textproto").write_text("train {")
    with pytest.raises(shardmax.InvalidArgumentError, match="bad.textproto"):
        job_spec(tmp_path / "bad.textproto")


def test_a_job_is_trained_watched_and_exported(plane, client, tmp_path):
    plane.pool("a")
    assert [(pool.name, pool.ranks, pool.state) for pool in client.pools()] == [("a", 2, control_pb2.IDLE)]
    job = client.submit(make_case(plane.data, steps=40).spec)
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        end = client.wait(job.id)
    assert (end.state, end.progress.step, end.total_steps) == (control_pb2.SUCCEEDED, 40, 40)
    assert f"{job.id} SUCCEEDED" in shown.getvalue() and "40/40" in shown.getvalue()
    assert [line.step for line in client.metrics(job.id)] == list(range(1, 41))
    assert [line.step for line in client.metrics(job.id, after_step=35)] == [36, 37, 38, 39, 40]
    lines = list(client.logs(job.id))
    assert any("40" in line.text for line in lines)
    assert [line.sequence for line in client.logs(job.id, after_sequence=lines[1].sequence)] == [
        line.sequence for line in lines[2:]
    ]
    assert list(client.watch(job.id))[-1].state == control_pb2.SUCCEEDED

    assert [info.step for info in client.checkpoints(job.id)] == [40]
    weight = plane.job(job.id, make_case(plane.data)).last_checkpoint().weight
    assert client.export(job.id, tmp_path / "w.safetensors") == 40
    np.testing.assert_array_equal(load_file(tmp_path / "w.safetensors")["weight"], weight)
    assert client.export("control", tmp_path / "w.npy", step=40) == 40
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), weight)
    assert weight.shape == (C, D)
    client.delete(job.id)
    assert client.list() == []


def test_a_running_job_writes_a_checkpoint_and_stops(plane, client):
    plane.pool("a")
    job = client.submit(endless(plane.data, checkpoint={"every_steps": 0}).spec)
    for line in client.metrics(job.id, follow=True):
        if line.step >= 20:
            break
    client.checkpoint_now(job.name)
    for now in client.watch(job.id):
        if now.checkpoint_step:
            break
    assert client.checkpoint(job.id).step == now.checkpoint_step
    with pytest.raises(shardmax.DeadlineExceededError, match="has not ended after 0.2 s; it goes on"):
        client.wait(job.id, quiet=True, timeout_s=0.2)
    with pytest.raises(shardmax.FailedPreconditionError):
        client.delete(job.id)
    client.stop(job.id)
    assert client.wait(job.id, quiet=True).state == control_pb2.STOPPED
    assert [each.id for each in client.list(states=["STOPPED"])] == [job.id]
    assert client.list(states=["RUNNING"]) == []


def test_what_is_wrong_is_an_exception_of_its_kind(plane, client, tmp_path):
    case = make_case(plane.data)
    with pytest.raises(shardmax.InvalidArgumentError, match="train.dim"):
        client.submit({**case.spec, "train": {**case.spec["train"], "dim": 0}})
    with pytest.raises(shardmax.NotFoundError, match="nowhere"):
        client.get("nowhere")
    client.submit(case.spec, idempotency_key="k")
    assert client.submit(case.spec, idempotency_key="k").id == client.get("control").id
    with pytest.raises(shardmax.AlreadyExistsError):
        client.submit({**case.spec, "priority": 1}, idempotency_key="k")
    with pytest.raises(shardmax.InvalidArgumentError, match="w.txt: which format"):
        client.export("control", tmp_path / "w.txt")
    with pytest.raises(shardmax.NotFoundError):
        client.export("control", tmp_path / "w.npy")
    assert not list(tmp_path.glob("w.npy*"))
    with pytest.raises(shardmax.InvalidArgumentError, match="server is \"nonsense\": give HOST:PORT"):
        shardmax.Client("nonsense")
    with shardmax.Client("127.0.0.1:1", timeout_s=0.3) as nobody:
        with pytest.raises(shardmax.UnavailableError, match="no answer from the server at 127.0.0.1:1.*\n.*running"):
            nobody.list()


def test_reads_and_streams_go_on_when_the_server_starts_again(plane, client):
    job = client.submit(make_case(plane.data, steps=5).spec)
    watch = client.watch(job.id)
    assert next(watch).state == control_pb2.PENDING
    plane.server.kill()
    plane.server.start()
    assert client.get(job.id).id == job.id
    plane.pool("a")
    assert [now.state for now in watch][-1] == control_pb2.SUCCEEDED


def test_tls_and_tokens_are_as_of_the_command(tmp_path, monkeypatch):
    authority = Authority(tmp_path / "ca")
    server_cert, server_key = authority.sign("server")
    cert, key = authority.sign("me")
    tokens = tmp_path / "tokens"
    with ControlPlane(tmp_path, start=False) as plane:
        tls = [f"--tls_cert={server_cert}", f"--tls_key={server_key}", f"--tls_client_ca={authority.ca}"]
        token, line = new_token("viewer:me")
        tokens.write_text(line + "\n")
        tokens.chmod(0o600)
        plane.server.flags += [*tls, f"--tokens_file={tokens}"]
        plane.server.start()
        monkeypatch.setenv("SHARDMAX_SERVER", plane.server.address)
        options = {"tls_ca": authority.ca, "tls_cert": cert, "tls_key": key}
        mine = tmp_path / "mine"
        mine.write_text(token + "\n")
        mine.chmod(0o600)
        with shardmax.Client(**options, token_file=mine) as client:
            assert client.list() == []
            with pytest.raises(shardmax.PermissionDeniedError, match="submitters"):
                client.submit(make_case(plane.data).spec)
        monkeypatch.setenv("SHARDMAX_TOKEN", token)
        with shardmax.Client(**options) as client:
            assert client.list() == []
        with shardmax.Client(**options, token="wrong") as client, pytest.raises(shardmax.UnauthenticatedError):
            client.list()
        with shardmax.Client(timeout_s=1) as client, pytest.raises(shardmax.UnavailableError, match="TLS"):
            client.list()
        mine.chmod(0o644)
        with pytest.raises(shardmax.PermissionDeniedError, match="chmod o-rw"):
            shardmax.Client(**options, token_file=mine)
        with pytest.raises(shardmax.InvalidArgumentError, match="tls_cert needs tls_ca"):
            shardmax.Client(tls_cert=cert, tls_key=key)


def new_token(who):
    """(token, its line in the tokens file)."""
    command = [BIN / "shardmax-server", f"--new_token={who}"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    at = words.index(who.split(":")[0])
    return next(word for word in words if word.startswith("smx_")), " ".join(words[at : at + 3])
