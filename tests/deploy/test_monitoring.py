"""The Grafana dashboard and the Prometheus rules are sound, and speak of the metrics that docs/metrics.md names."""

import json
import re
import subprocess

import yaml

import monitoring
from monitoring import PROMETHEUS, ROOT, dashboard_expressions, panels, rules, without_thresholds


def promtool(*arguments, **options):
    result = subprocess.run(
        ["promtool", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def documented():
    """The metrics of the tables of docs/metrics.md: name -> type."""
    found = {}
    for names, kind in re.findall(r"^\| (`shardmax_[^|]+) \| (\w+) \|", (ROOT / "docs/metrics.md").read_text(), re.M):
        found.update(dict.fromkeys(re.findall(r"`(\w+)`", names), kind))
    return found


def series(name, kind):
    return {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")} if kind == "histogram" else {name}


def used(expressions):
    return {name for text in expressions for name in re.findall(r"\bshardmax_\w+", text)}


def test_the_rules_and_the_configuration_are_valid(tmp_path):
    """With the file of targets of this test instead of the one of an installation."""
    (tmp_path / "targets.json").write_text('[{"targets": ["127.0.0.1:7701"], "labels": {"component": "server"}}]')
    text = (PROMETHEUS / "prometheus.yml").read_text()
    assert text.count("/var/lib/shardmax/prometheus/targets.json") == 1
    (tmp_path / "prometheus.yml").write_text(text.replace("/var/lib/shardmax/prometheus", str(tmp_path)))
    (tmp_path / "alerts.yml").write_text((PROMETHEUS / "alerts.yml").read_text())
    said = promtool("check", "config", tmp_path / "prometheus.yml")
    assert "WARNING" not in said, said
    assert f"{len(rules())} rules found" in said


def test_every_alert_fires_and_keeps_quiet_when_it_should():
    promtool("test", "rules", "alerts_test.yml", cwd=PROMETHEUS)
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    asked = [case for test in tests for case in test["alert_rule_test"]]
    for alert in [rule["alert"] for rule in rules() if "alert" in rule]:
        fires = [bool(case.get("exp_alerts")) for case in asked if case["alertname"] == alert]
        assert True in fires and False in fires, f"alerts_test.yml does not show {alert} both firing and quiet"


def test_every_expression_parses(tmp_path):
    expressions = [text for _, text in dashboard_expressions()]
    expressions += [without_thresholds(rule["expr"]) for rule in rules()]
    expressions += [monitoring.faster(rule["expr"], 60) for rule in rules()]
    parsed = [{"record": f"parsed:expression:{i}", "expr": text} for i, text in enumerate(expressions)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "parsed", "rules": parsed}]}))
    promtool("check", "rules", tmp_path / "rules.yml")


def test_the_dashboard_shows_every_documented_metric_and_no_other():
    known = documented()
    assert len(known) > 30
    shown = used(text for _, text in dashboard_expressions()) | used(rule["expr"] for rule in rules())
    assert shown <= set().union(*(series(name, kind) for name, kind in known.items()))
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    texts = [text for _, text in dashboard_expressions()]
    texts += [expression for name, expression in recorded.items() if any(name in text for text in texts)]
    missing = [name for name, kind in known.items() if not series(name, kind) & used(texts)]
    assert not missing


def test_recorded_names_are_recorded():
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    texts = [text for _, text in dashboard_expressions()] + [rule["expr"] for rule in rules()]
    assert {name for text in texts for name in re.findall(r"\bshardmax:[\w:]+", text)} == recorded


def test_panels_are_described_and_do_not_overlap():
    everything = json.loads(monitoring.DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = {}
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    for panel in panels():
        assert panel["description"] and panel["targets"] and panel["fieldConfig"]["defaults"]["unit"]
