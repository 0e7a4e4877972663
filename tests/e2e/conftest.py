import os

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "sanitized: also runs with sanitizers, which are slow (CMakeLists.txt)")
    if not os.path.exists(os.environ.get("SHARDMAX_WORKER", "")):
        pytest.exit("SHARDMAX_WORKER must name the shardmax-worker to test, e.g. build/release/bin/shardmax-worker", 2)
