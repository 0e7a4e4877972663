"""The training loop: a backbone in PyTorch against a head in shardmax."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

import shardmax
from batches import Batches
from head_jobs import MOMENTUM, WEIGHT_DECAY, HeadJobs, Settings, curve, job_specs
from model import Backbone, to_input
from shardmax.head import StepStats


@dataclass(frozen=True)
class Trained:
    backbone: Backbone
    job: Any  # control_pb2.Job of the head; its newest checkpoint has the class weights.
    images_per_second: float  # Of forward, head and backward, without the checks.


def train(
    client: shardmax.Client,
    address: str,
    settings: Settings,
    batches: Batches,
    classes: int,
    folder: Path,
    check: Callable[[nn.Module], float],
    quiet: bool = False,
) -> Trained:
    """Trains to the end; `check` gives the accuracy that is reported after every epoch.

    Writes FOLDER/metrics.jsonl: an object a step with the names of a job's file, and `unseen_accuracy` after an epoch.
    """
    torch.manual_seed(settings.seed)
    backbone = Backbone(settings.dim, settings.width)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=settings.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    steps = settings.epochs * batches.per_epoch
    weights = folder / "half.safetensors"
    specs = job_specs(settings, classes, steps, weights)
    done, training_s = 0, 0.0
    with HeadJobs(client, address, specs, weights) as head, progress(steps, quiet) as bar, \
            (folder / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
        for epoch in range(settings.epochs):
            began = time.monotonic()
            for images, labels in batches.epoch(epoch):
                share = curve(done, steps)
                optimizer.param_groups[0]["lr"] = share * settings.lr
                loss, stats = head.step(backbone(to_input(images)), torch.from_numpy(labels), share * settings.head_lr)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                done += 1
                line = describe(done, epoch, float(loss), stats)
                if done == (epoch + 1) * batches.per_epoch:
                    training_s += time.monotonic() - began
                    line["unseen_accuracy"] = check(backbone)
                metrics.write(json.dumps(line) + "\n")
                show(bar, line)
        head.finish()
    weights.unlink(missing_ok=True)
    return Trained(backbone, head.job, done * settings.batch / training_s)


def progress(steps: int, quiet: bool) -> Any:
    return tqdm(total=steps, unit="step", disable=quiet, dynamic_ncols=True, mininterval=0.5)


def describe(done: int, epoch: int, loss: float, stats: StepStats) -> dict[str, Any]:
    """A line of metrics.jsonl after `done` steps."""
    return {"step": done, "epoch": epoch, "loss": loss, "lr": stats.lr,
            "support_vector_ratio": stats.support_vector_ratio, "label_cosine": stats.label_cosine}


def show(bar: Any, line: dict[str, Any]) -> None:
    """Moves the progress bar, and says how an epoch ended."""
    if "unseen_accuracy" in line and not bar.disable:
        bar.write(f"epoch {line['epoch'] + 1}: loss {line['loss']:.3f}, {line['unseen_accuracy']:.2%} of the pairs of "
                  "unseen characters judged rightly")
    bar.set_postfix_str(f"loss {line['loss']:.2f}, support vectors {line['support_vector_ratio']:.1e}", refresh=False)
    bar.update()
