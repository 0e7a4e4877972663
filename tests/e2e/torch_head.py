"""An independent implementation of the mathematics in docs/math.md, in PyTorch and float64.

Written from the document for the tests alone: one process, the whole [B, C] logit matrix, gradients by autograd,
optimizers and schedules of torch.optim. It shares nothing with the C++ code; slow and plain on purpose.

Shapes: B rows of a batch, D feature width, C classes.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

PRESETS = {
    "SOFTMAX": {},
    "F_SOFTMAX": {"gamma": 2.0},
    "HM_SOFTMAX": {"keep": 0.9},
    "A_SOFTMAX": {"m1": 4.0},
    "AM_SOFTMAX": {"m3": 0.35},
    "ARC_SOFTMAX": {"m2": 0.5},
    "F_AM_SOFTMAX": {"m3": 0.35, "gamma": 2.0},
    "F_ARC_SOFTMAX": {"m2": 0.5, "gamma": 2.0},
    "HM_AM_SOFTMAX": {"m3": 0.35, "keep": 0.9},
    "HM_ARC_SOFTMAX": {"m2": 0.5, "keep": 0.9},
    "SV_SOFTMAX": {"t": 1.2},
    "SV_AM_SOFTMAX": {"m3": 0.35, "t": 1.2},
    "SV_ARC_SOFTMAX": {"m2": 0.5, "t": 1.2},
}


@dataclass(frozen=True)
class Loss:
    """Every number that a loss has; neutral by default."""

    scale: float = 32.0
    m1: float = 1.0
    m2: float = 0.0
    m3: float = 0.0
    t: float = 1.0
    gamma: float = 0.0
    keep: float = 1.0
    extension: str = "MONOTONE"
    warmup_steps: int = 0

    @staticmethod
    def preset(name, **overrides):
        return Loss(**{**PRESETS[name], **overrides})

    def at(self, step):
        """The loss of `step`, counted from 0: margins and t grow from neutral during the warm-up."""
        if step >= self.warmup_steps:
            return self
        r = step / self.warmup_steps
        return replace(self, m1=1 + r * (self.m1 - 1), m2=r * self.m2, m3=r * self.m3, t=1 + r * (self.t - 1))


def target_logit(loss, cos_y):
    """f [B] for the cosines of the labels [B]; differentiable."""
    theta = torch.acos(cos_y)
    phi = loss.m1 * theta + loss.m2
    j = torch.floor(phi.detach() / math.pi)
    sign = 1 - 2 * torch.remainder(j, 2)
    monotone = sign * torch.cos(phi) - 2 * j - loss.m3
    if loss.extension == "EASY":
        return torch.where(cos_y > 0, monotone, cos_y)
    if loss.extension == "LINEAR":
        return torch.where(phi > math.pi, cos_y - loss.m2 * math.sin(loss.m2), monotone)
    return monotone


@dataclass
class Outcome:
    """What a step reports, at the weights before its update."""

    loss: float
    label_cosine: float
    support_vector_ratio: float
    # The smallest |cos_k - f|: below about 1e-6 float32 may count another set of support vectors.
    closest_call: float
    # The smallest sin(theta_y). float32 knows cos_y to 6e-8, so theta_y only to 6e-8 / sin, and with it the slope of
    # the margins m1 and m2: below about 0.05 a gradient is off by more than 1e-5.
    smallest_sine: float


def batch_loss(loss, weight, features, labels):
    """The mean loss of a batch, differentiable in weight [C, D] and features [B, D], and its Outcome."""
    rows = labels >= 0
    labels = labels[rows]
    if labels.numel() == 0:
        zero = (weight * 0).sum()
        return zero, Outcome(0.0, 0.0, 0.0, math.inf, math.inf)
    x = torch.nn.functional.normalize(features[rows], dim=1)
    cos = x @ torch.nn.functional.normalize(weight, dim=1).T
    own = torch.nn.functional.one_hot(labels, weight.shape[0]).bool()
    cos_y = cos[own]
    f = target_logit(loss, cos_y)

    gaps = (cos - f[:, None]).detach().masked_fill(own, -math.inf)
    is_support_vector = gaps > 0
    others = torch.where(is_support_vector, loss.t * cos + loss.t - 1, cos)
    z = loss.scale * torch.where(own, f[:, None], others)
    log_p = torch.log_softmax(z, dim=1)[own]
    losses = (1 - log_p.exp()) ** loss.gamma * -log_p

    kept = math.ceil(loss.keep * len(losses))
    hardest = sorted(range(len(losses)), key=lambda b: (-losses[b].item(), b))[:kept]
    mean = losses[hardest].mean()
    return mean, Outcome(
        loss=mean.item(),
        label_cosine=cos_y.mean().item(),
        support_vector_ratio=is_support_vector.sum().item() / (len(labels) * (weight.shape[0] - 1)),
        closest_call=gaps[~own].abs().min().item(),
        smallest_sine=(1 - cos_y.detach() ** 2).sqrt().min().item(),
    )


def make_schedule(optimizer, total_steps, warmup_steps=0, curve=None):
    """A torch scheduler. `curve` is None (constant), or its name and settings as in JobSpec: ("cosine", {...})."""
    schedulers = torch.optim.lr_scheduler
    name, settings = curve or ("constant", {})
    length = total_steps - warmup_steps
    if name == "constant":
        after = schedulers.LambdaLR(optimizer, lambda step: 1.0)
    elif name == "cosine":
        after = schedulers.CosineAnnealingLR(optimizer, T_max=length, eta_min=settings.get("end_lr", 0.0))
    elif name == "step":
        milestones = [max(m - warmup_steps, 0) for m in settings["milestones"]]
        after = schedulers.MultiStepLR(optimizer, milestones, settings.get("gamma", 0.1))
    elif name == "polynomial":
        assert not settings.get("end_lr"), "torch's PolynomialLR ends at 0"
        after = schedulers.PolynomialLR(optimizer, total_iters=length, power=settings.get("power", 1.0))
    else:
        raise ValueError(name)
    if warmup_steps == 0:
        return after
    before = schedulers.LinearLR(optimizer, start_factor=1 / warmup_steps, total_iters=warmup_steps - 1)
    return schedulers.SequentialLR(optimizer, [before, after], milestones=[warmup_steps])


@dataclass
class TrainingRun:
    weight: np.ndarray  # [C, D] float64
    state: dict = field(default_factory=dict)  # The optimizer's tensors by their names in a checkpoint.
    outcomes: list = field(default_factory=list)  # One Outcome for each step.
    lrs: list = field(default_factory=list)  # The learning rate of each step.


def train(
    loss,
    weight,
    features,
    labels,
    batch_size,
    steps,
    base_lr=0.1,
    sgd=None,
    adamw=None,
    warmup_steps=0,
    curve=None,
):
    """Trains on rows in file order, batch after batch, the last of an epoch being what is left."""
    parameter = torch.tensor(np.asarray(weight, dtype=np.float64), requires_grad=True)
    features = torch.tensor(np.asarray(features, dtype=np.float64))
    labels = torch.tensor(np.asarray(labels, dtype=np.int64))
    if adamw is not None:
        settings = dict(adamw)
        betas = (settings.pop("beta1", 0.9), settings.pop("beta2", 0.999))
        optimizer = torch.optim.AdamW([parameter], lr=base_lr, betas=betas, **settings)
    else:
        optimizer = torch.optim.SGD([parameter], lr=base_lr, **(sgd or {}))
    scheduler = make_schedule(optimizer, steps, warmup_steps, curve)

    run = TrainingRun(weight=None)
    first = 0
    for step in range(steps):
        rows = slice(first, first + batch_size)
        first = first + batch_size if first + batch_size < len(labels) else 0
        optimizer.zero_grad()
        mean, outcome = batch_loss(loss.at(step), parameter, features[rows], labels[rows])
        mean.backward()
        run.outcomes.append(outcome)
        run.lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    run.weight = parameter.detach().numpy()
    names = {"momentum_buffer": "momentum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
    state = optimizer.state[parameter]
    run.state = {names[k]: v.numpy() for k, v in state.items() if k in names and v is not None}
    return run
