"""Who is that: the grant and the agent behind anything that stands in a target's or in Vault's log."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controlplane.model.access import Role, Standing
from controlplane.model.approval import GivenApproval
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.grant import Grant, GrantId
from controlplane.model.identity import WorkloadId
from controlplane.model.lease import Accessor, Lease, LeaseId
from controlplane.model.plan import Layout
from controlplane.model.selection import Operator, Selection, Term
from controlplane.ports import Clock, Logins, Store
from controlplane.selectors import selectors

MOST: Final = 20
"""Grants that are told, newest first."""

_GRANT: Final = re.compile(r"gr_[a-z2-7]{24}", re.ASCII)
_WORKLOAD: Final = re.compile(r"wl_[0-9a-f]{32}", re.ASCII)
_SERIAL: Final = re.compile(r"\bserial[ =:]*([0-9]{1,20})\b", re.ASCII)
_HEX: Final = re.compile(r"(?:0x)?((?:[0-9a-f]{2}[: -]?){7,31}[0-9a-f]{2})", re.ASCII | re.IGNORECASE)
_DECIMAL: Final = re.compile(r"[0-9]{15,60}", re.ASCII)


class Whose(StrEnum):
    """Whose a name is."""

    KNOWN = "known"
    PROBER = "prober"
    ROLE = "role"  # a group, role or policy of ours: nobody logs in as it, many do by it
    UNKNOWN = "ours-but-unknown"
    NOT_OURS = "not-ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A grant behind a name, with the credentials that it had and who agreed to it."""

    grant: Grant
    leases: Sequence[Lease]
    approvals: Sequence[GivenApproval]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whose it is; `by` says what it is taken for, `detail` says it in a sentence."""

    whose: Whose
    by: str
    detail: str
    behind: Sequence[Behind] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoIs:
    """Answers from the store, and for a token that it does not know from Vault. Changes nothing."""

    clock: Clock
    store: Store
    logins: Logins
    layout: Layout
    _shape: re.Pattern[str] = field(init=False)
    _role: re.Pattern[str] = field(init=False)
    _prober: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        prefix, mount = re.escape(self.layout.prefix), re.escape(self.layout.auth_mount)
        # Vault's own templates begin with `v-`, and may have eight characters of the token's name before the role's.
        shape = rf"(?:v-(?:[^-]{{1,8}}-)?)?{prefix}-\S+|{mount}-wl_\S*|wl_\S*"
        object.__setattr__(self, "_shape", re.compile(shape, re.ASCII))
        cut = re.escape(f"{self.layout.prefix}-prober"[:8])
        probers = rf"v-(?:[^-]{{1,8}}-)?(?:{prefix}-prober-\S+|{cut}-[A-Za-z0-9]{{20}}-[0-9]{{10}})"
        object.__setattr__(self, "_prober", re.compile(probers, re.ASCII))
        role = rf"{prefix}-(?:p-)?(?P<entitlement>[a-z][a-z0-9-]{{2,47}})-(?P<revision>[0-9a-f]{{8}})(?:-[\w-]*)?"
        object.__setattr__(self, "_role", re.compile(role, re.ASCII))

    def __call__(self, standing: Standing, name: str) -> Told:
        """Whose `name` is.

        Raises: NotAllowedError: the caller is neither responder nor auditor. StoreUnavailableError.
        """
        standing.must_be(Role.RESPONDER, Role.AUDITOR)
        text = name.strip()
        for by, look in (
            ("principal", self._by_principal),
            ("grant", self._by_grant),
            ("lease", self._by_lease),
            ("accessor", self._by_accessor),
            ("workload", self._by_workload),
        ):
            if found := look(text):
                return Told(whose=Whose.KNOWN, by=by, detail=_MEANS[by], behind=[self._behind(one) for one in found])
        return self._unknown(text)

    def _by_principal(self, text: str) -> Sequence[Grant]:
        term = Term(selector=selectors()["principal"], name="", operator=Operator.IN, values=spellings(text))
        return self.store.selected(Selection(terms=(term,)), self.clock.now(), limit=MOST)

    def _by_grant(self, text: str) -> Sequence[Grant]:
        named = [self.store.grant(GrantId(id)) for id in dict.fromkeys(_GRANT.findall(text))]
        return [grant for grant in named if grant is not None]

    def _by_lease(self, text: str) -> Sequence[Grant]:
        held = self.store.lease(LeaseId(text))
        grant = None if held is None else self.store.grant(held[0])
        return [] if grant is None else [grant]

    def _by_accessor(self, text: str) -> Sequence[Grant]:
        if not re.fullmatch(r"[A-Za-z0-9.]{16,64}", text, re.ASCII):
            return []
        grant = self.store.grant_of(Accessor(text))
        if grant is None:
            try:
                facts = self.logins.facts(Accessor(text))
            except (VaultRefusedError, VaultUnavailableError):
                facts = None  # then nobody knows, and it is not said that it is ours
            named = None if facts is None else facts.metadata.get("grant")
            grant = None if named is None else self.store.grant(GrantId(named))
        return [] if grant is None else [grant]

    def _by_workload(self, text: str) -> Sequence[Grant]:
        found = _WORKLOAD.search(text)
        return [] if found is None else self.store.grants(workload=WorkloadId(found[0]), limit=MOST)

    def _unknown(self, text: str) -> Told:
        if self._prober.fullmatch(text):
            what = "the login of a prober of ours, which sees names and sessions and nothing else"
            return Told(whose=Whose.PROBER, by="name", detail=what)
        if role := self._role.fullmatch(text):
            what = f"a role of ours: entitlement {role['entitlement']}, revision {role['revision']}"
            granted = self.store.grants(entitlement=role["entitlement"], limit=MOST)
            behind = [self._behind(grant) for grant in granted if grant.revision == role["revision"]]
            return Told(whose=Whose.ROLE, by="role", detail=f"{what}; these may have used it", behind=behind)
        if self._shape.fullmatch(text):
            what = "NAMED LIKE OURS, AND NO GRANT KNOWS IT: somebody else made it, or the store has forgotten"
            return Told(whose=Whose.UNKNOWN, by="name", detail=what)
        return Told(whose=Whose.NOT_OURS, by="name", detail="nothing of ours has this name, or is named like it")

    def _behind(self, grant: Grant) -> Behind:
        return Behind(grant=grant, leases=self.store.leases(grant.id), approvals=self.store.approvals(grant.id))


def spellings(name: str) -> frozenset[str]:
    """How we may have written what a log calls `name`: serials of certificates are written in many ways."""
    text = name.strip()
    found = {text, *_SERIAL.findall(text)}
    if plain := _HEX.fullmatch(text):
        found.add(_colons(re.sub(r"[: -]", "", plain[1]).lower()))
    if _DECIMAL.fullmatch(text):
        digits = f"{int(text):x}"
        found.add(_colons(digits.zfill(len(digits) + len(digits) % 2)))
    return frozenset(found)


def _colons(digits: str) -> str:
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


_MEANS: Final = {
    "principal": "a credential of this grant has this name at its target",
    "grant": "the name holds the id of this grant",
    "lease": "a lease of this grant",
    "accessor": "the task token of this grant",
    "workload": "the name holds the id of this agent; its newest grants",
}
