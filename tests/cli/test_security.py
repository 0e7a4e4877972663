"""Tokens and TLS, from the side of the command."""

import subprocess

import pytest
from plane import BIN, Plane


def new_token(role, name):
    """A token, and its line of the tokens file."""
    run = subprocess.run([BIN / "shardmax-server", f"--new_token={role}:{name}"], capture_output=True, text=True, check=True)
    words = run.stdout.split()
    token = next(word for word in words if word.startswith("smx_"))
    line = next(line for line in run.stdout.splitlines() if line.startswith(f"{role} {name} "))
    return token, line


@pytest.fixture
def guarded(tmp_path):
    """A server that wants a token, and the tokens by role."""
    tokens = {role: new_token(role, f"{role}1") for role in ("viewer", "submitter")}
    file = tmp_path / "tokens"
    file.write_text("".join(line + "\n" for _, line in tokens.values()))
    file.chmod(0o600)
    plane = Plane(tmp_path / "plane", f"--tokens_file={file}")
    try:
        yield plane, {role: token for role, (token, _) in tokens.items()}
    finally:
        plane.end()


def test_tokens_come_from_a_file_or_the_environment(guarded):
    plane, tokens = guarded
    plane.run("list", expect=2).says("--token_file", "SHARDMAX_TOKEN")
    plane.run("list", expect=2, SHARDMAX_TOKEN="smx_unknown").says("--new_token")
    plane.run("list", SHARDMAX_TOKEN=tokens["viewer"])

    file = plane.folder / "token"
    file.write_text(tokens["submitter"] + "\n")
    file.chmod(0o644)
    plane.run("list", f"--token_file={file}", expect=2).says("chmod o-rw")
    file.chmod(0o600)
    job = plane.run("submit", plane.spec("mine"), f"--token_file={file}").out.strip()
    plane.run("stop", job, expect=2, SHARDMAX_TOKEN=tokens["viewer"]).says("viewer")
    status = plane.run("status", job, "--json", SHARDMAX_TOKEN=tokens["viewer"]).json()
    assert (status["owner"], status["state"]) == ("submitter1", "PENDING")
    # Nothing ran it, and it has no checkpoint: the message is the server's.
    plane.run("checkpoints", job, "--now", f"--token_file={file}", expect=2).says("does not run")


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder):
    """ca.pem, and a certificate and key for the server and for a client."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(folder, "req", "-x509", *curve, "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(folder, "req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(folder, "x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-extfile", "names", "-in", f"{name}.csr", "-out", f"{name}.pem")


def test_mutual_tls(tmp_path):
    make_certificates(tmp_path)
    plane = Plane(tmp_path / "plane", f"--tls_cert={tmp_path}/server.pem", f"--tls_key={tmp_path}/server.key",
                  f"--tls_client_ca={tmp_path}/ca.pem")
    try:
        own = [f"--tls_cert={tmp_path}/client.pem", f"--tls_key={tmp_path}/client.key"]
        plane.run("list", f"--tls_ca={tmp_path}/ca.pem", *own)
        brief = "--timeout_s=1"
        plane.run("list", brief, expect=3).says("--tls_ca")
        plane.run("list", f"--tls_ca={tmp_path}/ca.pem", expect=2).says("client certificate", "--tls_cert=FILE")
        plane.run("list", f"--tls_ca={tmp_path}/ca.pem", own[0], expect=2).says("go together")
    finally:
        plane.end()
