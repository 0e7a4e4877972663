import os

import pytest


def pytest_configure(config):
    if not os.path.exists(os.environ.get("SHARDMAX_WORKER", "")):
        pytest.exit("SHARDMAX_WORKER must name the shardmax-worker beside the shardmax to test", 2)


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    """A server and one pool of two ranks for all tests; each has jobs of its own names."""
    from plane import Plane

    plane = Plane(tmp_path_factory.mktemp("plane"))
    try:
        plane.start_pool("a")
        yield plane
    finally:
        plane.end()
