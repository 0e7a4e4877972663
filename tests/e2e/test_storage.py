"""Weights and optimizer state in mapped files: the same bits as in memory, and nothing left behind."""

import resource

import pytest

from harness import FAILED, Name, assert_same_tensors, make_data, training_case

C, D, B, ROWS, STEPS = 3001, 40, 32, 300, 24
SAMPLED = {"random": {"rate": 0.05}}


def make_case(folder, storage, sampling=None, **train):
    case = training_case(
        folder,
        "storage",
        C,
        D,
        B,
        STEPS,
        loss={"margin": {"m3": 0.35}, "support_vector": {"t": 1.2}},
        optimizer={"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
        checkpoint={"every_steps": 10},
        storage=Name(storage),
        sampling=sampling,
    )
    case.change(**train)
    features, labels, _ = make_data(3, ROWS, C, D)
    case.save(x=features, y=labels, vx=features[:50], vy=labels[:50])
    return case


def assert_same_job(case, expected):
    assert [m["loss"] for m in case.metrics()] == [m["loss"] for m in expected.metrics()]
    assert case.metrics()[-1].get("validation_top1") == expected.metrics()[-1].get("validation_top1")
    assert_same_tensors(case.last_checkpoint(), expected.last_checkpoint())


@pytest.mark.sanitized
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("sampling", [SAMPLED, None], ids=["sampled", "full"])
def test_mapped_files_give_the_same_bits_as_memory(tmp_path, ranks, sampling):
    validation = {"features": "vx.npy", "labels": "vy.npy"}
    cases = {}
    for storage in ("MEMORY", "MMAP"):
        case = cases[storage] = make_case(tmp_path / storage, storage, sampling, validation=validation)
        case.run(ranks)
    assert_same_job(cases["MMAP"], cases["MEMORY"])
    assert not (cases["MMAP"].out / "shards").exists()


def test_a_job_goes_on_with_the_other_storage(tmp_path):
    expected = make_case(tmp_path / "expected", "MEMORY", SAMPLED)
    expected.run(2)
    case = make_case(tmp_path / "job", "MEMORY", SAMPLED, steps=10)
    case.run(2)
    case.change(steps=STEPS, storage=Name("MMAP"))
    case.run(2, "--resume")
    assert_same_job(case, expected)


def test_bfloat16_state_is_mapped_too(tmp_path):
    sums = []
    for storage in ("MEMORY", "MMAP"):
        case = make_case(tmp_path / storage, storage, SAMPLED, optimizer={"state": Name("BFLOAT16")})
        case.run(2)
        folder = case.checkpoints()[-1]
        sums.append({path.name: path.read_bytes() for path in folder.glob("*.safetensors")})
    assert sums[0] == sums[1]


def test_files_of_a_run_that_was_killed_are_removed(tmp_path):
    case = make_case(tmp_path / "job", "MMAP", SAMPLED)
    stale = case.out / "shards" / "classes-00000000-00000099.weight"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    case.run(2)
    assert not stale.parent.exists()


@pytest.mark.sanitized
def test_a_disk_without_room_is_an_error_at_the_start(tmp_path):
    """A limit on the size of files stands in for the disk; what MPI makes is below it."""
    classes = 1_000_000
    case = make_case(tmp_path / "job", "MMAP", SAMPLED, num_classes=classes)
    bytes_of_a_rank = classes // 2 * D * 4
    limit = bytes_of_a_rank - 1
    result = case.run(2, expect=FAILED, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    result.says(
        rf"rank 0: train\.storage: .*/shards/classes-\d+-\d+\.weight: cannot take {bytes_of_a_rank} bytes: File too large"
    )
    assert case.checkpoints() == []
    assert not (case.out / "shards").exists()
