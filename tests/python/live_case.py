"""A live job for tests with the real worker."""

import contextlib

import numpy as np
from safetensors.numpy import save_file

import shardmax
from control_harness import ControlPlane
from harness import make_data, merged

C, D, INPUT, B = 37, 16, 12, 24
LOSS = {"preset": "SV_AM_SOFTMAX", "scale": 16.0, "warmup_steps": 10}
SGD = {"momentum": 0.9, "weight_decay": 5e-4}
LR = 0.05


def spec(trainers, steps, **train):
    shape = {"num_classes": C, "dim": D, "batch_size": B, "steps": steps, "live": {"trainers": trainers}}
    rest = {
        "loss": LOSS,
        "optimizer": {"sgd": SGD},
        "schedule": {"base_lr": LR},
        "init": {"weights": "w.safetensors"},
        "checkpoint": {"every_steps": 0, "keep": 1000},
    }
    return {"name": "live", "train": merged({**shape, **rest}, train)}


def initial_weight():
    return make_data(3, 1, C, D)[2]


def batch(step, rows=B, trainer=0):
    """(images [n, INPUT] float32, labels [n]) that a backbone can learn: images are around one centre a class."""
    rng = np.random.default_rng([step, trainer])
    labels = rng.integers(0, C, rows)
    centres = np.random.default_rng(7).standard_normal((C, INPUT))
    images = centres[labels] + 0.3 * rng.standard_normal((rows, INPUT))
    labels[rng.random(rows) < 0.1] = -1
    return images.astype(np.float32), labels


class LivePlane(ControlPlane):
    """A server, a pool `live` of so many ranks, and a client."""

    def __init__(self, folder, ranks, **options):
        super().__init__(folder, **options)
        save_file({"weight": initial_weight()}, self.data / "w.safetensors")
        self.python = shardmax.Client(self.server.address)
        self.new_pool("a", ranks)

    def new_pool(self, name, ranks):
        return self.pool(name, ranks, "--data_port_base=0")

    def __exit__(self, *error):
        self.python.close()
        super().__exit__(*error)

    @contextlib.contextmanager
    def heads(self, job, trainers, **options):
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(shardmax.Head(self.server.address, job, trainer=trainer, reconnect_s=60, **options))
                for trainer in range(trainers)
            ]
