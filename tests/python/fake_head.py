"""A head in float64 that serves head.proto, and fails where a test tells it to: what a real pool does rarely and late.

The loss is the mean cross-entropy of plain logits x·w; the update is w -= lr dw. It checks the protocol of the client;
the real worker checks that the protocol is the right one.
"""

import concurrent.futures
import threading

import grpc
import numpy as np

from shardmax.v1 import head_pb2, head_pb2_grpc

DECODE = {
    head_pb2.WIRE_FLOAT32: lambda data: np.frombuffer(data, "<f4").astype(float),
    head_pb2.WIRE_FLOAT16: lambda data: np.frombuffer(data, "<f2").astype(float),
    head_pb2.WIRE_BFLOAT16: lambda data: (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(float),
}
ENCODE = {
    head_pb2.WIRE_FLOAT32: lambda values: values.astype("<f4").tobytes(),
    head_pb2.WIRE_FLOAT16: lambda values: values.astype("<f2").tobytes(),
    # Truncated, so that no code of the client is on both sides.
    head_pb2.WIRE_BFLOAT16: lambda values: (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes(),
}


def loss_and_gradients(weight, features, labels):
    """Mean loss over rows whose label is not -1, dloss/dx, dloss/dw."""
    logits = features @ weight.T
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    kept = labels >= 0
    d_logits = np.exp(log_p)
    d_logits[np.arange(len(labels)), np.maximum(labels, 0)] -= 1
    d_logits *= kept[:, None] / max(1, kept.sum())
    loss = -log_p[np.arange(len(labels)), np.maximum(labels, 0)][kept].mean() if kept.any() else 0.0
    return loss, d_logits @ weight, d_logits.T @ features


class FakeHead(head_pb2_grpc.HeadServiceServicer):
    """Use it in a `with`; `endpoint` is where it serves."""

    def __init__(self, classes=7, dim=4, trainers=1, total_steps=1000, token=None):
        self.shape, self.trainers, self.total_steps, self.token = (classes, dim), trainers, total_steps, token
        self.weight = np.random.default_rng(3).standard_normal(self.shape)
        self.checkpoints = {0: self.weight.copy()}
        self.behind = {}  # Those that are still written: complete with the next step.
        self.steps_done, self.steps_made = 0, 0
        self.lrs, self.hellos = [], []
        self.confirmed = []  # Trainers that said that they have the last answer.
        self.failure = None  # Why the job has failed.
        self.cut_answer_of = None  # A step that is made, and whose stream then breaks.
        self._lock = threading.Condition()
        self._pending, self._loads, self._answers = {}, {}, {}
        self._streams = {}  # Trainer -> context of its newest stream.
        self._generation = 0
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
        head_pb2_grpc.add_HeadServiceServicer_to_server(self, self._server)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self.restart()
        self._server.stop(0)

    def restart(self, from_step=None):
        """All streams break, and what is not in a checkpoint is lost."""
        with self._lock:
            if from_step is not None:
                self.steps_done, self.weight = from_step, self.checkpoints[from_step].copy()
            self._pending, self._loads, self._answers = {}, {}, {}
            self._generation += 1
            self._lock.notify_all()

    # The service.

    def Describe(self, request, context):
        self._authenticate(context)
        return self._description()

    def Train(self, requests, context):
        self._authenticate(context)
        hello = next(requests).hello
        with self._lock:
            self.hellos.append(hello)
            self._streams[hello.trainer] = context
            self._lock.notify_all()
            generation, welcome = self._generation, head_pb2.HeadMessage(welcome=self._description())
        yield welcome
        for message in requests:
            answer = self._answer(hello.trainer, message, context, generation)
            yield answer
            if answer.step.last:
                if next(requests, head_pb2.TrainerMessage()).HasField("received"):
                    self.confirmed.append(hello.trainer)
                return

    def _authenticate(self, context):
        if self.token and ("authorization", f"Bearer {self.token}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such token")

    def _description(self):
        return head_pb2.HeadDescription(
            job="fake-1", attempt=1, num_classes=self.shape[0], dim=self.shape[1], max_rows=64,
            trainers=self.trainers, total_steps=self.total_steps, steps_done=self.steps_done,
            checkpoint_steps=sorted(set(self.checkpoints) - {0}), endpoints=[self.endpoint] * 2,
        )  # fmt: skip

    def _answer(self, trainer, message, context, generation):
        with self._lock:
            slot = []  # Gets the answer.
            handle = self._take_step if message.WhichOneof("kind") == "step" else self._take_load
            handle(trainer, getattr(message, message.WhichOneof("kind")), slot)
            self._lock.notify_all()
            while not slot and self._generation == generation and self._streams[trainer] is context:
                self._lock.wait(0.1)
                if not context.is_active():
                    return head_pb2.HeadMessage()
            if self.failure:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.failure)
            if self._streams[trainer] is not context:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"another stream is trainer {trainer} now")
            if not slot or slot[0].step.step == self.cut_answer_of and slot[0].WhichOneof("kind") == "step":
                self.cut_answer_of = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "the job leaves this pool")
            return slot[0]

    # What the messages do.

    def _refuse(self, slot, step, code, message, steps_done=None):
        steps_done = self.steps_done if steps_done is None else steps_done
        refusal = head_pb2.Refusal(step=step, code=code.value[0], message=message, steps_done=steps_done)
        slot.append(head_pb2.HeadMessage(refusal=refusal))

    def _take_step(self, trainer, step, slot):
        made = self._answers.get(trainer)
        if made and made[0] == step:
            slot.append(made[1])
        elif self._loads:
            wanted = next(iter(self._loads.values()))[0]
            self._refuse(slot, step.step, grpc.StatusCode.ABORTED, "another trainer loads", wanted)
        elif step.step != self.steps_done:
            self._refuse(slot, step.step, grpc.StatusCode.FAILED_PRECONDITION, f"the head waits for {self.steps_done}")
        else:
            self._pending[trainer] = (step, slot)
            if len(self._pending) == self.trainers:
                self._make_step()

    def _make_step(self):
        pending, self._pending = sorted(self._pending.items()), {}
        rows = [DECODE[step.type](step.features).reshape(step.rows, self.shape[1]) for _, (step, _) in pending]
        labels = [np.frombuffer(step.labels, "<i4") for _, (step, _) in pending]
        for (trainer, _), label in zip(pending, labels):
            if (label >= self.shape[0]).any():
                for _, (step, slot) in pending:
                    text = f"trainer {trainer}: row {int(np.argmax(label))}: label out of range"
                    self._refuse(slot, step.step, grpc.StatusCode.INVALID_ARGUMENT, text)
                return
        loss, d_features, d_weight = loss_and_gradients(self.weight, np.concatenate(rows), np.concatenate(labels))
        lr = pending[0][1][0].lr if pending[0][1][0].HasField("lr") else 0.1
        self.lrs.append(lr)
        self.weight = self.weight - lr * d_weight
        self.steps_done += 1
        self.steps_made += 1
        self.checkpoints.update(self.behind)
        self.behind = {}
        if any(step.checkpoint for _, (step, _) in pending):
            self.checkpoints[self.steps_done] = self.weight.copy()
        elif any(step.checkpoint_behind for _, (step, _) in pending):
            self.behind[self.steps_done] = self.weight.copy()
        self._answers = {}
        ends = np.cumsum([step.rows for _, (step, _) in pending])
        for (trainer, (step, slot)), end in zip(pending, ends):
            reply = head_pb2.StepReply(
                step=step.step, loss=loss, feature_gradients=ENCODE[step.type](d_features[end - step.rows : end]),
                lr=lr, global_rows=int(ends[-1]), counted_rows=int((np.concatenate(labels) >= 0).sum()),
                checkpoint_step=max(self.checkpoints), snapshot_step=max([*self.checkpoints, *self.behind]),
                last=self.steps_done == self.total_steps,
            )  # fmt: skip
            message = head_pb2.HeadMessage(step=reply)
            self._answers[trainer] = (step, message)
            slot.append(message)

    def _take_load(self, trainer, load, slot):
        others = {step for step, _ in self._loads.values()}
        if load.step not in self.checkpoints:
            self._refuse(slot, load.step, grpc.StatusCode.NOT_FOUND, f"no checkpoint of step {load.step}")
        elif others - {load.step}:
            self._refuse(slot, load.step, grpc.StatusCode.ABORTED, "another trainer loads", next(iter(others)))
        else:
            self._loads[trainer] = (load.step, slot)
            for step, waiting in self._pending.values():
                self._refuse(waiting, step.step, grpc.StatusCode.ABORTED, "another trainer loads", load.step)
            self._pending = {}
            if len(self._loads) == self.trainers:
                self.steps_done, self.weight = load.step, self.checkpoints[load.step].copy()
                self._answers = {}
                loads, self._loads = self._loads, {}
                for step, waiting in loads.values():
                    waiting.append(head_pb2.HeadMessage(load=head_pb2.LoadReply(step=step)))
