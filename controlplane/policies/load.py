"""Load the policies of a directory: guardrails for every entitlement, a slice for one, and all that is wrong.

Nothing broken is ever left out: an entitlement gets the policies that apply to it, or, where one of them has an
error, none at all, which the decision point takes for a no.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final

from cedarpy import PolicySet

from controlplane.policies import schema
from controlplane.policies.statements import Statement, statements
from controlplane.sync.document import START, RefusedError, readable
from controlplane.sync.files import read, stamps
from controlplane.sync.problem import Problem, Severity

SLICES: Final = "entitlements"
CASES: Final = "tests"
_SUFFIX: Final = ".cedar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of policies: those that are sound, and what is wrong."""

    file: str
    statements: tuple[Statement, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The sound policies of one entitlement, parsed once; `reasons` by the `@id` of each."""

    set: PolicySet
    reasons: Mapping[str, str]
    ids: Mapping[str, str]
    """The `@id` by the name that Cedar gives a policy."""
    tags: frozenset[str] | None
    """The names of the tags that they read, None where one of them computes a name."""
    revision: str
    """Tells these policies from all others: the first eight hex digits of SHA-256 over their texts, sorted by `@id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """What a directory holds. `common` is None where a guardrail has an error, a slice is None where it has one."""

    common: Applied | None
    slices: Mapping[str, Applied | None]
    statements: tuple[Statement, ...]
    problems: tuple[Problem, ...]

    def of(self, entitlement: str) -> Applied | None:
        """What applies to the entitlement of that name; None where anything of it has an error."""
        return None if self.common is None else self.slices.get(entitlement, self.common)


def load(directory: Path) -> Policies:
    """Every policy in `directory`, and every problem.

    Raises: OSError: the directory cannot be read.
    """
    guardrails = [_source(directory, name) for name in _names(directory)]
    slices = {_owner(name): _source(directory, name) for name in _slices(directory)}
    strangers = [_unknown_folder(name) for name in _folders(directory) if name not in {SLICES, CASES}]
    twins = _twins(guardrails, slices.values())
    guarded = [problem for source in guardrails for problem in (*source.problems, *twins.get(source.file, ()))]
    common = None if guarded or strangers else _applied(guardrails)
    applied: dict[str, Applied | None] = {}
    problems = [*_stale_schema(directory), *strangers, *guarded]
    for owner, source in slices.items():
        wrong = [*source.problems, *twins.get(source.file, ())]
        problems += wrong
        applied[owner] = None if wrong or common is None else _applied([*guardrails, source])
    return Policies(
        common=common,
        slices=applied,
        statements=tuple(found for source in (*guardrails, *slices.values()) for found in source.statements),
        problems=tuple(sorted(problems)),
    )


def stamp(directory: Path) -> object:
    """What tells one state of the files from every other. Raises: OSError: the directory cannot be read."""
    slices = directory / SLICES
    return stamps(directory), stamps(slices) if slices.is_dir() else ()


def missing(directory: Path, error: Exception) -> Policies:
    """What holds where the directory itself cannot be read: nothing is granted."""
    why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
    message = f"{directory} {why}; without policies nothing is granted: `shorthold policy init` writes the shipped ones"
    problem = Problem(str(directory), 1, 1, "no-policies", message)
    return Policies(common=None, slices={}, statements=(), problems=(problem,))


def _names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(directory) if entry.name.casefold().endswith(_SUFFIX))


def _slices(directory: Path) -> list[str]:
    try:
        return [f"{SLICES}/{name}" for name in _names(directory / SLICES)]
    except FileNotFoundError:
        return []


def _owner(file: str) -> str:
    """Whose slice it is; a file of a wrong name is taken for that of the name that was meant."""
    return file.removeprefix(f"{SLICES}/").casefold().removesuffix(_SUFFIX)


def _folders(directory: Path) -> list[str]:
    """All but hidden ones: those are how some systems deliver files."""
    return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))


def _source(directory: Path, file: str) -> Source:
    shown = f"policies/{file}"
    try:
        found = statements(_text(directory, file))
    except RefusedError as error:
        problem = Problem(shown, error.place.line, error.place.column, error.rule, error.message)
        return Source(file=shown, statements=(), problems=(problem,))
    return Source(
        file=shown,
        statements=tuple(each for each in found if isinstance(each, Statement)),
        problems=tuple(
            Problem(shown, each.place.line, each.place.column, each.rule, each.message)
            for each in found
            if not isinstance(each, Statement)
        ),
    )


def _text(directory: Path, file: str) -> str:
    if file != file.casefold():
        raise RefusedError(START, "file-name", f"policies stand in files of small letters that end in {_SUFFIX}")
    return readable(read(directory, file))


def _twins(guardrails: Iterable[Source], slices: Iterable[Source]) -> dict[str, list[Problem]]:
    """Policies whose `@id` another one has, by file. A slice that takes a guardrail's is alone to blame."""
    found: dict[str, list[Problem]] = {}
    first = _seen(guardrails, {}, found)
    _seen(slices, first, found)
    return found


def _seen(sources: Iterable[Source], known: Mapping[str, str], found: dict[str, list[Problem]]) -> dict[str, str]:
    by_id: dict[str, list[tuple[str, Statement]]] = {}
    for source in sources:
        for each in source.statements:
            by_id.setdefault(each.id, []).append((source.file, each))
    for id, uses in by_id.items():
        for place, (file, each) in enumerate(uses):
            others = [f"{at}:{other.place.line}" for nth, (at, other) in enumerate(uses) if nth != place]
            others += [known[id]] if id in known else []
            if others:
                message = f"@id {id} stands in {others[0]} as well: which of them decided could not be told"
                found.setdefault(file, []).append(
                    Problem(file, each.place.line, each.place.column, "duplicate-id", message)
                )
    return {id: f"{file}:{each.place.line}" for id, ((file, each), *_) in by_id.items()}


def _applied(sources: Iterable[Source]) -> Applied:
    every = [each for source in sources for each in source.statements]
    parsed = PolicySet.from_str("\n".join(each.text for each in every))
    named = {name: policy.annotations["id"] for name, policy in parsed.to_pst().static_policies.items()}
    assert sorted(named.values()) == sorted(each.id for each in every)  # noqa: S101 # or a policy would be left out
    known = [each.tags for each in every if each.tags is not None]
    tags = frozenset[str]().union(*known) if len(known) == len(every) else None
    texts = "\n".join(each.text for each in sorted(every, key=attrgetter("id")))
    return Applied(
        set=parsed,
        reasons={each.id: each.reason for each in every},
        ids=named,
        tags=tags,
        revision=hashlib.sha256(texts.encode()).hexdigest()[:8],
    )


def _unknown_folder(name: str) -> Problem:
    message = f"policies stand in the directory itself, those of one entitlement in {SLICES}/, cases in {CASES}/"
    return Problem(f"policies/{name}", 1, 1, "unknown-folder", message)


def _stale_schema(directory: Path) -> list[Problem]:
    try:
        stale = readable(read(directory, schema.FILE)) != schema.text() if (directory / schema.FILE).exists() else False
    except RefusedError:
        stale = True
    message = "this is not the schema of this release: `shorthold policy schema --write` renews it"
    return [Problem(f"policies/{schema.FILE}", 1, 1, "stale-schema", message, Severity.WARNING)] if stale else []
