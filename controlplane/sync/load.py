"""Load the entitlements of a directory: `*.yaml`, each sound or with its problems; one bad file hides no other."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controlplane.model.canonical import canonical
from controlplane.model.entitlement import Entitlement, Scope
from controlplane.model.errors import ConfigurationError
from controlplane.model.wording import worded
from controlplane.sync.document import START, Document, Place, RefusedError, parse, readable
from controlplane.sync.document import Path as Loc
from controlplane.sync.files import read
from controlplane.sync.leaked import RULE as LEAKED
from controlplane.sync.leaked import leaked
from controlplane.sync.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A sound entitlement and where each of its parts stands."""

    entitlement: Entitlement
    file: str
    document: Document

    def problem(self, path: Loc, rule: str, message: str) -> Problem:
        """An error at `path` of this file."""
        place = self.document.place(path)
        return Problem(self.file, place.line, place.column, rule, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a directory holds: sound entitlements by name, and all problems in order of file and line."""

    sources: tuple[Source, ...]
    problems: tuple[Problem, ...]

    @property
    def entitlements(self) -> tuple[Entitlement, ...]:
        """The sound ones."""
        return tuple(source.entitlement for source in self.sources)


def load(directory: Path, models: Mapping[str, type[Scope]]) -> Loaded:
    """Everything in `directory`; `models` are the scope models of the engines.

    Raises: ConfigurationError: the directory itself cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith((".yaml", ".yml")))
    except OSError as error:
        raise ConfigurationError(f"the entitlements in {directory} cannot be read: {error.strerror}") from None
    folded = Counter(name.casefold() for name in names)
    sources: list[Source] = []
    problems: list[Problem] = []
    for name in names:
        try:
            sources.append(_source(directory, name, models, alone=folded[name.casefold()] == 1))
        except RefusedError as error:
            problems.append(Problem(name, error.place.line, error.place.column, error.rule, error.message))
        except _InvalidError as error:
            problems += error.problems
    return Loaded(sources=tuple(sources), problems=tuple(sorted(problems)))


class _InvalidError(Exception):
    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__()
        self.problems = tuple(problems)


def _source(directory: Path, name: str, models: Mapping[str, type[Scope]], *, alone: bool) -> Source:
    if not alone:
        raise RefusedError(START, "name-collision", "another file's name differs in upper and lower case only")
    if not name.endswith(".yaml"):
        raise RefusedError(START, "file-name", "entitlements end in .yaml: rename the file")
    raw = read(directory, name)
    if found := list(leaked(readable(raw))):  # before anything that might quote what stands there
        raise _InvalidError(Problem(name, place.line, place.column, LEAKED, message) for place, message in found)
    document = parse(raw)
    if not isinstance(document.value, dict):
        raise RefusedError(START, "not-a-mapping", "an entitlement is a mapping of keys to values")
    try:
        # Strict and as JSON: `true` is no number and `"1"` is none either, but text still becomes a date.
        entitlement = Entitlement.model_validate_json(
            canonical(document.value), strict=True, context={"engines": dict(models)}
        )
    except ValidationError as error:
        raise _InvalidError(problems(name, document, error.errors(include_url=False, include_input=False))) from None
    if name != f"{entitlement.name}.yaml":
        wrong = f"the entitlement {entitlement.name} belongs into a file of its name: {entitlement.name}.yaml"
        raise RefusedError(document.place(("entitlement",)), "file-name", wrong)
    return Source(entitlement=entitlement, file=name, document=document)


def problems(name: str, document: Document, errors: Iterable[ErrorDetails]) -> list[Problem]:
    """Pydantic's errors, one for each place, without those that follow from another."""
    located = [(error, *_locate(document, error["loc"])) for error in errors]
    found: dict[Place, Problem] = {}
    for error, path, branch in located:
        within = [other["type"] for other, where, _ in located if where[: len(path)] == path and other is not error]
        if branch and error["type"] in _OTHER_BRANCH and set(within) - _OTHER_BRANCH:
            continue  # text or glob: what is wrong with the one that was meant is said at its own place
        if error["type"] == "too_short" and within:
            continue  # its items are missing because each has a problem of its own
        place = document.place(path, of_key=error["type"] == "extra_forbidden")
        rule, message = _said(error, path)
        found.setdefault(place, Problem(name, place.line, place.column, rule, message))
    return sorted(found.values())


_OTHER_BRANCH = frozenset({"string_type", "model_type", "dict_type"})
_BRANCHES = frozenset({"constrained-str", "str", "Glob"})


def _locate(document: Document, loc: Iterable[str | int]) -> tuple[Loc, bool]:
    """The part of pydantic's location that stands in the document, and whether it names a branch of a union."""
    path: Loc = ()
    branch = False
    parts = tuple(loc)
    for place, part in enumerate(parts):
        if (*path, part) in document.values:
            path = (*path, part)
        elif place < len(parts) - 1 or part in _BRANCHES:
            branch = True
    return path, branch


def _said(error: ErrorDetails, path: Loc) -> tuple[str, str]:
    """Rule and sentence of one of pydantic's errors."""
    last = str(error["loc"][-1])
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return "unknown-key", f"there is no key {last} here"
        case "missing":
            return "missing-owner" if last == "owner" else "missing-key", f"the key {last} is missing"
        case kind if kind.startswith("over-scope."):
            return kind, error["msg"]
        case "value_error":
            return "invalid-value", str(context.get("error", error["msg"]))
        case _:
            return "invalid-value", f"{_name(path)}: {worded(error['type'], error['msg'], context)}"


def _name(path: Loc) -> str:
    return ".".join(str(part) for part in path) or "the document"
