"""Debian's real Prometheus with the configuration and rules of deploy/, hurried: a test does not last half an hour."""

import json
import pathlib
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

from control_harness import wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))
import monitoring  # noqa: E402

SPEED = 120


class Prometheus:
    """Scrapes what the server's file of targets names. Use it in a `with`."""

    def __init__(self, folder, state_dir):
        self.folder = folder
        folder.mkdir()
        config = (monitoring.PROMETHEUS / "prometheus.yml").read_text()
        config = config.replace("/var/lib/shardmax/prometheus", str(state_dir / "prometheus"))
        config = re.sub(r"(scrape|evaluation)_interval: 15s", r"\1_interval: 500ms", config)
        config = config.replace("scrape_interval: 500ms", "scrape_interval: 500ms\n  scrape_timeout: 500ms")
        (folder / "prometheus.yml").write_text(config)
        (folder / "alerts.yml").write_text(self.hurried((monitoring.PROMETHEUS / "alerts.yml").read_text()))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = "127.0.0.1:%d" % free.getsockname()[1]

    @staticmethod
    def hurried(rules):
        rules = re.sub(r"\bfor: (\d+)m", lambda match: f"for: {max(1, int(match[1]) * 60 // SPEED)}s", rules)
        return monitoring.faster(rules, SPEED)

    def __enter__(self):
        self.log = open(self.folder / "log.txt", "w+")
        command = ["prometheus", f"--config.file={self.folder / 'prometheus.yml'}", "--log.level=warn"]
        command += [f"--storage.tsdb.path={self.folder / 'data'}", f"--web.listen-address={self.address}"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        wait_until(self._is_ready, "Prometheus to be ready", context=self.text)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def text(self):
        return (self.folder / "log.txt").read_text()

    def _is_ready(self):
        assert self.process.poll() is None, self.text()
        try:
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def _get(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression):
        """[(labels, number)] of an instant query."""
        found = self._get("query", query=expression)
        if found["resultType"] == "scalar":
            return [({}, float(found["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]

    def number(self, expression):
        """The only number of the answer, or None."""
        found = self.query(expression)
        assert len(found) <= 1, (expression, found)
        return found[0][1] if found else None

    def firing(self):
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"}
