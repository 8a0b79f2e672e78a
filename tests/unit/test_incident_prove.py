"""Proving asks Vault and the targets again whatever the store believes; whois knows every name (P3, P10; C10, C23)."""

import json
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.incident.ask import Fact, Found, What
from controlplane.incident.prove import About, Proved
from controlplane.incident.whois import Told, Whose, spellings
from controlplane.model.access import Role, Standing
from controlplane.model.errors import (
    NotAllowedError,
    NotFoundError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, TaskId
from controlplane.model.orphan import OrphanKind
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

RESPONDER, AUDITOR = Standing(roles=frozenset({Role.RESPONDER})), Standing(roles=frozenset({Role.AUDITOR}))
GONE, ALIVE, UNKNOWN = Found.GONE, Found.ALIVE, Found.UNKNOWN
CERTIFICATE = [{"name": "client", "engine": "pki", "common_name": "checkout.agents.acme.example"}]
MANAGED = "NAMED LIKE OURS"


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="certs", scopes=CERTIFICATE))


def used(plane: FakePlane, task: str = "T-1", **more: Any) -> Grant:
    """A grant in use."""
    made = plane.ask(task=TaskId(task), **more)
    if made.wrapping_token is not None:
        plane.vault.unwrap(made.wrapping_token)
    return made.grant


def over(plane: FakePlane, task: str = "T-1", **more: Any) -> Grant:
    """One that is revoked, and proved to be."""
    return plane.end(used(plane, task, **more).id)


def cut(plane: FakePlane, selection: str) -> None:
    digest = plane.preview(plane.agent("ann"), RESPONDER, selection).digest or ""
    plane.cut(plane.agent("ann"), RESPONDER, digest, incident="INC-7", reason="leaked", freeze=False)
    plane.wait(timedelta(seconds=20))
    plane.work()


def prove(plane: FakePlane, *, strays: bool = True, before: GrantId | None = None, **about: Any) -> Proved:
    ((what, name),) = about.items()
    return plane.prove(plane.agent("bob"), AUDITOR, About(what), name, strays=strays, before=before)


def said(facts: Iterable[Fact]) -> list[tuple[What, Found]]:
    return [(fact.what, fact.found) for fact in facts]


def principal(plane: FakePlane, grant: Grant) -> str:
    (lease,) = plane.store.leases(grant.id)
    return lease.principal


def whois(plane: FakePlane, name: str) -> Told:
    return plane.whois(AUDITOR, name)


def test_p3_an_incident_is_proved_when_vault_and_the_target_say_so_now(plane: FakePlane) -> None:
    used(plane, "T-1")
    used(plane, "T-2")
    cut(plane, "task in (T-1, T-2)")
    proved = prove(plane, incident="INC-7")
    assert proved.proved
    assert [asked.due for asked in proved.asked] == [True, True]
    gone = [(What.TOKEN, GONE), (What.LEASE, GONE), (What.CREDENTIAL, GONE)]
    assert [said(asked.facts) for asked in proved.asked] == [gone, gone]
    assert all(fact.evidence and fact.at == plane.clock.now() for fact in proved.facts)
    assert proved.strays is not None
    assert (proved.strays.found, proved.strays.unasked, proved.next) == ([], [], None)
    (event,) = plane.events(Kind.INCIDENT_PROVED)
    assert {**event.body} == {
        "incident": "INC-7",
        "issuer": "dev",
        "subject": "bob",
        "grants": 2,
        "proved": True,
        "gone": 6,
        "alive": 0,
        "cannot-be-asked": 0,
        "strays": 0,
    }


def test_p3_a_user_that_somebody_made_again_is_found_though_the_store_says_that_it_is_revoked(plane: FakePlane) -> None:
    grant = over(plane)
    assert plane.grant(grant.id).receipt is not None
    name = principal(plane, grant)
    plane.vault.target.users.add(name)
    proved = prove(plane, grant=grant.id)
    assert not proved.proved
    assert said(proved.asked[0].facts) == [(What.TOKEN, GONE), (What.LEASE, GONE), (What.CREDENTIAL, ALIVE)]
    assert proved.strays is not None
    (stray,) = proved.strays.found  # it is in no group of ours any more, and found by its name
    assert (stray.kind, stray.name, stray.place) == (OrphanKind.LOGIN, name, "orders")
    assert not prove(plane, strays=False, subject=AGENT).proved
    assert not prove(plane, strays=False, principal=name).proved


