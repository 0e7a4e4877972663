"""Trains a backbone together with a live head, and goes on from the last common checkpoint after any failure.

    python train.py --server=127.0.0.1:7700 --job=live --steps=200 --folder=run1

Backbone and head must restart from the same step. So the head writes a checkpoint when the backbone does, and whoever
comes back, trainer or head, goes to the newest step that both have. Run it again after it was killed: it goes on.
"""

import argparse
import os
import pathlib

import torch

import shardmax
from shardmax.torch import ShardedHead

WIDTH, CLASSES, ROWS = 16, 37, 24


def make_backbone():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, WIDTH))


def make_batch(step):
    """The same at every visit of a step, so that a restarted run repeats the undisturbed one."""
    random = torch.Generator().manual_seed(step)
    labels = torch.randint(CLASSES, (ROWS,), generator=random)
    centres = torch.randn(CLASSES, 12, generator=torch.Generator().manual_seed(0))
    return centres[labels] + 0.3 * torch.randn(ROWS, 12, generator=random), labels


class Checkpoints:
    """What the backbone needs to go on: FOLDER/step-N.pt."""

    def __init__(self, folder, backbone, optimizer):
        self.folder, self.parts = pathlib.Path(folder), {"backbone": backbone, "optimizer": optimizer}
        self.folder.mkdir(parents=True, exist_ok=True)

    def steps(self):
        return [int(path.stem.split("-")[1]) for path in self.folder.glob("step-*.pt")]

    def save(self, step):
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save(state, self.folder / "new")
        os.replace(self.folder / "new", self.folder / f"step-{step}.pt")  # There completely, or not at all.

    def load(self, step):
        for later in self.steps():
            if later > step:  # It would belong to another run than the head's next checkpoint of that step.
                (self.folder / f"step-{later}.pt").unlink()
        state = torch.load(self.folder / f"step-{step}.pt")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def go_back(head, checkpoints):
    step = head.newest_common(checkpoints.steps())
    checkpoints.load(step)
    head.load(step)  # With several trainers: returns once all have asked for this step.
    print(f"going on from step {step}", flush=True)


def train(head, backbone, optimizer, checkpoints, steps, every):
    if not checkpoints.steps():
        checkpoints.save(0)
    else:
        go_back(head, checkpoints)
    while head.steps_done < steps:
        if (head.steps_done + 1) % every == 0:
            head.save()  # With the next step.
        images, labels = make_batch(head.steps_done)
        try:
            loss = head(backbone(images), labels)
        except shardmax.HeadRewound:  # The pool died, and another has loaded a checkpoint; or another trainer did.
            go_back(head, checkpoints)
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {head.steps_done} loss {loss.item():.6f}", flush=True)
        if head.stats.snapshot_step == head.steps_done:
            checkpoints.save(head.steps_done)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default=None, help="default: SHARDMAX_SERVER or 127.0.0.1:7700")
    parser.add_argument("--job", required=True, help="id or name of a live job with one trainer")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--folder", required=True, help="for the checkpoints of the backbone")
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    options = parser.parse_args()
    backbone = make_backbone()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.02, momentum=0.9)
    checkpoints = Checkpoints(options.folder, backbone, optimizer)
    head = ShardedHead(options.server, options.job)
    try:
        train(head, backbone, optimizer, checkpoints, options.steps, options.every)
    finally:
        head.close()
    torch.save(backbone.state_dict(), checkpoints.folder / "backbone.pt")


if __name__ == "__main__":
    main()
