"""Try a revision before it goes live: issue one credential of it, end it, and see it proved gone.

The canary is a grant like any other, on disk before its first effect: killed anywhere, the worker ends it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from controlplane.grants.issue import IssueGrant
from controlplane.grants.revoke import RevokeGrant
from controlplane.model.canary import ISSUER, SUBJECT
from controlplane.model.errors import CanaryFailedError, ControlPlaneError, LostRaceError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State, Step, TaskId, Why
from controlplane.model.identity import VerifiedClaims, workload_id
from controlplane.model.plan import Compiled
from controlplane.ports import Clock, Engine, Ids, Recorder, Store

_PAUSE: Final = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True, kw_only=True)
class TryRevision:
    """One canary. `within` is how long its end may take to be proved."""

    clock: Clock
    ids: Ids
    record: Recorder
    store: Store
    engines: Mapping[str, Engine]
    issue: IssueGrant
    revoke: RevokeGrant
    pause: Callable[[timedelta], None]
    issuing_within: timedelta
    settling: timedelta
    within: timedelta = timedelta(seconds=20)

    def __call__(self, compiled: Compiled) -> None:
        """Return once the canary is proved gone. Repeating it makes another one.

        Raises:
            CanaryFailedError: it was not issued, or not proved gone in time: the worker goes on ending it.
            StoreUnavailableError: nothing was made, or the worker ends it.
        """
        grant = self._grant(compiled)
        now = self.clock.now()
        # Nobody's token: the control plane itself asks, and Vault lets it in where only the canary may log in.
        who = VerifiedClaims(
            issuer=ISSUER, subject=SUBJECT, claims={}, issued_at=now, expires_at=now + self.issuing_within
        )
        with self.store.transaction() as tx:
            told = {"entitlement": grant.entitlement, "revision": grant.revision, "canary": True}
            tx.add(grant, self.record(Kind.GRANT_ALLOWED, grant.id, **told))
        try:
            issued = self.issue(grant, compiled, (), who).grant
        except ControlPlaneError as error:
            raise self._failed(compiled, f"its canary was not issued: {error.detail}") from error
        self._end(issued, compiled)

    def _end(self, issued: Grant, compiled: Compiled) -> None:
        now = self.clock.now()
        # Until then its end is ours to prove; after that, whoever works through what is due.
        ending = issued.after(Step.END, why=Why.COMPLETED, revoking_at=now, due_at=now + self.within)
        try:
            with self.store.transaction() as tx:
                tx.save(ending, self.record(Kind.GRANT_ENDED, issued.id, why=Why.COMPLETED))
        except LostRaceError:
            ending = self._stands(issued)
        while ending.state is not State.REVOKED:
            try:
                ending = self.revoke(ending)
            except LostRaceError:
                ending = self._stands(ending)
            if ending.state is State.REVOKED:
                return
            if self.clock.now() >= now + self.within:
                raise self._failed(compiled, f"its canary is not gone: {ending.failing}")
            self.pause(_PAUSE)

    def _stands(self, grant: Grant) -> Grant:
        return self.store.grant(grant.id) or grant

    @staticmethod
    def _failed(compiled: Compiled, why: str) -> CanaryFailedError:
        return CanaryFailedError(f"revision {compiled.revision} of {compiled.entitlement.name} does not go live: {why}")

    def _grant(self, compiled: Compiled) -> Grant:
        now, ttl = self.clock.now(), compiled.entitlement.ttl.default
        id = GrantId(self.ids.new("gr"))
        return Grant(
            id=id,
            state=State.ISSUING,
            entitlement=compiled.entitlement.name,
            revision=compiled.revision,
            issuer=ISSUER,
            subject=SUBJECT,
            workload=workload_id(ISSUER, SUBJECT),
            task=TaskId(f"canary-{id}"),
            intent=compiled.entitlement.intents[0],
            reason="a new revision is tried before it goes live",
            ttl=ttl,
            request_digest=compiled.revision,
            paths=tuple(
                self.engines[scope.engine].ask(scope, compiled.naming, ttl=ttl).path
                for scope in compiled.entitlement.scopes
            ),
            requested_at=now,
            expires_at=now + ttl,
            due_at=now + self.issuing_within,
            settles_at=now + self.settling,
        )
