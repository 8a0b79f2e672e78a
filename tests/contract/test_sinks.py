"""Webhooks against receivers that are honest, slow, dead or hostile; and the file (L09)."""

import base64
import json
import socket
import ssl
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from controlplane.audit.outbox import TellSink
from controlplane.dev.loopback import free_port
from controlplane.keys import private_file
from controlplane.model.errors import ConfigurationError, SinkUnavailableError
from controlplane.model.event import Kind, Link
from controlplane.model.secret import Secret
from controlplane.ports import Sink
from controlplane.sinks import kinds
from controlplane.sinks.jsonl import JsonlSink
from controlplane.sinks.webhook import WebhookOptions, payload, signature
from controlplane.testing.clock import START, FakeClock
from controlplane.testing.hostile_vault import Behaviour, answering, hostile_vault
from controlplane.testing.receiver import Receiver, receiver
from controlplane.testing.store import FakeStore, sample_event, sample_grant
from controlplane.worker.outbox import Outbox

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
LINK = Link(seq=3, event=sample_event(3, Kind.GLASS_BROKEN, sample_grant().id), mac="5a" * 32)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "pager.secret"
    private_file.create(path, f"{SECRET}\n".encode(), "secret")
    return path


def webhook(url: str, secret_file: Path, **options: Any) -> Sink:
    told = WebhookOptions.model_validate({"name": "pager", "url": url, "secret_file": secret_file, **options})
    return kinds()["webhook"].make(told, FakeClock(), private_file.read)


@pytest.fixture
def honest() -> Generator[Receiver]:
    with receiver() as server:
        yield server


def test_an_event_is_one_post_with_its_id_and_a_signature_over_id_time_and_body(
    honest: Receiver, secret_file: Path
) -> None:
    webhook(f"{honest.addr}/hooks/shorthold?team=billing", secret_file).tell(LINK)
    (got,) = honest.received
    assert got.path == "/hooks/shorthold?team=billing"
    assert got.body == payload(LINK)
    assert got.message == {
        "type": "glass.broken",
        "timestamp": "2026-01-05T09:30:00.000000Z",
        "data": {"id": LINK.event.id, "seq": 3, "grant": LINK.event.grant, "body": {"number": 3}, "mac": "5a" * 32},
    }
    at = int(START.timestamp())
    assert (got.headers["webhook-id"], got.headers["webhook-timestamp"]) == (LINK.event.id, str(at))
    assert got.headers["webhook-signature"] == signature(Secret(SECRET), LINK.event.id, at, got.body)
    assert got.headers["content-type"] == "application/json"
    assert "authorization" not in got.headers


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # Source: the example of the Standard Webhooks reference libraries' tests.
    secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_secret_is_being_replaced_both_sign(honest: Receiver, tmp_path: Path) -> None:
    another = "whsec_" + base64.b64encode(b"n" * 24).decode()
    private_file.create(tmp_path / "two", f"{another}\n{SECRET}\n".encode(), "secret")
    webhook(honest.addr, tmp_path / "two").tell(LINK)
    signatures = honest.received[0].headers["webhook-signature"].split(" ")
    expected = [
        signature(Secret(each), LINK.event.id, int(START.timestamp()), payload(LINK)) for each in (another, SECRET)
    ]
    assert signatures == expected


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410, 429, 500, 503])
def test_whatever_is_no_2xx_was_not_taken_and_no_redirect_is_followed(secret_file: Path, status: int) -> None:
    with receiver() as elsewhere:
        behaviour = answering(status, b"canary-answer", f"Location: {elsewhere.addr}/stolen", "Connection: close")
        with hostile_vault(behaviour) as server, pytest.raises(SinkUnavailableError) as caught:
            webhook(f"{server.addr}/canary-path", secret_file).tell(LINK)
        assert elsewhere.received == []
    assert str(status) in caught.value.detail
    assert "canary" not in caught.value.detail


