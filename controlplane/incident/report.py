"""Report an incident: everything that the control plane knows of it, in one signed file that anybody can check."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.audit.chain import GENESIS, Broken, Checkpoint
from controlplane.audit.excerpt import Excerpt, excerpt
from controlplane.incident import account
from controlplane.incident.affected import cuts_of, grants_of
from controlplane.incident.bundle import sealed
from controlplane.incident.page import page
from controlplane.model.access import Role, Standing
from controlplane.model.canonical import JsonObject, instant
from controlplane.model.cut import Cut, Outcome, outcome
from controlplane.model.errors import InvalidRequestError
from controlplane.model.event import Head, Kind, Link
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.grant import Grant
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.ports import Clock, Entitlements, Recorder, Signer, Store

MOST: Final = 10_000
"""Grants of one report: more are reported cut by cut."""
_PAGE: Final = 1_000
_ALWAYS: Final = frozenset(
    {Kind.PLAN_BEGUN, Kind.PLAN_APPLIED, Kind.RESTORE_FOUND, Kind.RESTORE_CONFIRMED, Kind.DRIFT_FOUND, Kind.DRIFT_ENDED}
)
"""What is told of whatever happened meanwhile: which revisions were applied, and who else changed something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report as a file; `grants` and `records` say how much of the control plane is in it."""

    incident: str
    bundle: str
    grants: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportIncident:
    """What an auditor gets, or whoever else was told about it."""

    clock: Clock
    record: Recorder
    store: Store
    entitlements: Entitlements
    signer: Signer
    audit_key: Secret

    def __call__(self, who: VerifiedClaims, standing: Standing, incident: str) -> Reported:
        """The report of an incident, or of one cut by its id. Repeating it reports what is so then.

        That it is made is on disk before it is, and in it. The audit log is read, and checked, from the first record
        about these grants to its head, so this takes its time where that was long ago.

        Raises:
            NotAllowedError: the caller is neither responder nor auditor.
            NotFoundError: nothing was cut under this name.
            InvalidRequestError: it has more grants than one report may have.
            StoreUnavailableError: a record of the audit log cannot be read.
        """
        standing.must_be(Role.RESPONDER, Role.AUDITOR)
        cuts = cuts_of(self.store, incident)
        if (count := sum(self.store.progress(cut.id).total for cut in cuts)) > MOST:
            raise InvalidRequestError(f"{incident} has {count} grants, and a report {MOST} at most: report each cut")
        with self.store.transaction() as tx:
            by = {"issuer": who.issuer, "subject": who.subject}
            tx.append(self.record(Kind.INCIDENT_REPORTED, incident=incident, **by))
        head, made_at = self.store.head(), self.clock.now()
        granted = grants_of(self.store, cuts)
        freezes = self._freezes(cuts, {incident, *(cut.incident for cut in cuts)})
        log = self._log(head, incident, cuts, granted, freezes)
        told: JsonObject = {
            "report": 1,
            "incident": incident,
            "made_at": instant(made_at),
            "made_by": dict(by),
            "outcomes": {one.value: sum(outcome(grant) is one for grant in granted) for one in Outcome},
            "cuts": [account.cut(one, self.store.previewed(one.digest), self.store.progress(one.id)) for one in cuts],
            "freezes": [account.freeze(one) for one in freezes],
            "grants": [account.grant(self.store, one) for one in granted],
            "entitlements": account.revisions(self.entitlements, granted),
            "policies": account.policies(log.links),
            "log": {
                "intact": not isinstance(log.found, Broken),
                "detail": log.found.detail if isinstance(log.found, Broken) else "",
                "after": log.start.seq,
                "after_mac": log.start.mac,
                "to": log.start.seq if head is None else head.seq,
                "mac": log.start.mac if head is None else head.mac,
                "records": log.records,
            },
        }
        bundle = sealed(page(told), told, incident=incident, made_at=made_at, signer=self.signer)
        return Reported(incident=incident, bundle=bundle, grants=len(granted), records=len(log.links))

    def _freezes(self, cuts: Sequence[Cut], names: set[str]) -> Sequence[Freeze]:
        """The freezes that cuts made, and those that name the incident in their reason or message, oldest first."""
        own = {cut.freeze for cut in cuts}
        named = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in sorted(names)))
        found: list[Freeze] = []
        before: FreezeId | None = None
        while some := self.store.freezes(before=before, limit=_PAGE):
            found += [one for one in some if one.id in own or named.search(f"{one.reason}\n{one.message}")]
            before = some[-1].id
        return found[::-1]

    def _log(
        self, head: Head | None, incident: str, cuts: Sequence[Cut], granted: Sequence[Grant], freezes: Sequence[Freeze]
    ) -> Excerpt:
        """The audit log from the first record about one of these grants on."""
        first = self.store.first_link([grant.id for grant in granted])
        start = GENESIS
        if first is not None and first > 1:
            (before,) = self.store.links(after=first - 2, limit=1)
            start = Checkpoint(seq=before.seq, mac=before.mac)
        grants, names = {grant.id for grant in granted}, {incident, *(cut.incident for cut in cuts)}
        things = {*(cut.id for cut in cuts), *(cut.digest for cut in cuts), *(freeze.id for freeze in freezes)}

        def wanted(link: Link) -> bool:
            event, body = link.event, link.event.body
            return (
                event.grant in grants
                or event.kind in _ALWAYS
                or str(body.get("incident")) in names
                or any(str(body.get(name)) in things for name in ("cut", "digest", "freeze"))
            )

        return excerpt(self._links(start.seq, head), head, self.audit_key, start=start, wanted=wanted)

    def _links(self, after: int, head: Head | None) -> Iterator[Link]:
        last = after if head is None else head.seq
        while after < last and (some := self.store.links(after=after, limit=min(_PAGE, last - after))):
            yield from some
            after = some[-1].seq
