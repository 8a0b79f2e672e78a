"""Find secrets in what a program says: as they are, as programs write them, and cut up into neighbouring texts."""

import base64
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote, quote_plus

HIDDEN: Final = "[redacted]"
SHORTEST: Final = 4
"""Characters of a secret, or of a form of it: what is shorter would be found by chance in any text."""
_SHORTEST_CUT: Final = 8
"""The same for one that begins in one text and ends in another."""

T = TypeVar("T")


class Redactor:
    """Knows some secrets, and gives values back without them. It keeps copies: let it go when they are over."""

    __slots__ = ("_forms",)

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
        self._forms = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)

    def __call__(self, value: T) -> T:
        """`value` with every secret replaced in its texts, bytes, lists, tuples and dicts.

        Of anything else that shows a secret in its `repr`, that text without it takes the place.
        """
        if not self._forms:
            return value
        return cast("T", self._rebuilt(value, iter(self._cleaned([*_texts(value)]))))

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._forms)} forms>"

    def _cleaned(self, texts: list[str]) -> Iterator[str]:
        whole = "".join(texts)
        spans = self._spans(whole, texts)
        begin = 0
        for text in texts:
            end = begin + len(text)
            yield _blotted(
                text, [(max(a, begin) - begin, min(b, end) - begin) for a, b in spans if a < end and b > begin]
            )
            begin = end

    def _spans(self, whole: str, texts: list[str]) -> list[tuple[int, int]]:
        """Where secrets stand in `whole`, each place once."""
        edges, at = set[int](), 0
        for text in texts[:-1]:
            at += len(text)
            edges.add(at)
        found: list[tuple[int, int]] = []
        for form in self._forms:
            start = whole.find(form)
            while start >= 0:
                end = start + len(form)
                if len(form) >= _SHORTEST_CUT or not any(start < edge < end for edge in edges):
                    found.append((start, end))
                start = whole.find(form, start + 1)
        merged: list[tuple[int, int]] = []
        for a, b in sorted(found):
            if merged and a < merged[-1][1]:
                merged[-1] = merged[-1][0], max(b, merged[-1][1])
            else:
                merged.append((a, b))
        return merged

    def _rebuilt(self, value: Any, texts: Iterator[str]) -> Any:  # noqa: ANN401 # as in _texts
        """The same with `texts` in the place of its own, in the order in which `_texts` gives them."""
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                text = next(texts)
                return value if text == value else text
            case bytes() | bytearray():
                return type(value)(next(texts).encode("latin-1"))
            case dict():
                held = cast("dict[Any, Any]", value)
                return {self(key): self._rebuilt(part, texts) for key, part in held.items()}
            case list() | tuple() if type(cast("object", value)) in {list, tuple}:
                parts = [self._rebuilt(part, texts) for part in cast("list[Any]", value)]
                return parts if isinstance(value, list) else tuple(parts)
            case _:
                text = next(texts)
                return value if text == repr(value) else text


def _blotted(text: str, spans: list[tuple[int, int]]) -> str:
    for a, b in reversed(spans):
        text = f"{text[:a]}{HIDDEN}{text[b:]}"
    return text


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 # whatever a tool gives
    """Every text in it but those of keys, which stand alone: values beside each other are neighbours."""
    match value:
        case None | bool() | int() | float():
            return
        case str():
            yield value
        case bytes() | bytearray():
            yield value.decode("latin-1")
        case dict():
            for part in cast("dict[Any, Any]", value).values():
                yield from _texts(part)
        case list() | tuple() if type(cast("object", value)) in {list, tuple}:
            for part in cast("list[Any]", value):
                yield from _texts(part)
        case _:
            yield repr(value)


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as JSON (also within JSON), Python, URLs, HTML, SQL, shells and password files have it."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield raw.decode("latin-1")  # as it stands in bytes
    for ascii_only in (True, False):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    yield repr(secret)[1:-1]
    yield ascii(secret)[1:-1]
    for quoted in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield quoted
        yield re.sub("%..", lambda found: found[0].lower(), quoted)
    yield escape(secret)
    yield secret.replace("'", "''")
    yield shlex.quote(secret).strip("'")
    yield secret.replace("\\", "\\\\").replace(":", "\\:")
    yield raw.hex()
    yield raw.hex().upper()
    for before in range(3):  # base64 of something that holds it: what its neighbours do not change
        first, last = (before * 8 + 5) // 6, (before + len(raw)) * 8 // 6
        for coded in (base64.b64encode, base64.urlsafe_b64encode):
            inner = coded(bytes(before) + raw)[first:last].decode()
            if len(inner) >= SHORTEST:
                yield inner
