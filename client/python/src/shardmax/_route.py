"""Where the head of a live job is right now."""

from __future__ import annotations

import logging
from typing import List, Optional

import grpc

from shardmax import errors
from shardmax._channel import Connection
from shardmax.v1 import control_pb2, control_pb2_grpc, head_pb2, head_pb2_grpc

_CALL_S = 10.0
_LOG = logging.getLogger("shardmax")


class NotThereError(Exception):
    """The head is not there yet, or not any more: worth another try. `ended`: it was there, and its job has failed."""

    def __init__(self, why: errors.ShardmaxError, ended: bool = False) -> None:
        super().__init__(str(why))
        self.why, self.ended = why, ended


class Route:
    """Finds the head of `job` by asking the server, or by asking the rank at `endpoint`. `data` has the credentials of
    the data plane."""

    def __init__(self, connection: Connection, data: Connection, job: str, endpoint: Optional[str]) -> None:
        self.connection, self.data, self._job, self._endpoint = connection, data, job, endpoint
        self._known: List[str] = []  # Of the last description: good while the server is away.
        self._id = ""
        self._said = ""
        self._channel = None if endpoint else connection.channel()

    def describe(self) -> head_pb2.HeadDescription:
        """NotThereError if it is worth another try."""
        description = self._describe_first(self._addresses())
        self._known = list(description.endpoints)
        return description

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def _addresses(self) -> List[str]:
        if self._endpoint:
            return [self._endpoint, *self._known]
        try:
            return self._ask_server()
        except NotThereError:
            if not self._known:
                raise
            return self._known  # A job goes on without the server.

    def _ask_server(self) -> List[str]:
        assert self._channel is not None
        metadata = self.connection.metadata
        try:
            jobs = control_pb2_grpc.JobServiceStub(self._channel)
            # By its id once it is known: a newer job may take the name.
            request = control_pb2.GetJobRequest(job=self._id or self._job)
            job: control_pb2.Job = jobs.GetJob(request, timeout=_CALL_S, metadata=metadata)
            pools = control_pb2_grpc.PoolServiceStub(self._channel)
            all_pools: control_pb2.ListPoolsResponse = pools.ListPools(
                control_pb2.ListPoolsRequest(), timeout=_CALL_S, metadata=metadata
            )
        except grpc.RpcError as error:
            why = errors.from_rpc(error, self.connection.server)
            raise (NotThereError(why) if isinstance(why, errors.UnavailableError) else why) from error
        self._id = job.id
        return self._endpoints_of(job, all_pools)

    def _endpoints_of(self, job: control_pb2.Job, pools: control_pb2.ListPoolsResponse) -> List[str]:
        state = control_pb2.JobState.Name(job.state)
        if job.state in (control_pb2.SUCCEEDED, control_pb2.FAILED, control_pb2.STOPPED):
            raise errors.JobEndedError(f"{job.id} is {state}: {job.reason or 'it has made all its steps'}")
        if job.HasField("spec") and not (job.spec.HasField("train") and job.spec.train.HasField("live")):
            message = f"{job.id} has no trainers: submit it with train {{ live {{ trainers: T }} }}"
            raise errors.FailedPreconditionError(message, grpc.StatusCode.FAILED_PRECONDITION)
        for pool in pools.pools:
            if pool.name == job.pool and pool.job == job.id and pool.state == control_pb2.BUSY:
                found = [f"{end.host}:{end.data_port}" for end in pool.endpoints if end.data_port]
                if found:
                    return found
        message = f"{job.id} is {state}, on no pool that serves its head: {job.reason or 'no reason given'}"
        if message != self._said:
            _LOG.info("waiting: %s", message)
            self._said = message
        raise NotThereError(errors.UnavailableError(message, grpc.StatusCode.UNAVAILABLE))

    def _describe_first(self, addresses: List[str]) -> head_pb2.HeadDescription:
        """Of the first that answers."""
        missing: Optional[errors.ShardmaxError] = None
        for address in dict.fromkeys(addresses):
            with self.data.channel(address) as channel:
                try:
                    stub = head_pb2_grpc.HeadServiceStub(channel)
                    description: head_pb2.HeadDescription = stub.Describe(
                        head_pb2.DescribeRequest(), timeout=_CALL_S, metadata=self.connection.metadata
                    )
                except grpc.RpcError as error:
                    missing = errors.from_rpc(error, address)
                    if not isinstance(missing, (errors.UnavailableError, errors.FailedPreconditionError)):
                        raise missing from error
                    continue
                if self._id and description.job != self._id:
                    message = f"{description.job} runs at {address} now, not {self._id}"
                    missing = errors.FailedPreconditionError(message, grpc.StatusCode.FAILED_PRECONDITION)
                    continue
                return description
        assert missing is not None
        raise NotThereError(missing)
