import os
import pathlib
import sys

import pytest

# The server and pools of tests are started as in e2e.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))


def pytest_configure(config):
    if not os.path.exists(os.environ.get("SHARDMAX_WORKER", "")):
        pytest.exit("SHARDMAX_WORKER must name the shardmax-worker to test, e.g. build/release/bin/shardmax-worker", 2)
