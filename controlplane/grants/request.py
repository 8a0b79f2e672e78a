"""Ask for a grant: decide, then issue at once or wait for people."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from controlplane.grants.asked import REMEMBERED, granted_scopes, unusual
from controlplane.grants.asked import asked as described
from controlplane.grants.decide import decide, granted_ttl
from controlplane.grants.identify import Rejections
from controlplane.grants.issue import Delivered, IssueGrant
from controlplane.grants.known import asking, ids
from controlplane.grants.line import begin, within
from controlplane.grants.narrow import with_values
from controlplane.grants.situate import Situate
from controlplane.model.canonical import JsonValue
from controlplane.model.decision import Allow, Decision, Deny, NeedsApproval, Reason
from controlplane.model.errors import (
    ClockOffError,
    ConflictError,
    DeniedError,
    FrozenError,
    KeyNeededError,
    LostRaceError,
    OverBudgetError,
    TokenReplayedError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State
from controlplane.model.identity import VerifiedClaims
from controlplane.model.network import Address
from controlplane.model.plan import Compiled
from controlplane.model.request import GrantRequest
from controlplane.model.review import opened
from controlplane.model.task import Line
from controlplane.ports import Clock, Engine, Entitlements, Ids, Policy, Recorder, Skew, Store
from controlplane.selectors import noted

MAX_SKEW = timedelta(seconds=30)
"""As far as issuers' tokens may be off; Vault itself takes no task JWT that is much further off."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestGrant:
    """From a wish to a grant. `issuing_within` bounds issuing; `settling` is when a late effect must show.

    `gate` raises while nothing may be granted at all.
    """

    clock: Clock
    ids: Ids
    record: Recorder
    entitlements: Entitlements
    engines: Mapping[str, Engine]
    store: Store
    situate: Situate
    policy: Policy
    issue: IssueGrant
    issuing_within: timedelta
    settling: timedelta
    skew: Skew
    gate: Callable[[], None]
    replays: Rejections = field(default_factory=Rejections)

    def __call__(
        self, who: VerifiedClaims, asked: GrantRequest, *, key: str | None = None, address: Address | None = None
    ) -> Delivered:
        """Decide on `asked`; with the same idempotency `key` again, only tell how that grant stands.

        `address` is the caller's, None where nobody vouches for one.

        Raises:
            DeniedError: a decision said no, with every reason; OverBudgetError: only a budget did.
            KeyNeededError: the caller's tokens are reusable, and the request has no key to be known again by.
            FrozenError: a freeze did, before or while it was being issued.
            ClockOffError: no deadline that this machine reckons could be relied on.
            ConflictError: the key was used for another request.
            TokenReplayedError: a single-use token asked for another grant before; nothing was made.
            StoreBehindError: the store was restored from a backup; nothing was decided.
            VaultUnavailableError, VaultRefusedError, NotSyncedError: see `IssueGrant`.
        """
        if key is None and who.single_use is None:
            raise KeyNeededError("tokens of this issuer can be used again: the request needs an Idempotency-Key")
        if key is not None and (grant := self.store.asked_before(who.workload, key)):
            return self._again(grant, asked)
        in_step(self.skew)
        self.gate()
        compiled = self.entitlements.get(asked.entitlement)
        try:
            decision, grant = self._decide(who, asked, compiled, key=key, address=address)
        except LostRaceError:
            if key is not None and (twin := self.store.asked_before(who.workload, key)):
                return self._again(twin, asked)
            raise
        except TokenReplayedError:
            self._tell_replay(who, asked)
            raise
        if compiled is None or grant is None:
            # What used the budget up may have been this very request, sent twice: then it was granted.
            if key is not None and (twin := self.store.asked_before(who.workload, key)):
                return self._again(twin, asked)
            with self.store.transaction() as tx:
                tx.append(self.record(Kind.GRANT_REFUSED, **told(asked, who, decision.reasons)))
            raise refusal(asked.entitlement, decision)
        if compiled.entitlement.break_glass:
            said = {"issuer": grant.issuer, "subject": grant.subject, "task": grant.task, "intent": grant.intent}
            log.warning("glass_broken", grant=grant.id, entitlement=grant.entitlement, **said)
        if grant.state is State.PENDING:
            return Delivered(grant=grant, leases=(), reasons=decision.reasons)
        return self.issue(grant, with_values(compiled, grant, self.engines), decision.reasons, who)

    def _decide(
        self,
        who: VerifiedClaims,
        asked: GrantRequest,
        compiled: Compiled | None,
        *,
        key: str | None,
        address: Address | None,
    ) -> tuple[Decision, Grant | None]:
        """Decide and save what was decided in one transaction: requests that race never exceed a budget."""
        entitlement = None if compiled is None else compiled.entitlement
        # Read before: within the transaction it would take another connection to the store.
        differs = () if compiled is None else self._unusual(who, asked, compiled)
        revision = None if compiled is None else compiled.revision
        rule = self.policy.now()  # before the transaction: it may read files, and every writer would wait
        with self.store.transaction() as tx:
            situation = self.situate(tx, entitlement, who, asked=asked, revision=revision, address=address)
            decision = decide(entitlement, who, asked, situation, rule)
            if compiled is None or situation.line is None or isinstance(decision, Deny):
                return decision, None
            facts = told(asked, who, decision.reasons)
            line, first = situation.line, _first_state(decision)
            grant = self._grant(who, asked, compiled, line=line, state=first, key=key, differs=differs)
            begin(tx, who, asked, line, at=grant.requested_at)
            kind = Kind.GRANT_ALLOWED if grant.state is State.ISSUING else Kind.GRANT_REQUESTED
            wanted = self._wanted(grant, compiled)
            under: dict[str, JsonValue] = {} if grant.under is None else {"under": grant.under}
            above = ids(line.above)
            note = noted(asking(who, asked, entitlement, address=address, above=above, paths=grant.paths))
            event = self.record(kind, grant.id, **facts, **under, revision=grant.revision, **wanted)
            tx.add(grant, event, note=note)
            if compiled.entitlement.break_glass:
                review = opened(grant.id, who, at=grant.requested_at)
                tx.open_review(review, self.record(Kind.GLASS_BROKEN, grant.id, **facts, revision=grant.revision))
            if who.single_use is not None:  # burnt before any effect, and stays so if issuing fails
                tx.spend(who.single_use, grant.id)
            return decision, grant

    def _grant(
        self,
        who: VerifiedClaims,
        asked: GrantRequest,
        compiled: Compiled,
        *,
        line: Line,
        state: State,
        key: str | None,
        differs: tuple[str, ...],
    ) -> Grant:
        now = self.clock.now()
        ttl = within(granted_ttl(compiled.entitlement, asked), line, at=now)
        scopes = None if line.cover is None else line.cover.scopes
        approval = compiled.entitlement.approval
        waiting = approval.within if approval is not None and state is State.PENDING else None
        grant = Grant(
            id=GrantId(self.ids.new("gr")),
            state=state,
            entitlement=compiled.entitlement.name,
            revision=compiled.revision,
            issuer=who.issuer,
            subject=who.subject,
            person=who.person,
            workload=who.workload,
            task=asked.task,
            intent=asked.intent,
            reason=asked.reason,
            ttl=ttl,
            unusual=differs,
            scopes=scopes,
            parameters=asked.parameters,
            under=None if line.cover is None else line.cover.id,
            idempotency_key=key,
            request_digest=asked.digest,
            requested_at=now,
            expires_at=now + (waiting or ttl),
            due_at=now + (waiting or self.issuing_within),
            settles_at=None if waiting else now + self.settling,
        )
        own = with_values(compiled, grant, self.engines)
        paths = (
            self.engines[scope.engine].ask(scope, own.naming, ttl=ttl).path
            for scope in granted_scopes(own.entitlement, scopes)
        )
        return replace(grant, paths=tuple(paths))

    def _tell_replay(self, who: VerifiedClaims, asked: GrantRequest) -> None:
        left_out = self.replays.admit(self.clock.now())
        if left_out is None:
            return
        facts = told(asked, who, ()) | ({"left_out_before": left_out} if left_out else {})
        with self.store.transaction() as tx:
            tx.append(self.record(Kind.TOKEN_REPLAYED, **facts))

    def _unusual(self, who: VerifiedClaims, asked: GrantRequest, compiled: Compiled) -> tuple[str, ...]:
        """What approvers shall know of this wish; nothing where nobody is asked."""
        entitlement = compiled.entitlement
        if entitlement.approval is None or not entitlement.admits(who):
            return ()
        before = self.store.grants(workload=who.workload, entitlement=entitlement.name, limit=REMEMBERED)
        return unusual(entitlement, compiled.revision, asked.intent, granted_ttl(entitlement, asked), before=before)

    def _wanted(self, grant: Grant, compiled: Compiled) -> dict[str, JsonValue]:
        """What an audit event says besides where people are asked."""
        approval = compiled.entitlement.approval
        if approval is None or grant.state is not State.PENDING:
            return {}
        wanted = described(grant, compiled, approval, self.engines)
        return {"digest": wanted.digest, "unusual": [*wanted.unusual], "until": grant.expires_at.isoformat()}

    def _again(self, grant: Grant, asked: GrantRequest) -> Delivered:
        if grant.request_digest != asked.digest:
            raise ConflictError("this Idempotency-Key was used for another request")
        return Delivered(grant=grant, leases=tuple(self.store.leases(grant.id)), reasons=())


