"""What a hostile or broken server, and a hostile environment, cannot make the transport do."""

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hvac.api.auth_methods import JWT
from hvac.api.system_backend import Wrapping

from controlplane.model.errors import ConfigurationError, VaultRefusedError, VaultUnavailableError
from controlplane.model.secret import Secret
from controlplane.testing.hostile_vault import HostileVault, answering, hostile_vault, saying
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.refusal import Refusal
from controlplane.vault.transport import MAX_ANSWER, VaultAdapter, checked_path

TOKEN = Secret("s.canary-vault-token")


@contextmanager
def client_of(server: HostileVault, *, seconds: float = 5.0) -> Generator[VaultClient]:
    client = VaultClient(Server(server.addr, timeout=timedelta(seconds=seconds)), lambda: TOKEN)
    yield client
    client.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_and_the_token_stays_here(status: int) -> None:
    with hostile_vault(answering(200, b"{}")) as elsewhere:
        there = f"Location: {elsewhere.addr}/v1/sys/mounts"
        with hostile_vault(answering(status, b"", there)) as server, client_of(server) as client:
            for call in (lambda: client.read("sys/mounts"), lambda: client.write("sys/mounts/x", {"type": "kv"})):
                with pytest.raises(VaultUnavailableError, match="elsewhere"):
                    call()
        assert elsewhere.connections == 0


def test_an_answer_that_never_comes_ends_at_the_deadline() -> None:
    gone = threading.Event()

    def wait(_peer: socket.socket) -> None:
        gone.wait()

    with hostile_vault(wait) as server, client_of(server, seconds=0.3) as client:
        with pytest.raises(VaultUnavailableError, match="slow"):
            client.read("sys/mounts")
        gone.set()


@pytest.mark.parametrize("part", ["headers", "body", "chunks"])
def test_bytes_that_drip_in_do_not_extend_the_deadline(part: str) -> None:
    heads = {
        "headers": b"HTTP/1.1 200 OK\r\n",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    }
    drops = {"headers": b"X-A: b\r\n", "body": b" ", "chunks": b"1\r\n \r\n"}
    gone = threading.Event()

    def drip(peer: socket.socket) -> None:
        peer.sendall(heads[part])
        while not gone.wait(0.05):
            peer.sendall(drops[part])

    with hostile_vault(drip) as server, client_of(server, seconds=0.4) as client:
        with pytest.raises(VaultUnavailableError, match="slow"):
            client.read("sys/mounts")
        gone.set()


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    block = b" " * 1024 * 1024
    sent = 0

    def flood(peer: socket.socket) -> None:
        nonlocal sent
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            peer.sendall(block)
            sent += len(block)

    with hostile_vault(flood) as server, client_of(server, seconds=20) as client:
        with pytest.raises(VaultUnavailableError, match="longer than"):
            client.read("sys/mounts")
        assert sent < MAX_ANSWER * 2


@pytest.mark.parametrize(
    "body",
    [b"<html>hello</html>", b"[1]", b'"text"', b"null", b"\xff\xfe", b"{", b"[" * 200_000, b"9" * 10_000],
    ids=["html", "list", "text", "null", "bytes", "cut", "deep", "huge-number"],
)
def test_garbage_with_status_200_counts_as_no_answer(body: bytes) -> None:
    with hostile_vault(answering(200, body)) as server, client_of(server) as client:
        with pytest.raises(VaultUnavailableError, match="not what Vault speaks"):
            client.read("sys/mounts")
        with pytest.raises(VaultUnavailableError, match="not what Vault speaks"):
            client.write("auth/token/revoke-accessor", {"accessor": "x"})


