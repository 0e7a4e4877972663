"""One stream between a trainer and its rank."""

from __future__ import annotations

import queue
import threading
from typing import Iterator, Optional

import grpc

from shardmax._channel import Connection
from shardmax.errors import make_error, rpc_code, rpc_details
from shardmax._route import NotThereError
from shardmax.v1 import head_pb2, head_pb2_grpc

# What the stream ends with when the connection, the process or the job on the other side is gone. Some versions of
# gRPC say INTERNAL or UNKNOWN for a connection that is cut in the middle of a message.
_BREAKS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_CUT = ("RST_STREAM", "Stream removed", "GOAWAY")


# How long to wait for the end of a stream that is done.
_END_S = 5.0


class Session:
    """Messages go out and come in, in turn. Errors: NotThereError if another session may do better, else the
    exception of the status that the stream ended with."""

    def __init__(self, connection: Connection, address: str) -> None:
        self._address = address
        self._channel = connection.channel(address, max_receive_bytes=-1)
        self._out: queue.SimpleQueue[Optional[head_pb2.TrainerMessage]] = queue.SimpleQueue()
        outgoing: Iterator[head_pb2.TrainerMessage] = iter(self._out.get, None)
        stub = head_pb2_grpc.HeadServiceStub(self._channel)
        self._call = stub.Train(outgoing, metadata=connection.metadata)
        self._welcome = False

    def ask(self, message: head_pb2.TrainerMessage) -> head_pb2.HeadMessage:
        self._out.put(message)
        try:
            answer: head_pb2.HeadMessage = next(self._call)
            self._welcome = True
            return answer
        except StopIteration:
            message_text = f"{self._address} ended the stream"
            raise NotThereError(make_error(grpc.StatusCode.UNAVAILABLE, message_text, hint=" ")) from None
        except grpc.RpcError as error:
            code, details = rpc_code(error), rpc_details(error)
            if code in _BREAKS or any(word in details for word in _CUT):
                raise NotThereError(make_error(grpc.StatusCode.UNAVAILABLE, details, self._address)) from error
            why = make_error(code, details, self._address)
            if code != grpc.StatusCode.FAILED_PRECONDITION:
                raise why from error
            # At first: the rank of a trainer is another one after the job has moved to a pool of another size. Later:
            # the job has failed.
            raise NotThereError(why, ended=self._welcome) from error

    def confirm_last(self) -> None:
        """Says that the last answer of the job is there, and waits until the head has heard it. If it does not, it
        waits for a while, as for a trainer that is gone."""
        ended = threading.Event()
        self._out.put(head_pb2.TrainerMessage(received=head_pb2.LastReceived()))
        if self._call.add_callback(ended.set):
            ended.wait(_END_S)

    def close(self) -> None:
        self._out.put(None)
        self._call.cancel()
        self._channel.close()
