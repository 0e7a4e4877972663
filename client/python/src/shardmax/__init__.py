"""Client of shardmax: training jobs, and the head of a live job for numpy (Head) and PyTorch (shardmax.torch).

The guide is docs/python.md of the repository.
"""

from shardmax.client import Client
from shardmax.errors import (
    AlreadyExistsError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    HeadRewound,
    InternalError,
    InvalidArgumentError,
    JobEndedError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    ShardmaxError,
    UnauthenticatedError,
    UnavailableError,
)
from shardmax.head import Head, StepResult
from shardmax.local_cluster import LocalCluster, local
from shardmax.spec import job_spec

__all__ = [
    "AlreadyExistsError",
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "Head",
    "HeadRewound",
    "InternalError",
    "InvalidArgumentError",
    "JobEndedError",
    "LocalCluster",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "ShardmaxError",
    "StepResult",
    "UnauthenticatedError",
    "UnavailableError",
    "job_spec",
    "local",
]