def test_no_bytes_are_unpacked_that_a_server_calls_gzip() -> None:
    packed = answering(200, gzip.compress(b'{"data": {}}'), "Content-Encoding: gzip")
    with hostile_vault(packed) as server, client_of(server) as client, pytest.raises(VaultUnavailableError):
        client.read("sys/mounts")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
    ids=["closed", "not-http", "cut-off", "bad-chunk", "endless-header"],
)
def test_a_broken_connection_is_an_unknown_outcome_and_nothing_is_sent_twice(sent: bytes) -> None:
    def behave(peer: socket.socket) -> None:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_RDWR)

    with hostile_vault(behave) as server, client_of(server) as client:
        with pytest.raises(VaultUnavailableError, match="may have happened"):
            client.write("auth/shorthold/login", {"role": "r", "jwt": "j"})
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "texts", "words"),
    [
        (503, ["Vault is sealed"], "sealed"),
        (500, ["internal error"], "failed inside"),
        (429, ["request path rate limit quota exceeded"], "rate limit"),
        (412, [], "earlier write"),
        (472, [], "standby"),
        (473, [], "standby"),
        (502, [], "stands between"),
        (501, ["Vault is not initialized"], "not initialized"),
        (408, [], "unavailable"),
    ],
)
def test_an_answer_about_the_server_is_unavailable_in_words(status: int, texts: list[str], words: str) -> None:
    with hostile_vault(saying(status, *texts)) as server, client_of(server) as client:
        with pytest.raises(VaultUnavailableError, match=words):
            client.read("sys/mounts")
        assert len(server.seen) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 422, 431])
def test_a_4xx_is_a_refusal_with_vaults_own_words(status: int) -> None:
    with hostile_vault(saying(status, "no, thanks")) as server, client_of(server) as client:
        with pytest.raises(VaultRefusedError, match="no, thanks") as caught:
            client.read("sys/mounts")
        assert isinstance(caught.value, Refusal)
        assert caught.value.answered == status
        assert caught.value.detail.startswith("GET sys/mounts: ")


def test_nothing_there_is_none_but_no_such_mount_is_a_refusal() -> None:
    with hostile_vault(saying(404)) as server, client_of(server) as client:
        assert client.read("database/roles/x") is None
        assert client.list("database/roles") == []
        client.delete("database/roles/x")
    unmounted = saying(404, 'no handler for route "x/"')
    with (
        hostile_vault(unmounted) as server,
        client_of(server) as client,
        pytest.raises(VaultRefusedError, match="handler"),
    ):
        client.list("database/roles")


def test_errors_are_one_short_printable_line_without_what_was_sent() -> None:
    evil = f"line\nbreak \x1b[31mred\u2028 {TOKEN.reveal()} eyJ.jwt.canary " + "x" * 5000
    with hostile_vault(saying(403, *[evil] * 50)) as server, client_of(server) as client:
        api: Any = JWT(adapter=client.adapter)
        with pytest.raises(VaultRefusedError) as caught:
            api.jwt_login("r", "eyJ.jwt.canary", use_token=False, path="shorthold")
        assert len(caught.value.detail) < 1500
        assert caught.value.detail.isprintable()
        assert "canary" not in caught.value.detail


