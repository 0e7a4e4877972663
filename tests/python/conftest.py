import os
import pathlib
import subprocess
import sys

import pytest

# The server and pools of tests are started as in e2e.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))


def pytest_configure(config):
    if not os.path.exists(os.environ.get("SHARDMAX_WORKER", "")):
        pytest.exit("SHARDMAX_WORKER must name the shardmax-worker to test, e.g. build/release/bin/shardmax-worker", 2)


def pytest_collection_modifyitems(items):
    """What needs the data plane is skipped with a worker that has none."""
    worker = subprocess.run([os.environ["SHARDMAX_WORKER"], "--help"], capture_output=True, text=True, check=True)
    if "--data_port_base" in worker.stdout:
        return
    for item in items:
        if item.path.stem.startswith("test_live") or item.path.stem == "test_local":
            item.add_marker(pytest.mark.skip(reason="this worker serves no live jobs"))
