"""What knows the issued secrets finds them however a program writes them, and changes nothing else (P10)."""

import base64
import io
import json
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any, Final
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import controlplane.sdk as shorthold
from controlplane.model.secret import Secret
from controlplane.sdk.access import Access
from controlplane.sdk.exchanges import Opened
from controlplane.sdk.redaction import HIDDEN, Redactor

# Whatever surrounds a secret, digits and letters never look like one.
SECRETS: Final = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=8, max_size=40).filter(
    lambda text: len(set(text)) > 3
)
AROUND: Final = st.text(st.sampled_from("xy :/=&\n"), max_size=7)
PLAIN: Final = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("xyz ") | st.binary(max_size=3)
)
VALUES: Final = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3),
    max_leaves=8,
)
WAYS: Final[dict[str, Callable[[str], Any]]] = {
    "as it is": str,
    "bytes": str.encode,
    "JSON": json.dumps,
    "JSON within JSON": lambda text: json.dumps(json.dumps({"told": text})),
    "JSON with all its letters": lambda text: json.dumps(text, ensure_ascii=False),
    "Python": repr,
    "a path": quote,
    "a part of a path": lambda text: quote(text, safe=""),
    "a form": quote_plus,
    "a query": lambda text: urlencode({"password": text}),
    "HTML": escape,
    "SQL": lambda text: text.replace("'", "''"),
    "a shell": shlex.quote,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 as bytes": lambda text: base64.b64encode(text.encode()),
    "hex": lambda text: text.encode().hex(),
    "the parts of a list": list,
    "two fields": lambda text: {"first": text[:5], "second": text[5:]},
    "nested fields": lambda text: [{"a": text[:3]}, [(text[3:6], 7), {"b": {"c": text[6:]}}]],
    "a key": lambda text: {text: 1},
}


@given(secret=SECRETS, before=AROUND, after=AROUND, way=st.sampled_from(sorted(WAYS)))
@example(secret='it\'s "A\\B"/?&=ü\n', before="x", after="", way="JSON within JSON")
@example(secret="pass:w+rd/%20", before="", after="=", way="base64")
def test_p10_a_secret_is_found_in_every_form_wherever_it_stands(secret: str, before: str, after: str, way: str) -> None:
    written = WAYS[way](before + secret + after)
    cleaned = Redactor([secret])(written)
    assert HIDDEN in _text(cleaned)
    assert secret not in _text(cleaned)
    assert WAYS["base64"](secret)[:-4] not in _text(cleaned) or len(secret) < 12


@given(secret=SECRETS, value=VALUES)
def test_what_has_no_secret_stays_as_it_is(secret: str, value: object) -> None:
    assert Redactor([f"#{secret}#"])(value) == value


def test_what_is_short_is_no_secret_and_a_short_one_is_not_looked_for_across_texts() -> None:
    assert Redactor(["abc"])("abc") == "abc"
    assert Redactor([])(["x", 1]) == ["x", 1]
    assert Redactor(["4711"])(["47", "11"]) == ["47", "11"]
    assert Redactor(["4711"])("id=4711;") == f"id={HIDDEN};"
    assert "4711" not in repr(Redactor(["4711"]))


def test_kinds_that_it_does_not_know_are_shown_without_their_secrets() -> None:
    @dataclass
    class Row:
        user: str
        password: str

    redact = Redactor(["canary-pass"])
    row = Row("ann", "fine")
    assert redact([row])[0] is row
    cleaned: object = redact(Row("ann", "canary-pass"))
    assert HIDDEN in str(cleaned)
    assert "canary" not in str(cleaned)


def test_a_log_has_no_secret_of_an_access_while_it_lasts() -> None:
    access = access_to("canary-pass-word")
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(shorthold.LogRedactor(access))
    log = logging.getLogger("test.redactor")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    log.info("logged in with %s", access.only.password)
    log.info("row %r", {"p": base64.b64encode(access.only.password.encode())})
    try:
        int(f"no number: {access.only.password}")
    except ValueError:
        log.exception("failed")
    log.info("nothing %s here", "secret")
    said = out.getvalue()
    assert "canary" not in said
    assert base64.b64encode(b"canary-pass-word").decode()[:16] not in said
    assert said.count(HIDDEN) == 3
    assert "Traceback" in said
    assert "ValueError: invalid literal" in said
    assert "nothing secret here" in said
    access.end(shorthold.OverError("left"))
    log.info("goes on")
    assert out.getvalue().endswith("goes on\n")
    log.removeHandler(handler)


@pytest.mark.parametrize("where", ["note", "cause", "context", "base64"])
def test_p10_what_an_exception_would_print_is_looked_through(where: str) -> None:
    from controlplane.sdk.tools import _guarded  # noqa: PLC0415  # pyright: ignore[reportPrivateUsage] # what is proved

    password = "canary-pass-word"
    error = ValueError("it failed")
    other = RuntimeError(base64.b64encode(password.encode()).decode() if where == "base64" else f"with {password}")
    match where:
        case "note":
            error.add_note(f"with {password}")
        case "context":
            error.__context__ = other
        case _:
            error.__cause__ = other
    failed = _guarded(error, access_to(password))
    assert failed is not None
    assert failed.detail == "ValueError: it failed"
    assert _guarded(ValueError("it failed"), access_to(password)) is None


def access_to(password: str) -> Access:
    grant = {"id": "gr_1", "task": "T-1", "entitlement": "orders-read", "expires_at": "2026-07-01T12:05:00+00:00"}
    return Access(Opened(grant=grant, credentials={"orders": {"password": Secret(password)}}))


def _text(value: Any) -> str:  # noqa: ANN401 # whatever a tool gives
    """All that a person could put together of it."""
    match value:
        case bytes():
            return value.decode("latin-1")
        case dict():
            return "".join(_text(part) for part in [*value.values(), " keys: ", *value])  # pyright: ignore[reportUnknownVariableType] # of any shape
        case list() | tuple():
            return "".join(_text(part) for part in value)  # pyright: ignore[reportUnknownVariableType] # as above
        case int():
            return ""
        case _:
            return str(value)
