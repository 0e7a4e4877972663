"""The head of a live job: features go in, loss and feature gradients come out. numpy only.

    with shardmax.Head(job="faces") as head:
        result = head.step(features, labels)      # the head has learnt from them; now the backbone may
        backbone.backward(result.feature_gradients)
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Optional, Type, TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from shardmax import _wire, errors
from shardmax._backoff import Backoff
from shardmax._channel import Path, check_address, connection
from shardmax._route import NotThereError, Route
from shardmax._session import Session
from shardmax.v1 import head_pb2

_LOG = logging.getLogger("shardmax")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class StepStats:
    """Of the global batch of one step, by the weights before it."""

    step: int  # Steps done before this one.
    lr: float
    label_cosine: float
    support_vector_ratio: float
    global_rows: int  # Of all trainers.
    counted_rows: int  # Those whose label is not -1.
    checkpoint_step: int  # Of the newest complete checkpoint; 0 if none.
    snapshot_step: int  # Of the newest that is complete or being written: keep the backbone of this step.
    last: bool  # The job ends with this step.


@dataclass(frozen=True)
class StepResult:
    loss: float  # Mean over the rows of all trainers, in nats.
    feature_gradients: npt.NDArray[np.float32]  # dloss/dx [n, D] of this trainer's rows.
    stats: StepStats


class Head:
    """One trainer's view of the head. Not for several threads at once. Use it in a `with`, or close() it.

    With T trainers each call of step() and load() returns once all T have made it. When the connection breaks, or the
    job moves to another pool, the call connects again and goes on, for up to `reconnect_s` without success. An
    exception leaves the head and this object as they were: the call may be repeated.
    """

    def __init__(
        self,
        server: Optional[str] = None,
        job: str = "",
        *,
        endpoint: Optional[str] = None,
        trainer: int = 0,
        step: int = 0,
        wire: str = "float32",
        token: Optional[str] = None,
        token_file: Optional[Path] = None,
        tls_ca: Optional[Path] = None,
        tls_cert: Optional[Path] = None,
        tls_key: Optional[Path] = None,
        data_tls: bool = True,
        reconnect_s: float = 600.0,
    ) -> None:
        """Connects when it is first needed.

        `job` is an id or a name on the server, which says where its head is; or `endpoint`, HOST:PORT of the data plane
        of any rank, is asked without a server. `trainer` is 0 to T - 1. `step` is the number of steps that the backbone
        of this trainer has done with the head: see HeadRewound. `wire` is the type of features and gradients on the
        wire: "float32", "float16" (beware: small gradients become 0) or "bfloat16". Credentials are those of Client,
        for server and data plane alike; with `data_tls` False the data plane has no TLS though the server has.
        """
        if not job and endpoint is None:
            errors.invalid("give the job (id or name) that the server knows, or the endpoint of its data plane")
        if trainer < 0 or step < 0:
            errors.invalid(f"trainer is {trainer} and step is {step}: both count from 0")
        self.trainer, self.wire, self.steps_done = trainer, _wire.check_wire(wire), step
        self._job = job
        address = check_address(endpoint, "endpoint") if endpoint is not None else None
        self._alone = endpoint is not None
        self._was_there = False
        control = connection(server, token, token_file, tls_ca, tls_cert, tls_key)
        data = control if data_tls else dataclasses.replace(control, authorities=b"", certificate=b"", key=b"")
        self._route = Route(control, data, job, address)
        self._reconnect_s = reconnect_s
        self._session: Optional[Session] = None
        self._description = head_pb2.HeadDescription()
        self._save_at: Dict[int, bool] = {}  # Step -> whether the answer waits for its checkpoint.
        self._ended = False

    # Training.

    def step(self, features: Any, labels: Any, lr: Optional[float] = None, checkpoint: bool = False) -> StepResult:
        """One step of the head with features [n, D] (floats) and labels [n] (integers; -1: ignore the row); n may be 0
        and may differ between trainers and steps.

        `lr` is that of this step, instead of the schedule of the job; all trainers must give the same. With
        `checkpoint` the head writes one, of steps_done afterwards, before it answers.

        InvalidArgumentError: what is wrong, at which trainer and row; all trainers get it and may step again.
        HeadRewound: see there. JobEndedError: no step is left, or the job was stopped.
        """
        array = _wire.feature_array(features)
        request = head_pb2.StepRequest(
            step=self.steps_done,
            rows=array.shape[0],
            type=_wire.WIRE_TYPES[self.wire],
            features=_wire.encode(array, self.wire),
            labels=_wire.label_bytes(labels, array.shape[0]),
            checkpoint=checkpoint or self._save_at.get(self.steps_done + 1, False),
            checkpoint_behind=self.steps_done + 1 in self._save_at,
        )
        if lr is not None:
            request.lr = lr
        answer = self._ask(head_pb2.TrainerMessage(step=request), array.shape[1])
        return self._finish(answer.step, request.rows, array.shape[1])

    def save(self, step: Optional[int] = None, wait: bool = True) -> int:
        """Has the head write a checkpoint when it has done `step` steps, by default with the next step. Returns it.

        The head writes between two steps, so ask before, and save the backbone once steps_done has become `step`. That
        step's answer comes when the checkpoint is on the disk; without `wait` at once, while it is written: it is there
        once stats.checkpoint_step is `step` or more, and until then older backbones are still needed.
        """
        step = self.steps_done + 1 if step is None else step
        if step <= self.steps_done and step not in self.checkpoint_steps:
            errors.invalid(f"step {step} is done, and its head is gone: ask for step {self.steps_done + 1} or later")
        self._save_at[step] = wait or self._save_at.get(step, False)
        return step

    def load(self, step: int) -> None:
        """Goes back to the checkpoint of `step` steps (0: to the initial weights), once all trainers have asked for the
        same. Load the backbone of that step as well.

        NotFoundError: there is no such checkpoint. HeadRewound: another trainer wants to go back to another one.
        """
        self._ask(head_pb2.TrainerMessage(load=head_pb2.LoadRequest(step=step)))
        self.steps_done = step

    # What there is.

    def describe(self) -> head_pb2.HeadDescription:
        """Asks the head how it stands: job, num_classes, dim, trainers, steps_done, total_steps, checkpoint_steps…"""
        return self._until_there(self._route.describe)

    @property
    def checkpoint_steps(self) -> List[int]:
        """What load() can go back to, ascending. 0, the initial weights, is always there."""
        return [0, *self.describe().checkpoint_steps]

    def newest_common(self, backbone_steps: Iterable[int]) -> int:
        """The newest of `backbone_steps` that the head has a checkpoint of."""
        mine = set(backbone_steps)
        common = mine.intersection(self.checkpoint_steps)
        if not common:
            there = ", ".join(map(str, self.checkpoint_steps))
            raise errors.NotFoundError(f"no backbone of a step that the head has a checkpoint of: those are {there}")
        return max(common)

    def close(self) -> None:
        """The head waits for this trainer until it comes back."""
        self._drop()
        self._route.close()

    def __enter__(self) -> Head:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    # How.

    def _ask(self, message: head_pb2.TrainerMessage, dim: int = 0) -> head_pb2.HeadMessage:
        """The reply to a step or load, over as many connections as it takes."""
        if self._ended:
            raise errors.JobEndedError("the job has made its last step")
        try:
            answer = self._until_there(lambda: self._connected(message, dim).ask(message))
        except BaseException:
            # Its answer may come later, or never: the next call begins with a new stream, which tells them apart.
            self._drop()
            raise
        if answer.WhichOneof("kind") == "refusal":
            raise self._refused(answer.refusal, message)
        if answer.WhichOneof("kind") != message.WhichOneof("kind"):
            self._drop()
            raise errors.InternalError(f"the head answered {answer.WhichOneof('kind')}: do the versions fit?")
        return answer

    def _until_there(self, ask: Callable[[], _Answer]) -> _Answer:
        backoff = Backoff(0.1, 3.0, self._reconnect_s)
        while True:
            try:
                return ask()
            except NotThereError as error:
                self._drop()
                # A server knows whether a job goes on. Without one a head is worth waiting for that was there before,
                # and whose job has not failed.
                refused = isinstance(error.why, errors.FailedPreconditionError)
                hopeless = self._alone and refused and (error.ended or not self._was_there)
                if hopeless or not backoff.sleep():
                    raise error.why from None
                _LOG.info("connecting again: %s", error)

    def _connected(self, message: head_pb2.TrainerMessage, dim: int) -> Session:
        """A stream, after hello and welcome, of a head that is where this message wants it."""
        if self._session is None:
            description = self._route.describe()
            if self.trainer >= description.trainers:
                errors.invalid(f"trainer is {self.trainer}, and {description.job} has {description.trainers} (from 0)")
            rank = self.trainer * len(description.endpoints) // description.trainers
            self._session = Session(self._route.data, description.endpoints[rank])
            hello = head_pb2.TrainerHello(trainer=self.trainer, job=self._job, says_received=True)
            self._description = self._session.ask(head_pb2.TrainerMessage(hello=hello)).welcome
            self._was_there = True
            # Of a step that was made but whose answer was lost the head has the answer still.
            made = self._description.steps_done - message.step.step
            if message.WhichOneof("kind") == "step" and made not in (0, 1):
                raise self._rewound(self._description.steps_done)
        if dim and dim != self._description.dim:
            errors.invalid(f"features are {dim} wide, and the head of {self._description.job} {self._description.dim}")
        return self._session

    def _finish(self, reply: head_pb2.StepReply, rows: int, dim: int) -> StepResult:
        gradients = _wire.decode(reply.feature_gradients, rows, dim, self.wire)
        self.steps_done = reply.step + 1
        self._save_at = {step: wait for step, wait in self._save_at.items() if step > self.steps_done}
        self._ended = reply.last
        if reply.last:
            if self._session is not None:
                self._session.confirm_last()
            self._drop()
        stats = StepStats(
            step=reply.step,
            lr=reply.lr,
            label_cosine=reply.label_cosine,
            support_vector_ratio=reply.support_vector_ratio,
            global_rows=reply.global_rows,
            counted_rows=reply.counted_rows,
            checkpoint_step=reply.checkpoint_step,
            snapshot_step=reply.snapshot_step,
            last=reply.last,
        )
        return StepResult(reply.loss, gradients, stats)

    def _refused(self, refusal: head_pb2.Refusal, message: head_pb2.TrainerMessage) -> errors.ShardmaxError:
        code = errors.code_of_number(refusal.code)
        if code == grpc.StatusCode.ABORTED:
            return self._rewound(refusal.steps_done, f"{refusal.message}\n  ")
        if code == grpc.StatusCode.FAILED_PRECONDITION and message.WhichOneof("kind") == "step":
            return self._rewound(refusal.steps_done, f"{refusal.message}\n  ")
        return errors.make_error(code, refusal.message)

    def _rewound(self, steps_done: int, why: str = "") -> errors.HeadRewound:
        return errors.HeadRewound(
            f"{why}This trainer has done {self.steps_done} steps, and the head goes on from {steps_done}: load a "
            "backbone of a step that both have (newest_common()), and call load() with that step.",
            steps_done,
        )

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
