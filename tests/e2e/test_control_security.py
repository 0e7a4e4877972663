"""What the server refuses: with which status, in which words, and that it counts it.

The client is plain gRPC of Python, so that nothing of ours stands before the server.
"""

import contextlib
import os
import subprocess

import grpc
import pytest

from control_cases import make_case
from control_client import Client, spec_message, stubs
from control_harness import BIN, ControlPlane, processes, value, wait_until

ROLES = ["viewer", "submitter", "admin", "worker"]


class Guarded:
    """A server with a token of each role: `tokens`."""

    def __init__(self, folder):
        self.folder = folder
        lines = []
        self.tokens = {}
        for role in [*ROLES, "submitter2"]:
            command = [BIN / "shardmax-server", f"--new_token={role.rstrip('2')}:{role}-name"]
            made = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            self.tokens[role] = next(word for word in made if word.startswith("smx_"))
            at = made.index(role.rstrip("2"))
            lines.append(" ".join(made[at : at + 3]))
        self.file = folder / "tokens"
        self.file.write_text("# role name hash\n" + "\n".join(lines) + "\n")
        self.file.chmod(0o600)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    tokens = Guarded(folder)
    with ControlPlane(folder, f"--tokens_file={tokens.file}", token=tokens.tokens["admin"]) as plane:
        plane.tokens = tokens.tokens
        plane.case = make_case(plane.data)
        yield plane


@contextlib.contextmanager
def refused(plane, method, code, *words):
    """The block is refused with this code and words, and the server's metrics count one more of it."""
    service = "PoolService" if method in ("Connect", "ListPools") else "JobService"

    def count():
        return value(plane.metrics(), "shardmax_rpcs_total", method=f"{service}/{method}", code=code.name)

    before = count()
    with pytest.raises(grpc.RpcError) as error:
        yield
    assert error.value.code() == code, error.value
    for word in words:
        assert word.lower() in error.value.details().lower(), error.value.details()
    wait_until(lambda: count() == before + 1, f"{method} {code.name} to be counted", limit_s=10)


def client(plane, role=None, **options):
    return Client(plane.server.address, token=plane.tokens.get(role, role), **options)


CALLS = [
    ("SubmitJob", {}),
    ("GetJob", {"job": "x"}),
    ("ListJobs", {}),
    ("WatchJob", {"job": "x"}),
    ("StreamLogs", {"job": "x"}),
    ("StreamMetrics", {"job": "x"}),
    ("StopJob", {"job": "x"}),
    ("DeleteJob", {"job": "x"}),
    ("CheckpointNow", {"job": "x"}),
    ("ListCheckpoints", {"job": "x"}),
    ("GetCheckpoint", {"job": "x"}),
    ("ExportCheckpoint", {"job": "x"}),
    ("ListPools", {}),
]
CHANGES = {"SubmitJob", "StopJob", "DeleteJob", "CheckpointNow"}
STREAMS = {"WatchJob", "StreamLogs", "StreamMetrics", "ExportCheckpoint"}


def make_call(caller, method, fields):
    answer = caller.call(method, **fields)
    return list(answer) if method in STREAMS else answer


def connect(caller):
    hello = caller.messages.PoolMessage(hello=caller.messages.PoolHello(pool="p", session="s", ranks=1))
    return list(caller.pools.Connect(iter([hello]), timeout=10, metadata=caller.metadata))


@pytest.mark.parametrize("method, fields", CALLS, ids=[method for method, _ in CALLS])
def test_no_call_without_a_token(guarded, method, fields):
    with client(guarded) as nobody:
        with refused(guarded, method, grpc.StatusCode.UNAUTHENTICATED, "token"):
            make_call(nobody, method, fields)


WRONG_TOKENS = {"of the right form": "smx_" + "A" * 43, "empty": "smx_", "short": "x", "long": "smx_" + "A" * 4000}


@pytest.mark.parametrize("token", list(WRONG_TOKENS.values()), ids=list(WRONG_TOKENS))
def test_no_call_with_a_wrong_token(guarded, token):
    with client(guarded, token) as stranger:
        with refused(guarded, "ListJobs", grpc.StatusCode.UNAUTHENTICATED, "token"):
            stranger.call("ListJobs")


