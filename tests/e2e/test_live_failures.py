"""Trainers and ranks that die: backbone and head go on from their last common checkpoint, and end as if nothing was."""

import signal
import subprocess

import grpc
import numpy as np
import pytest

from certificates import Authority
from control_harness import BIN, ControlPlane, wait_until
from harness import INVALID_USE, SUCCEEDED, assert_close, assert_same_tensors
from live_case import Team, batch, make_case, wait_for_endpoints
from trainer import StreamEnded, Trainer, describe

STEPS, EVERY, DEATH = 30, 5, 13


class Script:
    """A training script of `trainers` trainers: keeps its backbone beside each checkpoint of the head."""

    def __init__(self, trainers):
        self.trainers = trainers
        self.saved, self.losses = {}, {}

    def train(self, addresses, stop_before=STEPS, restart=False):
        team = Team(addresses, self.trainers, Trainer)
        if not restart:
            self.saved[0] = team.model.state()
        welcome = team.trainers[0].welcome
        common = max(set(self.saved) & {0, *welcome.checkpoint_steps})
        team.model.restore(self.saved[common])
        if common != welcome.steps_done:
            team.load(common)
        for step in range(common, stop_before):
            reply, _ = team.step(step, checkpoint=(step + 1) % EVERY == 0)
            self.losses[step] = reply.loss
            if (step + 1) % EVERY == 0:
                assert reply.checkpoint_step == step + 1
                self.saved[step + 1] = team.model.state()
        return team


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The losses and the last checkpoint of the run in which nobody dies, by trainers; on 2 ranks."""

    def run(trainers):
        case = make_case(tmp_path_factory.mktemp("undisturbed") / "job", trainers, STEPS)
        script = Script(trainers)
        with case.launch(2, "--data_port_base=0") as launch:
            script.train(wait_for_endpoints(launch, 2)).close()
            launch.wait(SUCCEEDED)
        return script.losses, case.last_checkpoint()

    return {trainers: run(trainers) for trainers in (1, 2)}


@pytest.mark.parametrize("trainers", [1, pytest.param(2, marks=pytest.mark.sanitized)])
def test_trainers_that_are_killed_and_restarted(tmp_path, undisturbed, trainers):
    losses, last = undisturbed[trainers]
    case = make_case(tmp_path / "job", trainers, STEPS)
    script = Script(trainers)
    with case.launch(2, "--data_port_base=0") as launch:
        addresses = wait_for_endpoints(launch, 2)
        team = script.train(addresses, stop_before=DEATH)
        # One dies in the middle of a step, and with it the backbone of that moment; the others restart with it.
        inputs, labels = batch(DEATH)
        team.trainers[0].send_step(DEATH, team.model.net(inputs).detach().numpy(), labels)
        team.close()
        script.train(addresses, restart=True).close()
        launch.wait(SUCCEEDED)
    assert script.losses == losses
    assert_same_tensors(case.last_checkpoint(), last)
    assert [line["step"] for line in case.metrics()] == list(range(1, STEPS + 1))


def data_addresses(plane, name):
    pool = plane.client.list_pools()[name]
    return [f"{each.host}:{each.data_port}" for each in sorted(pool.endpoints, key=lambda each: each.rank)]


def ready(address, job, attempt):
    try:
        return describe(address).attempt >= attempt
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE), error
        return False


@pytest.mark.sanitized
def test_a_rank_that_is_killed_costs_the_steps_since_the_common_checkpoint(tmp_path, undisturbed):
    losses, last = undisturbed[2]
    with ControlPlane(tmp_path) as plane:
        case = make_case(plane.data, 2, STEPS)
        first = plane.pool("a", 2, "--data_port_base=0")
        job = plane.submit(case, pool="a")
        addresses = data_addresses(plane, "a")
        # Ranks begin the job each in its own time.
        wait_until(lambda: all(ready(each, job, 1) for each in addresses), "the job to serve trainers", context=job.story)
        script = Script(2)
        team = script.train(addresses, stop_before=DEATH)
        first.signal_rank(1, signal.SIGKILL)
        for trainer in team.trainers:
            with pytest.raises(StreamEnded) as ended:
                trainer.receive()
            assert ended.value.code == grpc.StatusCode.UNAVAILABLE
        team.close()
        wait_until(lambda: first.ranks() == {}, "the other rank to end")
        job.wait_for_state("PENDING")
        plane.pool("a", 2, "--data_port_base=0")
        job.wait_for_state("RUNNING")
        addresses = data_addresses(plane, "a")
        wait_until(lambda: ready(addresses[0], job, 2), "the job to serve trainers again", context=job.story)
        script.train(addresses, restart=True).close()
        job.wait_for_state("SUCCEEDED")
        assert script.losses == losses
        assert_same_tensors(job.last_checkpoint(), last)


def test_a_live_job_under_a_server_stops_and_writes_checkpoints_while_trainers_are_away(tmp_path):
    with ControlPlane(tmp_path) as plane:
        case = make_case(plane.data, 1, STEPS)
        plane.pool("a", 1, "--data_port_base=0")
        job = plane.submit(case)
        address = data_addresses(plane, "a")[0]
        wait_until(lambda: ready(address, job, 1), "the job to serve trainers", context=job.story)
        team = Team([address], 1, Trainer)
        team.step(0)
        team.step(1)
        team.close()
        plane.client.call("CheckpointNow", job=job.id)
        wait_until(lambda: job.get().checkpoint_step == 2, "the checkpoint", context=job.story)
        plane.client.call("StopJob", job=job.id)
        job.wait_for_state("STOPPED")
        with pytest.raises(grpc.RpcError) as refused:
            describe(address)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert refused.value.details() == "no live job runs here"


def new_token(role_and_name):
    made = subprocess.run([BIN / "shardmax-server", f"--new_token={role_and_name}"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    lines = [line for line in made.stdout.splitlines() if line.strip()]
    token = next(word for line in lines for word in line.split() if word.startswith("smx_"))
    entry = next(line.strip() for line in lines if line.strip().startswith(role_and_name.split(":")[0] + " "))
    return token, entry


@pytest.mark.sanitized
def test_trainers_need_a_token_of_a_submitter_and_the_right_authority(tmp_path):
    authority = Authority(tmp_path / "tls")
    cert, key = authority.sign("worker")
    tokens = {role: new_token(f"{role}:ann") for role in ("submitter", "viewer", "worker")}
    (tmp_path / "tokens.txt").write_text("\n".join(entry for _, entry in tokens.values()) + "\n")
    case = make_case(tmp_path / "job", 1, steps=2)
    flags = ["--data_port_base=0", f"--data_tls_cert={cert}", f"--data_tls_key={key}",
             f"--data_tokens_file={tmp_path / 'tokens.txt'}"]
    trust = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    with case.launch(1, *flags) as launch:
        token = tokens["submitter"][0]
        address = wait_for_endpoints(launch, 1, token, trust)[0]
        refused = [(None, "UNAUTHENTICATED"), ("smx_wrong", "UNAUTHENTICATED"),
                   (tokens["viewer"][0], "PERMISSION_DENIED"), (tokens["worker"][0], "PERMISSION_DENIED")]
        for wrong, code in refused:
            with pytest.raises(StreamEnded) as ended:
                Trainer(address, token=wrong, credentials=trust)
            assert ended.value.code.name == code, ended.value
            with pytest.raises(grpc.RpcError) as failed:
                describe(address, wrong, trust)
            assert failed.value.code().name == code
        assert describe(address, token, trust).job == "live"
        team = Team([address], 1, lambda where, t: Trainer(where, t, token=token, credentials=trust))
        team.step(0)
        assert team.step(1)[0].last
        team.close()
        launch.wait(SUCCEEDED)


@pytest.mark.parametrize("flags, message", [
    (["--data_listen=0.0.0.0"], "--data_listen is 0.0.0.0:0, which other machines can reach: give --data_tls_cert"),
    (["--data_tls_cert=c.pem"], "--data_tls_cert and --data_tls_key go together"),
    (["--data_tls_cert=c.pem", "--data_tls_key=k.pem"], "--data_tls_cert: c.pem: No such file"),
    (["--data_tokens_file=t.txt"], "--data_tokens_file: t.txt: No such file"),
])
def test_a_data_plane_that_cannot_be_served_is_wrong_usage(tmp_path, flags, message):
    case = make_case(tmp_path / "job", 1, steps=2)
    case.run(1, "--data_port_base=0", *flags, expect=INVALID_USE).says(message)
