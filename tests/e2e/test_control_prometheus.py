"""Prometheus itself finds the server and every rank, and answers whatever the dashboard and the alerts ask."""

import contextlib
import json
import math
import subprocess
import urllib.request

import grpc
import pytest

from control_cases import B, endless, make_case
from control_harness import ControlPlane, scrape, wait_until
from prometheus import SPEED, Prometheus, monitoring


class Watched:
    """A server, a pool of two ranks that has done one job and runs another, and a Prometheus that has seen it all."""

    def __init__(self, folder, stack):
        self.plane = stack.enter_context(ControlPlane(folder, grace_s=10))
        self.prometheus = stack.enter_context(Prometheus(folder / "prometheus", self.plane.server.state))
        case = make_case(self.plane.data, steps=300)
        running = endless(self.plane.data)
        self.pool = self.plane.pool("a", 2)
        wait_until(lambda: len(self.prometheus.query("up == 1")) == 3, "three targets", context=self.prometheus.text)
        self.plane.submit(case).wait_for_state("SUCCEEDED")
        self.job = self.plane.submit(running)
        self.job.wait_for_step(1000)
        for _ in range(3):
            with contextlib.suppress(grpc.RpcError):
                self.plane.client.get("absent")

    def endpoints(self):
        groups = json.loads((self.plane.server.state / "prometheus" / "targets.json").read_text())
        return [(target, group["labels"]) for group in groups for target in group["targets"]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        yield Watched(tmp_path_factory.mktemp("watched"), stack)


def has_data(prometheus, expression):
    return any(not math.isnan(number) for _, number in prometheus.query(expression))


@pytest.mark.sanitized
def test_names_and_help_please_promtool(watched):
    endpoints = watched.endpoints()
    assert len(endpoints) == 3
    for address, _ in endpoints:
        page = urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read()
        result = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True)
        assert result.returncode == 0, (address, result.stdout + result.stderr)


def test_the_file_of_targets_says_which_rank_each_is(watched):
    labels = [labels for _, labels in watched.endpoints()]
    assert {"component": "server"} in [{key: label[key] for key in label if key == "component"} for label in labels]
    ranks = [label for label in labels if label["component"] == "worker"]
    assert sorted((label["pool"], label["rank"]) for label in ranks) == [("a", "0"), ("a", "1")]


def test_every_series_of_the_documentation_is_there(watched):
    """Each table of docs/metrics.md, on the endpoints that it is about."""
    text = (monitoring.ROOT / "docs/metrics.md").read_text()
    server, worker = text.split("## Workers")
    for address, labels in watched.endpoints():
        metrics = scrape(address)
        told = {name.removesuffix("_count").removesuffix("_sum").removesuffix("_bucket") for name in metrics}
        table = server if labels["component"] == "server" else worker
        named = set()
        for line in table.splitlines():
            if line.startswith("| `shardmax_"):
                named |= {word.strip("`, ") for word in line.split("|")[1].split()}
        assert named - told == set(), (address, labels)
        assert {name for name in told if name.startswith("shardmax_")} - named == set(), (address, labels)


@pytest.mark.parametrize("title, expression", list(monitoring.dashboard_expressions("10s")))
def test_an_expression_of_the_dashboard_returns_data(watched, title, expression):
    wait_until(lambda: has_data(watched.prometheus, expression), f"{title}: {expression}", limit_s=60)


RULES = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in monitoring.rules()]


@pytest.mark.parametrize("name, expression", RULES)
def test_an_expression_of_a_rule_returns_data(watched, name, expression):
    """With every comparison turned into 0 or 1, and ranges as short as those of the rules that Prometheus runs."""
    expression = monitoring.without_thresholds(monitoring.faster(expression, SPEED))
    wait_until(lambda: has_data(watched.prometheus, expression), f"{name}: {expression}", limit_s=60)


def test_the_numbers_are_those_of_the_job(watched):
    ask, job = watched.prometheus.number, watched.job
    assert ask('sum(shardmax_jobs{state="running"})') == 1
    assert ask('sum(shardmax_jobs_finished_total{state="succeeded"})') == 1
    assert ask('shardmax_pool_ranks{state="busy"}') == 2
    before = job.get().progress.step
    wait_until(lambda: ask('max(shardmax_step{pool="a"})') >= before, "the step")
    assert ask('max(shardmax_step{pool="a"})') <= job.metrics()[-1]["step"] + 10 * 1000
    assert ask("max(shardmax_total_steps)") == job.get().total_steps
    # Whole batches but for the last of an epoch, which is shorter.
    per_step = ask("sum(rate(shardmax_samples_total[10s])) / sum(rate(shardmax_steps_total[10s]))")
    assert 0.9 * B < per_step <= 1.01 * B
    phases = ask("sum(rate(shardmax_step_phase_seconds_total[10s]))")
    assert 0.3 < phases / ask("sum(rate(shardmax_step_seconds_sum[10s]))") < 1.05
    each = ask("sum(rate(shardmax_collectives_total[10s])) / sum(rate(shardmax_steps_total[10s]))")
    assert each >= 3, "three collectives a step, of a job on frozen features"
    last = ask("max(shardmax_loss)")
    assert 0 <= last < 20


def test_alerts_fire_for_a_pool_that_is_killed_and_end_when_it_is_back(watched):
    """The last test: it kills the pool."""
    prometheus, plane = watched.prometheus, watched.plane
    quiet = {f"Shardmax{name}" for name in ("ServerDown", "RankMissing", "PoolLost", "JobRestarting", "JobFailed")}
    assert prometheus.firing() & quiet == set()
    watched.pool.kill()
    wait_until(lambda: {"ShardmaxPoolLost", "ShardmaxRankMissing"} <= prometheus.firing(), "a lost pool to alert", 60)
    plane.pool("a", 2)
    wait_until(lambda: "ShardmaxJobRestarting" in prometheus.firing(), "a restart to alert", 60)
    wait_until(lambda: not {"ShardmaxPoolLost", "ShardmaxRankMissing"} & prometheus.firing(), "the pool to be back", 60)
    plane.client.call("StopJob", job=watched.job.id)
    watched.job.wait_for_state("STOPPED")
    pool = plane.pools[-1]
    pool.terminate()
    pool.program.wait(0)
    wait_until(lambda: len(watched.endpoints()) == 1, "the targets of the pool to go")
