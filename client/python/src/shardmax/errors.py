"""What goes wrong, by what a caller can do about it. Every message says what to do."""

from __future__ import annotations

from typing import NoReturn, Optional

import grpc


class ShardmaxError(Exception):
    """Of all errors of this package. `code` is a gRPC status code, or None for what was found without a call."""

    def __init__(self, message: str, code: Optional[grpc.StatusCode] = None) -> None:
        super().__init__(message)
        self.code = code


class InvalidArgumentError(ShardmaxError, ValueError):
    """A spec, option, shape, label or value that can never be right."""


class NotFoundError(ShardmaxError, LookupError):
    """No such job, checkpoint, pool or file."""


class AlreadyExistsError(ShardmaxError):
    """The idempotency key belongs to another spec; or another trainer of the same number connected since."""


class FailedPreconditionError(ShardmaxError):
    """The job is not in a state for this."""


class PermissionDeniedError(ShardmaxError, PermissionError):
    """The token is good, but not for this."""


class UnauthenticatedError(ShardmaxError):
    """No token, or one that the server does not know."""


class ResourceExhaustedError(ShardmaxError):
    """Beyond a limit of the server."""


class DataLossError(ShardmaxError):
    """A file is damaged: a checksum or a length differs."""


class UnavailableError(ShardmaxError, ConnectionError):
    """No answer from the server."""


class DeadlineExceededError(UnavailableError, TimeoutError):
    """No answer within the timeout."""


class InternalError(ShardmaxError):
    """A mistake of the server."""


class JobEndedError(ShardmaxError):
    """The job is in a final state: there is no head to train any more."""


class HeadRewound(ShardmaxError):
    """The head is not at the step that this trainer is at: it, or another trainer, went back to a checkpoint.

    Load the backbone of a step that both have (see Head.checkpoint_steps), call Head.load() with that step, and go on
    from there. `steps_done` is the step that the head is at, or that another trainer wants to go back to.
    """

    def __init__(self, message: str, steps_done: int) -> None:
        super().__init__(message, grpc.StatusCode.ABORTED)
        self.steps_done = steps_done


_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ABORTED: FailedPreconditionError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}

_PREAMBLES = ("failed to connect to all addresses; last error: ", "UNKNOWN: ", "UNAVAILABLE: ")
_CODE_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def code_of_number(number: int) -> grpc.StatusCode:
    """A google.rpc.Code as grpc has it."""
    return _CODE_BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def make_error(code: grpc.StatusCode, message: str, server: str = "", hint: str = "") -> ShardmaxError:
    """The exception of a status. `server` is named where there was no answer."""
    for preamble in _PREAMBLES:
        message = message[len(preamble) :] if message.startswith(preamble) else message
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and server:
        message = f"no answer from the server at {server}: {message}"
    hint = hint or _hint(code)
    kind = _BY_CODE.get(code, InternalError)
    return kind(f"{message}\n  {hint}" if hint else message, code)


def from_rpc(error: grpc.RpcError, server: str) -> ShardmaxError:
    """The exception of a call that failed."""
    return make_error(rpc_code(error), rpc_details(error), server)


def rpc_code(error: grpc.RpcError) -> grpc.StatusCode:
    code = error.code() if isinstance(error, grpc.Call) else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def rpc_details(error: grpc.RpcError) -> str:
    details = error.details() if isinstance(error, grpc.Call) else None
    return details or str(error)


def invalid(message: str) -> NoReturn:
    raise InvalidArgumentError(message, grpc.StatusCode.INVALID_ARGUMENT)


def _hint(code: grpc.StatusCode) -> str:
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return "Give a token of this server: token=, token_file= or SHARDMAX_TOKEN; its administrator makes one."
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return "Use a token with a role that may: submitters and admins change jobs, viewers only look."
    if code == grpc.StatusCode.UNAVAILABLE:
        return "Is it running, is this its address (server= or SHARDMAX_SERVER), and does it use TLS (tls_ca=)?"
    return ""
