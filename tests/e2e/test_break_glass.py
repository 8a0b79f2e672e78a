"""Break-glass over the real stack: at once, loud to a webhook, and no second time before somebody else looked (C19)."""

import base64
import json
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from controlplane.audit.chain import Intact
from controlplane.dev.issuer import mint
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.keys import private_file
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.sinks.webhook import signature
from controlplane.testing.receiver import Receiver, receiver
from controlplane.testing.served import ServedPlane
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

ONCALL = "repo:acme/oncall-agent:ref:refs/heads/main"
REQUEST = {
    "entitlement": "orders-break-glass",
    "task": "INC-1",
    "intent": "repair-invoices",
    "reason": "invoices of today are all void",
}
SECRET = Secret("whsec_" + base64.b64encode(bytes(range(32))).decode())


@pytest.fixture
def pager() -> Generator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def plane(stack: Stack, pager: Receiver, tmp_path: Path) -> Generator[ServedPlane]:
    private_file.create(tmp_path / "pager.secret", SECRET.reveal().encode(), "secret")
    sink = {
        "name": "pager",
        "kind": "webhook",
        "url": f"{pager.addr}/hooks",
        "secret_file": str(tmp_path / "pager.secret"),
        "events": ["grant.requested", "glass.broken", "glass.reviewed"],
        "since": "beginning",
        "timeout": "30s",
    }
    served = ServedPlane(stack, tmp_path, {"SINKS": json.dumps([sink])})
    served.start()
    try:
        yield served
    finally:
        served.kill()


def person(plane: ServedPlane, subject: str, role: str | None = None) -> Shorthold:
    issuer = plane.stack.issuer
    claims = {} if role is None else {"role": role}

    def token() -> Secret:
        return mint(issuer.key, issuer.url, subject, now=SystemClock().now(), ids=RandomIds(), claims=claims)

    return Shorthold(plane.api, token, timeout=60)


def refused(call: Callable[[], object]) -> AnsweredError:
    with pytest.raises(AnsweredError) as caught:
        call()
    return caught.value


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def verified(pager: Receiver) -> list[dict[str, Any]]:
    """What the pager was told, each signed and recent; repetitions are known by their id."""
    told: dict[str, dict[str, Any]] = {}
    for got in pager.received:
        at = int(got.headers["webhook-timestamp"])
        assert abs(at - time.time()) < 300
        assert got.headers["webhook-signature"] == signature(SECRET, got.id, at, got.body)
        told[got.id] = got.message
    return list(told.values())


def test_c19_from_the_broken_glass_to_the_closed_review(plane: ServedPlane, pager: Receiver) -> None:
    stage = Stage(plane.stack.project)
    with (
        person(plane, ONCALL) as oncall,
        person(plane, ONCALL, "approver") as oncall_as_approver,
        person(plane, "bob", "responder") as bob,
        person(plane, "eve") as eve,
    ):
        assert codes(refused(lambda: oncall.request({**REQUEST, "reason": None}))) == ["reason-needed"]

        first = oncall.request(REQUEST)
        id = first["grant"]["id"]
        credential = oncall.unwrap(plane.stack.vault_addr, Secret(first["wrapping_token"]))["invoices"]
        with stage.connect(credential) as session:
            assert session.execute("SELECT count(*) FROM billing.invoices").fetchone() == (4000,)
        until(lambda: len(pager.received) >= 1)  # while the glass is broken, not some time after

        assert refused(lambda: bob.review(id, "too early")).told_code == "not-ended"
        assert oncall.finish(id, wait="30s")["grant"]["state"] == "revoked"
        assert not stage.opens(credential)

        again = refused(lambda: oncall.request({**REQUEST, "task": "INC-2"}))
        assert (again.http_status, codes(again)) == (403, ["review-open"])
        assert id in again.problem["reasons"][0]["detail"]

        assert refused(lambda: oncall_as_approver.review(id, "it was me")).told_code == "own-review"
        assert refused(lambda: eve.review(id, "who am I?")).told_code == "not-allowed"
        assert [review["grant"]["id"] for review in bob.reviews()["reviews"]] == [id]
        assert bob.review(id, "set three invoices to paid; right")["review"]["closed"]["subject"] == "bob"
        assert refused(lambda: bob.review(id, "once more")).told_code == "already-reviewed"
        assert bob.reviews() == {"reviews": []}

        second = oncall.request({**REQUEST, "task": "INC-2"})["grant"]["id"]
        oncall.finish(second, wait="30s")

    until(lambda: len(verified(pager)) >= 3)
    told = verified(pager)
    assert [(each["type"], each["data"]["grant"]) for each in told] == [
        ("glass.broken", id),
        ("glass.reviewed", id),
        ("glass.broken", second),
    ]
    assert told[0]["data"]["body"]["reason"] == REQUEST["reason"]
    assert told[1]["data"]["body"]["note"] == "set three invoices to paid; right"
    assert all(got.path == "/hooks" for got in pager.received)
    everything = b"".join(got.body for got in pager.received)
    for value in (
        *(field.reveal() for name, field in credential.items() if name != "username"),
        first["wrapping_token"],
    ):
        assert value.encode() not in everything
    log = plane.log.read_text(encoding="utf-8")
    warnings = [json.loads(line) for line in log.splitlines() if '"glass_broken"' in line]
    assert [(line["grant"], line["level"]) for line in warnings] == [(id, "warning"), (second, "warning")]
    assert SECRET.reveal() not in log
    assert isinstance(plane.audit(), Intact)


def test_l09_a_dead_pager_delays_no_grant_and_learns_everything_when_it_is_back_and_we_were_killed(
    plane: ServedPlane, pager: Receiver
) -> None:
    pager.open.clear()  # it takes the connection, and says nothing
    with person(plane, ONCALL) as oncall:
        began = time.monotonic()
        id = oncall.request(REQUEST)["grant"]["id"]
        assert oncall.finish(id, wait="30s")["grant"]["state"] == "revoked"
        assert time.monotonic() - began < 30  # the pager is still being waited for
        until(lambda: len(pager.received) == 1)
    plane.kill()
    pager.open.set()
    pager.received.clear()
    database(plane, "UPDATE sink_cursors SET held_until = NULL, due_at = '2020-01-01T00:00:00.000000Z'")
    plane.start()
    until(lambda: len(pager.received) >= 1)
    assert [each["data"]["grant"] for each in verified(pager)] == [id]


def codes(error: AnsweredError) -> list[str]:
    return [why["code"] for why in error.problem["reasons"]]


def database(plane: ServedPlane, statement: str) -> None:
    """What only time would do otherwise: two minutes until a dead replica's hold has run out."""

    with closing(sqlite3.connect(plane.store)) as store:
        store.execute(statement)
        store.commit()
