"""Whatever happens in whatever order: the log tells every state, the revoked is dead, all of it ends (L05, P3, P4)."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import jwt
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from typing_extensions import override

from controlplane.model.errors import ControlPlaneError, StoreUnavailableError, VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import TERMINAL, TRANSITIONS, Grant, GrantId, State, Why
from controlplane.model.lease import TokenFacts
from controlplane.model.secret import Secret
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

Looked = TypeVar("Looked")

MEANS = {
    Kind.GRANT_REQUESTED: State.PENDING,
    Kind.GRANT_ALLOWED: State.ISSUING,
    Kind.GRANT_LAPSED: State.LAPSED,
    Kind.GRANT_ISSUED: State.ACTIVE,
    Kind.GRANT_ENDED: State.REVOKING,
    Kind.GRANT_STRANDED: State.IRREVOCABLE,
    Kind.GRANT_HEALED: State.REVOKING,
    Kind.GRANT_REVOKED: State.REVOKED,
}
MOVES = {(before, after) for (before, _), after in TRANSITIONS.items()}
STEPS = (
    "commit grant.allowed",
    "signer.sign",
    "logins.login",
    "logins.facts",
    "commit task_token.issued",
    "logins.read",
    "commit lease.issued",
    "logins.wrap",
    "commit grant.issued",
    "commit grant.ended",
    "leases.revoke_token",
    "leases.facts",
    "prober.ask",
    "commit renewal.allowed",
    "leases.extend",
    "leases.renew",
    "commit grant.renewed",
    "commit renewal.undone",
    "commit lease.revoked grant.revoked",
)


class KilledError(BaseException):
    """What kill -9 is to a process: nothing of ours runs any more."""


class Life(RuleBasedStateMachine):
    """A control plane, its agents, and everything that can go wrong."""

    wraps = Bundle("wraps")

    def __init__(self) -> None:
        super().__init__()
        scope = {"engine": "database", "connection": "orders", "privileges": ["select on table sales.orders"]}
        self.plane = FakePlane(
            compiled_entitlement(),
            compiled_entitlement(
                entitlement="two-scopes", scopes=[{**scope, "name": "a"}, {**scope, "name": "b"}], heartbeat="30s"
            ),
            compiled_entitlement(entitlement="asks-people", approval={"quorum": 1, "from": ["group:oncall"]}),
        )

    @rule(
        target=wraps,
        entitlement=st.sampled_from(["orders-read", "two-scopes", "asks-people", "no-such-thing"]),
        key=st.sampled_from([None, None, "k-1", "k-2"]),
        ttl=st.sampled_from([None, timedelta(seconds=30), timedelta(minutes=15)]),
    )
    def ask(self, entitlement: str, key: str | None, ttl: timedelta | None) -> Any:  # noqa: ANN401 # a bundle's value
        delivered: list[Secret] = []

        def ask() -> None:
            given = self.plane.ask(entitlement=entitlement, key=key, ttl=ttl)
            delivered.extend([given.wrapping_token] if given.wrapping_token else [])

        self._survive(ask)
        return multiple(*delivered)

    @rule(token=consumes(wraps))
    def open(self, token: Secret) -> None:
        self._survive(lambda: self.plane.vault.unwrap(token))

    @rule(number=st.integers(0, 5), why=st.sampled_from([Why.COMPLETED, Why.FAILED]))
    def finish(self, number: int, why: Why) -> None:
        grants = self.plane.store.grants()
        if grants:
            id = grants[number % len(grants)].id
            self._survive(lambda: self.plane.finish(self.plane.agent(), id, why))

    @rule(number=st.integers(0, 5), ttl=st.sampled_from([None, timedelta(minutes=2), timedelta(minutes=12)]))
    def renew(self, number: int, ttl: timedelta | None) -> None:
        active = self.plane.store.grants(states=[State.ACTIVE])
        if active:
            id = active[number % len(active)].id
            self._survive(lambda: self.plane.renew(self.plane.agent(), id, ttl=ttl))

    @rule(number=st.integers(0, 5))
    def beat(self, number: int) -> None:
        grants = self.plane.store.grants()
        if grants:
            id = grants[number % len(grants)].id
            self._survive(lambda: self.plane.heartbeat(self.plane.agent(), id))

    @rule(span=st.sampled_from([timedelta(seconds=1), timedelta(seconds=20), timedelta(minutes=3)]))
    def pass_time_without_a_worker(self, span: timedelta) -> None:
        self.plane.clock.advance(span)

    @rule(span=st.sampled_from([timedelta(seconds=1), timedelta(seconds=20), timedelta(minutes=3)]))
    def pass_time(self, span: timedelta) -> None:
        self._survive(lambda: self.plane.wait(span))

    @rule()
    def work(self) -> None:
        self._survive(self.plane.work)

    @rule(sealed=st.booleans())
    def seal(self, sealed: bool) -> None:
        self.plane.vault.faults.sealed = sealed

    @rule(down=st.booleans(), given_up=st.booleans())
    def break_target(self, down: bool, given_up: bool) -> None:
        self.plane.vault.target.down, self.plane.vault.faults.given_up = down, given_up

    @rule(call=st.sampled_from(["login", "read", "wrap", "extend", "extended"]))
    def lose_an_answer(self, call: str) -> None:
        setattr(self.plane.vault.faults, f"lose_{call}", True)

    @rule()
    def delay_a_login(self) -> None:
        self.plane.journal.fail("before", "logins.login", VaultUnavailableError)

    @rule(step=st.sampled_from(STEPS), when=st.sampled_from(["before", "after"]))
    def kill_at(self, step: str, when: str) -> None:
        self.plane.journal.fail(when, step, KilledError)

    @rule(step=st.sampled_from([step for step in STEPS if step.startswith("commit")]))
    def fail_a_commit(self, step: str) -> None:
        self.plane.journal.fail("before", step, StoreUnavailableError)

    @rule(number=st.integers(0, 5))
    def crash_vault_while_it_revokes(self, number: int) -> None:
        active = self.plane.store.grants(states=[State.ACTIVE])
        if active and (tokens := self._tokens(active[number % len(active)])):
            self._unsealed(lambda: self.plane.vault.make_zombie(tokens[0].accessor))

    @rule()
    def let_a_late_login_arrive(self) -> None:
        now = self.plane.clock.now()
        burnt = [
            grant
            for grant in self.plane.store.grants()
            if grant.accessor is None and grant.settles_at is not None and now < grant.settles_at
        ]
        for grant in burnt:
            compiled = self.plane.entitlements.get(grant.entitlement)
            assert compiled is not None
            for assertion in self.plane.assertions:
                if _claims(assertion)["grant"] == grant.id:
                    self._survive(partial(self.plane.vault.logins.login, compiled.naming.base, assertion))

    @invariant()
    def the_log_alone_tells_every_state(self) -> None:
        told: dict[GrantId, State] = {}
        for event in self.plane.events():
            if event.kind in MEANS and event.grant is not None:
                id, after = GrantId(event.grant), MEANS[event.kind]
                assert (id not in told) or (told[id], after) in MOVES, f"{id}: {told[id]} -> {after}"
                told[id] = after
        assert told == {grant.id: grant.state for grant in self.plane.store.grants(limit=1000)}

    @invariant()
    def what_has_ended_is_dead(self) -> None:
        for grant in self.plane.store.grants(states=TERMINAL, limit=1000):
            principals = {lease.principal for lease in self.plane.store.leases(grant.id)}
            assert not principals & self.plane.vault.target.users, grant
            assert not [token for token in self._tokens(grant) if token.num_uses >= 0], grant

    @invariant()
    def nothing_lives_longer_than_its_entitlement_allows(self) -> None:
        longest = timedelta(minutes=15)
        for grant in self.plane.store.grants(states=[State.ACTIVE], limit=1000):
            assert grant.ttl <= longest
            assert grant.renewing_to is None or grant.renewing_to <= grant.began_at + longest
            assert grant.due_at is not None
            assert grant.due_at <= grant.expires_at

    @invariant()
    def whoever_lives_belongs_to_an_open_grant(self) -> None:
        if self.plane.vault.target.users:
            assert any(grant.open for grant in self.plane.store.grants(limit=1000))

    @override
    def teardown(self) -> None:
        vault = self.plane.vault
        vault.faults.sealed = vault.faults.given_up = vault.target.down = False
        self.plane.journal.before.clear()
        self.plane.journal.after.clear()
        self.plane.wait(timedelta(hours=2))
        assert {grant.state for grant in self.plane.store.grants(limit=1000)} <= {State.REVOKED, State.LAPSED}
        assert self.plane.alive() == []
        self.the_log_alone_tells_every_state()

    def _tokens(self, grant: Grant) -> list[TokenFacts]:
        logins = self.plane.vault.logins
        found = self._unsealed(lambda: [logins.facts(token) for token in logins.accessors_of(grant.id)])
        return [facts for facts in found if facts is not None]

    def _unsealed(self, look: Callable[[], Looked]) -> Looked:
        faults = self.plane.vault.faults
        sealed, faults.sealed = faults.sealed, False
        try:
            return look()
        finally:
            faults.sealed = sealed

    def _survive(self, act: Any) -> None:  # noqa: ANN401 # any call
        with contextlib.suppress(ControlPlaneError, KilledError):
            act()


def _claims(assertion: Secret) -> dict[str, Any]:
    return jwt.decode(assertion.reveal(), options={"verify_signature": False})


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
