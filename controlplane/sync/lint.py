"""Lint: what a sound entitlement should still not say. Each rule has a stable name and one function.

An `exceptions:` entry with owner, reason and expiry lets an entitlement break a rule of policy; what would not
work in Vault, or would mean something else there, no exception allows.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final

from controlplane.model.access import AccessRule
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Delivery, Entitlement, Revocability, Risk, matches
from controlplane.model.identity import KnownIssuer
from controlplane.model.plan import Layout
from controlplane.sync import anyone, trusted
from controlplane.sync.document import Path
from controlplane.sync.load import Source
from controlplane.sync.ours import reserved
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.spoilt import Spoilt
from controlplane.sync.tiers import Tiers


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What entitlements are held against."""

    tiers: Tiers
    layout: Layout
    revocability: Mapping[str, Revocability]
    """Of each engine, by its word."""
    today: date
    issuers: Mapping[str, KnownIssuer] | None = None
    """The configured issuers by name; None where nobody knows them."""
    access: Sequence[AccessRule] | None = None
    """Who may do what; None where nobody knows."""
    undercuts: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """What each entitlement gets around, by its name: it takes all of them to know."""
    spoilt: Mapping[str, Spoilt] = field(default_factory=dict[str, Spoilt])
    """What ends under whose hands, by name of the entitlement, likewise."""


Finding = tuple[Path, str]
"""Where in the document, and what to do."""

Rule = Callable[[Source, Surroundings], Iterator[Finding]]


def lint(source: Source, around: Surroundings) -> tuple[Problem, ...]:
    """What is wrong with one entitlement, in order of place; warnings among it."""
    excepted = {entry.rule for entry in source.entitlement.exceptions if entry.expires >= around.today}
    holding = FIRM | {name: rule for name, rule in POLICY.items() if name not in excepted}
    risk = source.entitlement.risk
    return tuple(
        sorted(
            replace(problem, severity=severity_of(problem.rule, risk))
            for problem in _problems(source, around, holding | ADVICE)
        )
    )


def severity_of(rule: str, risk: Risk) -> Severity:
    """How much it weighs that an entitlement of that tier breaks the rule."""
    only_said = rule in ADVICE or risk in _SAID_AT.get(rule, ())
    return Severity.WARNING if only_said else Severity.ERROR


def _problems(source: Source, around: Surroundings, rules: dict[str, Rule]) -> Iterator[Problem]:
    for name, rule in rules.items():
        for path, message in rule(source, around):
            yield source.problem(path, name, message)


def _reserved_name(source: Source, around: Surroundings) -> Iterator[Finding]:
    del around
    if reserved(source.entitlement.name):
        yield ("entitlement",), f"{source.entitlement.name} is reserved: choose another name"


def _unknown_mount(source: Source, around: Surroundings) -> Iterator[Finding]:
    for place, scope in enumerate(source.entitlement.scopes):
        if scope.engine not in around.layout.mounts:
            yield (
                ("scopes", place, "engine"),
                f"the settings name no mount for {scope.engine}: add vault.mounts.{scope.engine}",
            )


def _star_in_exact_subject(source: Source, around: Surroundings) -> Iterator[Finding]:
    """Vault would read the star as a pattern as soon as another entry is a glob."""
    del around
    for place, entry in enumerate(source.entitlement.eligibility):
        if isinstance(entry.subject, str) and "*" in entry.subject:
            yield (
                ("eligibility", place, "subject"),
                'an exact subject has no *: write {glob: "…"} if a pattern is meant',
            )


def _ttl_above_tier(source: Source, around: Surroundings) -> Iterator[Finding]:
    risk, ttl = source.entitlement.risk, source.entitlement.ttl
    ceiling = around.tiers.of(risk).max_ttl
    if ttl.max > ceiling:
        yield (
            ("ttl", "max"),
            f"{format_duration(ttl.max)} is longer than the {format_duration(ceiling)} of tier {risk}",
        )


def _approval_below_tier(source: Source, around: Surroundings) -> Iterator[Finding]:
    risk, approval = source.entitlement.risk, source.entitlement.approval
    # Break-glass skips approval; that it is short, loud and reviewed afterwards stands in for it.
    quorum = 0 if source.entitlement.break_glass else around.tiers.of(risk).quorum
    if (0 if approval is None else approval.quorum) < quorum:
        where = ("risk",) if approval is None else ("approval", "quorum")
        yield (
            where,
            f"tier {risk} needs the approval of at least {quorum}: add approval: {{quorum: {quorum}, from: […]}}",
        )


def _break_glass_above_tier(source: Source, around: Surroundings) -> Iterator[Finding]:
    risk, ttl = source.entitlement.risk, source.entitlement.ttl
    ceiling = around.tiers.of(risk).break_glass
    if source.entitlement.break_glass and ttl.max > ceiling:
        yield (
            ("ttl", "max"),
            f"{format_duration(ttl.max)} is longer than tier {risk}'s {format_duration(ceiling)} for break-glass",
        )