def test_a_body_that_is_not_vaults_errors_is_never_shown() -> None:
    body = json.dumps({"data": {"password": "canary-password"}}).encode()
    for status in (400, 500):
        with hostile_vault(answering(status, body)) as server, client_of(server) as client:
            with pytest.raises((VaultRefusedError, VaultUnavailableError)) as caught:
                client.read("database/creds/x")
            assert "canary" not in repr(caught.value)
            assert caught.value.__context__ is None or "canary" not in repr(caught.value.__context__)


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A30."""
    with hostile_vault(answering(200, b"{}")) as proxy, hostile_vault(answering(200, b'{"data": {}}')) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.addr)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("VAULT_TOKEN", "s.from-the-environment")
        monkeypatch.setenv("VAULT_ADDR", proxy.addr)
        monkeypatch.setenv("VAULT_NAMESPACE", "elsewhere")
        (tmp_path / ".vault-token").write_text("s.from-the-home")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password p\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        client = VaultClient(Server(server.addr), None)
        client.read("sys/mounts")
        client.close()
        assert proxy.connections == 0
        head = server.seen[0].lower()
        assert b"x-vault-token" not in head
        assert b"authorization" not in head
        assert b"x-vault-namespace" not in head


def test_headers_are_what_vault_wants_and_only_that() -> None:
    with hostile_vault(answering(200, b'{"data": {}}')) as server:
        client = VaultClient(Server(server.addr, namespace="team/a"), lambda: TOKEN)
        client.write("sys/x", {"a": 1})
        api: Any = Wrapping(adapter=client.adapter)
        api.wrap({"a": "b"}, ttl=60)
        client.close()
        plain, wrapped = (request.decode() for request in server.seen)
        assert plain.startswith("PUT /v1/sys/x HTTP/1.1\r\n")
        assert f"X-Vault-Token: {TOKEN.reveal()}\r\n" in plain
        assert "X-Vault-Namespace: team/a\r\n" in plain
        assert "X-Vault-Request: true\r\n" in plain
        assert "X-Vault-Wrap-TTL" not in plain
        assert "X-Vault-Wrap-TTL: 60\r\n" in wrapped
        assert server.connections == 1


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX-Evil: 1", "a\n", "ä", "x" * 9000])
def test_a_token_that_would_break_the_header_is_not_sent_and_not_shown(token: str) -> None:
    with hostile_vault(answering(200, b"{}")) as server:
        client = VaultClient(Server(server.addr), lambda: Secret(token))
        with pytest.raises(ConfigurationError) as caught:
            client.read("sys/mounts")
        client.close()
        assert not token or token not in caught.value.detail
        assert server.connections == 0


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "/",
            "a//b",
            "/a",
            "a/",
            "..",
            ".",
            "a/../b",
            "a/./b",
            "a/.../b",
            "%2e%2e/a",
            "a%2fb",
            "a?list=true",
            "a#b",
        ),
        *("a b", "a\r\nb", "a\x00", "a\\b", "ä", "a;b", "a*", "a+b", "a\n"),
    ],
)
def test_a_path_that_could_be_read_in_two_ways_is_never_sent(path: str) -> None:
    with pytest.raises(ConfigurationError):
        checked_path(path)


def test_a_lease_id_is_a_path() -> None:
    lease = "database/creds/sh-orders-read-0a1b2c3d-orders/Hq3Jd93Lk.abc_DEF-1"
    assert checked_path(lease) == lease


@pytest.mark.parametrize(
    "addr",
    ["", "127.0.0.1", "ftp://h:1", "http://", "http://u:p@h:1", "http://h:1/prefix", "http://h:1?x=y", "unix:///x"],
)
def test_an_address_that_is_no_server_is_refused(addr: str) -> None:
    with pytest.raises(ConfigurationError):
        VaultClient(Server(addr), None)


def test_a_server_that_is_not_there_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = VaultClient(Server(f"http://127.0.0.1:{port}"), None)
    with pytest.raises(VaultUnavailableError, match="down"):
        client.read("sys/mounts")
    client.close()


def test_an_argument_of_hvac_that_would_be_lost_is_an_error() -> None:
    with hostile_vault(answering(200, b"{}")) as server, client_of(server) as client:
        with pytest.raises(TypeError):
            client.adapter.request("GET", "/v1/x", params={"a": "b"})
        api: Any = JWT(adapter=client.adapter)
        with pytest.raises(NotImplementedError):
            api.jwt_login("r", "j", path="shorthold")


class Session:
    """A token source that can log in again."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    def __call__(self) -> Secret:
        return Secret(self.tokens[0])

    def invalidate(self, stale: Secret) -> None:
        if stale == Secret(self.tokens[0]) and len(self.tokens) > 1:
            del self.tokens[0]


@pytest.mark.parametrize(("tokens", "requests"), [(["s.old", "s.new", "s.newer"], 2), (["s.only"], 1)])
def test_a_403_is_asked_once_more_with_a_new_token_and_never_a_third_time(tokens: list[str], requests: int) -> None:
    with hostile_vault(saying(403, "permission denied")) as server:
        client = VaultClient(Server(server.addr), Session(*tokens))
        with pytest.raises(VaultRefusedError):
            client.read("sys/mounts")
        client.close()
        assert len(server.seen) == requests


