"""Weights of other programs in, and out again: files as PyTorch and insightface write them, bit for bit."""

import collections
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import shardmax
from control_cases import make_case
from control_harness import ControlPlane
from shardmax.weights import convert, open_weights

C, D = 23, 6


@pytest.fixture
def weight():
    return np.random.default_rng(1).standard_normal((C, D)).astype(np.float32)


def shards(weight, ranks):
    """As PartialFC deals classes out: the first ranks have one more."""
    sizes = [C // ranks + (rank < C % ranks) for rank in range(ranks)]
    return [torch.tensor(part) for part in np.split(weight, np.cumsum(sizes)[:-1])]


class Odd:
    """A class of the training script, which no reader knows."""


def as_train_v2(part):
    backbone = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9)
    return {
        "epoch": 3,
        "state_dict_backbone": backbone.state_dict(),
        "state_dict_softmax_fc": collections.OrderedDict(weight=part),
        "state_optimizer": optimizer.state_dict(),
        "state_lr_scheduler": {"odd": Odd(), "last_epoch": 7},
    }


def as_parameter(part):
    return {"weight": torch.nn.Parameter(part), "weight_mom": torch.zeros_like(part)}


def as_view(part):
    """Columns of a wider tensor."""
    wide = torch.zeros(part.shape[0] + 2, 2 * D)
    wide[2:, ::2] = part
    return {"weight": wide[2:, ::2]}


KINDS = {
    "checkpoint_gpu_{}.pt": as_train_v2,
    "softmax_fc_gpu_{}.pt": as_parameter,
    "rank_{}_softmax_weight.pt": lambda part: part,
    "view_gpu_{}.pt": as_view,
}


def save(folder, name, weight, ranks):
    paths = [folder / name.format(rank) for rank in range(ranks)]
    for path, part in zip(paths, shards(weight, ranks)):
        torch.save(KINDS[name](part.clone()), path)
    return paths


@pytest.mark.parametrize("ranks", [1, 2, 3, 12])
@pytest.mark.parametrize("name", list(KINDS))
def test_the_files_of_all_ranks_of_partial_fc_are_one_matrix(tmp_path, weight, name, ranks):
    paths = save(tmp_path, name, weight, ranks)
    assert convert(paths[::-1], tmp_path / "w.safetensors") == (C, D)
    np.testing.assert_array_equal(load_file(tmp_path / "w.safetensors")["weight"], weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(tmp_path, weight, dtype):
    tensor = torch.tensor(weight).to(dtype)
    torch.save({"fc.weight": tensor}, tmp_path / "w.pt")
    convert(tmp_path / "w.pt", tmp_path / "w.npy", tensor="fc.weight")
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), tensor.float().numpy())


