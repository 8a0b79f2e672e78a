"""Who could have an entitlement, and when: its document in plain words, for whoever answers for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from controlplane.model.access import Role, Standing
from controlplane.model.canonical import JsonValue, instant
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Eligibility, Entitlement, Glob, Match
from controlplane.model.errors import NoEntitlementError
from controlplane.model.identity import KnownIssuer, VerifiedClaims
from controlplane.ports import Clock, Engine, Entitlements

Issuers = Mapping[str, KnownIssuer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a document says at one instant. `issuers` are the configured ones, None where nobody knows them.

    `candidates` are its entries, or those of them that the reader may see. Freezes and policies are not looked at.
    """

    entitlement: Entitlement
    candidates: tuple[Eligibility, ...]
    opens: tuple[str, ...]
    at: datetime
    issuers: Issuers | None = None

    @property
    def open(self) -> bool:
        """Whether one of its windows is open, or it has none."""
        windows = self.entitlement.context.windows
        return not windows or any(window.holds(self.at) for window in windows)

    @property
    def opens_at(self) -> datetime | None:
        """When it is open: `at` itself where it is now, None where it is not in the next two weeks."""
        if self.open:
            return self.at
        coming = (window.opens_after(self.at) for window in self.entitlement.context.windows)
        return min((opens for opens in coming if opens is not None), default=None)


def prospect(
    entitlement: Entitlement, engines: Mapping[str, Engine], *, at: datetime, issuers: Issuers | None = None
) -> Prospect:
    """All that the document says, to its own people."""
    reach = (line for scope in entitlement.scopes for line in engines[scope.engine].reach(scope))
    return Prospect(
        entitlement=entitlement, candidates=entitlement.eligibility, opens=tuple(reach), at=at, issuers=issuers
    )


def own_prospect(
    who: VerifiedClaims, entitlement: Entitlement, engines: Mapping[str, Engine], *, at: datetime
) -> Prospect:
    """What the document says to `who`, who is eligible: of its entries only those that admit him."""
    found = prospect(entitlement, engines, at=at)
    own = tuple(entry for entry in found.candidates if entry.admits(who))
    return Prospect(entitlement=entitlement, candidates=own, opens=found.opens, at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoCould:
    """For the platform team the whole document; for whoever is eligible what is about him; for others nothing."""

    clock: Clock
    entitlements: Entitlements
    engines: Mapping[str, Engine]
    issuers: Issuers

    def __call__(self, who: VerifiedClaims, stands: Standing, name: str) -> Prospect:
        """Raises: NoEntitlementError: there is none of that name that `who` may know of (promise P12)."""
        compiled = self.entitlements.get(name)
        platform = Role.PLATFORM in stands.roles
        if compiled is None or not (platform or compiled.entitlement.admits(who)):
            raise NoEntitlementError(f"there is no entitlement {name} for this caller")
        at = self.clock.now()
        if platform:
            return prospect(compiled.entitlement, self.engines, at=at, issuers=self.issuers)
        return own_prospect(who, compiled.entitlement, self.engines, at=at)


def told(found: Prospect) -> dict[str, JsonValue]:
    """For machines, and in `says` for people."""
    entitlement, context = found.entitlement, found.entitlement.context
    approval = entitlement.approval
    return {
        "entitlement": entitlement.name,
        "purpose": entitlement.purpose,
        "owner": entitlement.owner,
        "risk": entitlement.risk,
        "intents": list(entitlement.intents),
        "opens": list(found.opens),
        "who": [
            {
                "issuer": entry.issuer,
                "kind": _kind(entry, found.issuers),
                "subject": _match(entry.subject),
                "claims": {path: _match(match) for path, match in entry.claims.items()},
                "says": _who(entry, found.issuers),
            }
            for entry in found.candidates
        ],
        "when": {
            "windows": [str(window) for window in context.windows],
            "open": found.open,
            "opens_at": None if found.opens_at is None else instant(found.opens_at),
            "says": _when(found),
        },
        "where": {
            "networks": [str(network) for network in context.networks],
            "environments": list(context.environments),
            "says": _where(found),
        },
        "budgets": {
            "max_active": None if context.max_active is None else context.max_active.model_dump(),
            "max_requests": None if context.max_requests is None else str(context.max_requests.per_subject),
            "says": "; ".join(_budgets(found)) or "as often as it is asked for",
        },
        "ttl": {"default": format_duration(entitlement.ttl.default), "max": format_duration(entitlement.ttl.max)},
        "heartbeat": None if entitlement.heartbeat is None else format_duration(entitlement.heartbeat),
        "delivery": entitlement.delivery,
        "approval": None
        if approval is None
        else {
            "quorum": approval.quorum,
            "from": list(approval.from_),
            "within": format_duration(approval.within),
            "says": f"{approval.quorum} of {', '.join(approval.from_)} must agree, "
            f"within {format_duration(approval.within)}",
        },
    }


def _match(match: Match) -> JsonValue:
    return {"glob": match.glob} if isinstance(match, Glob) else match


def _kind(entry: Eligibility, issuers: Issuers | None) -> str | None:
    issuer = None if issuers is None else issuers.get(entry.issuer)
    return None if issuer is None else issuer.kind


def _who(entry: Eligibility, issuers: Issuers | None) -> str:
    kind = _kind(entry, issuers)
    subject = f"exactly {entry.subject}"
    if isinstance(entry.subject, Glob):
        subject = f"whatever fits {entry.subject.glob}, where * is any text without ':' and '/'"
    claims = " and ".join(f"{path} {_is(match)}" for path, match in sorted(entry.claims.items()))
    nobody = ""
    if issuers is not None and entry.issuer not in issuers:
        nobody = "; nobody now, because the settings have no such issuer"
    elif issuers is not None and any(issuers[entry.issuer].why_not(path) for path in entry.claims):
        nobody = "; nobody, because a claim of these is never looked at"
    vouched = f"vouched for by {entry.issuer}" + (f" ({kind})" if kind else "")
    return f"{subject}, {vouched}{f', whose {claims}' if claims else ''}{nobody}"


def _is(match: Match) -> str:
    return f"fits {match.glob}" if isinstance(match, Glob) else f"is {match}"


def _when(found: Prospect) -> str:
    windows = " or ".join(map(str, found.entitlement.context.windows))
    if not windows:
        return "at any time"
    if found.open:
        return f"{windows}; now"
    if found.opens_at is None:
        return f"{windows}; not in the next two weeks"
    return f"{windows}; not now, but from {found.opens_at.isoformat(timespec='seconds')}"


def _where(found: Prospect) -> str:
    context = found.entitlement.context
    networks = f"from {', '.join(map(str, context.networks))}" if context.networks else "from anywhere"
    environments = f", while this control plane is in {' or '.join(context.environments)}"
    return networks + (environments if context.environments else "")


def _budgets(found: Prospect) -> Iterator[str]:
    active, requests = found.entitlement.context.max_active, found.entitlement.context.max_requests
    if active is not None and active.per_subject is not None:
        yield f"at most {active.per_subject} at once for one subject"
    if active is not None and active.total is not None:
        yield f"at most {active.total} at once for all"
    if requests is not None:
        yield f"at most {requests.per_subject} asked for by one subject"
