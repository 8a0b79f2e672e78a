"""Preview: what a cut of this selection would end, and what its freeze would refuse; nothing is changed by looking."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from controlplane.grants.known import asking
from controlplane.model.access import Role, Standing
from controlplane.model.approval import Approver
from controlplane.model.cut import LeaseGroup, Preview, Surveyed, digest_of
from controlplane.model.entitlement import Entitlement, Revocability, matches
from controlplane.model.errors import InvalidRequestError, LostRaceError, TargetUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, TaskId
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.model.lease import Lease
from controlplane.model.request import GrantRequest
from controlplane.model.selection import Kept, Operator, Selection, Term
from controlplane.ports import Clock, Engine, Entitlements, Recorder, Roster, Store
from controlplane.selectors import asked_for, selection

_SAMPLE = 1_000
"""Grants that a preview names one by one; all of them are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The leases of one engine at one target: what ending one can mean, and how many sessions they have open now.

    `sessions` is None where nobody can ask the target, or it does not answer: then `unknown` says why.
    """

    engine: str
    target: str
    count: int
    revocability: Revocability | None
    sessions: int | None
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soft:
    """Grants whose open sessions may outlive them: those with a credential read at `path`, and `why`.

    `sessions` is how many they have open now, None where the target does not say.
    """

    path: str
    grants: Sequence[GrantId]
    sessions: int | None
    why: str


Softness = Callable[[str], str]
"""Why sessions may outlive logins that were read at a path, as Vault has it now; "" where they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Requests that a freeze of the same selection would refuse; `when` is empty where that is all of them."""

    entitlement: str
    when: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """What was seen. `digest` names it in a cut; None where nothing is selected, and nothing can be cut."""

    digest: str | None
    preview: Preview
    surveyed: Surveyed
    owners: Mapping[str, str | None]
    opened: Sequence[Opened]
    refusals: Sequence[Refusal]
    unfreezable: Sequence[str]
    everything: bool
    sample: Sequence[Grant]
    soft: Sequence[Soft] | None
    """Of the sample; None where nobody asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSelection:
    """What a responder looks at before he cuts. `rosters` are those who can say who is logged in, by target.

    `softness` is None where nobody here may read roles.
    """

    clock: Clock
    record: Recorder
    store: Store
    entitlements: Entitlements
    engines: Mapping[str, Engine]
    rosters: Mapping[str, Roster]
    softness: Softness | None = None

    def __call__(self, who: VerifiedClaims, standing: Standing, text: str, *, harden: bool = False) -> Previewed:
        """What `text` selects now of all that has not ended. Ask again for what is so later.

        With `harden` the roles that it was read by are looked at: does ending them end their sessions, too?

        Raises:
            NotAllowedError: the caller is no responder.
            InvalidSelectionError: `text` is no selection.
            InvalidRequestError: nobody here may look at roles.
        """
        standing.must_be(Role.RESPONDER)
        if harden and self.softness is None:
            raise InvalidRequestError("nobody here may look at roles in Vault: the settings have no vault.drift")
        wanted, at = selection(text), self.clock.now()
        surveyed = self.store.survey(wanted, at)
        shown = Preview(
            digest=digest_of(str(wanted), at, surveyed),
            selection=str(wanted),
            at=at,
            count=surveyed.count,
            issuer=who.issuer,
            subject=who.subject,
        )
        if surveyed.count:
            self._save(shown)
        sample = self.store.open_selected(wanted, at, limit=_SAMPLE)
        return Previewed(
            digest=shown.digest if surveyed.count else None,
            preview=shown,
            surveyed=surveyed,
            owners={name: self._owner(name) for name in {group.entitlement for group in surveyed.groups}},
            opened=[self._opened(wanted, at, leases) for leases in surveyed.leases],
            refusals=self._refusals(wanted),
            unfreezable=wanted.beyond_requests,
            everything=is_everything(wanted, surveyed),
            sample=sample,
            soft=self._soft(sample, self.softness) if harden and self.softness is not None else None,
        )

    def _soft(self, sample: Sequence[Grant], softness: Softness) -> Sequence[Soft]:
        paths = sorted({path for grant in sample for path in grant.paths})
        found = [(path, why) for path in paths if (why := softness(path))]
        return [self._softly(path, why, [grant.id for grant in sample if path in grant.paths]) for path, why in found]

    def _softly(self, path: str, why: str, grants: Sequence[GrantId]) -> Soft:
        held = [lease for grant in grants for lease in self.store.leases(grant) if lease.path == path]
        theirs = frozenset(lease.principal for lease in held).intersection
        open_at = [self._sessions(target, theirs) for target in _targets(held)]
        known = [sessions for sessions, _ in open_at if sessions is not None]
        return Soft(path=path, grants=grants, sessions=sum(known) if len(known) == len(open_at) else None, why=why)

    def _save(self, shown: Preview) -> None:
        told = {"selection": shown.selection, "digest": shown.digest, "grants": shown.count}
        by = {"issuer": shown.issuer, "subject": shown.subject}
        try:
            with self.store.transaction() as tx:
                tx.preview(shown, self.record(Kind.SELECTION_PREVIEWED, **told, **by))
        except LostRaceError:
            if self.store.previewed(shown.digest) is None:
                raise
            # Somebody saw just the same in the same instant: that is the same preview.

    def _owner(self, entitlement: str) -> str | None:
        found = self.entitlements.get(entitlement)
        return None if found is None else found.entitlement.owner

    def _opened(self, wanted: Selection, at: datetime, leases: LeaseGroup) -> Opened:
        engine = self.engines.get(leases.engine)
        theirs = partial(self.store.selected_principals, wanted, at, leases.engine, leases.target)
        sessions, unknown = self._sessions(leases.target, theirs)
        return Opened(
            engine=leases.engine,
            target=leases.target,
            count=leases.count,
            revocability=None if engine is None else engine.revocability,
            sessions=sessions,
            unknown=unknown,
        )

    def _sessions(self, target: str, theirs: Callable[[Iterable[str]], frozenset[str]]) -> tuple[int | None, str]:
        """How many sessions the logins have open there that are `theirs`; None, and why, where nobody says."""
        roster = self.rosters.get(target)
        if roster is None:
            return None, "nobody can ask this target who is logged in"
        try:
            open_now = {one.name: one.sessions for one in roster.logins(target) if one.sessions}
            return sum(open_now[name] for name in theirs(open_now)), ""
        except TargetUnavailableError as error:
            return None, error.detail

    def _refusals(self, wanted: Selection) -> Sequence[Refusal]:
        if wanted.beyond_requests:
            return []
        found = [self._refusal(wanted, compiled.entitlement) for compiled in self.entitlements.all()]
        return [one for one in found if one is not None]

    def _refusal(self, wanted: Selection, entitlement: Entitlement) -> Refusal | None:
        """What of an entitlement would be refused: what its document decides is decided, the rest is said."""
        request = GrantRequest(entitlement=entitlement.name, task=TaskId(""), intent="")
        known = asked_for(asking(_NOBODY, request, entitlement))
        left = tuple(term for term in wanted.terms if _of_each_request(term))
        decided = [term for term in wanted.terms if term not in left]
        if not all(term.holds(known) for term in decided) or not _may_come(left, entitlement):
            return None
        return Refusal(entitlement=entitlement.name, when=str(Selection(terms=left)) if left else "")


def _targets(leases: Iterable[Lease]) -> Sequence[str]:
    return sorted({lease.target.name for lease in leases})


def is_everything(wanted: Selection, surveyed: Surveyed) -> bool:
    """Whether it takes everything that there is, and says of nothing that just this is meant."""
    return wanted.everything or (not wanted.narrows and surveyed.count == surveyed.of)


def _of_each_request(term: Term) -> bool:
    """Whether only a request itself can tell, and not the entitlement that it names."""
    return term.selector.of_caller or term.selector.kept is Kept.TASK or term.selector.word == "intent"


def _may_come(terms: Sequence[Term], entitlement: Entitlement) -> bool:
    """Whether somebody who is eligible could ask for it so."""
    wanted = {term.key: term.values for term in terms if term.operator is Operator.IN}
    return not wanted.get("intent", frozenset(entitlement.intents)).isdisjoint(entitlement.intents) and any(
        entry.issuer in wanted.get("issuer", {entry.issuer})
        and ("subject" not in wanted or any(matches(entry.subject, subject) for subject in wanted["subject"]))
        for entry in entitlement.eligibility
    )


_NOBODY = Approver(issuer=IssuerName(""), subject="")