def test_a_lease_that_came_back_is_found_at_vault(plane: FakePlane) -> None:
    grant = over(plane)
    path, back = grant.paths[0], timedelta(hours=1)
    lease = plane.vault.plant_lease(path, "v-sh-somebody", back)
    proved = prove(plane, grant=grant.id)
    assert proved.strays is not None
    found = {(stray.kind, stray.name) for stray in proved.strays.found}
    assert found == {(OrphanKind.LEASE, lease), (OrphanKind.LOGIN, "v-sh-somebody")}
    assert all(fact.found is GONE for fact in proved.facts)
    assert not proved.proved
    assert prove(plane, grant=grant.id, strays=False).proved


def test_a_token_of_ours_that_no_grant_knows_is_told(plane: FakePlane) -> None:
    grant = over(plane)
    plane.vault.logins.login(f"sh-{grant.entitlement}-{grant.revision}", plane.assertions[-1])
    proved = prove(plane, grant=grant.id)
    assert proved.strays is not None
    (stray,) = proved.strays.found
    assert (stray.kind, stray.grant, stray.detail) == (OrphanKind.TOKEN, grant.id, "its grant is revoked")
    assert not proved.proved


def test_what_is_in_use_may_live_unless_it_is_part_of_an_incident(plane: FakePlane) -> None:
    one, other = used(plane, "T-1"), over(plane, "T-2")
    proved = prove(plane, subject=AGENT)
    assert proved.proved
    assert {asked.grant.id: asked.due for asked in proved.asked} == {one.id: False, other.id: True}
    alive = next(asked for asked in proved.asked if asked.grant.id == one.id)
    assert said(alive.facts) == [(What.TOKEN, ALIVE), (What.LEASE, ALIVE), (What.CREDENTIAL, ALIVE)]
    plane.vault.target.down = True
    cut(plane, "task=T-1")
    assert not prove(plane, incident="INC-7", strays=False).proved
    plane.vault.target.down = False
    assert plane.grant(one.id).state is State.REVOKING  # so the store believes, and is not asked
    assert prove(plane, incident="INC-7", strays=False).proved


def test_what_has_run_out_is_due_before_anybody_has_ended_it(plane: FakePlane) -> None:
    grant = used(plane)
    plane.clock.advance(timedelta(minutes=6))
    assert prove(plane, grant=grant.id).asked[0].due


def test_r_who_cannot_be_asked_proves_nothing_and_is_waited_for_once(plane: FakePlane) -> None:
    grants = [over(plane, f"T-{number}") for number in range(3)]
    plane.vault.target.down = True
    before = plane.journal.steps.count("prober.ask")
    proved = prove(plane, subject=AGENT)
    assert plane.journal.steps.count("prober.ask") == before + 1
    assert [fact.found for fact in proved.facts if fact.what is What.CREDENTIAL] == [UNKNOWN] * len(grants)
    assert proved.strays is not None
    assert proved.strays.unasked == ["orders: orders does not answer"]
    assert not proved.proved
    plane.vault.target.down, plane.vault.faults.sealed = False, True
    sealed = prove(plane, subject=AGENT)
    assert {fact.found for fact in sealed.facts if fact.place == "vault"} == {UNKNOWN}
    assert {fact.found for fact in sealed.facts if fact.place == "orders"} == {GONE}
    assert sealed.strays is not None
    assert len(sealed.strays.unasked) == 2
    assert not sealed.proved


def test_a_certificate_that_nobody_can_be_asked_about_is_not_proved(plane: FakePlane) -> None:
    grant = over(plane, entitlement="certs")
    proved = prove(plane, grant=grant.id, strays=False)
    (fact,) = [fact for fact in proved.facts if fact.what is What.CREDENTIAL]
    assert (fact.found, proved.proved) == (UNKNOWN, False)
    assert fact.evidence


