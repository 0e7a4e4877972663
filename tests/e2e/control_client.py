"""A client of the server that shares no code with ours: plain gRPC of Python, with stubs made from proto/."""

import functools
import importlib
import pathlib
import subprocess
import sys
import tempfile
import time

import grpc
from google.protobuf import json_format

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
CALL_S = 20


@functools.lru_cache(maxsize=None)
def stubs(name):
    """A generated module: stubs("control_pb2"), stubs("control_pb2_grpc"), stubs("job_pb2")."""
    return importlib.import_module(f"{_package()}.{name}")


@functools.lru_cache(maxsize=None)
def _package():
    folder = tempfile.mkdtemp(prefix="shardmax-stubs-")
    files = sorted(str(file.relative_to(PROTO)) for file in (PROTO / "shardmax/v1").glob("*.proto"))
    plugin = "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin"
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run(["protoc", plugin, *outputs, "-I", str(PROTO), *files], check=True)
    sys.path.insert(0, folder)
    return "shardmax.v1"


def spec_message(spec):
    """A nested dict as a JobSpec."""
    return json_format.ParseDict(spec, stubs("job_pb2").JobSpec())


class Client:
    """The calls of JobService and PoolService, each with a deadline. Use it in a `with`, or close() it."""

    def __init__(self, address, token=None, credentials=None, options=()):
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500), *options]
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        services = stubs("control_pb2_grpc")
        self.jobs = services.JobServiceStub(self.channel)
        self.pools = services.PoolServiceStub(self.channel)
        self.messages = stubs("control_pb2")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.channel.close()

    def call(self, method, timeout_s=CALL_S, wait=True, **fields):
        """JobService.`method`, or PoolService's; a stream comes as an iterator.

        With `wait` it waits for a server that starts again, and asks again if the connection broke meanwhile; submits
        only where their key makes that safe.
        """
        service = self.jobs if hasattr(self.jobs, method) else self.pools
        request = getattr(self.messages, f"{method}Request")(**fields)
        again = wait and (method != "SubmitJob" or fields.get("idempotency_key"))
        end = time.monotonic() + timeout_s
        while True:
            try:
                return getattr(service, method)(request, timeout=timeout_s, metadata=self.metadata, wait_for_ready=wait)
            except grpc.RpcError as error:
                if not again or error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def submit(self, spec, key="", **options):
        spec = spec_message(spec) if isinstance(spec, dict) else spec
        return self.call("SubmitJob", spec=spec, idempotency_key=key, **options)

    def get(self, job, **options):
        return self.call("GetJob", job=job, **options)

    def list_pools(self):
        return {pool.name: pool for pool in self.call("ListPools").pools}

    def raw(self, path, payload, timeout_s=CALL_S):
        """A call with bytes that need not be a message."""
        method = self.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        return method(payload, timeout=timeout_s, metadata=self.metadata)


