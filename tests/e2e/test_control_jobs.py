"""A team's day: jobs are submitted with the command, wait for a pool that fits, run one after another, are watched."""

import json

import pytest
from safetensors.numpy import load_file

from control_cases import STEPS, assert_same_run, endless, make_case
from control_client import Client
from control_harness import ControlPlane, value, wait_until
from harness import FAILED, INVALID_USE, PATIENCE_S, STOPPED, SUCCEEDED

NOT_REACHABLE = 3


@pytest.fixture
def plane(tmp_path):
    with ControlPlane(tmp_path) as plane:
        yield plane


@pytest.mark.sanitized
def test_submit_and_wait_trains_what_the_worker_alone_trains(plane, tmp_path):
    case = make_case(plane.data)
    alone = make_case(tmp_path / "alone")
    alone.run(2)
    plane.pool("a")
    shown = plane.run_cli("submit", plane.write_spec(case), "--wait", expect=SUCCEEDED)
    shown.says(f"step {STEPS:,}/{STEPS:,}", "control-1", "SUCCEEDED")
    (job,) = plane.client.call("ListJobs").jobs
    assert_same_run(plane.job(job.id, case), alone)

    status = json.loads(plane.run_cli("status", job.id, "--json").text)
    assert (status["state"], int(status["progress"]["step"])) == ("SUCCEEDED", STEPS)
    weights = tmp_path / "exported.safetensors"
    plane.run_cli("export", job.id, f"--output={weights}")
    assert (load_file(weights)["weight"] == plane.job(job.id, case).last_checkpoint().weight).all()
    steps = [line.step for line in plane.client.call("StreamMetrics", job=job.id)]
    assert steps == list(range(1, STEPS + 1))
    plane.run_cli("delete", job.id)
    assert not (plane.server.state / "jobs" / job.id).exists()
    assert list(plane.client.call("ListJobs").jobs) == []


def test_exit_codes_say_how_a_job_ended(plane):
    case = make_case(plane.data, steps=30)
    running = endless(plane.data)
    plane.pool("a")
    plane.run_cli("submit", plane.write_spec(case), "--wait", expect=SUCCEEDED)
    # The labels of the endless job are good, of 4001 classes.
    bad = plane.write_spec(case, "bad.textproto", train={**case.spec["train"], "num_classes": 3})
    plane.run_cli("submit", bad, "--wait", expect=FAILED).says("y.npy", "row")
    invalid = plane.write_spec(case, "invalid.textproto", train={**case.spec["train"], "dim": 0})
    plane.run_cli("submit", invalid, expect=INVALID_USE).says("train.dim")
    job = plane.submit(running)
    job.wait_for_step(10)
    plane.run_cli("stop", job.id, "--wait", expect=STOPPED)
    assert job.last_checkpoint().step == job.get().progress.step
    plane.server.terminate()
    plane.run_cli("list", "--timeout_s=1", expect=NOT_REACHABLE).says(plane.server.address)


def test_a_pool_runs_one_job_after_another_by_priority_without_being_launched_anew(plane):
    case = make_case(plane.data, steps=30)
    jobs = [plane.submit(case, name=f"j{i}", priority=priority) for i, priority in enumerate([0, 5, 0, 9])]
    pool = plane.pool("a")
    ranks = pool.ranks()
    ended = [job.wait_for_state("SUCCEEDED") for job in jobs]
    order = sorted(range(4), key=lambda i: (ended[i].started.seconds, ended[i].started.nanos))
    assert order == [3, 1, 0, 2]
    assert pool.ranks() == ranks
    assert {job.pool for job in ended} == {"a"}
    assert value(plane.metrics(), "shardmax_jobs_finished_total", state="succeeded") == 4


def test_a_job_waits_for_a_pool_that_fits_and_holds_up_no_other(plane):
    case = make_case(plane.data, steps=30)
    plane.pool("small", 1)
    large = plane.submit(case, min_ranks=2, priority=10)
    named = plane.submit(case, pool="elsewhere", priority=10)
    plane.submit(case).wait_for_state("SUCCEEDED")
    assert (large.state(), named.state()) == ("PENDING", "PENDING")
    plane.pool("large", 3)
    assert large.wait_for_state("SUCCEEDED").ranks == 3
    plane.pool("elsewhere", 1)
    assert named.wait_for_state("SUCCEEDED").pool == "elsewhere"


def test_a_running_job_writes_a_checkpoint_when_asked(plane):
    case = endless(plane.data, checkpoint={"every_steps": 0})
    plane.pool("a")
    job = plane.submit(case)
    job.wait_for_step(50)
    assert job.checkpoints() == []
    plane.run_cli("checkpoints", job.id, "--now").says(r"\d+")
    wait_until(job.checkpoints, "the checkpoint", context=job.story)
    (listed,) = plane.client.call("ListCheckpoints", job=job.id).checkpoints
    assert listed.step == job.last_checkpoint().step and listed.bytes > 0
    at = job.metrics()[-1]["step"]
    job.wait_for_step(at + 50)


def test_stopping_a_job_that_waits_or_has_stopped(plane):
    case = make_case(plane.data)
    job = plane.submit(case)
    assert plane.state_name(plane.client.call("StopJob", job=job.id).state) == "STOPPED"
    assert plane.state_name(plane.client.call("StopJob", job=job.id).state) == "STOPPED"
    plane.pool("a")
    other = plane.submit(case)
    assert other.wait_for_state("SUCCEEDED").attempt == 1
    assert job.get().attempt == 0


def test_watchers_and_readers_of_logs_end_with_the_job(plane):
    case = make_case(plane.data)
    plane.pool("a")
    job = plane.submit(case)
    states = [plane.state_name(each.state) for each in plane.client.call("WatchJob", job=job.id, timeout_s=PATIENCE_S)]
    assert states[-1] == "SUCCEEDED" and set(states) <= {"PENDING", "RUNNING", "SUCCEEDED"}
    followed = [line.text for line in plane.client.call("StreamLogs", job=job.id, follow=True, timeout_s=PATIENCE_S)]
    assert followed == job.said()
    # All that the workers wrote into log.txt is there.
    for line in job.log().splitlines():
        assert any(text in line for text in followed), line


def test_health_and_reflection_answer_plain_grpc(plane):
    with Client(plane.server.address) as caller:
        serving = b"\x08\x01"
        assert caller.raw("/grpc.health.v1.Health/Check", b"") == serving
        ask = caller.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        list_services = b"\x3a\x01*"
        (answer,) = ask(iter([list_services]), timeout=10)
        assert b"shardmax.v1.JobService" in answer and b"shardmax.v1.PoolService" in answer
