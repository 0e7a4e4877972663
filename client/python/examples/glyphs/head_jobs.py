"""The head of a training: what its live jobs are, and one head over all of them."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import shardmax
from open_set import succeeded
from shardmax.head import StepStats
from shardmax.torch import ShardedHead
from shardmax.v1 import control_pb2

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
#: Share of all steps over which learning rates grow.
LR_WARMUP = 0.05


@dataclass(frozen=True)
class Settings:
    """What a run depends on beside its glyphs. The defaults are those of the benchmark."""

    loss: str = "SV_AM_SOFTMAX"
    scale: float = 32.0
    t: float | None = None  # None: as the preset has it; so for m2 and m3.
    m2: float | None = None
    m3: float | None = None
    loss_warmup: float = 0.25  # Share of all steps over which margins and t grow.
    t_until: float = 1.0  # From this share of all steps on t is 1.
    dim: int = 128
    width: int = 16
    epochs: int = 8
    batch: int = 256
    lr: float = 0.2
    head_lr: float = 0.2
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.t_until <= 1 or not 0 <= self.loss_warmup <= self.t_until:
            raise ValueError(f"t_until is {self.t_until}, and must be between loss_warmup, {self.loss_warmup}, and 1")


def curve(step: int, steps: int) -> float:
    """What learning rates are multiplied with at `step` (from 0) of `steps`: a short warm-up, then half a cosine."""
    warmup = max(1, round(LR_WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def loss_spec(settings: Settings, steps: int) -> dict[str, Any]:
    """`train.loss` of a job."""
    loss: dict[str, Any] = {"preset": settings.loss, "scale": settings.scale,
                            "warmup_steps": round(settings.loss_warmup * steps)}
    margin = {name: value for name, value in (("m2", settings.m2), ("m3", settings.m3)) if value is not None}
    if margin:
        loss["margin"] = margin
    if settings.t is not None:
        loss["support_vector"] = {"t": settings.t}
    return loss


def job_specs(settings: Settings, classes: int, steps: int, weights: Path) -> list[dict[str, Any]]:
    """The live jobs of a run, one after another: a second where t ends early, which starts from the file `weights`.

    They have no schedule: the trainer gives the learning rate of each step, one curve for both sides and all jobs.
    """

    def spec(loss: dict[str, Any], length: int, init: dict[str, Any]) -> dict[str, Any]:
        train = {"num_classes": classes, "dim": settings.dim, "batch_size": settings.batch, "steps": length,
                 "live": {"trainers": 1}, "loss": loss, "init": init, "checkpoint": {"every_steps": 0},
                 "optimizer": {"sgd": {"momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}}}
        return {"name": "glyph-head", "train": train}

    loss = loss_spec(settings, steps)
    first = max(1, round(settings.t_until * steps))
    # Of length 1 at first: steps of the head then are as large as they stay, whatever D is.
    jobs = [spec(loss, first, {"seed": settings.seed, "stddev": settings.dim**-0.5})]
    if first < steps:
        plain = loss | {"support_vector": {"t": 1.0}, "warmup_steps": 0}
        jobs.append(spec(plain, steps - first, {"weights": str(weights.resolve())}))
    return jobs


class HeadJobs:
    """One head: where a job has made its last step the next begins with its weights, but with no momentum.

    Use it in a `with`: an error stops the job, as the pool would wait for this trainer for ever.
    """

    def __init__(self, client: shardmax.Client, address: str, specs: list[dict[str, Any]], weights: Path) -> None:
        """`weights` is the file that all but the first of `specs` start from."""
        self._client, self._address, self._specs, self._weights = client, address, list(specs), weights
        self.job, self._head = self._begin()

    def step(self, embeddings: torch.Tensor, labels: torch.Tensor, lr: float) -> tuple[torch.Tensor, StepStats]:
        """Loss of embeddings [n, D] with labels [n], and its statistics; the head has learnt from them."""
        if self._head.steps_done and self._head.stats.last:
            self.finish()
            self._client.export(self.job.id, self._weights)
            self.job, self._head = self._begin()
        self._head.lr = lr
        return self._head(embeddings, labels), self._head.stats

    def finish(self) -> None:
        """Waits until `job`, which has made its last step, has written its weights."""
        self._head.close()
        self.job = succeeded(self._client.wait(self.job.id, quiet=True))

    def __enter__(self) -> HeadJobs:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._head.close()
        if error is not None:
            with contextlib.suppress(shardmax.ShardmaxError):
                self._client.stop(self.job.id)

    def _begin(self) -> tuple[control_pb2.Job, ShardedHead]:
        job = self._client.submit(self._specs.pop(0))
        return job, ShardedHead(self._address, job.id)
