"""Mutual TLS between the server and all that speak to it: who is let in, and who is not."""

import grpc
import pytest

from certificates import Authority
from control_cases import make_case
from control_client import Client
from control_harness import ControlPlane, scrape, value


@pytest.fixture(scope="module")
def mutual(tmp_path_factory):
    """A server that wants a certificate of its authority, and files of its clients."""
    folder = tmp_path_factory.mktemp("mutual")
    ours, theirs = Authority(folder / "ours"), Authority(folder / "theirs")
    cert, key = ours.sign("server")
    flags = [f"--tls_cert={cert}", f"--tls_key={key}", f"--tls_client_ca={ours.ca}"]
    with ControlPlane(folder, *flags) as plane:
        plane.ours, plane.theirs = ours, theirs
        plane.good, plane.stranger = ours.sign("client"), theirs.sign("stranger")
        plane.case = make_case(plane.data)
        yield plane


def secure(ca, pair=None):
    parts = [file.read_bytes() for file in pair] if pair else [None, None]
    return grpc.ssl_channel_credentials(ca.read_bytes(), parts[1], parts[0])


def test_mutual_tls_admits_its_own(mutual):
    with Client(mutual.server.address, credentials=secure(mutual.ours.ca, mutual.good)) as caller:
        mutual._client = caller
        cert, key = mutual.good
        tls = [f"--tls_ca={mutual.ours.ca}", f"--tls_cert={cert}", f"--tls_key={key}"]
        mutual.pool("a", 2, *tls)
        job = mutual.submit(mutual.case)
        job.wait_for_state("SUCCEEDED")
        assert job.id in mutual.run_cli("list", *tls).text
        mutual._client = None


@pytest.mark.sanitized
@pytest.mark.parametrize("kind", ["none", "of another authority"])
def test_mutual_tls_refuses_a_wrong_certificate_and_counts_it(mutual, kind):
    refused = {"method": "unknown", "code": "UNAUTHENTICATED"}
    before = value(scrape(mutual.server.metrics_address), "shardmax_rpcs_total", **refused)
    pair = mutual.stranger if kind == "of another authority" else None
    with Client(mutual.server.address, credentials=secure(mutual.ours.ca, pair)) as caller:
        with pytest.raises(grpc.RpcError) as error:
            caller.call("ListJobs", wait=False, timeout_s=10)
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED, error.value
        assert "client certificate" in error.value.details()
    after = value(scrape(mutual.server.metrics_address), "shardmax_rpcs_total", **refused)
    assert after == before + 1


def test_a_server_with_tls_does_not_answer_without_it(mutual):
    with Client(mutual.server.address) as caller:
        with pytest.raises(grpc.RpcError) as error:
            caller.call("ListJobs", wait=False, timeout_s=10)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE, error.value


def test_a_client_refuses_a_server_of_another_authority(mutual):
    cert, key = mutual.good
    result = mutual.run_cli("list", f"--tls_ca={mutual.theirs.ca}", f"--tls_cert={cert}", f"--tls_key={key}", expect=3)
    result.says("certificate|handshake|TLS")