def in_step(skew: Skew) -> None:
    """Raises: ClockOffError: our clock is so far off that deadlines and tokens would be misjudged."""
    ahead = skew()
    if ahead is not None and abs(ahead) > MAX_SKEW:
        way = "ahead of" if ahead > timedelta(0) else "behind"
        raise ClockOffError(f"this machine's clock is {abs(ahead).total_seconds():.0f} s {way} Vault's or the store's")


def told(asked: GrantRequest, who: VerifiedClaims, reasons: Iterable[Reason]) -> dict[str, JsonValue]:
    """What an audit event says of a decision: who asked for what, and why it was decided so."""
    return {
        "entitlement": asked.entitlement,
        "task": asked.task,
        **({} if asked.parent is None else {"parent": asked.parent}),
        "intent": asked.intent,
        "reason": asked.reason,
        **({"parameters": {**asked.parameters}} if asked.parameters else {}),
        "issuer": who.issuer,
        "subject": who.subject,
        "reasons": [
            {"decision": why.decision, "code": why.code, "detail": why.detail}
            | ({} if why.revision is None else {"revision": why.revision})
            for why in reasons
        ],
    }


def _first_state(decision: Allow | NeedsApproval) -> State:
    return State.ISSUING if isinstance(decision, Allow) else State.PENDING


def refusal(entitlement: str, decision: Decision) -> DeniedError:
    """What a workload is told whose wish was decided against."""
    said = f"{entitlement} was not granted"
    if isinstance(decision, Deny) and decision.frozen:
        return FrozenError(said, reasons=decision.reasons)
    if isinstance(decision, Deny) and decision.over_budget:
        return OverBudgetError(said, reasons=decision.reasons, retry_after=decision.retry_after)
    return DeniedError(said, reasons=decision.reasons)
