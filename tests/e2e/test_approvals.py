"""Approvals over the real stack: asked, agreed to, collected, used and provably gone (C16, C17, C18, A08, A11, P4)."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from controlplane.dev.issuer import mint
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

REFUND = {"entitlement": "orders-refund", "task": "T-7", "intent": "issue-refund", "reason": "order 7 was paid twice"}
AGENT = "repo:acme/refund-agent:ref:refs/heads/main"
BOOK = """
INSERT INTO billing.refunds (invoice_id, amount_cents, reason)
SELECT id, 100, 'paid twice' FROM billing.invoices LIMIT 1
"""


@pytest.fixture(scope="module")
def stage(stack: Stack) -> Stage:
    return Stage(stack.project)


@pytest.fixture
def agent(stage: Stage) -> Generator[Shorthold]:
    with Shorthold(stage.api, lambda: stage.token(AGENT), timeout=90) as agent:
        yield agent


@pytest.fixture
def ann(stage: Stage) -> Generator[Shorthold]:
    with person(stage, "ann") as ann:
        yield ann


def person(stage: Stage, name: str, *, groups: tuple[str, ...] = ("billing-oncall",)) -> Shorthold:
    def token() -> Secret:
        issuer = stage.stack.issuer
        said: dict[str, Any] = {"role": "approver", "groups": list(groups)}
        return mint(issuer.key, issuer.url, name, now=SystemClock().now(), ids=RandomIds(), claims=said)

    return Shorthold(stage.api, token, timeout=90)


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(AnsweredError) as caught:
        call()
    return caught.value.http_status, caught.value.told_code


def asked(agent: Shorthold, **changes: str) -> dict[str, Any]:
    answer = agent.request({**REFUND, **changes})
    assert answer["grant"]["state"] == "pending"
    found: dict[str, Any] = answer["asked"]
    return found


def collected(stage: Stage, agent: Shorthold, id: str) -> tuple[dict[str, Any], dict[str, Secret]]:
    answer = agent.collect(id)
    return answer, agent.unwrap(stage.vault_addr, Secret(answer["wrapping_token"]))["refunds"]


def valid_until(stage: Stage, user: str) -> datetime:
    with psycopg.connect(stage.stack.postgres.owner.reveal(), autocommit=True) as database:
        row = database.execute("SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", (user,)).fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def finished(agent: Shorthold, id: str) -> None:
    grant = agent.finish(id, wait="30s")["grant"]
    assert grant["state"] == "revoked", grant
    assert grant["receipt"]["verified"] is True


def test_c18_a_refund_is_asked_for_agreed_to_booked_and_the_access_is_gone(
    stage: Stage, agent: Shorthold, ann: Shorthold
) -> None:
    wanted = asked(agent)
    id = wanted["grant"]
    (mine,) = [group for group in ann.approvals()["groups"] if group["subject"] == AGENT]
    assert id in [waiting["asked"]["grant"] for waiting in mine["waiting"]]
    seen = ann.show(id)["asked"]
    assert seen == wanted
    assert any("billing.refunds" in line for scope in seen["scopes"] for line in scope["reach"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(agent.show, id, wait="30s")
        assert ann.approve(id, seen["digest"], reason="seen the ticket")["grant"]["state"] == "approved"
        assert waiting.result(20)["grant"]["state"] == "approved"
    answer, credential = collected(stage, agent, id)
    assert [why["code"] for why in answer["reasons"] if why["decision"] == "approval"] == ["approved"]
    with stage.connect(credential) as session:
        session.execute(BOOK)
    finished(agent, id)
    assert not stage.opens(credential)
    assert refused(lambda: agent.collect(id)) == (409, "illegal-transition")


def test_c17_a_narrowed_ttl_is_the_one_that_vault_and_the_database_have(
    stage: Stage, agent: Shorthold, ann: Shorthold
) -> None:
    wanted = asked(agent, ttl="8m")
    ann.approve(wanted["grant"], wanted["digest"], ttl="1m", scopes=["refunds"])
    answer, credential = collected(stage, agent, wanted["grant"])
    minute, now = timedelta(minutes=1), datetime.now(UTC)
    assert abs(datetime.fromisoformat(answer["grant"]["expires_at"]) - now - minute) < timedelta(seconds=45)
    assert abs(valid_until(stage, credential["username"].reveal()) - now - minute) < timedelta(seconds=45)
    finished(agent, wanted["grant"])


def test_a08_only_others_who_are_named_decide_and_once_each(stage: Stage, agent: Shorthold) -> None:
    wanted = asked(agent)
    id, digest = wanted["grant"], wanted["digest"]
    with person(stage, AGENT) as itself:
        assert refused(lambda: itself.approve(id, digest)) == (403, "may-not-approve")
    with person(stage, AGENT.upper()) as second:
        assert refused(lambda: second.approve(id, digest)) == (403, "may-not-approve")
    with person(stage, "eve", groups=("sales",)) as eve:
        assert refused(lambda: eve.show(id)) == refused(lambda: eve.approve(id, digest)) == (404, "not-found")
    assert refused(lambda: agent.approve(id, digest)) == (403, "not-allowed")
    with person(stage, "bob") as bob:
        assert refused(lambda: bob.approve(id, "0" * 64)) == (409, "other-digest")
        assert bob.deny(id, "not without a ticket")["grant"]["state"] == "denied"
    assert agent.show(id)["denial"]["reason"] == "not without a ticket"
    assert refused(lambda: agent.collect(id)) == (403, "denied")


def test_g14_of_many_collects_at_once_one_makes_a_credential(agent: Shorthold, ann: Shorthold) -> None:
    wanted = asked(agent)
    id = wanted["grant"]
    ann.approve(id, wanted["digest"])

    def collect() -> int:
        try:
            return 201 if "wrapping_token" in agent.collect(id) else 0
        except AnsweredError as error:
            return error.http_status

    with ThreadPoolExecutor(8) as pool:
        outcomes = [pool.submit(collect) for _ in range(8)]
    assert sorted(outcome.result() for outcome in outcomes) == [201] + [409] * 7
    finished(agent, id)


def test_p4_killed_between_approve_and_collect_nothing_is_lost_and_nothing_was_made(
    stack: Stack, stage: Stage, agent: Shorthold, ann: Shorthold
) -> None:
    wanted = asked(agent)
    ann.approve(wanted["grant"], wanted["digest"])
    for client in (agent, ann):
        client.close()  # a connection that is kept open keeps the port
    try:
        stage.kill_control_plane()
    finally:
        stack.start_control_plane()  # as the fixture has it: one with a reconciler would end what other tests hold
    shown = agent.show(wanted["grant"])
    assert (shown["grant"]["state"], shown["leases"]) == ("approved", [])
    _, credential = collected(stage, agent, wanted["grant"])
    assert stage.opens(credential)
    finished(agent, wanted["grant"])
    assert not stage.opens(credential)