def _delivery_above_tier(source: Source, around: Surroundings) -> Iterator[Finding]:
    risk = source.entitlement.risk
    if source.entitlement.delivery is Delivery.INLINE and not around.tiers.of(risk).inline:
        yield ("delivery",), f"tier {risk} hands out no credential inline: leave delivery out, so that it is wrapped"


def _heartbeat_above_tier(source: Source, around: Surroundings) -> Iterator[Finding]:
    risk, beat = source.entitlement.risk, source.entitlement.heartbeat
    longest = around.tiers.of(risk).heartbeat
    if longest is not None and (beat is None or beat > longest):
        where = ("risk",) if beat is None else ("heartbeat",)
        yield where, f"tier {risk} needs a heartbeat at least every {format_duration(longest)}"


def _revocability_below_tier(source: Source, around: Surroundings) -> Iterator[Finding]:
    risk, strongest_first = source.entitlement.risk, list(Revocability)
    weakest = around.tiers.of(risk).revocability
    for place, scope in enumerate(source.entitlement.scopes):
        has = scope.revocability or around.revocability[scope.engine]
        if strongest_first.index(has) > strongest_first.index(weakest):
            yield (
                ("scopes", place, "engine"),
                f"tier {risk} needs credentials that are {weakest}, and those of {scope.engine} are only {has}",
            )


def _raw_statement(source: Source, around: Surroundings) -> Iterator[Finding]:
    del around
    for place, scope in enumerate(source.entitlement.scopes):
        for number, _ in enumerate(scope.verbatim):
            yield (
                ("scopes", place, "raw", number),
                "nothing looks at what a raw statement opens: say it as a privilege, or let somebody answer for it",
            )


def _clock_below_tier(source: Source, around: Surroundings) -> Iterator[Finding]:
    risk = source.entitlement.risk
    for place, scope in enumerate(source.entitlement.scopes):
        if around.tiers.of(risk).own_clock and not scope.own_clock:
            yield (
                ("scopes", place, "engine"),
                f"tier {risk} needs targets with a clock: while Vault cannot be reached, nothing ends a login there",
            )


def _tier_undercut(source: Source, around: Surroundings) -> Iterator[Finding]:
    for sentence in around.undercuts.get(source.entitlement.name, ()):
        yield ("risk",), sentence


def _shared_rotation(source: Source, around: Surroundings) -> Iterator[Finding]:
    for place, sentences in around.spoilt.get(source.entitlement.name, {}).items():
        for sentence in sentences:
            yield ("scopes", place), sentence


def _wide_scope(source: Source, around: Surroundings) -> Iterator[Finding]:
    del around
    for place, scope in enumerate(source.entitlement.scopes):
        for sentence in scope.doubts():
            yield ("scopes", place), sentence


def _missing_owner(source: Source, around: Surroundings) -> Iterator[Finding]:
    """A word that stands where nobody was named."""
    del around
    named = {("owner",): source.entitlement.owner} | {
        ("exceptions", place, "owner"): entry.owner for place, entry in enumerate(source.entitlement.exceptions)
    }
    for where, owner in named.items():
        if owner.strip(" .-?").casefold() in _NOBODY:
            yield where, "nobody answers for this: name a person or a team that can be reached"


def _endless_exception(source: Source, around: Surroundings) -> Iterator[Finding]:
    latest = around.today + _LONGEST_EXCEPTION
    for place, entry in enumerate(source.entitlement.exceptions):
        if entry.expires > latest:
            yield (
                ("exceptions", place, "expires"),
                f"an exception ends within {_LONGEST_EXCEPTION.days} days, by {latest} today: look at it again then",
            )


def _expired_exception(source: Source, around: Surroundings) -> Iterator[Finding]:
    for place, entry in enumerate(source.entitlement.exceptions):
        if entry.expires < around.today:
            yield (
                ("exceptions", place, "expires"),
                f"the exception from {entry.rule} has expired: {entry.owner} decides",
            )


def _unknown_rule(source: Source, around: Surroundings) -> Iterator[Finding]:
    del around
    for place, entry in enumerate(source.entitlement.exceptions):
        if entry.rule not in POLICY:
            known = ", ".join(sorted(POLICY))
            yield ("exceptions", place, "rule"), f"there is no exception from {entry.rule}, only from: {known}"


def _unneeded_exception(source: Source, around: Surroundings) -> Iterator[Finding]:
    for place, entry in enumerate(source.entitlement.exceptions):
        rule = POLICY.get(entry.rule)
        if rule is not None and not any(rule(source, around)):
            yield ("exceptions", place, "rule"), f"nothing breaks {entry.rule} any more: take the exception out"


