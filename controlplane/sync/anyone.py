"""Rules about subjects that more people can make their own than a reader thinks: pushers, forkers, tenants."""

import re
from collections.abc import Callable, Iterator
from typing import Final

from controlplane.model.entitlement import Eligibility, Entitlement, Glob, matches
from controlplane.sync.document import Path

Finding = tuple[Path, str]

_BRANCH: Final = re.compile(r"(?:repo:.+:ref:refs/heads/|project_path:.+:ref_type:branch:ref:)[*/]+")
_OWNER: Final = re.compile(r"(?:repo|project_path):(?P<owner>\*+)/")
_NAMESPACE: Final = re.compile(r"system:serviceaccount:\*+:|spiffe://[^/]+/ns/\*+/")
_REPOSITORY: Final = re.compile(r"repo:[^:]+")

_PINS_BRANCH: Final = frozenset({"ref", "ref_protected", "environment", "job_workflow_ref", "workflow_ref", "sha"})
_PINS_OWNER: Final = frozenset(
    {"repository_owner", "repository_owner_id", "namespace_path", "namespace_id", "repository_id", "project_id"}
)
_PINS_NAMESPACE: Final = frozenset({"kubernetes.io/namespace"})


def any_branch(entitlement: Entitlement) -> Iterator[Finding]:
    """Every branch fits, so whoever may push one runs code that nobody has reviewed as this workload."""
    why = "whoever may push a branch is this workload: name the branch, or select by an environment"
    return _loose(entitlement, _BRANCH.fullmatch, _PINS_BRANCH, why)


def any_owner(entitlement: Entitlement) -> Iterator[Finding]:
    """Every owner fits, so a fork that is called the same does."""
    why = "a fork under another owner fits as well: write the owner, or select by its id"
    return _loose(entitlement, _OWNER.match, _PINS_OWNER, why)


def any_namespace(entitlement: Entitlement) -> Iterator[Finding]:
    """Every namespace fits, so whoever may make an account in one of them calls it like this workload."""
    why = "an account of that name in anybody's namespace fits: write the namespace"
    return _loose(entitlement, _NAMESPACE.match, _PINS_NAMESPACE, why)


def pull_request_subject(entitlement: Entitlement) -> Iterator[Finding]:
    """GitHub's subject of a pull request names no author and no branch: whoever opens one is it."""
    for place, entry in enumerate(entitlement.eligibility):
        written = entry.subject.glob if isinstance(entry.subject, Glob) else entry.subject
        repository = _REPOSITORY.match(written)
        if repository is None:
            continue
        likely = repository[0].replace("*", "x")
        if matches(entry.subject, f"{likely}:pull_request"):
            where = ("glob",) if isinstance(entry.subject, Glob) else ()
            yield (
                ("eligibility", place, "subject", *where),
                "whoever opens a pull request is this workload, before anybody has read it: name a branch",
            )


def _loose(
    entitlement: Entitlement, fits: Callable[[str], object], pins: frozenset[str], why: str
) -> Iterator[Finding]:
    """Entries whose glob fits, and that no claim of `pins` holds to one value."""
    for place, entry in enumerate(entitlement.eligibility):
        if isinstance(entry.subject, Glob) and fits(entry.subject.glob) and not _pinned(entry, pins):
            yield ("eligibility", place, "subject", "glob"), why


def _pinned(entry: Eligibility, claims: frozenset[str]) -> bool:
    return any(isinstance(match, str) for path, match in entry.claims.items() if path in claims)
