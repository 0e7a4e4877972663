"""The expressions of the dashboard and of the alerts, as Prometheus is asked them by tests."""

import json
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"


def panels():
    """Every panel of the dashboard that shows something."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def dashboard_expressions(interval="1m"):
    """(panel title, expression), with what Grafana fills in filled in."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", interval).replace("$pool", ".*")


def rules():
    """The recorded expressions and the alerts: dicts of alerts.yml."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def without_thresholds(expression):
    """Every comparison says 0 or 1 instead of leaving out what it does not hold for."""
    return re.sub(r"(==|!=|>=|<=|>|<)(?!\s*bool\b)", r"\1 bool", expression)


def faster(expression, factor):
    """Ranges and offsets divided by `factor`, at least one second: a test does not last an hour."""
    unit = {"s": 1, "m": 60, "h": 3600}

    def shorter(match):
        return f"{match[1]}{max(1, int(match[2]) * unit[match[3]] // factor)}s"

    return re.sub(r"(\[|offset )(\d+)([smh])", shorter, expression)
