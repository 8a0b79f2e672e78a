"""How far our clock is from the server's, by what it says on the wire (J45)."""

import socket
from datetime import timedelta
from email.utils import format_datetime

import pytest

from controlplane.dev.openbao import OpenBao
from controlplane.testing.clock import FakeClock
from controlplane.testing.hostile_vault import answering, hostile_vault
from controlplane.vault.skew import LOOK_AGAIN, VaultSkew
from controlplane.vault.transport import Server, Transport
from controlplane.world import SystemClock


def look(clock: FakeClock, *headers: str) -> timedelta | None:
    with hostile_vault(answering(200, {"sealed": False}, *headers)) as server:
        transport = Transport(Server(server.addr))
        try:
            return VaultSkew(transport, clock)()
        finally:
            transport.close()


@pytest.mark.parametrize(
    ("off", "seen"),
    [
        (timedelta(0), timedelta(0)),
        (timedelta(seconds=1), timedelta(0)),  # the rest of its second
        (timedelta(minutes=5), timedelta(minutes=5, seconds=-1)),
        (timedelta(minutes=-5), timedelta(minutes=-5)),
    ],
)
def test_j45_the_difference_is_what_the_date_of_an_answer_says(off: timedelta, seen: timedelta) -> None:
    clock = FakeClock()
    assert look(clock, f"Date: {format_datetime(clock.now() - off, usegmt=True)}") == seen


@pytest.mark.parametrize("headers", [(), ("Date: yesterday",), ("Date: ",), ("Date: Mon, 99 Jan 99999 00:00:00 GMT",)])
def test_j45_a_server_that_gives_no_date_says_nothing(headers: tuple[str, ...]) -> None:
    assert look(FakeClock(), *headers) is None


def test_j45_a_server_that_is_not_there_says_nothing_and_is_asked_again_after_a_while() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    transport, seconds = Transport(Server(f"http://127.0.0.1:{port}")), [1000.0]
    skew = VaultSkew(transport, FakeClock(), monotonic=lambda: seconds[0])
    assert skew() is None
    transport.close()
    with hostile_vault(answering(200, {}, f"Date: {format_datetime(FakeClock().now(), usegmt=True)}")) as server:
        transport = Transport(Server(server.addr))
        skew = VaultSkew(transport, FakeClock(), monotonic=lambda: seconds[0])
        assert [skew() for _ in range(50)] == [timedelta(0)] * 50
        assert len(server.seen) == 1
        assert b"X-Vault-Token" not in server.seen[0]
        seconds[0] += LOOK_AGAIN.total_seconds()
        assert skew() == timedelta(0)
        assert len(server.seen) == 2
        transport.close()


@pytest.mark.servers
def test_j45_the_embedded_server_and_we_share_one_clock(openbao: OpenBao) -> None:
    transport = Transport(Server(openbao.addr))
    try:
        assert VaultSkew(transport, SystemClock())() == timedelta(0)
    finally:
        transport.close()
