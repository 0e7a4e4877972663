"""Job specs, from what users write them in."""

from __future__ import annotations

import os
from typing import Any, Mapping, Union

from google.protobuf import json_format, text_format

from shardmax._channel import Path
from shardmax.errors import invalid
from shardmax.v1 import job_pb2

SpecLike = Union[job_pb2.JobSpec, Mapping[str, Any], Path]

_MAX_BYTES = 1 << 20


def job_spec(spec: SpecLike) -> job_pb2.JobSpec:
    """A JobSpec from a message, from a dict with the names of job.proto, or from a file: JSON if its name ends in
    .json, else textproto. Only the form is checked here; the server checks the rest and lists every mistake."""
    if isinstance(spec, job_pb2.JobSpec):
        return spec
    result = job_pb2.JobSpec()
    try:
        if isinstance(spec, Mapping):
            json_format.ParseDict(dict(spec), result)
        else:
            _parse_file(spec, result)
    except (json_format.ParseError, text_format.ParseError, UnicodeDecodeError) as error:
        source = "the spec" if isinstance(spec, Mapping) else os.fspath(spec)
        invalid(f"{source}: not a job: {error}")
    return result


def _parse_file(path: Path, result: job_pb2.JobSpec) -> None:
    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        invalid(f"{os.fspath(path)}: a spec is at most {_MAX_BYTES} bytes long")
    text = data.decode()
    if os.fspath(path).endswith(".json"):
        json_format.Parse(text, result)
    else:
        text_format.Parse(text, result)