@pytest.mark.parametrize("method, fields", CALLS, ids=[method for method, _ in CALLS])
def test_each_role_may_do_what_it_may_and_no_more(guarded, method, fields):
    for role in ROLES:
        allowed = role == "admin" or (role == "submitter") or (role == "viewer" and method not in CHANGES)
        with client(guarded, role) as caller:
            if not allowed:
                with refused(guarded, method, grpc.StatusCode.PERMISSION_DENIED, role):
                    make_call(caller, method, fields)
                continue
            try:
                make_call(caller, method, fields)
            except grpc.RpcError as error:  # There is no job x, and an empty spec is no job.
                assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), (role, error)


@pytest.mark.parametrize("role", [None, "viewer", "submitter", "admin"])
def test_only_a_worker_connects_as_a_pool(guarded, role):
    code = grpc.StatusCode.PERMISSION_DENIED if role else grpc.StatusCode.UNAUTHENTICATED
    with client(guarded, role) as caller:
        with refused(guarded, "Connect", code):
            connect(caller)


def test_a_submitter_stops_its_own_jobs_and_an_admin_all(guarded):
    with client(guarded, "submitter") as owner, client(guarded, "submitter2") as other:
        job = owner.submit(guarded.case.spec)
        assert job.owner == "submitter-name"
        for method in ("StopJob", "DeleteJob"):
            with refused(guarded, method, grpc.StatusCode.PERMISSION_DENIED, job.id, "submitter-name"):
                other.call(method, job=job.id)
        stopped = owner.call("StopJob", job=job.id)
        assert guarded.state_name(stopped.state) == "STOPPED"
        guarded.client.call("DeleteJob", job=job.id)
        with refused(guarded, "GetJob", grpc.StatusCode.NOT_FOUND, job.id):
            owner.get(job.id)


def test_a_message_that_is_too_long_is_refused(guarded):
    spec = spec_message(guarded.case.spec)
    spec.name = "x" * (5 << 20)
    with client(guarded, "submitter") as caller:
        with refused(guarded, "SubmitJob", grpc.StatusCode.RESOURCE_EXHAUSTED):
            caller.submit(spec)


