"""Streams that outlive the server and the network."""

from __future__ import annotations

import time
from typing import Callable, Iterator, TypeVar

import grpc

from shardmax import errors
from shardmax._backoff import Backoff

# A stream that lasted so long was connected, even if nothing came.
_CONNECTED_S = 10.0
_Message = TypeVar("_Message")


class _EndedEarly(grpc.RpcError):
    """The server ended a stream in an orderly way, though something is missing."""


class Follower:
    """One stream over as many connections as it takes. `probe` asks the server something, to see whether it is back."""

    def __init__(self, server: str, reconnect_s: float, probe: Callable[[], None]) -> None:
        self._server, self._probe = server, probe
        self._backoff = Backoff(0.1, 1.0, reconnect_s)
        self._broken = False
        self._opened = 0.0

    def follow(self, open_stream: Callable[[], Iterator[_Message]], ends: bool) -> Iterator[_Message]:
        """Messages of all connections. `open_stream` starts at the place where it was. With `ends` an orderly end of a
        stream is its end; otherwise whoever iterates knows when to leave."""
        while True:
            self._opened = time.monotonic()
            stream = open_stream()
            try:
                for message in stream:
                    self._received()
                    yield message
                if ends:
                    return
                self.recover(_EndedEarly("the server ended the stream"))
            except grpc.RpcError as error:
                self.recover(error)
            finally:
                cancel = getattr(stream, "cancel", None)
                if cancel:
                    cancel()

    def recover(self, why: grpc.RpcError) -> None:
        """Returns once the server is back after a stream broke with `why`; raises what it is if it does not come."""
        if time.monotonic() - self._opened >= _CONNECTED_S:
            self._received()
        if not self._is_break(why):
            raise errors.from_rpc(why, self._server) from why
        self._broken = True
        while self._backoff.sleep():
            try:
                self._probe()
                return
            except grpc.RpcError as error:
                if errors.rpc_code(error) == grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue  # A time-out says less than why the stream broke.
                if errors.rpc_code(error) != grpc.StatusCode.UNAVAILABLE:
                    raise errors.from_rpc(error, self._server) from error
                why = error
        raise errors.make_error(grpc.StatusCode.UNAVAILABLE, errors.rpc_details(why), self._server) from why

    def _received(self) -> None:
        self._broken = False
        self._backoff.reset()

    def _is_break(self, why: grpc.RpcError) -> bool:
        if isinstance(why, _EndedEarly):
            return True
        code = errors.rpc_code(why)
        # A server that shuts down cancels what is open. One that comes back may still count the streams of before.
        crowded = self._broken and code == grpc.StatusCode.RESOURCE_EXHAUSTED
        return crowded or code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
