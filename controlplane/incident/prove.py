"""Prove that credentials are gone: ask Vault and the targets again, whatever the store believes (promises P3, P10).

Nothing is changed by it, here or there, but that the audit log says who asked, and what came of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from controlplane.grants.covered import CLOCK_SKEW
from controlplane.incident.affected import cuts_of, grants_of
from controlplane.incident.ask import AskAgain, Fact, Found
from controlplane.incident.strays import FindStrays, Strays
from controlplane.incident.whois import spellings
from controlplane.model.access import Role, Standing
from controlplane.model.errors import NotFoundError
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, GrantId, State
from controlplane.model.identity import VerifiedClaims
from controlplane.model.lease import Target
from controlplane.model.selection import Operator, Selection, Term
from controlplane.ports import Clock, Recorder, Roster, Store
from controlplane.selectors import selectors

AT_ONCE: Final = 200
"""Grants of one answer; `next` tells how to go on."""
_USED: Final = frozenset({State.ISSUING, State.ACTIVE})


class About(StrEnum):
    """What can be asked about, by its name."""

    INCIDENT = "incident"  # the name of its cuts, or the id of one
    GRANT = "grant"
    SUBJECT = "subject"
    PRINCIPAL = "principal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One grant, and what Vault and the targets said of everything that was made for it."""

    grant: Grant
    due: bool
    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """What was answered. `names` are those that no grant knows; `strays` None: nobody looked for them.

    There are more grants where `next` is not None: it is the `before` of the next answer.
    """

    at: datetime
    asked: Sequence[Asked]
    names: Sequence[Fact]
    strays: Strays | None
    next: GrantId | None

    @property
    def facts(self) -> Sequence[Fact]:
        """Every answer."""
        return [*(fact for asked in self.asked for fact in asked.facts), *self.names]

    @property
    def proved(self) -> bool:
        """Whether everything of this answer that should be gone is, by the word of whoever had it."""
        strays = self.strays
        return all(fact.proved for fact in self.facts) and (strays is None or not (strays.found or strays.unasked))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveGone:
    """What a responder asks when it is over, and an auditor a year later. `begin` begins a round of questions."""

    clock: Clock
    record: Recorder
    store: Store
    begin: Callable[[], AskAgain]
    find_strays: FindStrays
    rosters: Mapping[str, Roster]

    def __call__(
        self,
        who: VerifiedClaims,
        standing: Standing,
        about: About,
        name: str,
        *,
        strays: bool = True,
        before: GrantId | None = None,
    ) -> Proved:
        """Ask about grants, newest first, and with `strays` for what should not exist at all.

        Of an incident everything should be gone; of anything else whatever has ended or is ending. A principal that
        no grant knows is asked for at every target that can be asked by name.

        Raises:
            NotAllowedError: the caller is neither responder nor auditor.
            NotFoundError: there is no such incident or grant, or no grant of that subject.
        """
        standing.must_be(Role.RESPONDER, Role.AUDITOR)
        grants = self._grants(about, name, before)
        page = grants[:AT_ONCE]
        ask = self.begin()
        asked = [self._ask(ask, grant, all_due=about is About.INCIDENT) for grant in page]
        proved = Proved(
            at=self.clock.now(),
            asked=asked,
            names=self._names(ask, name) if about is About.PRINCIPAL and not page and before is None else [],
            strays=self.find_strays() if strays and before is None else None,
            next=page[-1].id if len(grants) > len(page) else None,
        )
        with self.store.transaction() as tx:
            grant = GrantId(name) if about is About.GRANT else None
            told = {"incident": name} if about is About.INCIDENT else {"about": f"{about} {name}"}
            tx.append(self.record(Kind.INCIDENT_PROVED, grant, **told, **_counts(proved), **_by(who)))
        return proved

    def _grants(self, about: About, name: str, before: GrantId | None) -> Sequence[Grant]:
        """One more than are asked about, where there are more; newest first."""
        match about:
            case About.INCIDENT:
                found = grants_of(self.store, cuts_of(self.store, name))[::-1]
                after = next((at for at, grant in enumerate(found, 1) if grant.id == before), 0)
                return found[after : after + AT_ONCE + 1]
            case About.GRANT:
                grant = self.store.grant(GrantId(name))
                if grant is None:
                    raise NotFoundError(f"there is no grant {name}")
                return [grant] if before is None else []
            case About.SUBJECT | About.PRINCIPAL:
                names = spellings(name) if about is About.PRINCIPAL else frozenset({name})
                term = Term(selector=selectors()[about], name="", operator=Operator.IN, values=names)
                wanted = Selection(terms=(term,))
                found = self.store.selected(wanted, self.clock.now(), before=before, limit=AT_ONCE + 1)
                if not found and about is About.SUBJECT and before is None:
                    raise NotFoundError(f"there is no grant of {name}")
                return found

    def _ask(self, ask: AskAgain, grant: Grant, *, all_due: bool) -> Asked:
        over = grant.over(self.clock.now() - CLOCK_SKEW) is not None
        due = all_due or over or grant.state not in _USED
        return Asked(grant=grant, due=due, facts=ask(grant, self.store.leases(grant.id), due=due))

    def _names(self, ask: AskAgain, name: str) -> Sequence[Fact]:
        now = self.clock.now()
        targets = [Target(kind=roster.kind, name=target) for target, roster in self.rosters.items()]
        return [ask.at(target, name, issued_at=now, due=True) for target in targets]


def _counts(proved: Proved) -> dict[str, int | bool]:
    counts: dict[str, int | bool] = {"grants": len(proved.asked), "proved": proved.proved}
    counts |= {one.value: sum(fact.found is one for fact in proved.facts) for one in Found}
    return counts | ({} if proved.strays is None else {"strays": len(proved.strays.found)})


def _by(who: VerifiedClaims) -> dict[str, str]:
    return {"issuer": who.issuer, "subject": who.subject}