GARBLED = [b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a\x03\x0a\x01\xff", os.urandom(100) + b"\xff"]


@pytest.mark.sanitized
@pytest.mark.parametrize("payload", GARBLED)
def test_bytes_that_are_no_message_are_refused(guarded, payload):
    with client(guarded, "submitter") as caller:
        with refused(guarded, "SubmitJob", grpc.StatusCode.INVALID_ARGUMENT, "SubmitJobRequest"):
            caller.raw("/shardmax.v1.JobService/SubmitJob", payload)


def outside(plane):
    """A good features file beside the data root, and links to it from inside."""
    x = plane.data / "x.npy"
    secret = plane.folder / "secret.npy"
    secret.write_bytes(x.read_bytes())
    with contextlib.suppress(FileExistsError):
        (plane.data / "link.npy").symlink_to(secret)
        (plane.data / "folder").symlink_to(plane.folder)
    return secret


OUTSIDE = [
    "../secret.npy",
    "link.npy",
    "folder/secret.npy",
    "{folder}/secret.npy",
    "{data}/../secret.npy",
    "/etc/passwd",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_out_of_the_data_root_is_refused(guarded, path):
    outside(guarded)
    path = path.format(folder=guarded.folder, data=guarded.data)
    for field in ("dataset.features", "dataset.labels", "init.weights", "validation.features"):
        case = make_case(guarded.data)
        message, name = field.split(".")
        if message == "validation":
            case.change(validation={"features": "x.npy", "labels": "y.npy"})
        case.change(**{message: {name: path}})
        with client(guarded, "submitter") as caller:
            with refused(guarded, "SubmitJob", grpc.StatusCode.INVALID_ARGUMENT, f"train.{field}", path):
                caller.submit(case.spec)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../x", "", "-x", "a\nb", "a" * 65, "\u00e9", "a b"])
def test_a_name_that_could_leave_the_state_folder_is_refused(guarded, name):
    with client(guarded, "submitter") as caller:
        with refused(guarded, "SubmitJob", grpc.StatusCode.INVALID_ARGUMENT, "name"):
            caller.submit({**guarded.case.spec, "name": name})


@pytest.mark.sanitized
def test_every_mistake_of_a_spec_is_listed(guarded):
    spec = {**guarded.case.spec, "name": "..", "max_restarts": -1}
    spec["train"] = {**spec["train"], "dim": 0, "dataset": {"features": "absent.npy", "labels": "../y.npy"}}
    with client(guarded, "submitter") as caller:
        words = ["name", "max_restarts", "train.dim", "train.dataset.features", "absent.npy", "train.dataset.labels"]
        with refused(guarded, "SubmitJob", grpc.StatusCode.INVALID_ARGUMENT, *words):
            caller.submit(spec)


def test_a_key_that_comes_again_with_another_spec_is_refused(guarded):
    with client(guarded, "submitter") as caller:
        job = caller.submit(guarded.case.spec, key="once")
        assert caller.submit(guarded.case.spec, key="once").id == job.id
        with refused(guarded, "SubmitJob", grpc.StatusCode.ALREADY_EXISTS, "once"):
            caller.submit({**guarded.case.spec, "priority": 7}, key="once")
        with client(guarded, "submitter2") as other:
            assert other.submit(guarded.case.spec, key="once").id != job.id, "a key is of its owner only"


def test_streams_are_limited(guarded):
    """200 for one token; the others are not disturbed."""
    with client(guarded, "submitter") as caller:
        job = caller.submit(guarded.case.spec)
        open_ones = [caller.call("WatchJob", job=job.id) for _ in range(200)]
        for stream in open_ones:
            next(stream)
        with refused(guarded, "WatchJob", grpc.StatusCode.RESOURCE_EXHAUSTED, "200"):
            next(caller.call("WatchJob", job=job.id))
        with client(guarded, "viewer") as other:
            assert next(other.call("WatchJob", job=job.id)).id == job.id
        for stream in open_ones:
            stream.cancel()
        watched = lambda: value(guarded.metrics(), "shardmax_rpc_streams", method="JobService/WatchJob")
        wait_until(lambda: watched() == 0, "streams to end")


@pytest.mark.sanitized
def test_hostile_pools_are_refused(guarded):
    messages = stubs("control_pb2")
    hello = messages.PoolHello(pool="p", session="s", ranks=1)
    no_hello, bad_hello = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
    bad = [
        (no_hello, "first message", [messages.PoolMessage(heartbeat=messages.Heartbeat())]),
        (no_hello, "first message", [messages.PoolMessage()]),
        (bad_hello, "pool", [messages.PoolMessage(hello=messages.PoolHello(pool="../p", session="s", ranks=1))]),
        (bad_hello, "ranks", [messages.PoolMessage(hello=messages.PoolHello(pool="p", session="s"))]),
        (bad_hello, "second hello", [messages.PoolMessage(hello=hello)] * 2),
    ]
    with client(guarded, "worker") as caller:
        for code, words, said in bad:
            with refused(guarded, "Connect", code, words):
                list(caller.pools.Connect(iter(said), timeout=10, metadata=caller.metadata))
    assert guarded.server.program.running()


def test_the_server_still_works_after_all_this(guarded):
    """A pool with a worker's token, and a job to its end. Tokens are on no command line."""
    token = guarded.tokens["worker"]
    pool = guarded.pool("a", 2, env={"SHARDMAX_TOKEN": token})
    job = guarded.submit(guarded.case, name="last", priority=1000)
    job.wait_for_state("SUCCEEDED")
    for arguments, _ in processes(pool.program.mark).values():
        assert not any("smx_" in word for word in arguments)
    assert "smx_" not in guarded.server.program.text() + pool.text() + (job.out / "log.txt").read_text()


def test_tokens_are_read_again_on_a_hangup(tmp_path):
    tokens = Guarded(tmp_path)
    with ControlPlane(tmp_path, f"--tokens_file={tokens.file}", token=tokens.tokens["admin"]) as plane:
        plane.client.call("ListJobs")
        lines = [line for line in tokens.file.read_text().splitlines() if not line.startswith("admin")]
        tokens.file.write_text("\n".join(lines) + "\n")
        os.kill(plane.server.pid(), 1)

        def gone():
            try:
                plane.client.call("ListJobs")
            except grpc.RpcError as error:
                return error.code() == grpc.StatusCode.UNAUTHENTICATED
            return False

        wait_until(gone, "the token to be gone")


@pytest.mark.parametrize("flag", ["--listen=0.0.0.0:0", "--metrics_listen=0.0.0.0:0"])
def test_without_tls_the_server_stays_on_loopback_unless_told(tmp_path, flag):
    (tmp_path / "data").mkdir()
    listen = {"--listen": "127.0.0.1:0", "--metrics_listen": "127.0.0.1:0"}
    listen.update([flag.split("=")])
    command = [BIN / "shardmax-server", f"--state_dir={tmp_path / 'state'}", f"--data_root={tmp_path / 'data'}"]
    command += [f"{name}={address}" for name, address in listen.items()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1, result
    assert "--insecure" in result.stderr and flag.split("=")[0] in result.stderr, result.stderr
