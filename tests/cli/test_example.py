"""The example of the C++ client, built outside of the tree against an installed shardmax, and run."""

import pathlib
import subprocess

import pytest
from plane import BIN, CLASSES, DIM, PATIENCE_S
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    source = ROOT / "client" / "cpp" / "examples" / "submit_and_wait"
    steps = [
        ["cmake", "--install", BIN.parent, "--prefix", folder / "prefix"],
        ["cmake", "-S", source, "-B", folder / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={folder / 'prefix'}"],
        ["cmake", "--build", folder / "build"],
    ]
    for step in steps:
        run = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert run.returncode == 0, run.stdout
    for name in ("shardmax", "shardmax-server", "shardmax-worker"):
        assert (folder / "prefix" / "bin" / name).exists()
    return folder / "build" / "submit_and_wait"


def test_the_example_builds_with_find_package_and_trains(example, plane):
    weights = plane.folder / "example.safetensors"
    run = subprocess.run([example, plane.server.address, plane.spec("example", steps=20), weights], capture_output=True,
                         text=True, timeout=PATIENCE_S)
    assert run.returncode == 0, run.stderr
    assert "SUCCEEDED step 20/20" in run.stdout
    assert load_file(weights)["weight"].shape == (CLASSES, DIM)


def test_the_example_reports_mistakes(example, plane):
    run = subprocess.run([example, plane.server.address, plane.spec("mistaken", dim=0), "w"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "train.dim is 0" in run.stderr
