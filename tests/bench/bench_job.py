"""What the benchmarks that run the worker have in common."""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from harness import Case, Name  # noqa: E402


def make_case(folder, args):
    """A job on random rows: args has num_classes, dim, batch_size, steps, preset, precision and seed."""
    rng = np.random.default_rng(args.seed)
    rows = 4 * args.batch_size
    train = {
        "num_classes": args.num_classes,
        "dim": args.dim,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "dataset": {"features": "x.npy", "labels": "y.npy"},
        "loss": {"preset": Name(args.preset)},
        "optimizer": {"sgd": {"momentum": 0.9, "weight_decay": 5e-4}},
        "schedule": {"base_lr": 0.01},
        "checkpoint": {"every_steps": 0},
        "precision": Name(args.precision),
        "init": {"seed": args.seed},
    }
    case = Case(folder, {"name": "bench", "train": train})
    case.save(x=rng.standard_normal((rows, args.dim)).astype(np.float32), y=rng.integers(0, args.num_classes, rows))
    return case