def huge(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    for _ in range(64):
        peer.sendall(b"x" * 1_000_000)


def test_an_answer_without_end_is_not_read(secret_file: Path) -> None:
    with hostile_vault(huge) as server:
        webhook(server.addr, secret_file, timeout="30s").tell(LINK)


def drip(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.sendall(b"X-Drip: 1\r\n")
        time.sleep(0.05)  # as slow as it can afford to be, so that no single read times out


def forever(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


def nothing(peer: socket.socket) -> None:
    peer.recv(1)


def hangs_up(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("behaviour", [drip, forever, nothing], ids=["drip", "continue", "hang"])
def test_one_deadline_covers_all_of_it(secret_file: Path, behaviour: Behaviour) -> None:
    with hostile_vault(behaviour) as server, pytest.raises(SinkUnavailableError, match="no answer"):
        webhook(server.addr, secret_file, timeout="1s").tell(LINK)


def talks_nonsense(peer: socket.socket) -> None:
    peer.sendall(b"\x00\xff garbage\r\n\r\n")


@pytest.mark.parametrize("behaviour", [hangs_up, talks_nonsense])
def test_a_receiver_that_is_no_http_server_is_no_crash(secret_file: Path, behaviour: Behaviour) -> None:
    with hostile_vault(behaviour) as server, pytest.raises(SinkUnavailableError):
        webhook(server.addr, secret_file, timeout="2s").tell(LINK)


def test_nobody_who_listens_is_an_answer_too(secret_file: Path) -> None:
    with pytest.raises(SinkUnavailableError, match="ConnectionRefusedError"):
        webhook(f"http://127.0.0.1:{free_port(but=set())}", secret_file).tell(LINK)


def test_the_environment_sends_nothing_through_a_proxy(
    honest: Receiver, secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.addr)
        webhook(honest.addr, secret_file).tell(LINK)
        assert proxy.received == []
    assert len(honest.received) == 1


@pytest.mark.parametrize("trusted", [True, False])
def test_only_who_proves_itself_by_a_trusted_certificate_is_told(
    tmp_path: Path, secret_file: Path, trusted: bool
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with hostile_vault(answering(204, b"", "Connection: close"), tls=context) as server:
        sink = webhook(server.addr, secret_file, **({"cacert": certificate} if trusted else {}))
        if trusted:
            sink.tell(LINK)
        else:
            with pytest.raises(SinkUnavailableError, match="did not prove who it is"):
                sink.tell(LINK)
        assert len(server.seen) == int(trusted)


def self_signed(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "receiver.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(built.public_bytes(Encoding.PEM) + private)
    return file


@pytest.mark.parametrize(
    "content", [b"", b"canary", b"whsec_", b"whsec_Y2FuYXJ5", b"whsec_" + b"A" * 400, b"whsec_!!!!" * 9, b"\xff\xfe"]
)
def test_what_is_no_secret_stops_the_start_and_is_not_shown(tmp_path: Path, content: bytes) -> None:
    private_file.create(tmp_path / "bad", content, "secret")
    with pytest.raises(ConfigurationError, match="must hold whsec_") as caught:
        webhook("http://127.0.0.1:1", tmp_path / "bad")
    assert "Y2FuYXJ5" not in caught.value.detail
    assert "canary" not in caught.value.detail


def test_a_secret_that_others_may_read_or_that_is_not_there_stops_the_start(tmp_path: Path, secret_file: Path) -> None:
    secret_file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="others may read the secret of the sink pager"):
        webhook("http://127.0.0.1:1", secret_file)
    with pytest.raises(ConfigurationError, match="is not there"):
        webhook("http://127.0.0.1:1", tmp_path / "none")


# The file -----------------------------------------------------------------------------------------------------------


def test_each_event_is_a_line_of_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonlSink(path)
    sink.tell(LINK)
    path.rename(tmp_path / "events.jsonl.1")  # moved away by whoever rotates files
    sink.tell(LINK)
    sink.tell(LINK)
    assert path.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == [LINK.event.id] * 2
    assert {"seq", "at", "kind", "grant", "body", "mac"} <= lines[0].keys()


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"id": "ev_1", "bo')
    JsonlSink(path).tell(LINK)
    first, second = path.read_text().splitlines()
    assert first == '{"id": "ev_1", "bo'
    assert json.loads(second)["id"] == LINK.event.id


@pytest.mark.parametrize("link", [True, False])
def test_what_is_no_regular_file_is_not_written(tmp_path: Path, link: bool) -> None:
    path = tmp_path / "events.jsonl"
    if link:
        path.symlink_to("/dev/null")
    else:
        path.mkdir()
    with pytest.raises(SinkUnavailableError):
        JsonlSink(path).tell(LINK)
    with pytest.raises(SinkUnavailableError):
        JsonlSink(tmp_path / "no" / "events.jsonl").tell(LINK)


# All together -------------------------------------------------------------------------------------------------------


def test_l09_a_dead_and_a_hanging_receiver_delay_neither_the_store_nor_the_honest_one(
    honest: Receiver, secret_file: Path
) -> None:
    """Its events arrive in order, though it refuses two of them at first; every repetition has the same id."""
    store, clock = FakeStore(), FakeClock()
    honest.statuses = [500, 503]
    with receiver() as hanging:
        hanging.open.clear()
        urls = {"dead": f"http://127.0.0.1:{free_port(but=set())}", "hangs": hanging.addr, "well": honest.addr}
        tells = [
            TellSink(
                name=name,
                sink=webhook(url, secret_file, timeout="2s"),
                kinds=None,
                everything=True,
                clock=clock,
                store=store,
                cursors=store.cursors,
            )
            for name, url in urls.items()
        ]
        with capture_logs():
            outbox = Outbox(tells, tick=timedelta(milliseconds=10))
            outbox.start()
            for number in range(1, 31):
                with store.transaction() as tx:
                    tx.append(sample_event(number))
                clock.advance(timedelta(seconds=3))  # what was put off is due again
            deadline = time.monotonic() + 60
            while len(honest.received) < 32 and time.monotonic() < deadline:
                clock.advance(timedelta(seconds=3))
                time.sleep(0.01)
            hanging.open.set()
            outbox.stop()
    ids = [got.id for got in honest.received]
    assert list(dict.fromkeys(ids)) == [event.id for event in store.events()]
    assert len(ids) == 32
    assert ids[:3] == ids[:1] * 3
