"""systemd takes the units as they are, and finds that they give away little."""

import re
import subprocess

import pytest

from monitoring import ROOT

UNITS = ROOT / "deploy" / "systemd"


@pytest.fixture
def units(tmp_path):
    """Copies whose commands are there: systemd checks that."""
    for file in UNITS.glob("*.service"):
        text = re.sub(r"/usr/bin/shardmax-\w+|/usr/bin/mpirun", "/bin/true", file.read_text())
        (tmp_path / file.name).write_text(text)
    return tmp_path


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("unit, instance", [("shardmax-server", ""), ("shardmax-pool@", "a")])
def test_a_unit_has_no_mistake(units, unit, instance):
    result = analyze("verify", "--man=no", units / f"{unit}{instance}.service")
    assert result.returncode == 0 and unit not in result.stdout, result.stdout


# Exposure from 0 (none) to 100.
@pytest.mark.parametrize("unit, exposure", [("shardmax-server", 20), ("shardmax-pool@", 45)])
def test_a_unit_is_hardened(units, unit, exposure):
    result = analyze("security", "--offline=true", f"--threshold={exposure}", units / f"{unit}.service")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("unit, example", [("shardmax-server", "server.env"), ("shardmax-pool@", "pool.env")])
def test_every_setting_of_the_examples_is_read(unit, example):
    text = (UNITS / f"{unit}.service").read_text()
    settings = re.findall(r"^#?([A-Z_]+)=", (UNITS / example).read_text(), re.M)
    assert settings
    for name in settings:
        assert f"${name}" in text or f"${{{name}}}" in text, f"{unit}.service does not read {name}"
