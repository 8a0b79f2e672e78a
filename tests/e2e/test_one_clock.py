"""Two control planes over one PostgreSQL, on machines whose clocks are a minute apart, go by the database's (A28)."""

import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from controlplane.dev.loopback import HOST
from controlplane.dev.postgres import SUPERUSER, PostgreSQL
from controlplane.doctor.checks import Doctor
from controlplane.doctor.finding import Grade
from controlplane.model.errors import ClockOffError
from controlplane.model.grant import TaskId, Why
from controlplane.model.request import GrantRequest
from controlplane.testing.real import RealPlane
from controlplane.wiring.plane import ControlPlane, wire
from controlplane.world import SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

APART = timedelta(seconds=29)
KEY = {"name": "cards", "engine": "transit", "key": "cards", "operations": ["decrypt"]}
SHORT = {
    "entitlement": "card-numbers",
    "scopes": [KEY],
    "ttl": {"default": "5s", "max": "10s"},
    "delivery": "inline",
}
WISH = GrantRequest(entitlement="card-numbers", task=TaskId("T-1"), intent="answer-question")


@dataclass(frozen=True, slots=True)
class Off:
    """A machine whose clock is wrong."""

    ahead: timedelta

    def now(self) -> datetime:
        return SystemClock().now() + self.ahead


@pytest.fixture
def url(postgres: PostgreSQL) -> Generator[str]:
    name = f"store_{secrets.token_hex(6)}"
    with psycopg.connect(postgres.owner.reveal(), autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = URL.create("postgresql", SUPERUSER, postgres.password.reveal(), HOST, postgres.port, name)
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def ahead(planes: Callable[..., RealPlane], url: str) -> RealPlane:
    """Its worker is the only one."""
    plane = planes("oce", "transit", url=url, machine=Off(APART))
    plane.root.write(f"{plane.mount('transit')}/keys/cards", {})
    plane.entitle(SHORT)
    return plane


def test_a28_and_j45_a_grant_of_one_ends_at_the_other_on_time_and_a_machine_that_is_far_off_only_ends(
    ahead: RealPlane, url: str
) -> None:
    behind, wrong = (wire(ahead.settings, machine=Off(off)) for off in (-APART, timedelta(minutes=5)))
    try:
        with psycopg.connect(url) as database:
            ((asked,),) = database.execute("SELECT clock_timestamp()").fetchall()
        for plane in (ahead.plane, behind, wrong):
            assert abs(plane.clock.now() - asked) < timedelta(seconds=10)  # a slow machine, not a wrong clock
        assert abs(behind.clock.ahead() + APART) < timedelta(seconds=5)
        assert "\nshorthold_clock_ahead_seconds -2" in behind.metrics.text().decode()
        checks = dict(Doctor(settings=ahead.settings, plane=behind, clock=behind.clock).checks)
        assert [finding.grade for finding in checks["clock"]()] == [Grade.ADVICE, Grade.SOUND]

        granted = behind.request(ahead.who(), WISH)  # it logged in to Vault, which believes no clock that is off so far
        ended = ahead.ended(granted)
        assert ended.why is Why.EXPIRED
        assert ended.revoking_at is not None
        assert timedelta(0) <= ended.revoking_at - ended.expires_at <= timedelta(seconds=15)

        assert _is_off(wrong)
        with pytest.raises(ClockOffError, match="300 s ahead of"):
            wrong.request(ahead.who(), WISH)
        another = behind.request(ahead.who(), WISH)
        wrong.finish(ahead.who(), another.grant.id, Why.COMPLETED)
        assert ahead.ended(another).why is Why.COMPLETED
    finally:
        behind.close()
        wrong.close()


def _is_off(plane: ControlPlane) -> bool:
    return list(plane.missing()) == ["clock"]
