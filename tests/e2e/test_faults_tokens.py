"""The search for the tokens of an interrupted grant: it harms nobody's, and nothing that lies about stops it."""

import json
import socket
import struct
import threading
import time
from collections.abc import Generator

import pytest

from controlplane.dev.loopback import HOST
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.keys.files import load
from controlplane.model.errors import VaultRefusedError
from controlplane.model.grant import GrantId
from controlplane.model.lease import Accessor
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.testing.served import Witness
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.logins import VaultLogins
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

NONE = GrantId("gr_" + "a" * 24)
WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


@pytest.fixture(autouse=True)
def tidied(seer: Witness) -> Generator[None]:
    """Logins that broke off leave accessors of nothing behind."""
    yield
    seer.vault.write("auth/token/tidy", {})


def test_whoever_is_being_issued_a_grant_meanwhile_is_not_disturbed(stack: Stack, seer: Witness) -> None:
    stage, logins = Stage(stack.project), VaultLogins(LAYOUT, seer.vault)
    failures: list[Exception] = []

    def ask() -> None:
        with Shorthold(stage.api, lambda: stage.token(AGENT)) as agent:
            for _ in range(20):
                try:
                    answer = agent.request(WISH)
                    agent.unwrap(stage.vault_addr, Secret(answer["wrapping_token"]))
                    assert agent.finish(answer["grant"]["id"], wait="30s")["grant"]["state"] == "revoked"
                except Exception as error:  # noqa: BLE001 # told below, from the thread that pytest watches
                    failures.append(error)

    agents = [threading.Thread(target=ask) for _ in range(3)]
    for agent in agents:
        agent.start()
    searches = 0
    while any(agent.is_alive() for agent in agents):
        assert logins.accessors_of(NONE) == []
        searches += 1
    assert failures == []
    assert searches > 1


def test_an_accessor_whose_login_broke_off_is_gone_and_stops_no_search(stack: Stack, seer: Witness) -> None:
    logins = VaultLogins(LAYOUT, seer.vault)
    left = _broken_logins(stack, seer)
    assert left, "no broken login left an accessor behind"
    assert [logins.facts(accessor) for accessor in left] == [None] * len(left)
    assert logins.accessors_of(NONE) == []


def test_whoever_may_not_look_is_told_so_and_never_that_a_token_is_gone(stack: Stack, seer: Witness) -> None:
    server = Server(stack.vault_addr)
    key = load(stack.home.part("keys") / "sync.pem")
    session = JwtSession(server, "shorthold-sync", "sync", key, clock=SystemClock(), ids=RandomIds())
    sync = VaultClient(server, session)
    try:
        for accessor in [*_broken_logins(stack, seer)[:1], Accessor(seer.vault.list("auth/token/accessors")[0])]:
            with pytest.raises(VaultRefusedError, match="403"):
                VaultLogins(LAYOUT, sync).facts(accessor)
    finally:
        sync.close()
        session.close()


def _broken_logins(stack: Stack, seer: Witness) -> list[Accessor]:
    """Accessors that are left when who logs in hangs up at once, as a process does that is killed."""
    known = set(seer.vault.list("auth/token/accessors"))
    key = load(stack.home.part("keys") / "broker.pem")
    port = int(stack.vault_addr.rsplit(":", 1)[1])
    for _ in range(40):
        now = int(time.time())
        claims = {"aud": "shorthold-broker", "sub": "broker", "iat": now - 5, "nbf": now - 5, "exp": now + 10}
        body = json.dumps({"role": "broker", "jwt": key.sign(claims).reveal()}).encode()
        head = f"PUT /v1/auth/shorthold-broker/login HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((HOST, port)) as line:
            line.sendall(head.encode() + body)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    VaultLogins(LAYOUT, seer.vault).accessors_of(NONE)  # whole tokens among them are whole after this
    new = [Accessor(name) for name in seer.vault.list("auth/token/accessors") if name not in known]
    return [accessor for accessor in new if _refused(seer, accessor)]


def _refused(seer: Witness, accessor: Accessor) -> bool:
    try:
        seer.vault.write("auth/token/lookup-accessor", {"accessor": accessor})
    except VaultRefusedError as error:
        return "permission denied" in error.detail
    return False