def test_a_name_that_no_grant_knows_is_asked_for_at_every_target(plane: FakePlane) -> None:
    plane.vault.target.users.add("v-sh-orders-r-unknown")
    alive = prove(plane, principal="v-sh-orders-r-unknown", strays=False)
    assert (said(alive.names), alive.proved) == ([(What.CREDENTIAL, ALIVE)], False)
    gone = prove(plane, principal="v-sh-orders-r-other", strays=False)
    assert (said(gone.names), gone.proved) == ([(What.CREDENTIAL, GONE)], True)


def test_many_grants_come_in_pages(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.incident.prove.AT_ONCE", 2)
    for number in range(5):
        used(plane, f"T-{number}")
        plane.clock.advance(timedelta(seconds=1))
    cut(plane, f'subject="{AGENT}"')
    abouts: list[dict[str, Any]] = [{"incident": "INC-7"}, {"subject": AGENT}]
    for about in abouts:
        seen: list[GrantId] = []
        before: GrantId | None = None
        for page in range(3):
            proved = prove(plane, before=before, **about)
            assert (proved.strays is None) is (page > 0)
            seen += [asked.grant.id for asked in proved.asked]
            before = proved.next
        assert before is None
        assert len(set(seen)) == len(seen) == 5


def test_proving_changes_nothing(plane: FakePlane) -> None:
    over(plane, "T-1")
    used(plane, "T-2")
    plane.vault.plant_lease(plane.newest().paths[0], "v-sh-somebody", timedelta(hours=1))
    before = plane.store.grants(), plane.alive(), plane.store.orphans()
    plane.journal.steps.clear()
    prove(plane, subject=AGENT)
    assert (plane.store.grants(), plane.alive(), plane.store.orphans()) == before
    looks = {"logins.facts", "leases.facts", "leases.under", "prober.ask"}
    assert set(plane.journal.steps) == {*looks, "commit incident.proved"}


def test_c8_only_responders_and_auditors_may_ask_and_about_what_there_is(plane: FakePlane) -> None:
    grant = over(plane)
    for roles in ((), (Role.APPROVER, Role.PLATFORM)):
        standing = Standing(roles=frozenset(roles))
        with pytest.raises(NotAllowedError):
            plane.prove(plane.agent("eve"), standing, About.GRANT, grant.id)
        with pytest.raises(NotAllowedError):
            plane.whois(standing, "x")
    strangers: list[dict[str, Any]] = [{"incident": "INC-8"}, {"grant": "gr_" + "z" * 24}, {"subject": "nobody"}]
    for unknown in strangers:
        with pytest.raises(NotFoundError):
            prove(plane, **unknown)
    assert not plane.events(Kind.INCIDENT_PROVED)


def test_whois_tells_grant_agent_task_intent_times_and_state_of_a_user_at_the_target(plane: FakePlane) -> None:
    grant = over(plane)
    told = whois(plane, f" {principal(plane, grant)}\n")
    assert (told.whose, told.by) == (Whose.KNOWN, "principal")
    (behind,) = told.behind
    assert (behind.grant.id, behind.grant.subject, behind.grant.task) == (grant.id, AGENT, "T-1")
    assert [lease.principal for lease in behind.leases] == [principal(plane, grant)]


def handles(plane: FakePlane, grant: Grant) -> dict[str, str]:
    (lease,) = plane.store.leases(grant.id)
    return {
        "principal": lease.principal,
        "lease": lease.id,
        "accessor": str(grant.accessor),
        "grant": f"application grant={grant.id} connected",
        "workload": f"shorthold-{grant.workload}",
    }


@pytest.mark.parametrize("by", ["principal", "lease", "accessor", "grant", "workload"])
@pytest.mark.parametrize("make", [used, over])
def test_whois_answers_for_whatever_handle_stands_in_some_log(
    plane: FakePlane, by: str, make: Callable[..., Grant]
) -> None:
    grant = make(plane)
    told = whois(plane, handles(plane, grant)[by])
    assert (told.whose, told.by) == (Whose.KNOWN, by)
    assert [behind.grant.id for behind in told.behind] == [grant.id]


@pytest.mark.parametrize(
    "written",
    [
        "00:00:00:00:00:00:00:0a:00:1f",
        "000000000000000A001F",
        "00-00-00-00-00-00-00-0A-00-1F",
        "0x000000000000000a001F",
    ],
)
def test_the_serial_of_a_certificate_is_known_in_every_spelling(written: str) -> None:
    assert "00:00:00:00:00:00:00:0a:00:1f" in spellings(written)


def test_serials_in_decimal_and_in_a_line_of_sshd_are_read_too() -> None:
    serial = 0x5F0A1B2C3D4E5F60718293A4B5C6D7E8F9012345
    assert "5f:0a:1b:2c:3d:4e:5f:60:71:82:93:a4:b5:c6:d7:e8:f9:01:23:45" in spellings(str(serial))
    assert "4711" in spellings("Accepted publickey for app: ED25519-CERT ID sh-shell (serial 4711) CA ED25519")


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("v-sh-orders-read-de7264fb-or-0123456789abcdefghij-1763834822", Whose.UNKNOWN),
        ("v-shorthol-sh-order-0123456789abcdefghij-1763834822", Whose.UNKNOWN),
        ("shorthold-wl_" + "0" * 32, Whose.UNKNOWN),
        ("wl_" + "0" * 32, Whose.UNKNOWN),
        ("sh-something", Whose.UNKNOWN),
        ("v-sh-prober-orders-0123456789abcdefghij-1763834822", Whose.PROBER),
        ("v-shorthol-sh-probe-0123456789abcdefghij-1763834822", Whose.PROBER),
        ("v-sh-probes-read-de7264fb-0123456789abcdefghij-1763834822", Whose.UNKNOWN),
        ("sh-orders-read-de7264fb-orders", Whose.ROLE),
        ("sh-orders-read-de7264fb", Whose.ROLE),
        ("postgres", Whose.NOT_OURS),
        ("v-root-readonly-0123456789abcdefghij-1763834822", Whose.NOT_OURS),
        ("sheila", Whose.NOT_OURS),
        ("gr_" + "z" * 24, Whose.NOT_OURS),
        ("%", Whose.NOT_OURS),
        ("'; drop table grants; --", Whose.NOT_OURS),
        (" ", Whose.NOT_OURS),
    ],
)
def test_an_unknown_name_is_told_to_be_like_ours_or_not_ours(plane: FakePlane, name: str, whose: Whose) -> None:
    over(plane)
    told = whois(plane, name)
    assert told.whose is whose
    assert (MANAGED in told.detail) is (whose is Whose.UNKNOWN)
    assert not told.behind or whose is Whose.ROLE


