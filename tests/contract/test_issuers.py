"""The Issuers port over real HTTP: keys discovered from an issuer on loopback, faulty or not, and the dev issuer."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from controlplane.dev.issuer import DevIssuer, mint
from controlplane.issuers.jose.fetch import MAX_BYTES, Fetcher, FetchError
from controlplane.issuers.jose.keystore import COOL_DOWN, DiscoveredKeys
from controlplane.issuers.oidc import KIND, OidcOptions
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, Fault, IssuerKey, IssuerServer, trusting
from controlplane.world import RandomIds, SystemClock

CLOCK = FakeClock()
TIMEOUT = timedelta(seconds=1)


class Monotonic:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def server() -> Generator[IssuerServer]:
    with IssuerServer(FakeIssuer(clock=CLOCK)) as running:
        yield running


@pytest.fixture
def seconds() -> Monotonic:
    return Monotonic()


@pytest.fixture
def trust(server: IssuerServer, seconds: Monotonic) -> TrustedIssuers:
    """Trusts the server by its URL only, as it would trust one on the internet."""
    keys = DiscoveredKeys(server.url, fetch=Fetcher(timeout=TIMEOUT), timeout=TIMEOUT, monotonic=seconds)
    return trusting(server.issuer, clock=CLOCK, keys=keys)


def passes(trust: TrustedIssuers, issuer: FakeIssuer) -> bool:
    try:
        trust.verify(issuer.mint())
    except NotAuthenticatedError:
        return False
    return True


def refusal(trust: TrustedIssuers, issuer: FakeIssuer) -> str:
    with pytest.raises(NotAuthenticatedError) as caught:
        trust.verify(issuer.mint())
    return caught.value.detail


def test_keys_are_discovered_and_verify(trust: TrustedIssuers, server: IssuerServer) -> None:
    assert trust.verify(server.issuer.mint("agent-7")).subject == "agent-7"
    assert trust.verify(server.issuer.mint("agent-8")).subject == "agent-8"
    assert server.paths == ["/.well-known/openid-configuration", "/jwks"]


def test_j33_rotated_keys_are_followed(trust: TrustedIssuers, server: IssuerServer, seconds: Monotonic) -> None:
    old = server.issuer.keys[0]
    assert trust.verify(server.issuer.mint())
    server.issuer.rotate()
    seconds.seconds += COOL_DOWN.total_seconds()
    assert trust.verify(server.issuer.mint())
    with pytest.raises(NotAuthenticatedError):
        trust.verify(server.issuer.mint(key=old))


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault.DOWN, "did not answer"),
        (Fault.BROKEN, "answered 503"),
        (Fault.SLOW, "within 1 s"),
        (Fault.DRIP, "within 1 s"),
        (Fault.REDIRECT, "answered 302; redirects are not followed"),
        (Fault.HUGE, f"more than {MAX_BYTES} bytes"),
        (Fault.NOT_JSON, "is not JSON"),
        (Fault.WRONG_ISSUER, "another issuer's"),
        (Fault.FOREIGN_KEYS, "another origin"),
    ],
)
def test_j32_j36_a_faulty_issuer_proves_nobody_until_it_is_repaired(
    trust: TrustedIssuers, server: IssuerServer, seconds: Monotonic, fault: Fault, why: str
) -> None:
    server.fault = fault
    assert why in refusal(trust, server.issuer)
    assert "/elsewhere" not in server.paths
    server.go_on.set()
    server.fault = None
    seconds.seconds += COOL_DOWN.total_seconds()
    # Nobody waits for an issuer that was down a moment ago: the first who asks has its keys fetched for the next.
    deadline = time.monotonic() + 60
    while not passes(trust, server.issuer) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert trust.verify(server.issuer.mint())


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.DRIP])
def test_j32_a_fault_does_not_touch_keys_that_are_known(
    trust: TrustedIssuers, server: IssuerServer, seconds: Monotonic, fault: Fault
) -> None:
    assert trust.verify(server.issuer.mint())
    server.fault = fault
    seconds.seconds += 600
    assert trust.verify(server.issuer.mint())


def test_j32_an_issuer_that_is_gone_is_a_refusal(trust: TrustedIssuers, server: IssuerServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gone = FakeIssuer(f"http://127.0.0.1:{port}", clock=CLOCK)
    keys = DiscoveredKeys(gone.url, fetch=Fetcher(timeout=TIMEOUT), timeout=TIMEOUT)
    assert "did not answer (ConnectionRefusedError)" in refusal(trusting(gone, clock=CLOCK, keys=keys), gone)
    assert trust.verify(server.issuer.mint())  # others are not held up


def test_j37_many_first_callers_cause_one_fetch(trust: TrustedIssuers, server: IssuerServer) -> None:
    token, start, proved = server.issuer.mint(), threading.Barrier(64), list[str]()

    def ask() -> None:
        start.wait(60)
        proved.append(trust.verify(token).subject)

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert proved == ["agent-1"] * 64
    assert len(server.paths) == 2


def test_j36_a_url_in_a_token_is_never_fetched(trust: TrustedIssuers) -> None:
    with IssuerServer(FakeIssuer(clock=CLOCK, keys=[IssuerKey()])) as hostile:
        for header in ({"jku": f"{hostile.url}/jwks"}, {"x5u": f"{hostile.url}/x"}, {}):
            with pytest.raises(NotAuthenticatedError):
                trust.verify(hostile.issuer.forge(header))
        assert hostile.paths == []


def test_nothing_of_the_environment_leads_a_fetch_elsewhere(
    trust: TrustedIssuers, server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert trust.verify(server.issuer.mint())


def test_a_fetch_ends_with_its_deadline_however_slowly_bytes_drip(server: IssuerServer) -> None:
    server.fault = Fault.DRIP
    with pytest.raises(FetchError, match="within"):
        Fetcher(timeout=TIMEOUT)(f"{server.url}/jwks")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for `localhost`, its own CA, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    make_certificate(cert, key)
    return cert, key


def make_certificate(cert: Path, key: Path) -> None:
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    cert.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def secured(certificate: tuple[Path, Path]) -> Generator[int]:
    """The port of a TLS server that answers everything with `{}`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as stream:
                    stream.recv(4096)
                    stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(60)


