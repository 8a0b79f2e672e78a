"""The prober asks a real Redis: what it sees, what it cannot see, and that a target which hangs never holds it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from redis.exceptions import NoPermissionError

from controlplane.dev import loopback
from controlplane.engines.dialects.redis import DIALECT, RedisOptions
from controlplane.model.errors import TargetUnavailableError
from controlplane.model.lease import Target
from controlplane.model.secret import Secret
from controlplane.probers.lines.line import ProberLogin
from controlplane.probers.redis import RedisProber, prober
from controlplane.testing.clock import FakeClock
from controlplane.testing.halted import halted
from controlplane.testing.redis import RedisServer

pytestmark = pytest.mark.servers

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CARTS = Target(kind="redis", name="carts")
PROBER = "test_prober"
AGENT = "V_SHORTHOLD-WL_AB_SH-CARTS-READ-0A1B2C3D-IT_ABCDEFGHIJKLMNOPQRST_1795350268"


def login(name: str) -> ProberLogin:
    assert name == "carts"
    return ProberLogin(username=PROBER, password=Secret("p" * 24), renew_at=NOW + timedelta(hours=1))


def asking_at(port: int, tls: str = "off") -> RedisProber:
    target = RedisOptions.model_validate({"kind": "redis", "port": port, "tls": tls})
    return prober({"carts": target}, login, FakeClock(NOW), "sh")


@pytest.fixture
def asking(redis: RedisServer) -> Iterator[RedisProber]:
    (rules,) = DIALECT.prober().creation
    redis.ask("ACL", "SETUSER", PROBER, "ON", ">" + "p" * 24, *cast("list[str]", json.loads(rules)))
    asking = asking_at(redis.port)
    yield asking
    asking.close()
    redis.ask("ACL", "DELUSER", PROBER, AGENT)


def gone(asking: RedisProber) -> bool:
    return asking.ask(CARTS, AGENT, issued_at=NOW).gone


def test_a_user_is_gone_when_neither_it_nor_a_connection_of_it_is_there(
    asking: RedisProber, redis: RedisServer
) -> None:
    assert gone(asking)
    redis.ask("ACL", "SETUSER", AGENT, "ON", ">secret", "+ping", "+client|setname")
    client = redis.connect(AGENT, "secret")
    client.execute_command("CLIENT SETNAME", "user=somebody-else")
    evidence = asking.ask(CARTS, AGENT, issued_at=NOW)
    assert (evidence.gone, evidence.detail) == (False, f"redis carts: 1 user {AGENT}, 1 open connection")
    redis.ask("ACL", "DELUSER", AGENT)
    assert gone(asking)
    client.close()


def test_the_roster_names_users_that_vault_made_from_our_roles(asking: RedisProber, redis: RedisServer) -> None:
    before = [found.name for found in asking.logins("carts")]
    redis.ask("ACL", "SETUSER", AGENT, "ON", ">secret", "+ping")
    others = (AGENT.replace("SH-CARTS", "SH-PROBER"), AGENT.replace("_SH-", "_XX-"), "somebody")
    for other in others:
        redis.ask("ACL", "SETUSER", other)
    (found,) = [found for found in asking.logins("carts") if found.name not in before]
    assert (found.name, found.group, found.valid_until, found.sessions) == (AGENT, "sh-carts-read-0a1b2c3d-it", None, 0)
    redis.ask("ACL", "DELUSER", *others)


def test_a_prober_sees_no_password_and_no_key(asking: RedisProber, redis: RedisServer) -> None:
    del asking
    client = redis.connect(PROBER, "p" * 24)
    for forbidden in ("GET x", "KEYS *", "ACL GETUSER root", "ACL LIST", "CLIENT KILL ID 1", "CONFIG GET *", "INFO"):
        with pytest.raises(NoPermissionError):
            client.execute_command(*forbidden.split())
    client.close()


def test_a_target_that_hangs_is_given_up_and_never_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch, asking: RedisProber, redis: RedisServer
) -> None:
    monkeypatch.setattr("controlplane.probers.redis.TIMEOUT", 1)
    assert gone(asking)
    assert redis.process is not None
    with halted(redis.process.pid), pytest.raises(TargetUnavailableError, match="redis carts did not answer"):
        gone(asking)
    assert gone(asking)


def test_nobody_there_or_no_tls_never_counts_as_gone(
    monkeypatch: pytest.MonkeyPatch, redis: RedisServer, asking: RedisProber
) -> None:
    del asking
    monkeypatch.setattr("controlplane.probers.redis.TIMEOUT", 1)
    for port, tls in ((loopback.free_port(but=set()), "off"), (redis.port, "verify")):
        other = asking_at(port, tls)
        with pytest.raises(TargetUnavailableError):
            gone(other)
        other.close()
    with pytest.raises(TargetUnavailableError, match="no target called"):
        prober({}, login, FakeClock(NOW), "sh").ask(CARTS, AGENT, issued_at=NOW)
