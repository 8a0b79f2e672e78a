"""Problems for whoever reads them: people, GitHub's annotations, JSON, and SARIF for code scanning. Pure."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from controlplane import __version__
from controlplane.model.canonical import JsonValue
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.rulebook import RULES, page_of

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def told(problems: Iterable[Problem]) -> list[JsonValue]:
    """Each problem as data. `about` says what its rule finds, `help` where that is explained."""
    return [
        {
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "severity": problem.severity,
            "rule": problem.rule,
            "message": problem.message,
            "about": RULES[problem.rule],
            "help": page_of(problem.rule),
        }
        for problem in problems
    ]


def text(problems: Sequence[Problem], directory: str) -> str:
    """A line for each, as compilers say it, so that editors jump there."""
    del directory
    return "".join(f"{_printable(str(problem))}\n" for problem in problems)


def as_json(problems: Sequence[Problem], directory: str) -> str:
    """A list."""
    del directory
    return json.dumps(told(problems), indent=2, ensure_ascii=False) + "\n"


def github(problems: Sequence[Problem], directory: str) -> str:
    """Workflow commands: GitHub shows each beside its line. Source: GitHub docs, "Workflow commands"."""
    return "".join(
        f"::{problem.severity} file={_property(_path(directory, problem))},line={problem.line},col={problem.column},"
        f"title={_property(problem.rule)}::{_data(problem.message)}\n"
        for problem in problems
    )


def sarif(problems: Sequence[Problem], directory: str) -> str:
    """One run of SARIF 2.1.0. Every rule that was broken is in it, so that a result explains itself.

    GitHub's code scanning takes no rule without a full description: GitHub docs, "SARIF support for code scanning".
    """
    broken = sorted({problem.rule for problem in problems})
    rules: list[JsonValue] = [
        {
            "id": rule,
            "shortDescription": {"text": RULES[rule]},
            "fullDescription": {"text": RULES[rule]},
            "help": {"text": f"See {page_of(rule)}.", "markdown": f"See `{page_of(rule)}`."},
        }
        for rule in broken
    ]
    results: list[JsonValue] = [
        {
            "ruleId": problem.rule,
            "ruleIndex": broken.index(problem.rule),
            "level": "error" if problem.severity is Severity.ERROR else "warning",
            "message": {"text": problem.message},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(_path(directory, problem))},
                        "region": {"startLine": problem.line, "startColumn": problem.column},
                    }
                }
            ],
        }
        for problem in problems
    ]
    run: JsonValue = {
        "tool": {"driver": {"name": "shorthold", "semanticVersion": __version__, "rules": rules}},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


REPORTS: Final[Mapping[str, Callable[[Sequence[Problem], str], str]]] = {
    "text": text,
    "json": as_json,
    "github": github,
    "sarif": sarif,
}
"""By the word of the command line. Each takes the problems and the directory that their files are in."""


def _path(directory: str, problem: Problem) -> str:
    return f"{directory.rstrip('/')}/{problem.file}" if directory not in ("", ".") else problem.file


def _uri(path: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415 # only SARIF needs it

    return f"file://{quote(path)}" if path.startswith("/") else quote(path)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _printable(line: str) -> str:
    # A message may quote what others wrote: no control character of theirs reaches a terminal.
    return "".join(char if char.isprintable() else "�" for char in line)
