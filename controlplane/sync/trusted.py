"""Rules about whom an entitlement trusts: issuers, their claims, patterns of workloads, and people who agree.

Those that need the settings find nothing where nobody has them: entitlements are reviewed elsewhere, too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from controlplane.model.access import AccessRule, Role
from controlplane.model.entitlement import Eligibility, Entitlement, Glob, Risk
from controlplane.model.identity import KnownIssuer
from controlplane.sync.document import Path

Finding = tuple[Path, str]
Issuers = Mapping[str, KnownIssuer] | None

_GRAMMAR: Final = frozenset(
    {
        *("repo", "project_path", "ref_type", "ref", "refs", "heads", "tags", "branch", "tag", "main", "master"),
        *("environment", "pull_request", "system", "serviceaccount", "spiffe", "ns", "sa", "http", "https"),
    }
)
"""Words of subjects that tell no workload from another."""
_OWNED: Final = re.compile(r"(?:repo|project_path):(?P<owner>[^/:]*)", re.ASCII)


def glob_too_wide(entitlement: Entitlement) -> Iterator[Finding]:
    """At tier high a pattern leaves no whole segment open, nor its beginning: nobody has thought of all that fit."""
    if entitlement.risk is not Risk.HIGH:
        return
    for place, glob in _globs(entitlement):
        if "*" in re.split("[:/]", glob):
            yield (
                ("eligibility", place, "subject", "glob"),
                "at tier high a * never stands for a whole segment between ':' and '/': name the workloads closer",
            )
        elif glob.startswith("*"):
            yield (
                ("eligibility", place, "subject", "glob"),
                "at tier high no pattern begins with *: name the workloads closer",
            )


def glob_of_everybody(entitlement: Entitlement) -> Iterator[Finding]:
    """A pattern of nothing but stars and words that every subject of an issuer has, which no other claim narrows."""
    for place, glob in _globs(entitlement):
        segments = [part for part in re.split("[:/]", glob) if part.strip("*")]
        if _GRAMMAR.issuperset(segments) and not _narrowed(entitlement.eligibility[place]):
            yield (
                ("eligibility", place, "subject", "glob"),
                "this matches every workload of its issuer: name them closer, or select by a claim",
            )


def glob_of_strangers(entitlement: Entitlement, issuers: Issuers) -> Iterator[Finding]:
    """A pattern for the owner, at an issuer where anybody can be an owner whose name fits."""
    for place, glob in _globs(entitlement):
        entry = entitlement.eligibility[place]
        issuer = None if issuers is None else issuers.get(entry.issuer)
        owned = _OWNED.match(glob)
        if issuer is None or not issuer.open_to_all or owned is None or _narrowed(entry):
            continue
        if "*" in owned["owner"]:
            yield (
                ("eligibility", place, "subject", "glob"),
                f"anybody can have an account at {entry.issuer} that fits: write the owner without *",
            )


def unknown_issuer(entitlement: Entitlement, issuers: Issuers) -> Iterator[Finding]:
    """An entry that admits nobody here, because nobody believes its issuer."""
    for place, entry in enumerate(entitlement.eligibility):
        if issuers is not None and entry.issuer not in issuers:
            named = ", ".join(sorted(issuers))
            yield ("eligibility", place, "issuer"), f"the settings have no issuer {entry.issuer}, only: {named}"


def unselectable_claim(entitlement: Entitlement, issuers: Issuers) -> Iterator[Finding]:
    """An entry that admits nobody, because a claim that it selects by is never looked at."""
    for place, entry in enumerate(entitlement.eligibility):
        issuer = None if issuers is None else issuers.get(entry.issuer)
        for path in entry.claims if issuer is not None else ():
            if issuer is not None and (why := issuer.why_not(path)):
                yield ("eligibility", place, "claims", path), f"nothing can be selected by {path}: {why}"


def nobody_to_approve(
    entitlement: Entitlement, issuers: Issuers, access: Sequence[AccessRule] | None
) -> Iterator[Finding]:
    """People who have to agree, and no rule of the settings by which they are approvers, or in a group."""
    approval = entitlement.approval
    if approval is None or access is None:
        return
    grouped = _grouped(issuers, access)
    for place, wanted in enumerate(approval.from_):
        kind, _, name = wanted.partition(":")
        if kind == "group" and not grouped:
            yield (
                ("approval", "from", place),
                f"nobody can be in {wanted} and agree: no `access` rule gives the role approver with `groups`",
            )
        elif kind == "subject" and not _approves(name, access):
            yield (
                ("approval", "from", place),
                f"{name} cannot agree: no `access` rule gives him the role approver",
            )


def _approves(name: str, access: Sequence[AccessRule]) -> bool:
    """Whether some rule may make that person an approver: by his subject, or by claims that nobody knows here."""
    issuer, _, subject = name.partition("/")
    return any(
        Role.APPROVER in rule.roles and rule.issuer == issuer and rule.subject in (None, subject) for rule in access
    )


def _grouped(issuers: Issuers, access: Sequence[AccessRule]) -> bool:
    approving = {rule.issuer for rule in access if Role.APPROVER in rule.roles}
    return any(
        rule.issuer in approving and rule.groups is not None and _selects(issuers, rule.issuer, rule.groups)
        for rule in access
    )


def _selects(issuers: Issuers, name: str, path: str) -> bool:
    issuer = None if issuers is None else issuers.get(name)
    return issuer is None or issuer.why_not(path) is None


def _globs(entitlement: Entitlement) -> Iterator[tuple[int, str]]:
    for place, entry in enumerate(entitlement.eligibility):
        if isinstance(entry.subject, Glob):
            yield place, entry.subject.glob


def _narrowed(entry: Eligibility) -> bool:
    """Whether some claim has to be exactly something."""
    return any(isinstance(match, str) for match in entry.claims.values())
