"""The server and pool of a notebook: they start, train, and leave nothing behind."""

import os
import pathlib
import stat

import numpy as np
import pytest

import shardmax
from control_cases import make_case
from shardmax.v1 import control_pb2


@pytest.fixture
def mark(monkeypatch):
    """Inherited by all that a test starts, which is found by it."""
    monkeypatch.setenv("TEST_LOCAL_MARK", str(os.getpid()))
    return lambda: [
        folder.name
        for folder in pathlib.Path("/proc").glob("[0-9]*")
        if int(folder.name) != os.getpid() and f"TEST_LOCAL_MARK={os.getpid()}".encode() in environment(folder)
    ]


def environment(folder):
    try:
        return (folder / "environ").read_bytes()
    except OSError:
        return b""


def test_a_job_is_trained_and_everything_is_gone_afterwards(tmp_path, mark):
    case = make_case(tmp_path / "data", steps=20)
    with shardmax.local(ranks=2, threads=1, data_root=case.folder) as cluster:
        assert [pool.ranks for pool in cluster.client.pools()] == [2]
        job = cluster.client.submit(case.spec)
        assert cluster.client.wait(job.id, quiet=True).state == control_pb2.SUCCEEDED
        assert cluster.client.export(job.id, tmp_path / "w.npy") == 20
        assert len(mark()) >= 4
    assert mark() == []
    assert not cluster.folder.exists()
    assert np.load(tmp_path / "w.npy").shape == (4001, 64)


def test_a_running_job_is_there_when_the_folder_is_used_again(tmp_path, mark):
    from control_cases import endless

    case = endless(tmp_path / "data", checkpoint={"every_steps": 0})
    with shardmax.local(threads=1, data_root=case.folder, folder=tmp_path / "keep") as cluster:
        job = cluster.client.submit(case.spec)
        for line in cluster.client.metrics(job.id, follow=True):
            if line.step >= 20:
                break
    assert mark() == []
    with shardmax.local(threads=1, data_root=case.folder, folder=tmp_path / "keep") as cluster:
        now = cluster.client.get(job.id)
        assert now.checkpoint_step >= 20, "the rank wrote no checkpoint when it was told to leave"
        cluster.client.stop(job.id)
        assert cluster.client.wait(job.id, quiet=True).state == control_pb2.STOPPED


def test_what_does_not_start_shows_its_log(tmp_path, mark):
    with pytest.raises(shardmax.InternalError, match="the server ended with exit code .*\n(.*\n)*.*no/such"):
        shardmax.local(data_root="/no/such")
    with pytest.raises(shardmax.NotFoundError, match="shardmax-server is not in /no/bin: build it.*SHARDMAX_BIN"):
        shardmax.local(data_root=tmp_path, bin="/no/bin")
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "shardmax-server").symlink_to(pathlib.Path(os.environ["SHARDMAX_BIN"]) / "shardmax-server")
    (broken / "shardmax-worker").write_text("#!/bin/sh\necho no memory on this machine\nexit 3\n")
    (broken / "shardmax-worker").chmod(stat.S_IRWXU)
    with pytest.raises(shardmax.InternalError, match="the pool ended with exit code(.*\n)*.*no memory on this machine"):
        shardmax.local(data_root=tmp_path, bin=broken)
    assert mark() == []