def test_a_fixed_token_is_never_asked_with_twice() -> None:
    with hostile_vault(saying(403, "permission denied")) as server, client_of(server) as client:
        with pytest.raises(VaultRefusedError):
            VaultAdapter(client.transport, lambda: TOKEN).request("GET", "database/creds/x")
        assert len(server.seen) == 1


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A throw-away certificate authority and what it signed."""

    directory: Path

    def certificate(self, name: str, *, host: str = "127.0.0.1", days: int = 1, ca: bool = False) -> Path:
        """A certificate with its key in one file; signed by the authority `ca`, or the authority itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer, issuer = (key, name) if ca else (self._key("ca"), "ca")
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = self.directory / f"{name}.pem"
        file.write_bytes(built.public_bytes(Encoding.PEM) + private)
        return file

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey:
        key = load_pem_private_key((self.directory / f"{name}.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(directory=tmp_path)
    made.certificate("ca", ca=True)
    return made


@contextmanager
def tls_server(certificate: Path, *, wants: Path | None = None) -> Generator[HostileVault]:
    """Answers over TLS as `certificate`, to clients whose certificate `wants` signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if wants is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(wants)
    with hostile_vault(answering(200, b'{"data": {}}'), tls=context) as server:
        yield server


def test_tls_with_the_named_authority_works(authority: Authority) -> None:
    with tls_server(authority.certificate("vault")) as server:
        client = VaultClient(Server(server.addr, cacert=authority.directory / "ca.pem"), lambda: TOKEN)
        assert client.read("sys/mounts") == {"data": {}}
        client.close()


@pytest.mark.parametrize("wrong", ["authority", "host", "expired"])
def test_a_server_that_does_not_prove_itself_never_sees_the_token(
    authority: Authority, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A33; and A30: the environment cannot add an authority."""
    host, days = ("127.0.0.9", 1) if wrong == "host" else ("127.0.0.1", -1 if wrong == "expired" else 1)
    certificate = authority.certificate("vault", host=host, days=days)
    trusted = authority.certificate("other-ca", ca=True) if wrong == "authority" else authority.directory / "ca.pem"
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "VAULT_CACERT", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(authority.directory / "ca.pem"))
    monkeypatch.setenv("VAULT_SKIP_VERIFY", "1")
    with tls_server(certificate) as server:
        client = VaultClient(Server(server.addr, cacert=trusted), lambda: TOKEN)
        with pytest.raises(VaultUnavailableError, match="TLS"):
            client.read("sys/mounts")
        client.close()
        assert server.seen == []


def test_a_client_certificate_is_shown_to_a_server_that_wants_one(authority: Authority) -> None:
    ca, mine = authority.directory / "ca.pem", authority.certificate("me")
    with tls_server(authority.certificate("vault"), wants=ca) as server:
        client = VaultClient(Server(server.addr, cacert=ca, client_cert=mine), lambda: TOKEN)
        assert client.read("sys/mounts") == {"data": {}}
        client.close()
        without = VaultClient(Server(server.addr, cacert=ca), lambda: TOKEN)
        with pytest.raises(VaultUnavailableError):
            without.read("sys/mounts")
        without.close()


def test_a_plain_server_behind_an_https_address_gets_nothing(authority: Authority) -> None:
    with hostile_vault(answering(200, b"{}")) as server:
        addr = server.addr.replace("http:", "https:")
        patient = timedelta(seconds=0.5)
        client = VaultClient(Server(addr, cacert=authority.directory / "ca.pem", timeout=patient), lambda: TOKEN)
        with pytest.raises(VaultUnavailableError):
            client.read("sys/mounts")
        client.close()
        assert not any(TOKEN.reveal().encode() in request for request in server.seen)


def test_session_keys_are_not_written_where_the_environment_says(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    with tls_server(authority.certificate("vault")) as server:
        client = VaultClient(Server(server.addr, cacert=authority.directory / "ca.pem"), lambda: TOKEN)
        client.read("sys/mounts")
        client.close()
    assert not (tmp_path / "keys.log").exists()


def test_a_certificate_file_that_is_none_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("not a certificate")
    for server in (
        Server("https://127.0.0.1:1", cacert=tmp_path / "missing.pem"),
        Server("https://127.0.0.1:1", cacert=tmp_path / "bad.pem"),
        Server("https://127.0.0.1:1", client_cert=tmp_path / "bad.pem"),
    ):
        with pytest.raises(ConfigurationError, match="certificate"):
            VaultClient(server, None)
