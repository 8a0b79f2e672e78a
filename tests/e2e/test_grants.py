"""Grants through the HTTP API on real servers: what is issued works, is narrow, and is gone afterwards."""

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.testing.served import Witness

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

READ = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
CERTIFICATE = {"entitlement": "checkout-certificate", "task": "T-1", "intent": "call-checkout"}
CHECKOUT = "repo:acme/checkout-agent:ref:refs/heads/main"


@pytest.fixture(scope="module")
def stage(stack: Stack) -> Stage:
    return Stage(stack.project)


@pytest.fixture
def agent(stage: Stage) -> Generator[Shorthold]:
    with client(stage, AGENT) as agent:
        yield agent


def client(stage: Stage, subject: str) -> Shorthold:
    return Shorthold(stage.api, lambda: stage.token(subject), timeout=90)


def refused(call: Callable[[], object]) -> AnsweredError:
    with pytest.raises(AnsweredError) as caught:
        call()
    return caught.value


def owner(stage: Stage) -> psycopg.Connection:
    return psycopg.connect(stage.stack.postgres.owner.reveal(), autocommit=True)


def valid_until(stage: Stage, user: str) -> datetime:
    with owner(stage) as database:
        row = database.execute("SELECT rolvaliduntil FROM pg_roles WHERE rolname = %s", (user,)).fetchone()
    assert row is not None
    return row[0]


def finished(agent: Shorthold, id: str) -> dict[str, Any]:
    grant = agent.finish(id, wait="30s")["grant"]
    assert grant["state"] == "revoked", grant
    return grant


def test_a_certificate_is_issued_and_its_serial_is_on_the_signed_crl_afterwards(stage: Stage) -> None:
    with client(stage, CHECKOUT) as agent:
        answer = agent.request({**CERTIFICATE, "ttl": "5m"})
        fields = agent.unwrap(stage.vault_addr, Secret(answer["wrapping_token"]))["client"]
        certificate = x509.load_pem_x509_certificate(fields["certificate"].reveal().encode())
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert name.value == "checkout.agents.acme.example"
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(minutes=4) < left <= timedelta(minutes=5, seconds=5)
        (end,) = finished(agent, answer["grant"]["id"])["receipt"]["ended"]
        assert end["verified"] is True
        assert "on the signed CRL" in end["evidence"]
        assert int(end["principal"].replace(":", ""), 16) == certificate.serial_number


@pytest.mark.parametrize(("ttl", "seconds"), [("1m", 60), (None, 300), ("12m", 720)])
def test_the_database_has_the_asked_ttl_as_its_own_clock(
    stage: Stage, agent: Shorthold, ttl: str | None, seconds: int
) -> None:
    before = datetime.now(UTC)
    answer = agent.request({**READ, "ttl": ttl})
    after = datetime.now(UTC)
    (lease,) = answer["leases"]
    span, near = timedelta(seconds=seconds), timedelta(seconds=20)
    for ends in (valid_until(stage, lease["principal"]), datetime.fromisoformat(answer["grant"]["expires_at"])):
        assert before - near < ends - span < after + near
    finished(agent, answer["grant"]["id"])


def test_two_grants_of_one_task_share_nothing(agent: Shorthold) -> None:
    one, other = agent.request(READ), agent.request(READ)
    assert one["leases"][0]["principal"] != other["leases"][0]["principal"]
    finished(agent, one["grant"]["id"])
    assert agent.show(other["grant"]["id"])["grant"]["state"] == "active"
    finished(agent, other["grant"]["id"])


def test_the_same_idempotency_key_makes_one_grant_and_hands_its_credential_out_once(agent: Shorthold) -> None:
    first = agent.request(READ, key="k-1")
    again = agent.request(READ, key="k-1")
    assert again["grant"]["id"] == first["grant"]["id"]
    assert "wrapping_token" not in again
    other = refused(lambda: agent.request({**READ, "task": "T-2"}, key="k-1"))
    assert (other.http_status, other.told_code) == (409, "idempotency-conflict")
    finished(agent, first["grant"]["id"])