def test_every_format_is_read_and_written(tmp_path, weight):
    np.save(tmp_path / "0.npy", np.asfortranarray(weight))
    for source, target in zip(["0.npy", "1.safetensors", "2.pt", "3.npy"], ["1.safetensors", "2.pt", "3.npy", "4.pth"]):
        assert convert(tmp_path / source, tmp_path / target) == (C, D)
    np.testing.assert_array_equal(load_file(tmp_path / "1.safetensors")["weight"], weight)
    for name in ("2.pt", "4.pth"):
        loaded = torch.load(tmp_path / name)
        assert list(loaded) == ["weight"] and loaded["weight"].dtype == torch.float32
        np.testing.assert_array_equal(loaded["weight"].numpy(), weight)
    np.testing.assert_array_equal(np.load(tmp_path / "3.npy"), weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npy", "1.safetensors", "2.pt", "3.npy", "4.pth"]


def test_the_command_converts_and_says_what_is_wrong(tmp_path, weight):
    paths = save(tmp_path, "softmax_fc_gpu_{}.pt", weight, 3)
    command = [sys.executable, "-m", "shardmax.weights"]
    target = tmp_path / "w.bin"

    def run(*arguments):
        command = [sys.executable, "-m", "shardmax.weights", *arguments, f"--output={target}", "--format=npy"]
        return subprocess.run(command, capture_output=True, text=True)

    absent = run(*paths[1:])
    assert absent.returncode == 1
    assert "softmax_fc_gpu_1.pt: the file of rank 1 is there, but not the one of rank 0" in absent.stderr
    # Eight classes each on two of three ranks could be all that there are.
    last_absent = run(*paths[:2], f"--num_classes={C}")
    assert last_absent.returncode == 1
    assert "16 classes in all, not 23: are the files of all ranks there?" in last_absent.stderr
    assert not target.exists()
    good = run(*paths, f"--num_classes={C}")
    assert (good.returncode, good.stdout) == (0, f"{target}: 23 classes, 6 wide\n")
    np.testing.assert_array_equal(np.load(target), weight)



def test_files_that_do_not_fit_are_named(tmp_path, weight):
    paths = save(tmp_path, "softmax_fc_gpu_{}.pt", weight, 3)

    def refused(message, sources, kind=shardmax.InvalidArgumentError, **options):
        with pytest.raises(kind, match=message):
            convert(sources, tmp_path / "out.npy", **options)
        assert not list(tmp_path.glob("out*"))

    refused("rank 1 is there twice", [*paths, paths[1]])
    torch.save({"weight": torch.zeros(3, D)}, tmp_path / "softmax_fc_gpu_3.pt")
    refused("gpu_0.pt: 8 classes, where 26 classes on 4 ranks make 7", [*paths, tmp_path / "softmax_fc_gpu_3.pt"])
    torch.save({"weight": torch.zeros(7, D + 1)}, paths[2])
    refused("gpu_2.pt: 7 wide, while .*gpu_0.pt is 6 wide", paths)
    refused("no tensor 'bias' in it; there are: weight, weight_mom", paths[:1], tensor="bias")
    refused("no such file", [tmp_path / "absent.pt"], shardmax.NotFoundError)
    torch.save({}, tmp_path / "other.pt")
    refused("other.pt: of which rank", [paths[0], tmp_path / "other.pt"])
    bad = weight.copy()
    bad[17, 2] = np.nan
    np.save(tmp_path / "w.npy", bad)
    refused("w.npy: row 17 has a value that is not finite", tmp_path / "w.npy")
    np.save(tmp_path / "w.npy", np.zeros((3, 4), np.int32))
    refused("w.npy: weights of type int32", tmp_path / "w.npy")


@pytest.mark.parametrize("keep", [0, 3, 200, -1])
def test_truncated_files_are_refused(tmp_path, weight, keep):
    np.save(tmp_path / "w.npy", weight)
    convert(tmp_path / "w.npy", tmp_path / "w.safetensors")
    convert(tmp_path / "w.npy", tmp_path / "w.pt")
    for name in ("w.npy", "w.safetensors", "w.pt"):
        path = tmp_path / f"short-{keep}-{name}"
        path.write_bytes((tmp_path / name).read_bytes()[:keep])
        with pytest.raises(shardmax.DataLossError, match=path.name):
            convert(path, tmp_path / "out.npy")


def test_a_file_cannot_run_code(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "stolen"), "w"))

    torch.save({"weight": Hostile(), "a": torch.zeros(2)}, tmp_path / "w.pt", pickle_module=pickle)
    with pytest.raises(shardmax.InvalidArgumentError, match="no tensor 'weight'"):
        convert(tmp_path / "w.pt", tmp_path / "w.npy")
    assert not (tmp_path / "stolen").exists()


def test_weights_are_never_in_memory_as_a_whole(tmp_path):
    rows, width = 40_000, 512
    np.lib.format.open_memmap(tmp_path / "w.npy", "w+", np.float32, (rows, width))[:] = 1
    tracemalloc.start()
    for source, target in (("w.npy", "w.safetensors"), ("w.safetensors", "w.pt"), ("w.pt", "x.npy")):
        convert(tmp_path / source, tmp_path / target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows * width * 4 / 1.5
    assert open_weights(tmp_path / "x.npy").shape == (rows, width)


def test_a_job_starts_from_imported_weights_and_exports_them(tmp_path, weight):
    save(tmp_path, "softmax_fc_gpu_{}.pt", weight, 3)
    with ControlPlane(tmp_path) as plane, shardmax.Client(plane.server.address) as client:
        convert(sorted(tmp_path.glob("softmax*.pt")), plane.data / "w.safetensors")
        case = make_case(plane.data, num_classes=C, dim=D, steps=1, init={"weights": "w.safetensors"})
        case.change(schedule={"base_lr": 1e-30, "warmup_steps": 0}, optimizer={"sgd": {"weight_decay": 0.0}})
        plane.pool("a")
        job = client.submit(case.spec)
        assert client.wait(job.id, quiet=True).progress.step == 1
        client.export(job.id, tmp_path / "python.pt")
        plane.run_cli("export", job.id, f"--output={tmp_path / 'cli.pt'}", "--format=torch")
        plane.run_cli("export", job.id, f"--output={tmp_path / 'cli.npy'}", "--format=npy")
        (folder,) = plane.job(job.id, case).checkpoints()
        convert(folder, tmp_path / "folder.npy")
    for name in ("python.pt", "cli.pt"):
        loaded = torch.load(tmp_path / name)
        assert list(loaded) == ["weight"]
        np.testing.assert_array_equal(loaded["weight"].numpy(), weight)
        np.testing.assert_array_equal(convert_to_array(tmp_path / name), weight)
    for name in ("cli.npy", "folder.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / name), weight)


def convert_to_array(path):
    return np.concatenate(list(open_weights(path).blocks()))
