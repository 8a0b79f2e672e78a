"""What an ACL policy of somebody else opens: read as Vault reads it, in doubt as more than it is.

Source: OpenBao docs, concepts/policies. `*` is a wildcard at the end of a path only, `+` stands for one segment; the
most specific path decides, and `deny` beats everything on its path.
"""

import json
import re
from collections.abc import Mapping
from typing import Final

from controlplane.model.canonical import JsonValue

Rules = Mapping[str, frozenset[str]]
"""Capabilities by path."""

_TOKEN: Final = re.compile(
    r"""\s+|\#[^\n]*|//[^\n]*|/\*.*?\*/|(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<word>[A-Za-z0-9_.+-]+)|(?P<sign>[{}\[\]=,:])""",
    re.DOTALL,
)
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_OLD: Final = {
    "deny": ("deny",),
    "read": ("read", "list"),
    "write": ("create", "read", "update", "delete", "list"),
    "sudo": ("create", "read", "update", "delete", "list", "sudo"),
}
"""`policy = "write"`, the way of writing of old. Source: OpenBao, vault/policy.go."""


def rules(text: str) -> Rules | None:
    """The rules of a policy in JSON or HCL; None where it cannot be understood."""
    try:
        document = _document(text)
    except (ValueError, RecursionError):
        return None
    found: dict[str, frozenset[str]] = {}
    for path, rule in _pairs(document):
        if not isinstance(rule, dict):
            return None
        said = rule.get("capabilities", [*_OLD.get(str(rule.get("policy")), ())])
        if not isinstance(said, list):
            return None
        found[path.removeprefix("/")] = found.get(path, frozenset()) | {str(one) for one in said}
    return found


def opens(given: Rules, prefix: str, capabilities: frozenset[str]) -> frozenset[str]:
    """Which of `capabilities` the rules give on some path that begins with `prefix`."""
    meeting = {path: caps for path, caps in given.items() if _meets(_TEMPLATE.sub("+", path), prefix)}
    shut = max(
        (len(path) for path, caps in meeting.items() if "deny" in caps and prefix.startswith(path.removesuffix("*"))),
        default=-1,
    )
    # A deny over all of it counts only against what is less specific.
    return frozenset[str]().union(
        *(caps & capabilities for path, caps in meeting.items() if "deny" not in caps and len(path) > shut)
    )


def _meets(pattern: str, prefix: str) -> bool:
    """Whether some path that `pattern` stands for begins with `prefix`."""
    if not prefix or pattern == "*":
        return True
    if not pattern:
        return False
    if pattern[0] == "+":
        segment = prefix.partition("/")[0]
        return segment == prefix or any(_meets(pattern[1:], prefix[taken:]) for taken in range(1, len(segment) + 1))
    return pattern[0] == prefix[0] and _meets(pattern[1:], prefix[1:])


def _document(text: str) -> JsonValue:
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return _Hcl(text).document()
    return found


def _pairs(document: JsonValue) -> list[tuple[str, JsonValue]]:
    """Paths and what is said of them: one object, or a list of such, as JSON allows it."""
    paths = document.get("path") if isinstance(document, dict) else None
    several = paths if isinstance(paths, list) else [paths]
    return [pair for one in several if isinstance(one, dict) for pair in one.items()]


class _Hcl:
    """As much of HCL 1 as policies are written in."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError("neither a word, a text nor a sign")
            if found.lastgroup is not None:
                self._tokens.append(found[0])
            at = found.end()
        self._tokens.reverse()  # the next one is the last, which is cheap to take

    def document(self) -> JsonValue:
        """The whole text, with its blocks `path "…" {…}` in a list. Raises: ValueError: it is something else."""
        found = self._body()
        if self._tokens:
            raise ValueError("a bracket too many")
        return {
            "path": [{names[1]: value} if len(names) > 1 else value for names, value in found if names[0] == "path"]
        }

    def _body(self) -> list[tuple[list[str], JsonValue]]:
        found: list[tuple[list[str], JsonValue]] = []
        while self._next not in {"", "}"}:
            names = [self._text()]
            while self._next not in {"=", ":", "{"}:
                names.append(self._text())
            if self._next != "{":
                self._tokens.pop()
            found.append((names, self._value()))
            self._skip(",")
        return found

    def _value(self) -> JsonValue:
        if self._skip("{"):
            inner: dict[str, JsonValue] = {names[0]: value for names, value in self._body()}
            self._take("}")
            return inner
        if not self._skip("["):
            return self._text()
        items: list[JsonValue] = []
        while self._next not in {"", "]"}:
            items.append(self._value())
            self._skip(",")
        self._take("]")
        return items

    @property
    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _text(self) -> str:
        token = self._next
        if not token or token in set("{}[]=,:"):
            raise ValueError(f"no word where one has to be: {token!r}")
        self._tokens.pop()
        return str(json.loads(token)) if token.startswith('"') else token

    def _skip(self, sign: str) -> bool:
        there = self._next == sign
        if there:
            self._tokens.pop()
        return there

    def _take(self, sign: str) -> None:
        if not self._skip(sign):
            raise ValueError(f"{sign} is missing")