def test_a_role_of_ours_names_the_grants_that_may_have_used_it(plane: FakePlane) -> None:
    grant = over(plane)
    told = whois(plane, f"sh-{grant.entitlement}-{grant.revision}-orders")
    assert [behind.grant.id for behind in told.behind] == [grant.id]


def test_over_http_both_answer_as_described(http: Callable[..., Any], plane: FakePlane) -> None:
    grant = over(plane)
    plane.vault.target.users.add(principal(plane, grant))
    token = plane.issuer.mint("ann", jti="t-1", role="responder").reveal()
    sent = {"Authorization": f"Bearer {token}"}
    proof = http(plane, "POST", "/v1/incidents/prove", headers=sent, json={"about": "grant", "name": grant.id}).json()
    assert (proof["proved"], proof["grants"][0]["state"]) == (False, "revoked")
    assert [fact["found"] for fact in proof["grants"][0]["facts"]] == ["gone", "gone", "alive"]
    assert len(proof["strays"]) == 1
    told = http(plane, "POST", "/v1/whois", headers=sent, json={"name": principal(plane, grant)}).json()
    assert (told["whose"], told["behind"][0]["grant"]["id"]) == ("known", grant.id)
    for body in ({}, {"about": "grant"}, {"about": "everything", "name": "x"}, {"about": "subject", "name": ""}):
        assert http(plane, "POST", "/v1/incidents/prove", headers=sent, json=body).status_code == 422
    assert not re.search(r"password-\d", json.dumps([proof, told]))