def test_tls_is_verified_against_the_configured_ca_and_the_name(certificate: tuple[Path, Path], secured: int) -> None:
    trusted, strangers = Fetcher(cacert=certificate[0], timeout=TIMEOUT * 10), Fetcher(timeout=TIMEOUT * 10)
    assert trusted(f"https://localhost:{secured}/jwks") == {}
    with pytest.raises(FetchError, match="did not prove who it is"):
        strangers(f"https://localhost:{secured}/jwks")
    with pytest.raises(FetchError, match="did not prove who it is"):
        trusted(f"https://127.0.0.1:{secured}/jwks")


def test_j36_a_name_that_leads_to_this_machine_is_sent_nothing(
    certificate: tuple[Path, Path], secured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: whoever answers for the issuer's name must prove that name before a word of HTTP is said."""
    resolve = cast("Callable[..., object]", socket.getaddrinfo)

    def rebound(host: str, *rest: object, **more: object) -> object:
        return resolve("127.0.0.1" if host == "idp.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with pytest.raises(FetchError, match="did not prove who it is"):
        Fetcher(cacert=certificate[0], timeout=TIMEOUT * 10)(f"https://idp.example:{secured}/jwks")
    with socket.create_server(("127.0.0.1", 0)) as plain:  # a service of this machine that speaks no TLS
        heard: list[bytes] = []

        def listen() -> None:
            connection, _ = plain.accept()
            with connection:
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(FetchError):
            Fetcher(timeout=TIMEOUT)(f"https://idp.example:{plain.getsockname()[1]}/latest/meta-data")
        thread.join(60)
    assert heard
    assert b"GET" not in heard[0]
    assert b"meta-data" not in heard[0]


def test_a_broken_ca_file_is_a_clear_error_at_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    for path in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(ConfigurationError, match="CA file"):
            Fetcher(cacert=path)


@pytest.mark.servers
def test_the_dev_issuer_is_trusted_by_its_url_as_any_other(issuer: DevIssuer) -> None:
    options = OidcOptions(name="dev", url=issuer.url, audiences=("shorthold",))
    trust = TrustedIssuers([issuer_of(KIND, options)], SystemClock())
    now = datetime.now(UTC)
    token = mint(issuer.key, issuer.url, "agent-1", now=now, ids=RandomIds(), claims={"environment": "prod"})
    who = trust.verify(token)
    assert (who.issuer, who.subject, who.claim("environment")) == ("dev", "agent-1", "prod")
    with pytest.raises(NotAuthenticatedError, match="expired"):
        trust.verify(mint(issuer.key, issuer.url, "agent-1", now=now - timedelta(hours=1), ids=RandomIds()))
