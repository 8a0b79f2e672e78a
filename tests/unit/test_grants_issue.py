"""Issuing: the intent is on disk before each side effect, and only a token exactly as planned is used (P1, P2, P4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from jwt.types import Options

from controlplane.grants.issue import ASSERTION_LIFETIME, CLAIM_CHECK
from controlplane.model.errors import ControlPlaneError, NotSyncedError, UnexpectedTokenError, VaultRefusedError
from controlplane.model.event import Kind
from controlplane.model.grant import State, TaskId, Why
from controlplane.model.lease import Accessor, TokenFacts
from controlplane.model.request import GrantRequest
from controlplane.ports import Logins, Meanwhile
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.meanwhile import at_once, at_the_latest
from controlplane.testing.plane import AGENT, FakePlane

# The plane has a clock of its own, which stands still in a year of its own.
_UNTIMED: Options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}
TWO_SCOPES = [
    {
        "name": name,
        "engine": "database",
        "connection": "orders",
        "privileges": [f"select on table sales.{name}"],
    }
    for name in ("orders", "customers")
]
CERTIFICATE = [{"name": "client", "engine": "pki", "common_name": "checkout.agents.acme.example"}]


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(scopes=TWO_SCOPES))


@pytest.mark.parametrize("meanwhile", [at_once, at_the_latest])
def test_each_effect_comes_after_the_commit_that_makes_it_findable(meanwhile: Meanwhile) -> None:
    plane = FakePlane(compiled_entitlement(scopes=TWO_SCOPES), meanwhile=meanwhile)
    plane.ask()
    steps = plane.journal.steps
    first = {step: steps.index(step) for step in steps}
    last = {step: place for place, step in enumerate(steps)}
    assert steps[0] == "commit grant.allowed"
    assert first["logins.login"] < first["commit task_token.issued"] < first["logins.read"]
    assert first["logins.login"] < first["logins.facts"] < first["logins.read"]
    assert steps.count("logins.read") == len(TWO_SCOPES)
    leases = [place for place, step in enumerate(steps) if step.count("lease.issued")]
    assert last["logins.read"] < leases[-1] < first["commit grant.issued"]
    assert last["logins.read"] < first["logins.wrap"] < first["commit grant.issued"]
    assert steps[-1] == "commit grant.issued"
    assert len(plane.events(Kind.LEASE_ISSUED)) == len(TWO_SCOPES)


def test_what_was_granted_opens_once_at_vault_and_is_nowhere_else(plane: FakePlane) -> None:
    delivered = plane.ask()
    assert delivered.grant == plane.grant(delivered.grant.id)
    assert delivered.grant.state is State.ACTIVE
    assert delivered.credentials == {}
    assert delivered.wrapping_token is not None
    opened = plane.vault.unwrap(delivered.wrapping_token)
    assert {scope: set(fields) for scope, fields in opened.items()} == {
        "orders": {"username", "password"},
        "customers": {"username", "password"},
    }
    assert {fields["username"].reveal() for fields in opened.values()} == plane.vault.target.users
    assert [lease.principal for lease in delivered.leases] == [opened[s]["username"].reveal() for s in opened]
    with pytest.raises(VaultRefusedError):
        plane.vault.unwrap(delivered.wrapping_token)
    kept = repr((plane.store.grants(), plane.store.leases(delivered.grant.id), plane.events()))
    for fields in opened.values():
        assert fields["password"].reveal() not in kept
    assert delivered.wrapping_token.reveal() not in kept


def test_an_active_grant_has_nothing_unseen_left_and_is_looked_at_shortly_before_its_wrap_ends(
    plane: FakePlane,
) -> None:
    grant = plane.ask().grant
    assert grant.settles_at is None
    assert grant.due_at == plane.clock.now() + LAYOUT.wrap_ttl - CLAIM_CHECK
    assert grant.expires_at == plane.clock.now() + timedelta(minutes=5)
    assert grant.issued_at == plane.clock.now()


def test_the_task_jwt_names_the_grant_lives_seconds_and_asks_for_no_power(plane: FakePlane) -> None:
    grant = plane.ask(task="T-7").grant
    (assertion,) = plane.assertions
    now = int(plane.clock.now().timestamp())
    claims = jwt.decode(assertion.reveal(), plane.task_key_pem, ["ES256"], options=_UNTIMED)
    assert claims == {
        "aud": LAYOUT.audience,
        "sub": grant.workload,
        "jti": grant.id,
        "iat": now,
        "nbf": now,
        "exp": now + int(ASSERTION_LIFETIME.total_seconds()),
        "workload": f"dev {AGENT}",
        "grant": grant.id,
        "issuer": "dev",
        "subject": AGENT,
        "entitlement": "orders-read",
        "revision": grant.revision,
        "task": "T-7",
        "intent": "answer-question",
    }
    assert timedelta(seconds=15) >= ASSERTION_LIFETIME


def test_the_task_token_tells_vault_s_own_audit_log_who_and_what_for(plane: FakePlane) -> None:
    grant = plane.ask().grant
    assert grant.accessor is not None
    facts = plane.vault.logins.facts(grant.accessor)
    assert facts is not None
    assert {key: facts.metadata[key] for key in ("grant", "subject", "task", "intent")} == {
        "grant": grant.id,
        "subject": AGENT,
        "task": "T-1",
        "intent": "answer-question",
    }


@pytest.mark.parametrize("minutes", [1, 4, 15])
def test_another_ttl_than_the_default_is_what_token_and_leases_get(plane: FakePlane, minutes: int) -> None:
    ttl = timedelta(minutes=minutes)
    delivered = plane.ask(ttl=ttl)
    assert delivered.grant.expires_at == plane.clock.now() + ttl
    assert delivered.grant.accessor is not None
    token = plane.vault.logins.facts(delivered.grant.accessor)
    leases = [plane.vault.leases.facts(lease.id) for lease in delivered.leases]
    assert [facts.ttl for facts in (token, *leases) if facts is not None] == [ttl] * 3


def test_the_default_ttl_costs_no_renewal(plane: FakePlane) -> None:
    plane.ask(ttl=timedelta(minutes=5))
    assert "leases.renew" not in plane.journal.steps


def test_a_certificate_is_asked_for_with_the_ttl_of_the_grant_and_needs_no_renewal_of_its_lease() -> None:
    plane = FakePlane(compiled_entitlement(scopes=CERTIFICATE))
    delivered = plane.ask(ttl=timedelta(minutes=3))
    (lease,) = delivered.leases
    facts = plane.vault.leases.facts(lease.id)
    assert facts is not None
    assert facts.ttl == timedelta(minutes=3)


def test_a_wrapping_token_never_outlives_its_grant(plane: FakePlane) -> None:
    grant = plane.ask(ttl=timedelta(seconds=20)).grant
    assert grant.wrap_accessor is not None
    wrap = plane.vault.logins.facts(grant.wrap_accessor)
    assert wrap is not None
    assert wrap.ttl == timedelta(seconds=20)


def test_inline_delivery_hands_the_credentials_over_and_wraps_nothing() -> None:
    plane = FakePlane(compiled_entitlement(delivery="inline"))
    delivered = plane.ask()
    assert delivered.wrapping_token is None
    assert delivered.credentials["orders"]["username"].reveal() in plane.vault.target.users
    assert "logins.wrap" not in plane.journal.steps
    assert (delivered.grant.due_at, delivered.grant.wrap_accessor) == (delivered.grant.expires_at, None)


@pytest.mark.parametrize("error", [NotSyncedError, VaultRefusedError])
def test_a_refused_login_made_nothing_so_its_grant_is_revoked_at_once(
    plane: FakePlane, error: type[ControlPlaneError]
) -> None:
    if error is NotSyncedError:
        plane.vault.roles.delete(plane.vault.roles.read(LAYOUT)[_jwt_role(plane)])
    else:
        plane.journal.fail("before", "logins.login", error)
    with pytest.raises(error):
        plane.ask()
    assert plane.woken == 1
    plane.work()
    grant = plane.newest()
    assert (grant.state, grant.why, grant.accessor) == (State.REVOKED, Why.REFUSED, None)
    assert grant.receipt is not None
    assert grant.receipt.ended == ()
    assert "logins.read" not in plane.journal.steps
    assert "logins.accessors_of" not in plane.journal.steps  # nothing was made: nothing is searched for


UNPLANNED: list[dict[str, Any] | None] = [
    {"kind": "batch"},
    {"policies": frozenset({"default"})},
    {"policies": frozenset()},
    {"explicit_max_ttl": timedelta(0)},
    {"explicit_max_ttl": timedelta(days=32)},
    {"ttl": timedelta(days=32)},
    {"ttl": timedelta(0)},
    {"period": timedelta(minutes=1)},
    {"num_uses": 1},
    {"metadata": {}},
    {"metadata": {"grant": "gr_of_somebody_else"}},
    None,
]


@pytest.mark.parametrize("changes", UNPLANNED, ids=repr)
def test_a_token_that_is_not_exactly_as_planned_is_never_used_and_is_revoked(
    plane: FakePlane, changes: Mapping[str, Any] | None
) -> None:
    lying = _Lying(plane.vault.logins, changes)
    request = replace(plane.request, issue=replace(plane.issue, logins=lying))
    asked = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question")
    with pytest.raises(UnexpectedTokenError) as refused:
        request(plane.agent(), asked)
    if changes is not None:
        assert next(iter(changes)).replace("kind", "type") in refused.value.detail
    assert lying.reads == 0
    plane.work()
    assert plane.alive() == []
    assert plane.newest().why is Why.INTERRUPTED


def test_an_extra_policy_in_the_role_is_told_as_drift(plane: FakePlane) -> None:
    role = plane.vault.roles.read(LAYOUT)[_jwt_role(plane)]
    plane.vault.roles.write(replace(role, data={"token_policies": [_base(plane), "admin"]}))
    with pytest.raises(UnexpectedTokenError, match="policies") as refused:
        plane.ask()
    assert "sync plan" in refused.value.hint


@dataclass
class _Lying:
    """Fits Logins: says of every token what it is told to."""

    logins: Logins
    changes: Mapping[str, Any] | None
    reads: int = 0

    def facts(self, accessor: Accessor) -> TokenFacts | None:
        found = self.logins.facts(accessor)
        assert found is not None
        return None if self.changes is None else replace(found, **self.changes)

    def read(self, *_: object) -> None:
        self.reads += 1

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.logins, name)


def _jwt_role(plane: FakePlane) -> str:
    return f"auth/{LAYOUT.auth_mount}/role/{_base(plane)}"


def _base(plane: FakePlane) -> str:
    compiled = plane.entitlements.get("orders-read")
    assert compiled is not None
    return compiled.naming.base