def test_one_key_used_at_once_makes_one_grant(agent: Shorthold) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(agent.request, READ, key="k-at-once") for _ in range(8)]
    answers = [future.result() for future in asked]
    assert len({answer["grant"]["id"] for answer in answers}) == 1
    assert sum("wrapping_token" in answer for answer in answers) == 1
    finished(agent, answers[0]["grant"]["id"])


def test_nobody_else_sees_or_ends_a_grant(stage: Stage, agent: Shorthold) -> None:
    id = agent.request(READ)["grant"]["id"]
    with client(stage, "system:serviceaccount:agents:other") as other:
        unknown = refused(lambda: other.show("gr_" + "a" * 24))
        foreign = refused(lambda: other.show(id))
        assert (
            (foreign.http_status, foreign.told_code) == (unknown.http_status, unknown.told_code) == (404, "not-found")
        )
        assert refused(lambda: other.finish(id)).http_status == 404
        assert other.list()["grants"] == []
    assert agent.show(id)["grant"]["state"] == "active"
    finished(agent, id)


def test_finishing_twice_and_at_once_ends_it_once(agent: Shorthold) -> None:
    id = agent.request(READ)["grant"]["id"]
    with ThreadPoolExecutor(8) as pool:
        ended = [pool.submit(agent.finish, id) for _ in range(8)]
    states = {future.result()["grant"]["state"] for future in ended}
    assert states <= {"revoking", "revoked"}
    grant = finished(agent, id)
    assert finished(agent, id) == grant


def test_what_needs_approval_waits_and_makes_nothing(stage: Stage) -> None:
    with client(stage, "repo:acme/refund-agent:ref:refs/heads/main") as agent:
        answer = agent.request({"entitlement": "orders-refund", "task": "T-1", "intent": "issue-refund"})
        assert answer["grant"]["state"] == "pending"
        assert answer["leases"] == []
        assert "wrapping_token" not in answer
        assert agent.finish(answer["grant"]["id"])["grant"]["state"] == "lapsed"


def test_a_bad_token_is_told_nothing_and_the_audit_log_everything(stage: Stage) -> None:
    with Shorthold(stage.api, lambda: Secret("not.a.token")) as nobody:
        error = refused(lambda: nobody.request(READ))
    assert (error.http_status, error.told_code) == (401, "not-authenticated")
    assert error.problem["detail"] == "the bearer token is not valid here"


def test_openbaos_own_audit_log_names_the_workload_and_the_task(stage: Stage, agent: Shorthold) -> None:
    id = agent.request({**READ, "task": "T-named"})["grant"]["id"]
    finished(agent, id)
    lines = [line for line in stage.stack.openbao.audit_log.read_text(encoding="utf-8").splitlines() if id in line]
    assert any(AGENT in line and "T-named" in line for line in lines)


def test_forty_grants_at_once_are_all_verified_gone(stage: Stage, seer: Witness) -> None:
    def whole(number: int) -> dict[str, Any]:
        with client(stage, AGENT) as agent:
            answer = agent.request({**READ, "task": f"T-{number}"})
            credential = agent.unwrap(stage.vault_addr, Secret(answer["wrapping_token"]))["orders"]
            stage.connect(credential).close()
            return finished(agent, answer["grant"]["id"])

    with ThreadPoolExecutor(8) as pool:
        grants = list(pool.map(whole, range(40)))
    assert all(grant["receipt"]["verified"] for grant in grants)
    assert seer.users() == []


def test_a_login_attempted_all_the_while_never_succeeds_after_revoked(stage: Stage, agent: Shorthold) -> None:
    answer = agent.request(READ)
    credential = agent.unwrap(stage.vault_addr, Secret(answer["wrapping_token"]))["orders"]
    stop, opened = threading.Event(), list[float]()

    def knock() -> None:
        while not stop.is_set():
            try:
                stage.connect(credential).close()
                opened.append(time.monotonic())
            except psycopg.OperationalError:
                continue

    knocker = threading.Thread(target=knock)
    knocker.start()
    finished(agent, answer["grant"]["id"])
    revoked_at = time.monotonic()
    while time.monotonic() < revoked_at + 0.5:
        stop.wait(0.05)
    stop.set()
    knocker.join()
    assert opened, "the credential worked at first"
    assert opened[-1] < revoked_at
