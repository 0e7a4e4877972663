"""How a server is reached: TLS, tokens, keepalive. The same defaults as of the command `shardmax`."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import Optional, Sequence, Tuple, Union

import grpc

from shardmax.errors import PermissionDeniedError, invalid

DEFAULT_SERVER = "127.0.0.1:7700"
Path = Union[str, "os.PathLike[str]"]

_MAX_RECEIVE_BYTES = 64 << 20
_MAX_TOKEN_BYTES = 4096
_SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_ADDRESS = re.compile(r"(\[[!-.0-~]+\]|[!-.0-9;-~]+):([0-9]{1,5})")
_OPTIONS: Sequence[Tuple[str, int]] = (
    # A server that is silent for so long is asked whether it is there, also while no call is under way on a stream.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # The time to connect, in spite of its name.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
)


@dataclass(frozen=True)
class Connection:
    """Address and credentials. Make one with connection(), which checks them."""

    server: str
    token: str = field(default="", repr=False)
    authorities: bytes = field(default=b"", repr=False)  # PEM; empty: no TLS.
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)

    @property
    def metadata(self) -> Sequence[Tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")] if self.token else []

    def channel(self, address: str = "", max_receive_bytes: int = _MAX_RECEIVE_BYTES) -> grpc.Channel:
        """A channel to the server, or with the same credentials to `address`."""
        options = [*_OPTIONS, ("grpc.max_receive_message_length", max_receive_bytes)]
        if not self.authorities:
            return grpc.insecure_channel(address or self.server, options)
        credentials = grpc.ssl_channel_credentials(self.authorities, self.key or None, self.certificate or None)
        return grpc.secure_channel(address or self.server, credentials, options)


def connection(
    server: Optional[str] = None,
    token: Optional[str] = None,
    token_file: Optional[Path] = None,
    tls_ca: Optional[Path] = None,
    tls_cert: Optional[Path] = None,
    tls_key: Optional[Path] = None,
) -> Connection:
    """Defaults: SHARDMAX_SERVER or 127.0.0.1:7700; SHARDMAX_TOKEN; no TLS. `tls_ca` may be "system"."""
    address = check_address(server or os.environ.get("SHARDMAX_SERVER") or DEFAULT_SERVER, "server")
    if (tls_cert is None) != (tls_key is None):
        invalid("tls_cert and tls_key go together: give both or neither")
    if tls_ca is None:
        if tls_cert is not None:
            invalid('tls_cert needs tls_ca: give the PEM file of the server\'s authority, or "system"')
        return Connection(address, _token(token, token_file))
    authorities = _SYSTEM_AUTHORITIES if tls_ca == "system" else tls_ca
    marker = b"-----BEGIN CERTIFICATE-----"
    return Connection(
        address,
        _token(token, token_file),
        _pem(authorities, "tls_ca", marker),
        _pem(tls_cert, "tls_cert", marker) if tls_cert is not None else b"",
        _pem(tls_key, "tls_key", b"PRIVATE KEY-----") if tls_key is not None else b"",
    )


def check_address(address: str, name: str) -> str:
    match = _ADDRESS.fullmatch(address)
    if not match or not 1 <= int(match.group(2)) <= 65535:
        invalid(f'{name} is "{address}": give HOST:PORT, or [IPV6]:PORT')
    return address


def _pem(path: Path, name: str, marker: bytes) -> bytes:
    with open(path, "rb") as file:
        text = file.read()
    if marker not in text:
        invalid(f'{name}: {os.fspath(path)}: no "{marker.decode()}" in it: give a PEM file')
    return text


def _token(token: Optional[str], token_file: Optional[Path]) -> str:
    source = "token"
    if token is None and token_file is not None:
        source = f"token_file: {os.fspath(token_file)}"
        mode = os.stat(token_file).st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH):
            message = f"{source}: every user of this machine may read or change this token: chmod o-rw it"
            raise PermissionDeniedError(message)
        with open(token_file, encoding="utf-8", errors="replace") as file:
            token = file.read(_MAX_TOKEN_BYTES + 1)
        if not token.strip():
            invalid(f"{source}: holds no token")
    elif token is None:
        source, token = "SHARDMAX_TOKEN", os.environ.get("SHARDMAX_TOKEN", "")
    token = token.strip()
    if len(token) > _MAX_TOKEN_BYTES or not all("!" <= character <= "~" for character in token):
        invalid(f"{source}: not a token: one word of at most {_MAX_TOKEN_BYTES} printable ASCII characters")
    return token
