"""Certificates at a real TLS server (OpenSSL's): one opens it as what it says, until its authority has listed it."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from controlplane.dev.home import write_private
from controlplane.testing.real import RealPlane
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

GATEWAY: Final = "gateway.acme.example"
CLIENT: Final[dict[str, Any]] = {
    "entitlement": "gateway-client",
    "scopes": [{"name": "client", "engine": "pki", "common_name": "agent.acme.example"}],
}
SERVER: Final[dict[str, Any]] = {
    "entitlement": "gateway-server",
    "scopes": [{"name": "server", "engine": "pki", "common_name": GATEWAY, "usages": ["server"]}],
}


@pytest.fixture(scope="module")
def plane(planes: Callable[..., RealPlane]) -> RealPlane:
    plane = planes("tls", "pki")
    authority = {"common_name": "root", "key_type": "ec", "key_bits": 256, "ttl": "24h"}
    plane.root.write(f"{plane.mount('pki')}/root/generate/internal", authority)
    return plane


class Party:
    """One end of a TLS connection, with an issued certificate, that trusts the authority and what it has listed."""

    def __init__(self, plane: RealPlane, directory: Path, fields: Mapping[str, str]) -> None:
        directory.mkdir()
        self.plane, self.own, self.trusted = plane, directory / "own.pem", directory / "trusted.pem"
        write_private(self.own, fields["certificate"] + "\n" + fields["private_key"] + "\n")
        self.authority = fields["issuing_ca"]

    def context(self, protocol: int) -> ssl.SSLContext:
        listed = part(self.plane.root.read(f"{self.plane.mount('pki')}/cert/crl"), "data")["certificate"]
        self.trusted.write_text(f"{self.authority}\n{listed}\n", encoding="utf-8")
        context = ssl.SSLContext(protocol)
        context.load_cert_chain(self.own)
        context.load_verify_locations(self.trusted)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context


def enters(client: Party, server: Party, *, name: str = GATEWAY) -> bool:
    """Whether both believe each other; the server greets whom it lets in."""
    near, far = socket.socketpair()
    inside, outside = server.context(ssl.PROTOCOL_TLS_SERVER), client.context(ssl.PROTOCOL_TLS_CLIENT)

    def serve() -> None:
        with far, contextlib.suppress(OSError), inside.wrap_socket(far, server_side=True) as stream:
            stream.sendall(b"welcome")

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        with near, outside.wrap_socket(near, server_hostname=name) as stream:
            return stream.recv(7) == b"welcome"
    except OSError:  # ssl.SSLError is one
        return False
    finally:
        serving.join(30)


def test_a_certificate_opens_a_server_as_a_client_only_and_until_its_grant_has_ended(
    plane: RealPlane, tmp_path: Path
) -> None:
    """C5, C9, C10, P3."""
    plane.entitle(CLIENT, SERVER)
    one, other, gateway = plane.grant("gateway-client"), plane.grant("gateway-client"), plane.grant("gateway-server")
    agent = Party(plane, tmp_path / "agent", plane.unwrap(one))
    second = Party(plane, tmp_path / "second", plane.unwrap(other))
    server = Party(plane, tmp_path / "server", plane.unwrap(gateway))
    assert enters(agent, server)
    assert not enters(server, server), "a server's certificate is no client's"
    assert not enters(agent, second, name="agent.acme.example"), "nor the other way round"
    revoked = plane.finished(one)
    assert revoked.receipt is not None
    assert [end.verified for end in revoked.receipt.ended] == [True]
    assert not enters(agent, server)
    assert enters(second, server)
    for granted in (other, gateway):
        plane.finished(granted)
