"""Jobs, checkpoints and pools of one shardmax-server.

Calls block. What each does and how it fails is written in control.proto; here is what the client adds:

Retries, only where the server could not be reached or the connection broke, with exponential backoff until
`timeout_s`: reads; submits, whose idempotency key makes two tries one job; stops. Deletes and checkpoint_now() are sent
at most once. Streams connect again and go on after the last message that was delivered, for up to `reconnect_s`.

`job` is everywhere the id of a job, or a name, which means the newest job of that name. A client may be used by several
threads.
"""

from __future__ import annotations

import time
import uuid
from types import TracebackType
from typing import Any, Callable, Iterator, List, Optional, Sequence, Type, TypeVar, Union

import grpc

from shardmax import _export, _streams, errors
from shardmax._backoff import Backoff
from shardmax._channel import Path, connection
from shardmax.progress import show_progress
from shardmax.spec import SpecLike, job_spec
from shardmax.v1 import checkpoint_pb2, control_pb2, control_pb2_grpc

FINAL_STATES = (control_pb2.SUCCEEDED, control_pb2.FAILED, control_pb2.STOPPED)

_PAGE = 500
_RETRY_FIRST_S, _RETRY_LONGEST_S = 0.1, 1.0
_Result = TypeVar("_Result")


class Client:
    """Use it in a `with`, or close() it. Connects when the first call needs it."""

    def __init__(
        self,
        server: Optional[str] = None,
        *,
        token: Optional[str] = None,
        token_file: Optional[Path] = None,
        tls_ca: Optional[Path] = None,
        tls_cert: Optional[Path] = None,
        tls_key: Optional[Path] = None,
        timeout_s: float = 30.0,
        reconnect_s: float = 600.0,
    ) -> None:
        """`server` is HOST:PORT (default: SHARDMAX_SERVER, or 127.0.0.1:7700); the token is `token`, that in
        `token_file`, or SHARDMAX_TOKEN. `tls_ca`, a PEM file or "system", switches TLS on; with `tls_cert` and
        `tls_key` it is mutual."""
        self.connection = connection(server, token, token_file, tls_ca, tls_cert, tls_key)
        self.timeout_s, self.reconnect_s = timeout_s, reconnect_s
        self._channel = self.connection.channel()
        self._jobs = control_pb2_grpc.JobServiceStub(self._channel)
        self._pools = control_pb2_grpc.PoolServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    # Jobs.

    def submit(self, spec: SpecLike, idempotency_key: str = "") -> control_pb2.Job:
        """Queues a job: a file (textproto, or JSON if it ends in .json), a dict with the names of job.proto, or a
        JobSpec.

        Give a key to make submits of several processes, or of several runs of a program, one job.
        """
        request = control_pb2.SubmitJobRequest(spec=job_spec(spec), idempotency_key=idempotency_key or uuid.uuid4().hex)
        return self._repeat(control_pb2.Job, self._jobs.SubmitJob, request)

    def get(self, job: str) -> control_pb2.Job:
        return self._repeat(control_pb2.Job, self._jobs.GetJob, control_pb2.GetJobRequest(job=job))

    def list(
        self, *, states: Sequence[Union[str, int]] = (), name: str = "", pool: str = "", limit: int = 0
    ) -> List[control_pb2.Job]:
        """Newest first, at most `limit` (0: all). States are names like "RUNNING"."""
        numbers = [control_pb2.JobState.Value(state) if isinstance(state, str) else state for state in states]
        jobs: List[control_pb2.Job] = []
        request = control_pb2.ListJobsRequest(name=name, pool=pool)
        request.states.extend(numbers)  # type: ignore[arg-type]
        while True:
            request.page_size = min(_PAGE, limit - len(jobs)) if limit > 0 else _PAGE
            page = self._repeat(control_pb2.ListJobsResponse, self._jobs.ListJobs, request)
            jobs.extend(page.jobs)
            request.page_token = page.next_page_token
            if not page.next_page_token or 0 < limit <= len(jobs):
                return jobs

    def stop(self, job: str) -> control_pb2.Job:
        """Has the job end its step, write a checkpoint and become STOPPED."""
        return self._repeat(control_pb2.Job, self._jobs.StopJob, control_pb2.StopJobRequest(job=self._id(job)))

    def delete(self, job: str) -> None:
        """Forgets a job that has ended, and removes its folder."""
        self._once(self._jobs.DeleteJob, control_pb2.DeleteJobRequest(job=self._id(job)), "deleted")

    # Streams.

    def watch(self, job: str) -> Iterator[control_pb2.Job]:
        """The job now and whenever it changes, until it has ended. The spec is in the first message only."""
        request = control_pb2.WatchJobRequest(job=self._id(job))
        for now in self._follow(request.job, lambda: self._jobs.WatchJob(request, metadata=self.connection.metadata)):
            yield now
            if now.state in FINAL_STATES:
                return

    def wait(self, job: str, *, quiet: bool = False, timeout_s: Optional[float] = None) -> control_pb2.Job:
        """The job in its final state, with a progress bar until then. A job that failed is no exception: see `state`.

        DeadlineExceededError after `timeout_s` (default: never); the job goes on.
        """
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        request = control_pb2.WatchJobRequest(job=self._id(job))

        def jobs() -> Iterator[control_pb2.Job]:
            def open_stream() -> Iterator[control_pb2.Job]:
                left_s = None if give_up is None else max(0.001, give_up - time.monotonic())
                stream: Iterator[control_pb2.Job] = self._jobs.WatchJob(
                    request, metadata=self.connection.metadata, timeout=left_s
                )
                return stream

            for now in self._follow(request.job, open_stream):
                yield now
                if now.state in FINAL_STATES:
                    return

        try:
            return show_progress(jobs(), quiet)
        except errors.DeadlineExceededError:
            message = f"{request.job} has not ended after {timeout_s:g} s; it goes on"
            raise errors.DeadlineExceededError(message, grpc.StatusCode.DEADLINE_EXCEEDED) from None

    def logs(self, job: str, *, follow: bool = False, after_sequence: int = 0) -> Iterator[control_pb2.LogLine]:
        """What the server and the workers said, oldest first; with `follow` until the job has ended."""
        request = control_pb2.StreamLogsRequest(job=self._id(job), follow=follow, after_sequence=after_sequence)
        stream: Callable[[], Iterator[control_pb2.LogLine]] = lambda: self._jobs.StreamLogs(
            request, metadata=self.connection.metadata
        )
        for line in self._follow(request.job, stream, ends=True):
            request.after_sequence = line.sequence
            yield line

    def metrics(self, job: str, *, follow: bool = False, after_step: int = 0) -> Iterator[checkpoint_pb2.StepMetrics]:
        """The lines of metrics.jsonl, oldest first; with `follow` until the job has ended. A job that starts again from
        a checkpoint reports steps again."""
        request = control_pb2.StreamMetricsRequest(job=self._id(job), follow=follow, after_step=after_step)
        stream: Callable[[], Iterator[checkpoint_pb2.StepMetrics]] = lambda: self._jobs.StreamMetrics(
            request, metadata=self.connection.metadata
        )
        for step in self._follow(request.job, stream, ends=True):
            request.after_step = step.step
            yield step

    # Checkpoints.

    def checkpoints(self, job: str) -> List[control_pb2.CheckpointInfo]:
        """Complete ones, newest first."""
        request = control_pb2.ListCheckpointsRequest(job=job)
        response = self._repeat(control_pb2.ListCheckpointsResponse, self._jobs.ListCheckpoints, request)
        return list(response.checkpoints)

    def checkpoint(self, job: str, step: int = 0) -> control_pb2.CheckpointInfo:
        """Of `step`, by default the newest."""
        request = control_pb2.GetCheckpointRequest(job=job, step=step)
        return self._repeat(control_pb2.CheckpointInfo, self._jobs.GetCheckpoint, request)

    def checkpoint_now(self, job: str) -> None:
        """Has a running job write a checkpoint after its current step; does not wait for it."""
        self._once(self._jobs.CheckpointNow, control_pb2.CheckpointNowRequest(job=self._id(job)), "asked for")

    def export(self, job: str, path: Path, *, step: int = 0, format: str = "") -> int:
        """Writes the class weights [C, D] of a checkpoint (by default the newest) to a file that is there completely or
        not at all. `format`: "safetensors", "npy" or "torch" (a state dict with `weight`), by default by the ending of
        the file: .safetensors, .npy, .pt or .pth. Returns the step."""
        kind = _export.format_of(path, format)
        info = self.checkpoint(job, step)
        request = control_pb2.ExportCheckpointRequest(job=info.job, step=info.step)
        open_stream: Callable[[], Iterator[control_pb2.ExportChunk]] = lambda: self._jobs.ExportCheckpoint(
            request, metadata=self.connection.metadata
        )
        follower = _streams.Follower(self.connection.server, self.reconnect_s, lambda: self._probe(info.job))
        while True:
            try:
                _export.write(open_stream(), path, kind)
                return info.step
            except grpc.RpcError as error:
                follower.recover(error)

    # Pools.

    def pools(self) -> List[control_pb2.Pool]:
        response = self._repeat(control_pb2.ListPoolsResponse, self._pools.ListPools, control_pb2.ListPoolsRequest())
        return list(response.pools)

    # The rules of trying again.

    def _repeat(self, kind: Type[_Result], method: Callable[..., Any], request: Any) -> _Result:
        """The answer of a method of a stub, which is a `kind`."""
        end = time.monotonic() + self.timeout_s
        backoff = Backoff(_RETRY_FIRST_S, _RETRY_LONGEST_S, self.timeout_s)
        why: Optional[grpc.RpcError] = None
        while True:
            try:
                left_s = max(0.001, end - time.monotonic())
                answer: _Result = method(request, timeout=left_s, metadata=self.connection.metadata)
                return answer
            except grpc.RpcError as error:
                code = errors.rpc_code(error)
                # When the time runs out during a later try, what was wrong before says more.
                if code == grpc.StatusCode.DEADLINE_EXCEEDED and why is not None:
                    raise errors.from_rpc(why, self.connection.server) from error
                if code != grpc.StatusCode.UNAVAILABLE:
                    raise errors.from_rpc(error, self.connection.server) from error
                why = error
                if not backoff.sleep() or time.monotonic() >= end:
                    raise errors.from_rpc(error, self.connection.server) from error

    def _once(self, method: Callable[..., Any], request: Any, done: str) -> None:
        try:
            method(request, timeout=self.timeout_s, metadata=self.connection.metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            code = errors.rpc_code(error)
            if code != grpc.StatusCode.UNAVAILABLE:
                raise errors.from_rpc(error, self.connection.server) from error
            message = f"{errors.rpc_details(error)}; it is unknown whether it was {done}: look before you repeat it"
            raise errors.make_error(code, message, self.connection.server, " ") from error

    def _id(self, job: str) -> str:
        # A name could mean another job a moment later.
        return str(self.get(job).id)

    def _probe(self, job: str) -> None:
        self._jobs.GetJob(
            control_pb2.GetJobRequest(job=job), timeout=5, metadata=self.connection.metadata, wait_for_ready=True
        )

    def _follow(
        self, job: str, open_stream: Callable[[], Iterator[_Result]], ends: bool = False
    ) -> Iterator[_Result]:
        follower = _streams.Follower(self.connection.server, self.reconnect_s, lambda: self._probe(job))
        return follower.follow(open_stream, ends)
