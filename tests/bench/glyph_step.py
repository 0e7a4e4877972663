"""Where the time of a step goes when the CNN of the glyph example trains against its head: each part, beside the CNN alone.

    PYTHONPATH=client/python/src .venv/bin/python tests/bench/glyph_step.py --bin=build/release/bin [--ranks=2] [--threads=1]

The loop is that of client/python/examples/glyphs/training.py with a clock between its lines, on drawn images. `alone` is the
same loop with gradients that are there already, before and after: what the backbone takes when no head wants the processors.
The time of the head is that of the whole call; what rank 0 says of its phases comes below, means over all steps; waiting for the
other ranks is in them. Prints Markdown.
"""

import argparse
import collections
import os
import pathlib
import re
import statistics
import sys
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # As train_backbone.py.
EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "client/python/examples/glyphs"
sys.path.insert(0, str(EXAMPLE))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from batches import Batches  # noqa: E402
from head_jobs import MOMENTUM, WEIGHT_DECAY, HeadJobs, Settings, job_specs  # noqa: E402
from machine import processor  # noqa: E402
from model import Backbone, to_input  # noqa: E402
from split import Glyphs  # noqa: E402
from train_backbone import keep_memory  # noqa: E402

import shardmax  # noqa: E402

PHASES = ("gather", "label", "score", "normalise", "backward", "scatter")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, help="folder of shardmax-server and shardmax-worker")
    parser.add_argument("--characters", type=int, default=4000, help="C")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--torch_threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


class Clock:
    """Seconds of each part of a step, of all steps but the first five."""

    def __init__(self):
        self.parts, self.seen, self.now = collections.defaultdict(list), 0, time.perf_counter()

    def mark(self, part):
        now = time.perf_counter()
        if self.seen >= 5:
            self.parts[part].append(now - self.now)
        self.now = now

    def medians(self):
        medians = {part: statistics.median(seconds) for part, seconds in self.parts.items()}
        whole = [sum(step) for step in zip(*self.parts.values())]
        return {**medians, "step": statistics.median(whole)}


def loop(settings, batches, steps, head_step):
    """The parts of a step; `head_step(embeddings, labels)` gives the loss."""
    torch.manual_seed(settings.seed)
    backbone = Backbone(settings.dim, settings.width)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.01, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    clock = Clock()
    for clock.seen, (images, labels) in zip(range(steps), batches.epoch(0)):
        clock.mark("images")
        embeddings = backbone(to_input(images))
        clock.mark("forward")
        loss = head_step(embeddings, torch.from_numpy(labels))
        clock.mark("head")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clock.mark("backward")
        optimizer.step()
        clock.mark("optimizer")
    return clock.medians()


def with_head(settings, batches, args):
    """The parts, and the mean seconds of each phase of rank 0."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        weights = folder / "half.safetensors"
        specs = job_specs(settings, args.characters, args.steps, weights)
        with shardmax.local(ranks=args.ranks, threads=args.threads, data_root=folder, bin=args.bin) as cluster, \
                HeadJobs(cluster.client, cluster.address, specs, weights) as head:
            parts = loop(settings, batches, args.steps, lambda x, labels: head.step(x, labels, 0.01)[0])
            head.finish()
            log = (pathlib.Path(head.job.folder) / "log.txt").read_text(encoding="utf-8")
    return parts, {phase: float(re.search(rf"{phase} ([0-9.]+)", log)[1]) / args.steps for phase in PHASES}


def main():
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.torch_threads)
    settings = Settings(epochs=1, seed=args.seed)
    random = np.random.default_rng(args.seed)
    rows = settings.batch * args.steps
    glyphs = Glyphs(random.integers(0, 256, (rows, 32, 32), dtype=np.uint8),
                    random.integers(0, args.characters, rows, dtype=np.int32))
    batches = Batches(glyphs, settings.batch, args.seed)
    gradients = torch.full((settings.batch, settings.dim), 1e-4)
    alone = [loop(settings, batches, args.steps, lambda x, _: (x * gradients).sum())]
    parts, phases = with_head(settings, batches, args)
    alone.append(loop(settings, batches, args.steps, lambda x, _: (x * gradients).sum()))
    print(f"<!-- {processor()}; C = {args.characters}, D = {settings.dim}, B = {settings.batch}, width {settings.width}, torch "
          f"{args.torch_threads} threads, head {args.ranks} ranks x {args.threads} threads, median of {args.steps - 5} steps -->")
    print("| ms | " + " | ".join(parts) + " |\n" + "|---" * (len(parts) + 1) + "|")
    print("| with the head | " + " | ".join(f"{1e3 * s:.1f}" for s in parts.values()) + " |")
    for when, medians in zip(("before", "after"), alone):
        print(f"| alone, {when} | " + " | ".join(f"{1e3 * s:.1f}" for s in medians.values()) + " |")
    print("rank 0, ms: " + ", ".join(f"{phase} {1e3 * s:.1f}" for phase, s in phases.items()))


if __name__ == "__main__":
    main()
