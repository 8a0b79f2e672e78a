"""Issue a grant: log in as the task, read its credentials, hand them over wrapped.

The intent is on disk before the first side effect (`ISSUING` was committed by the caller), the accessor is on
disk before any credential is read, and every unknown outcome counts as "it happened": the grant id is burnt
and the worker cleans up by the token's metadata. Nothing here is ever tried twice. While the store writes, Vault is
asked what does not depend on it.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from controlplane.grants.asked import granted_scopes
from controlplane.grants.frozen import frozen
from controlplane.grants.known import ids
from controlplane.grants.narrow import own_roles
from controlplane.model.canonical import JsonObject
from controlplane.model.decision import Reason
from controlplane.model.entitlement import Delivery, Scope
from controlplane.model.errors import (
    ControlPlaneError,
    FrozenError,
    LostRaceError,
    NotSyncedError,
    ParametersOffError,
    RotationOffError,
    UnexpectedTokenError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, Step, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.lease import Credential, Lease, TaskToken, TokenFacts, Wrapped, is_leased
from controlplane.model.plan import Compiled, Layout, VaultObject
from controlplane.model.secret import Secret
from controlplane.ports import Clock, Engine, GrantRoles, Leases, Logins, Meanwhile, Recorder, Signer, Store, Wake

ASSERTION_LIFETIME = timedelta(seconds=15)
"""How long a task JWT is good for. Vault takes the same JWT twice, so it never leaves this process."""

CLAIM_CHECK = timedelta(seconds=3)
"""How long before its end a wrapping token is looked at: once it has run out, nobody can tell any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What the caller gets. Exactly one of `wrapping_token` and `credentials` is there for a new grant."""

    grant: Grant
    leases: tuple[Lease, ...]
    reasons: tuple[Reason, ...]
    wrapping_token: Secret | None = None
    credentials: Mapping[str, Mapping[str, Secret]] = field(default_factory=dict[str, Mapping[str, Secret]])


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueGrant:
    """From `ISSUING` to `ACTIVE`, or to `REVOKING`."""

    clock: Clock
    record: Recorder
    store: Store
    signer: Signer
    logins: Logins
    leases: Leases
    engines: Mapping[str, Engine]
    layout: Layout
    wake: Wake
    meanwhile: Meanwhile
    roles: GrantRoles | None = None
    """None where no role may be made for a single grant."""
    rotates: bool = False
    """Whether somebody may replace static secrets when the grant ends."""

    def __call__(self, grant: Grant, compiled: Compiled, reasons: tuple[Reason, ...], who: VerifiedClaims) -> Delivered:
        """Issue what was decided.

        Raises:
            NotSyncedError, VaultRefusedError: Vault said no; what it made before that is being revoked.
            VaultUnavailableError: something may have been made; it is being revoked.
            UnexpectedTokenError: Vault's role is not what we compiled; its token is being revoked.
            LostRaceError: somebody ended the grant meanwhile; what was made is being revoked.
            FrozenError: a freeze came meanwhile; what was made is being revoked.
            ParametersOffError: it needs roles of its own, and nobody may make them here; nothing was made.
            RotationOffError: its end would be a rotation, and nobody may do that here; nothing was made.
        """
        token: TaskToken | None = None
        try:
            self._see_endable(granted_scopes(compiled.entitlement, grant.scopes))
            self._make_roles(own_roles(compiled, grant))
            token = self.logins.login(compiled.naming.base, self.signer.sign(self._assertion(grant)))
            facts = self.meanwhile(partial(self.logins.facts, token.accessor))
            grant = self._save_accessor(grant, token)
            _check(facts(), grant, compiled)
            issued, wrapped = self._read_all(grant, compiled, token)
            return self._deliver(grant, compiled, issued, wrapped, reasons=reasons, who=who)
        except Exception as error:
            overtaken = self._burn(grant, token, error)
            if overtaken and isinstance(error, VaultRefusedError):  # its token was revoked under it
                raise LostRaceError(f"somebody ended {grant.id} while it was being issued") from None
            raise

    def _see_endable(self, scopes: Sequence[Scope]) -> None:
        if not self.rotates and any(scope.rotation for scope in scopes):
            raise RotationOffError("this control plane replaces no secrets, and so could not end this grant")

    def _make_roles(self, roles: Sequence[VaultObject]) -> None:
        """Before the login: as long as a role is there, an open grant of the store's answers for it."""
        if not roles:
            return
        if self.roles is None:
            raise ParametersOffError("this control plane makes no roles for single grants")
        self.roles.write(roles)

    def _assertion(self, grant: Grant) -> JsonObject:
        now = int(self.clock.now().timestamp())
        return {
            "aud": self.layout.audience,
            "sub": grant.workload,
            "jti": grant.id,
            "iat": now,
            "nbf": now,
            "exp": now + int(ASSERTION_LIFETIME.total_seconds()),
            "workload": f"{grant.issuer} {grant.subject}",
            **_metadata(grant),
        }

    def _save_accessor(self, grant: Grant, token: TaskToken) -> Grant:
        known = grant.but(accessor=token.accessor)
        with self.store.transaction() as tx:
            tx.save(known, self.record(Kind.TASK_TOKEN_ISSUED, grant.id, accessor=token.accessor))
        return known

    def _read_all(self, grant: Grant, compiled: Compiled, token: TaskToken) -> "tuple[_Issued, Wrapped | None]":
        *others, last = granted_scopes(compiled.entitlement, grant.scopes)
        issued: _Issued = []
        for scope in others:
            issued.append(self._read(grant, compiled, token, scope))
            self._save_lease(grant, issued[-1][0])
        issued.append(self._read(grant, compiled, token, last))
        wrapped = self.meanwhile(partial(self._wrap, grant, compiled, token, issued))
        self._save_lease(grant, issued[-1][0])
        return issued, wrapped()

    def _read(self, grant: Grant, compiled: Compiled, token: TaskToken, scope: Scope) -> tuple[Lease, Credential]:
        if grant.due_at is not None and self.clock.now() >= grant.due_at:
            raise VaultUnavailableError("issuing took too long; the worker may already be ending this grant")
        engine = self.engines[scope.engine]
        ask = engine.ask(scope, compiled.naming, ttl=grant.ttl)
        response = self.logins.read(token.token, ask)
        if not is_leased(response.lease) and engine.places(self.layout.mounts[scope.engine]).leases is not None:
            raise VaultUnavailableError(f"Vault made the credential for scope {scope.name} without a lease")
        try:
            credential = engine.receive(scope, response)
        except ValueError as error:
            raise VaultUnavailableError(f"Vault's answer for scope {scope.name} is not usable: {error}") from None
        now = self.clock.now()
        lease = Lease(
            id=credential.lease,
            scope=scope.name,
            engine=scope.engine,
            path=ask.path,
            target=engine.target(scope),
            principal=credential.principal,
            issued_at=now,
            expires_at=now + (grant.ttl if credential.lease_ttl is None else credential.lease_ttl),
            rotation=scope.rotation,
        )
        return lease, credential

    def _save_lease(self, grant: Grant, lease: Lease) -> None:
        told = {"lease": lease.id, "scope": lease.scope, "path": lease.path, "principal": lease.principal}
        with self.store.transaction() as tx:
            tx.add_leases(grant.id, [lease], self.record(Kind.LEASE_ISSUED, grant.id, **told))

    def _wrap(self, grant: Grant, compiled: Compiled, token: TaskToken, issued: "_Issued") -> Wrapped | None:
        # Vault's roles know one default; a grant that asked for another span gets it at Vault and at the target.
        others = [
            made.lease
            for _, made in issued
            if made.renewable and made.lease_ttl is not None and is_leased(made.lease)
            if abs(made.lease_ttl - grant.ttl) > _ROUNDING
        ]
        if others or grant.ttl != compiled.entitlement.ttl.default:
            self.leases.renew(token.accessor, others, grant.ttl)
        if compiled.entitlement.delivery is not Delivery.WRAPPED:
            return None
        return self.logins.wrap(token.token, _payload(issued), min(self.layout.wrap_ttl, grant.ttl))

    def _deliver(
        self,
        grant: Grant,
        compiled: Compiled,
        issued: "_Issued",
        wrapped: Wrapped | None,
        *,
        reasons: tuple[Reason, ...],
        who: VerifiedClaims,
    ) -> Delivered:
        due_at = grant.expires_at
        if wrapped is not None:
            # Counted from before it was wrapped: to look a little early is no harm, to look too late is.
            due_at = min(due_at, issued[-1][0].issued_at + wrapped.ttl - CLAIM_CHECK)
        now, every = self.clock.now(), compiled.entitlement.heartbeat
        first_beat = None if every is None else now + every
        active = grant.after(
            Step.DELIVER,
            issued_at=now,
            due_at=due_at if first_beat is None else min(due_at, first_beat),
            heartbeat_due_at=first_beat,
            settles_at=None,
            wrap_accessor=wrapped.accessor if wrapped else None,
        )
        told = {"delivery": str(compiled.entitlement.delivery), "expires_at": grant.expires_at.isoformat()}
        with self.store.transaction() as tx:
            # Here and not before: once a freeze has been answered, nothing of it reaches anybody any more (P8).
            freezes = tx.freezes(self.clock.now())
            above = ids(tx.lineage(grant.workload, grant.task)) if freezes else ()
            if stopped := frozen(freezes, who, grant, compiled.entitlement, above=above):
                raise FrozenError(f"{grant.entitlement} was frozen while it was being issued", reasons=stopped)
            tx.save(active, self.record(Kind.GRANT_ISSUED, grant.id, **told))
        return Delivered(
            grant=active,
            leases=tuple(lease for lease, _ in issued),
            reasons=reasons,
            wrapping_token=wrapped.token if wrapped else None,
            credentials={} if wrapped else _payload(issued),
        )

    def _burn(self, grant: Grant, token: TaskToken | None, error: Exception) -> bool:
        """Never use this grant id again: whatever was made under it is found and revoked by the worker.

        Whether somebody else has ended it already.
        """
        # Vault's own no is an answer: then everything that was made is known, and nothing has to settle.
        answered = isinstance(error, _ANSWERS)
        why = Why.REFUSED if answered and token is None else Why.INTERRUPTED
        if isinstance(error, FrozenError):
            why = Why.FROZEN
        now = self.clock.now()
        detail = error.detail if isinstance(error, ControlPlaneError) else type(error).__name__
        ended = grant.after(
            Step.END,
            why=why,
            revoking_at=now,
            due_at=now,
            accessor=token.accessor if token else None,
            settles_at=None if answered else grant.settles_at,
            failing=detail,
        )
        try:
            with self.store.transaction() as tx:
                tx.save(ended, self.record(Kind.GRANT_ENDED, grant.id, why=why, detail=detail))
            overtaken = False
        except ControlPlaneError as lost:
            overtaken = isinstance(lost, LostRaceError)
            # Somebody else ended it, or the store is gone. Either may not know the accessor, so use it now;
            # the worker would find the token by its metadata, later.
            if token is not None:
                with contextlib.suppress(ControlPlaneError):
                    self.leases.revoke_token(token.accessor)
        self.wake()
        return overtaken


