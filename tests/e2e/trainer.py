"""A trainer that shares no code with ours: plain gRPC of Python, with stubs made from proto/."""

import queue
import threading
import time

import grpc
import numpy as np

from control_client import stubs

ANSWER_S = 120
INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, ABORTED = 3, 5, 9, 10


class Refused(Exception):
    def __init__(self, refusal):
        super().__init__(f"{refusal.code}: {refusal.message}")
        self.code, self.message, self.steps_done = refusal.code, refusal.message, refusal.steps_done


class StreamEnded(Exception):
    def __init__(self, code, details):
        super().__init__(f"{code}: {details}")
        self.code, self.details = code, details


def bytes_of(array, wire):
    """`array` in the bytes of `wire`: float32, float16 or bfloat16 (rounded by torch)."""
    if wire == "bfloat16":
        import torch

        return torch.tensor(np.asarray(array, np.float32)).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    return np.ascontiguousarray(array, dtype=wire).tobytes()


def array_of(data, wire, dim):
    if wire == "bfloat16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(-1, dim)
    return np.frombuffer(data, wire).astype(np.float32).reshape(-1, dim)


def channel_to(address, credentials=None):
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1),
               ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


def metadata_of(token):
    return [("authorization", f"Bearer {token}")] if token else []


def describe(address, token=None, credentials=None):
    with channel_to(address, credentials) as channel:
        stub = stubs("head_pb2_grpc").HeadServiceStub(channel)
        return stub.Describe(stubs("head_pb2").DescribeRequest(), timeout=20, metadata=metadata_of(token),
                             wait_for_ready=True)


class Trainer:
    """One stream. Use it in a `with`, or close() it."""

    def __init__(self, address, trainer=0, job="", token=None, credentials=None, announces=True, confirms=True):
        """Announces that it says that the last answer is there when it is, and says so."""
        self.confirms = announces and confirms
        self.messages = stubs("head_pb2")
        self.channel = channel_to(address, credentials)
        self.out = queue.SimpleQueue()
        self.stream = stubs("head_pb2_grpc").HeadServiceStub(self.channel).Train(
            iter(self.out.get, None), metadata=metadata_of(token), wait_for_ready=True
        )
        self.inbox = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.send(hello={"trainer": trainer, "job": job, "says_received": announces})
        self.welcome = self.receive().welcome

    def _listen(self):
        try:
            for message in self.stream:
                self.inbox.put(message)
            self.inbox.put(StreamEnded(grpc.StatusCode.OK, ""))
        except grpc.RpcError as error:
            self.inbox.put(StreamEnded(error.code(), error.details()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.stream.cancel()
        self.out.put(None)
        self.channel.close()

    def send(self, **fields):
        self.out.put(self.messages.TrainerMessage(**fields))

    def receive(self, limit_s=ANSWER_S):
        message = self.inbox.get(timeout=limit_s)
        if isinstance(message, Exception):
            raise message
        if message.HasField("refusal"):
            raise Refused(message.refusal)
        if message.step.last and self.confirms:
            self.send(received={})
        return message

    def idle(self, seconds):
        """Whether nothing comes for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.inbox.empty():
                return False
            time.sleep(0.01)
        return True

    def send_step(self, step, features, labels, wire="float32", **fields):
        kind = {"float32": 1, "float16": 2, "bfloat16": 3}[wire]
        rows = len(labels)
        self.send(step={"step": step, "rows": rows, "type": kind, "features": bytes_of(features, wire),
                        "labels": np.asarray(labels, np.int32).tobytes(), **fields})

    def step(self, step, features, labels, wire="float32", **fields):
        """The reply, and the gradient of the features [n, D]."""
        self.send_step(step, features, labels, wire, **fields)
        return self.receive_step(features, wire)

    def receive_step(self, features, wire="float32"):
        reply = self.receive().step
        return reply, array_of(reply.feature_gradients, wire, np.shape(features)[1])

    def load(self, step):
        self.send(load={"step": step})
        return self.receive().load.step


def rank_of(trainer, trainers, ranks):
    return trainer * ranks // trainers
