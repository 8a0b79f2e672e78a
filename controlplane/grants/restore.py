"""After a restore: say what Vault has and the store does not, and, once somebody decided, adopt it or let it end.

Adopting makes a grant of each living task token whose metadata tells a whole one; its leases cannot be told from
those of its rivals, so none is written down: they end with the token, and its receipt says that nobody learned of
them. Whatever is not adopted is an orphan, which the reconciler ends as soon as the store counts again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from controlplane.grants.epoch import Compared, Epochs
from controlplane.model.errors import IllegalTransitionError, LostRaceError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, Revision, State, Step, TaskId
from controlplane.model.identity import IssuerName, workload_id
from controlplane.model.lease import Accessor, TokenFacts
from controlplane.model.task import Task
from controlplane.ports import Census, Clock, Recorder, Store

_TOLD = ("grant", "issuer", "subject", "entitlement", "revision", "task", "intent")
_PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What a restore left apart. `unknown` are living task tokens that no open grant of the store has.

    `forgotten` are grants that the store calls active and whose tokens Vault does not know.
    """

    compared: Compared
    unknown: Sequence[TokenFacts]
    forgotten: Sequence[Grant]

    @property
    def adoptable(self) -> Sequence[TokenFacts]:
        """Those whose metadata tells a whole grant."""
        return [token for token in self.unknown if all(token.metadata.get(name) for name in _TOLD)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """`settling` is how long after a login its reads may still show."""

    clock: Clock
    record: Recorder
    store: Store
    census: Census
    epochs: Epochs
    settling: timedelta

    def difference(self) -> Difference:
        """Look at both sides; nothing is changed but that a restore which is found is written down.

        Raises: VaultUnavailableError, VaultRefusedError, StoreUnavailableError.
        """
        compared = self.epochs.compare()
        active = list(self._active())
        survey = self.census.survey(self.store.held_tokens)
        unknown: dict[Accessor, TokenFacts] = {}
        while new := [token for token in survey.tokens if token.accessor not in unknown]:
            unknown.update((token.accessor, token) for token in new)
            survey = self.census.survey(lambda some: self.store.held_tokens(some) | frozenset(unknown))
        return Difference(
            compared=compared,
            unknown=[token for token in unknown.values() if not self._is_open(token)],
            forgotten=[grant for grant in active if grant.accessor not in survey.listed],
        )

    def adopt(self, found: Difference) -> int:
        """Make a grant of every token that tells one, and take the store for the right one. How many were made."""
        places = self.census.places()
        adopted = sum(self._adopt(token, places) for token in found.adoptable)
        self.epochs.confirm(decided="adopt", adopted=adopted, seq=found.compared.seq)
        return adopted

    def end(self, found: Difference) -> None:
        """Take the store for the right one as it is: the reconciler ends what it does not know."""
        self.epochs.confirm(decided="end", unknown=len(found.unknown), seq=found.compared.seq)

    def _adopt(self, token: TokenFacts, places: Iterable[str]) -> bool:
        now, told = self.clock.now(), token.metadata
        if self.store.grant(GrantId(told["grant"])) is not None:
            return False  # it ended here before the backup was made: its token is an orphan
        base = f"-{told['entitlement']}-{told['revision']}-"
        begun = now - max(token.explicit_max_ttl - token.ttl, timedelta(0))
        issuing = Grant(
            id=GrantId(told["grant"]),
            state=State.ISSUING,
            entitlement=told["entitlement"],
            revision=Revision(told["revision"]),
            issuer=IssuerName(told["issuer"]),
            subject=told["subject"],
            workload=workload_id(IssuerName(told["issuer"]), told["subject"]),
            task=TaskId(told["task"]),
            intent=told["intent"],
            reason="adopted from Vault after the store was restored",
            ttl=max(token.ttl, timedelta(seconds=1)),
            request_digest=_NO_DIGEST,
            paths=tuple(path for path in places if base in path),
            requested_at=begun,
            expires_at=now + token.ttl,
            due_at=now + token.ttl,
            settles_at=now + self.settling,
            accessor=token.accessor,
        )
        active = issuing.after(Step.DELIVER, issued_at=now)
        try:
            with self.store.transaction() as tx:
                tx.begin_task(Task(workload=issuing.workload, id=issuing.task, begun_at=begun))
                tx.add(issuing)
                tx.save(active, self.record(Kind.GRANT_ADOPTED, issuing.id, accessor=token.accessor, **told))
        except (LostRaceError, IllegalTransitionError):
            return False  # of a task that is finished: its token is an orphan
        return True

    def _is_open(self, token: TokenFacts) -> bool:
        """Whether its grant is being issued or interrupted: then its own worker sees to it."""
        grant = self.store.grant(GrantId(token.metadata.get("grant", "")))
        return grant is not None and grant.open and grant.accessor in {None, token.accessor}

    def _active(self) -> Iterable[Grant]:
        last: GrantId | None = None
        while page := self.store.grants(states=[State.ACTIVE], before=last, limit=_PAGE):
            yield from page
            last = page[-1].id


_NO_DIGEST = "0" * 64
"""No request was kept, so none with its idempotency key can be repeated."""