_ANSWERS = (NotSyncedError, VaultRefusedError, UnexpectedTokenError, FrozenError, ParametersOffError, RotationOffError)
_Issued = list[tuple[Lease, Credential]]
_ROUNDING = timedelta(seconds=2)


def _payload(issued: _Issued) -> Mapping[str, Mapping[str, Secret]]:
    return {lease.scope: credential.fields for lease, credential in issued}


def _metadata(grant: Grant) -> dict[str, str]:
    """What Vault's own audit log shall know of the token; the JWT role copies these claims into its metadata."""
    return {
        "grant": grant.id,
        "issuer": grant.issuer,
        "subject": grant.subject,
        "entitlement": grant.entitlement,
        "revision": grant.revision,
        "task": grant.task,
        "intent": grant.intent,
    }


def _check(facts: TokenFacts | None, grant: Grant, compiled: Compiled) -> None:
    """Whether the token is exactly as planned: somebody may have edited the role in Vault since `apply`.

    Source: OpenBao docs, api/auth/token, "Lookup a token (accessor)"; docs/vault-facts.md on dangerous defaults.
    """
    expected = _metadata(grant)
    wrong = (
        ["it is not there"]
        if facts is None
        else [
            name
            for name, right in (
                ("type", facts.kind == "service"),
                ("policies", facts.policies == frozenset({compiled.naming.base})),
                ("explicit_max_ttl", facts.explicit_max_ttl == compiled.entitlement.ttl.max),
                ("ttl", timedelta(0) < facts.ttl <= compiled.entitlement.ttl.max),
                ("period", not facts.period),
                ("num_uses", facts.num_uses == 0),
                ("metadata", all(facts.metadata.get(key) == value for key, value in expected.items())),
            )
            if not right
        ]
    )
    if wrong:
        raise UnexpectedTokenError(f"Vault's token is not as planned: {', '.join(wrong)}")