def _network_of_everybody(source: Source, around: Surroundings) -> Iterator[Finding]:
    del around
    for place, network in enumerate(source.entitlement.context.networks):
        if network.prefixlen == 0:
            yield ("context", "networks", place), f"{network} is every address there is: name the networks closer"


def _approver_is_requester(source: Source, around: Surroundings) -> Iterator[Finding]:
    """A workload that agrees with itself; others like it still count as other people, and are none."""
    del around
    approval = source.entitlement.approval
    for place, entry in enumerate(() if approval is None else approval.from_):
        issuer, _, subject = entry.removeprefix("subject:").partition("/")
        for asks in source.entitlement.eligibility if entry.startswith("subject:") else ():
            if asks.issuer == issuer and matches(asks.subject, subject):
                yield ("approval", "from", place), f"{subject} may ask for it, so it is no approver: name a person"


def _quorum_out_of_reach(source: Source, around: Surroundings) -> Iterator[Finding]:
    del around
    approval = source.entitlement.approval
    if approval is None:
        return
    left = set(approval.from_) - set(approval.not_from)
    if not any(entry.startswith("group:") for entry in left) and len(left) < approval.quorum:
        yield (
            ("approval", "quorum"),
            f"{approval.quorum} have to agree, and only {len(left)} may: name more, or a group",
        )


def _unless_wider(rule: Callable[[Entitlement], Iterator[Finding]]) -> Rule:
    """The rule where no pattern is found that is wider still: one finding is enough for one fault."""

    def finds(source: Source, around: Surroundings) -> Iterator[Finding]:
        wider = (
            *trusted.glob_of_everybody(source.entitlement),
            *trusted.glob_of_strangers(source.entitlement, around.issuers),
        )
        found = {path for path, _ in wider}
        return (finding for finding in rule(source.entitlement) if finding[0] not in found)

    return finds


_LONGEST_EXCEPTION: Final = timedelta(days=366)
_NOBODY: Final = frozenset(
    {"", "n/a", "na", "nobody", "none", "no one", "noone", "null", "tba", "tbd", "todo", "unknown", "changeme", "me"}
)

FIRM: Final[dict[str, Rule]] = {
    "reserved-name": _reserved_name,
    "unknown-mount": _unknown_mount,
    "star-in-exact-subject": _star_in_exact_subject,
    "missing-owner": _missing_owner,
    "expired-exception": _expired_exception,
    "endless-exception": _endless_exception,
    "unknown-rule": _unknown_rule,
    "approver-is-requester": _approver_is_requester,
    "quorum-out-of-reach": _quorum_out_of_reach,
}
"""Rules that no exception lifts."""

POLICY: Final[dict[str, Rule]] = {
    "ttl-above-tier": _ttl_above_tier,
    "approval-below-tier": _approval_below_tier,
    "break-glass-above-tier": _break_glass_above_tier,
    "delivery-above-tier": _delivery_above_tier,
    "heartbeat-above-tier": _heartbeat_above_tier,
    "revocability-below-tier": _revocability_below_tier,
    "clock-below-tier": _clock_below_tier,
    "raw-statement": _raw_statement,
    "tier-undercut": _tier_undercut,
    "shared-rotation": _shared_rotation,
    "wide-scope": _wide_scope,
    "glob-too-wide": lambda source, _: trusted.glob_too_wide(source.entitlement),
    "glob-of-everybody": lambda source, _: trusted.glob_of_everybody(source.entitlement),
    "glob-of-strangers": lambda source, around: trusted.glob_of_strangers(source.entitlement, around.issuers),
    "any-branch": _unless_wider(anyone.any_branch),
    "any-owner": _unless_wider(anyone.any_owner),
    "any-namespace": _unless_wider(anyone.any_namespace),
    "pull-request-subject": _unless_wider(anyone.pull_request_subject),
}
"""Rules that an exception lifts until it expires."""

_SAID_AT: Final[Mapping[str, Collection[Risk]]] = {
    # What another file says never keeps this one out, and a doubt is for a reviewer to settle.
    "tier-undercut": tuple(Risk),
    "shared-rotation": tuple(Risk),
    "wide-scope": tuple(Risk),
    **dict.fromkeys(("any-branch", "any-owner", "any-namespace", "pull-request-subject"), (Risk.LOW,)),
}
"""Where a rule of policy only warns."""

ADVICE: Final[dict[str, Rule]] = {
    "unneeded-exception": _unneeded_exception,
    "network-of-everybody": _network_of_everybody,
    "unknown-issuer": lambda source, around: trusted.unknown_issuer(source.entitlement, around.issuers),
    "unselectable-claim": lambda source, around: trusted.unselectable_claim(source.entitlement, around.issuers),
    "nobody-to-approve": lambda source, around: trusted.nobody_to_approve(
        source.entitlement, around.issuers, around.access
    ),
}
"""Warnings."""
