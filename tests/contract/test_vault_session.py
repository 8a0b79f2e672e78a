"""How an identity stays logged in: one login for many callers, a new one in time, and none too many."""

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from controlplane.model.canonical import JsonObject, canonical
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.secret import Secret
from controlplane.testing.clock import FakeClock
from controlplane.testing.hostile_vault import Behaviour, HostileVault, answering, hostile_vault, saying
from controlplane.testing.ids import CountingIds
from controlplane.vault import session as module
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.session import JwtSession


class OpenSigner:
    """Shows the claims instead of signing them."""

    def sign(self, claims: JsonObject) -> Secret:
        return Secret(canonical(claims).decode())


def session(server: HostileVault, clock: FakeClock | None = None, *, seconds: float = 5) -> JwtSession:
    return JwtSession(
        Server(server.addr, timeout=timedelta(seconds=seconds)),
        "shorthold-broker",
        "broker",
        OpenSigner(),
        clock=clock or FakeClock(),
        ids=CountingIds(),
    )


def issuing(ttl: int) -> Behaviour:
    """Gives another token at every login."""
    numbers = iter(range(1, 1000))

    def issue(peer: socket.socket) -> None:
        answering(200, {"auth": {"client_token": f"s.{next(numbers)}", "lease_duration": ttl}})(peer)

    return issue


def together(times: int, call: Callable[[], object]) -> list[object]:
    ready = threading.Barrier(times)

    def one() -> object:
        ready.wait(60)
        try:
            return call()
        except (VaultRefusedError, VaultUnavailableError) as error:
            return error

    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(one) for _ in range(times)]]


def test_an_assertion_says_who_and_where_and_is_good_for_fifteen_seconds() -> None:
    clock = FakeClock()
    with hostile_vault(issuing(3600)) as server:
        session(server, clock)()
        head, _, body = server.seen[0].partition(b"\r\n\r\n")
    sent = json.loads(body)
    claims = json.loads(sent["jwt"])
    now = int(clock.now().timestamp())
    assert head.startswith(b"POST /v1/auth/shorthold-broker/login ")
    assert b"x-vault-token" not in head.lower()
    assert sent["role"] == claims["sub"] == "broker"
    assert claims["aud"] == "shorthold-broker"
    assert claims["jti"]
    assert claims["exp"] - claims["iat"] <= 15
    assert claims["nbf"] == claims["iat"] <= now < claims["exp"]


def test_many_callers_at_once_log_in_once() -> None:
    with hostile_vault(issuing(3600)) as server:
        known = session(server)
        tokens = together(16, known)
        assert len(server.seen) == 1
        assert all(token == Secret("s.1") for token in tokens)


def test_a_new_login_comes_before_the_old_token_ends() -> None:
    with hostile_vault(issuing(4)) as server:
        known = session(server)
        first = known()
        began = asked = time.monotonic()
        while known() == first:
            assert asked - began < 4, "the token would have ended before a new login"
            asked = time.monotonic()
        assert known() == Secret("s.2")


def test_a_refused_token_is_given_up_once_however_many_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "YOUNG", 0.0)
    with hostile_vault(issuing(3600)) as server:
        known = session(server)
        stale = known()

        def give_up() -> Secret:
            known.invalidate(stale)
            return known()

        assert all(token == Secret("s.2") for token in together(8, give_up))
        assert len(server.seen) == 2


def test_a_token_that_was_just_issued_is_kept_so_that_a_missing_policy_causes_no_flood_of_logins() -> None:
    with hostile_vault(issuing(3600)) as logins, hostile_vault(saying(403, "permission denied")) as server:
        client = VaultClient(Server(server.addr), session(logins))
        for _ in range(10):
            with pytest.raises(VaultRefusedError):
                client.read("sys/mounts")
        client.close()
        assert len(logins.seen) == 1
        assert len(server.seen) == 10


def test_callers_who_queued_behind_a_failed_login_share_its_failure() -> None:
    gone = threading.Event()
    with hostile_vault(lambda _peer: gone.wait(10)) as server:
        known = session(server, seconds=0.5)
        outcomes = together(12, known)
        assert all(isinstance(outcome, VaultUnavailableError) for outcome in outcomes)
        assert server.connections < 12
        gone.set()


@pytest.mark.parametrize(
    "answer", [{"auth": None}, {"auth": {}}, {"auth": {"client_token": "", "lease_duration": 1}}, {"data": {}}]
)
def test_an_answer_without_a_token_is_no_login(answer: JsonObject) -> None:
    with hostile_vault(answering(200, answer)) as server, pytest.raises(VaultUnavailableError):
        session(server)()


def test_after_a_failure_the_next_call_tries_again() -> None:
    answers = iter([saying(503, "Vault is sealed"), issuing(60)])

    def answer(peer: socket.socket) -> None:
        next(answers)(peer)

    with hostile_vault(answer) as server:
        known = session(server)
        with pytest.raises(VaultUnavailableError, match="sealed"):
            known()
        assert known() == Secret("s.1")
