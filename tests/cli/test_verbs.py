"""Every verb against a real server and a real pool, in both forms of output, with its exit code."""

import json
import re

import numpy as np
from PIL import Image
from plane import CLASSES, DIM
from safetensors.numpy import load_file


def test_a_job_from_submit_to_delete(plane):
    submitted = plane.run("submit", plane.spec("whole", steps=30))
    job = submitted.out.strip()
    assert submitted.out == f"{job}\n" and job.startswith("whole-")
    submitted.says(f"shardmax watch {job}")
    plane.run("watch", job, expect=0)

    status = plane.run("status", "whole")
    for line in (f"job +{job}", "state +SUCCEEDED", r"progress +step 30/30 \(100%\)", r"pool +a \(2 ranks\)"):
        assert re.search(line, status.out), status.out
    now = plane.job(job)
    assert (now["id"], now["state"], now["progress"]["step"], now["restarts"]) == (job, "SUCCEEDED", 30, 0)
    assert now["spec"]["train"]["num_classes"] == CLASSES

    checkpoints = plane.run("checkpoints", job, "--json").json()["checkpoints"]
    assert [checkpoint["step"] for checkpoint in checkpoints] == [30]
    table = plane.run("checkpoints", job).out
    assert table.splitlines()[0].split() == ["STEP", "SIZE", "FILES", "WRITTEN", "FOLDER"]
    assert table.splitlines()[1].endswith("checkpoints/step-00000030")

    plane.run("export", job, "--output=w.safetensors")
    weight = load_file(plane.folder / "w.safetensors")["weight"]
    folder = checkpoints[0]["folder"]
    parts = [load_file(f"{folder}/{file['path']}")["weight"] for file in checkpoints[0]["manifest"]["files"]]
    assert weight.shape == (CLASSES, DIM) and np.array_equal(weight, np.concatenate(parts))
    exported = plane.run("export", job, "--step=30", "--output=again.safetensors", "--json").json()
    assert exported["step"] == 30
    assert int(exported["total_bytes"]) == (plane.folder / "again.safetensors").stat().st_size
    plane.run("export", job, "--step=29", "--output=none.safetensors", expect=2).says("29")
    assert not list(plane.folder.glob("none*"))

    plane.run("plot", job, "--output=p.png")
    assert Image.open(plane.folder / "p.png").size == (1600, 1312)

    plane.run("delete", job)
    plane.run("status", job, expect=2).says(f'"{job}"', "shardmax list")
    assert not (plane.folder / "state" / "jobs" / job).exists()


def test_logs_are_lines_for_people_and_objects_for_programs(plane):
    plane.run("submit", "--wait", plane.spec("logs", steps=5))
    lines = plane.run("logs", "logs", "--json").lines()
    assert [int(line["sequence"]) for line in lines] == sorted(int(line["sequence"]) for line in lines)
    assert {line["source"] for line in lines} >= {"server", "a"}
    text = plane.run("logs", "logs", "--follow").out
    assert text.count("\n") == len(lines)
    assert lines[-1]["text"] in text


def test_list_filters_and_pages(plane):
    for _ in range(3):
        plane.run("submit", "--wait", plane.spec("listed", steps=2))
    jobs = plane.run("list", "--name=listed", "--json").json()["jobs"]
    ids = [job["id"] for job in jobs]
    assert len(ids) == 3 and ids == sorted(ids, key=lambda id: -int(id.split("-")[1]))
    assert plane.run("list", "--name=listed", "--ids", "--limit=2").out.split() == ids[:2]
    assert plane.run("list", "--name=listed", "--state=failed", "--ids").out == ""
    assert plane.run("list", "--name=listed", "--state=failed", "--state=SUCCEEDED", "--ids").out.split() == ids
    assert plane.run("list", "--name=listed", "--pool=b", "--json").json()["jobs"] == []
    table = plane.run("list", "--name=listed").out.splitlines()
    assert table[0].split() == ["JOB", "STATE", "PROGRESS", "LOSS", "POOL", "SUBMITTED", "OWNER", "REASON"]
    assert table[1].startswith(ids[0]) and "2/2 (100%)" in table[1]


def test_pools(plane):
    pools = plane.run("pools", "--json").json()["pools"]
    assert [(pool["name"], pool["ranks"], len(pool["endpoints"])) for pool in pools] == [("a", 2, 2)]
    assert plane.run("pools").out.splitlines()[1].split()[0] == "a"


def test_the_exit_code_says_how_the_job_ended(plane):
    waited = plane.run("submit", "--wait", plane.spec("good", steps=5), expect=0)
    assert waited.out.strip().startswith("good-")
    waited.says("good-[0-9]+ SUCCEEDED after", r"step 5/5 \(100%\)")

    states = plane.run("submit", "--wait", "--json", plane.spec("good", steps=5), expect=0).lines()
    assert states[-1]["state"] == "SUCCEEDED" and "spec" in states[0]

    failed = plane.run("submit", "--wait", plane.spec("bad", labels="wrong.npy"), expect=1)
    failed.says("bad-[0-9]+ FAILED", "wrong.npy", "shardmax logs bad-")
    plane.run("watch", "bad", expect=1)
    assert plane.run("status", "bad", expect=0).out

    job = plane.run("submit", plane.spec("endless", steps=2_000_000_000)).out.strip()
    plane.wait_for_step(job, 1)
    before = plane.job(job)["checkpoint_step"]
    written = plane.run("checkpoints", job, "--now", "--json").json()["checkpoints"]
    assert written[0]["step"] > before
    plane.run("delete", job, expect=2).says("stop it")
    stopped = plane.run("stop", job, "--wait", expect=4)
    assert f"{job} STOPPED" in stopped.out
    assert json.loads(plane.run("watch", job, "--json", expect=4).out)["state"] == "STOPPED"
    plane.run("stop", job)


def test_one_key_is_one_job(plane):
    spec = plane.spec("keyed", steps=2)
    first = plane.run("submit", spec, "--idempotency_key=nightly").out
    assert plane.run("submit", spec, "--idempotency_key=nightly").out == first
    assert plane.run("submit", spec).out != first


def test_mistakes_say_what_to_do(plane):
    spec = plane.spec("mistaken", batch_size=0, dim=0)
    plane.run("submit", spec, expect=2).says("mistaken.textproto", "train.dim is 0", "train.batch_size is 0")
    spec = plane.spec("lost", labels="nowhere.npy")
    plane.run("submit", spec, expect=2).says("train.dataset.labels: nowhere.npy")
    plane.run("submit", "absent.textproto", expect=2).says("absent.textproto: No such file")
    plane.run("status", "nobody", expect=2).says('"nobody"', "shardmax list")
    plane.run("frobnicate", expect=2).says("unknown verb", "--help")
    plane.run("status", expect=2).says("JOB is required")
    plane.run("list", "--server=nonsense", expect=2).says("HOST:PORT")
    plane.run("export", "nobody", "--output=/nowhere/w", expect=2)
    plane.run("list", "--timeout_s=1", "--server=127.0.0.1:1", expect=3).says("127.0.0.1:1", "Start one with: shardmax-server")
