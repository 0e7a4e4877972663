"""The head of a live job as a module of PyTorch: a drop-in for insightface's PartialFC_V2.

    head = shardmax.torch.ShardedHead(job="faces")
    loss = head(backbone(images), labels)       # the head has made its step
    loss.backward()                             # gradients of the backbone
    optimizer.step()
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

import torch
import torch.distributed

from shardmax._wire import check_wire
from shardmax.errors import InvalidArgumentError, ShardmaxError, invalid
from shardmax.head import Head, StepResult, StepStats

LearningRate = Union[float, Callable[[int], float], Mapping[str, Any]]

__all__ = ["ShardedHead"]


class ShardedHead(torch.nn.Module):
    """Classes, loss and optimizer are those of the job; there are no parameters here.

    Each call is one step of the head: it updates its weights in forward(), by what backward() will return, whether or
    not backward() is called. With T trainers a call returns once all T have made it. See docs/python.md for DDP,
    gradient accumulation and AMP.
    """

    def __init__(
        self,
        server: Optional[str] = None,
        job: str = "",
        *,
        trainer: Optional[int] = None,
        lr: Optional[LearningRate] = None,
        gradient_scale: Optional[float] = None,
        wire: str = "auto",
        **head_options: Any,
    ) -> None:
        """`trainer`: by default the rank of torch.distributed, or 0 without it.

        `lr`: the learning rate of the head, instead of the schedule of the job: a number, a function of the step, or a
        parameter group of an optimizer (its "lr" at each step). It may be set later, as an attribute.

        `gradient_scale`: what gradients are multiplied with beside the gradient of the loss. By default the world size
        of torch.distributed, or 1 without it: DDP averages the gradients of the ranks, and the loss is that of all.

        `wire`: "float32", "float16", "bfloat16", or "auto": bfloat16 for features of that type, else float32.

        `head_options`: those of shardmax.Head (endpoint, step, token, tls_ca, reconnect_s…).
        """
        super().__init__()
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        world = torch.distributed.get_world_size() if distributed else 1
        self._ranks = world if trainer is None else None
        if trainer is None:
            trainer = torch.distributed.get_rank() if distributed else 0
        self.lr = lr
        self.gradient_scale = float(world if gradient_scale is None else gradient_scale)
        self._wire = wire if wire == "auto" else check_wire(wire)
        self._head = Head(server, job, trainer=trainer, wire="float32" if wire == "auto" else wire, **head_options)
        self._stats: Optional[StepStats] = None

    def forward(self, local_embeddings: torch.Tensor, local_labels: torch.Tensor) -> torch.Tensor:
        """One step: embeddings [n, D] of this trainer and labels [n] (-1: ignore the row) to the loss, a float32 scalar
        on the same device: the mean over the rows of all trainers."""
        self._check_mode(local_embeddings)
        loss: torch.Tensor = _HeadStep.apply(local_embeddings, self, local_labels)  # type: ignore[no-untyped-call]
        return loss

    @property
    def stats(self) -> StepStats:
        """Of the last step."""
        if self._stats is None:
            invalid("no step was made yet")
        return self._stats

    @property
    def steps_done(self) -> int:
        return self._head.steps_done

    @property
    def checkpoint_steps(self) -> List[int]:
        """What load() can go back to, ascending."""
        return self._head.checkpoint_steps

    def newest_common(self, backbone_steps: Any) -> int:
        """The newest of `backbone_steps` that the head has a checkpoint of."""
        return self._head.newest_common(backbone_steps)

    def save(self, step: Optional[int] = None, wait: bool = True) -> int:
        """Before a step: have the head write a checkpoint when it has done `step` steps (by default with the next). That
        call returns when it is on the disk; without `wait` at once: see shardmax.Head.save."""
        return self._head.save(step, wait)

    def load(self, step: int) -> None:
        """Goes back to the checkpoint of `step`, once all trainers have asked for the same."""
        self._head.load(step)

    def close(self) -> None:
        self._head.close()

    def extra_repr(self) -> str:
        return f"trainer={self._head.trainer}, steps_done={self.steps_done}, gradient_scale={self.gradient_scale:g}"

    def __getstate__(self) -> Dict[str, Any]:
        raise TypeError("a ShardedHead holds a connection, and no weights: save the backbone's state_dict() instead")

    def _check_mode(self, embeddings: torch.Tensor) -> None:
        if not self.training:
            invalid("the head is in eval mode: each call trains it. Call train(), or compare embeddings by cosine")
        if not torch.is_grad_enabled():
            invalid("the head is called under no_grad(): each call trains it. Leave no_grad(), or do not call it")
        if not embeddings.requires_grad:
            invalid(
                "the embeddings need no gradient: is the backbone frozen, or did it run under no_grad()? A head alone "
                "trains on a dataset, or by shardmax.Head"
            )

    def _check_ranks(self) -> None:
        """Only once: a world that is not that of the job would scale gradients wrongly."""
        if self._ranks is not None:
            trainers = self._head.describe().trainers
            if trainers != self._ranks:
                invalid(
                    f"the job has {trainers} trainers and torch.distributed {self._ranks} ranks: submit it with live "
                    f"{{ trainers: {self._ranks} }}, or give trainer and gradient_scale yourself"
                )
            self._ranks = None

    def _step(self, embeddings: torch.Tensor, labels: torch.Tensor) -> StepResult:
        self._check_ranks()
        if self._wire == "auto":
            self._head.wire = "bfloat16" if embeddings.dtype == torch.bfloat16 else "float32"
        if labels.is_floating_point():
            invalid(f"labels are {labels.dtype}: give integers")
        rows = labels.detach().reshape(-1).cpu().numpy()
        features = embeddings.detach().float().cpu().numpy()
        result = self._head.step(features, rows, lr=self._learning_rate())
        self._stats = result.stats
        return result

    def _learning_rate(self) -> Optional[float]:
        if self.lr is None:
            return None
        if callable(self.lr):
            return float(self.lr(self._head.steps_done))
        if isinstance(self.lr, Mapping):
            return float(self.lr["lr"])
        return float(self.lr)


class _HeadStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: torch.Tensor, head: ShardedHead, labels: torch.Tensor) -> torch.Tensor:
        result = head._step(embeddings, labels)
        gradients = torch.from_numpy(result.feature_gradients)
        ctx.save_for_backward(gradients.to(embeddings.device))
        ctx.scale, ctx.dtype = head.gradient_scale, embeddings.dtype
        return torch.tensor(result.loss, dtype=torch.float32, device=embeddings.device)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Tuple[torch.Tensor, None, None]:
        # In float32 up to here: a gradient of the loss is small for float16 until the scale of AMP is on it.
        (gradients,) = ctx.saved_tensors
        return (gradients * (grad_output.float() * ctx.scale)).to(ctx.dtype), None, None
