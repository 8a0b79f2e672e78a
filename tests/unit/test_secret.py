"""A Secret gives its value to `reveal()` and to nothing else."""

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pydantic_core
import pytest
import structlog
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.lease import Accessor, TaskToken
from controlplane.model.secret import Secret

CANARY = "canary-7f3a91c2"
SECRET = Secret(CANARY)


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    password: Secret
    nested: Mapping[str, Any]


HOLDER = Holder(SECRET, {"list": [SECRET], "tuple": (SECRET,)})
TOKEN = TaskToken(token=SECRET, accessor=Accessor("a"))


def test_it_can_be_used() -> None:
    assert Secret(CANARY).reveal() == CANARY


SHOWERS: list[Callable[[Any], str]] = [
    repr,
    str,
    ascii,
    "{}".format,
    "{!r:>99}".format,
    lambda value: "%s" % (value,),  # noqa: UP031 # the operator is what is tested
    lambda value: "%r" % (value,),  # noqa: UP031 # same
    lambda value: f"{value}",
    lambda value: f"{value!s:.99}",
    lambda value: f"{value=}",
    lambda value: f"{[value]} {({1: value},)}",
]
DUMPERS: list[Callable[[Any], object]] = [
    pickle.dumps,
    lambda value: pickle.dumps(value, protocol=0),
    copy.copy,
    copy.deepcopy,
    json.dumps,
    yaml.safe_dump,
    yaml.dump,
    pydantic_core.to_json,
    vars,
    dict,
    list,
    iter,
    hash,
    bytes,
    len,
]
TAKERS_APART: list[Callable[[Any], object]] = [dataclasses.asdict, dataclasses.astuple, copy.deepcopy, pickle.dumps]


@pytest.mark.parametrize("show", SHOWERS)
@pytest.mark.parametrize("held", [SECRET, HOLDER, TOKEN, [SECRET], {"k": SECRET}, (SECRET,), ValueError(SECRET)])
def test_it_is_never_printed(show: Callable[[object], str], held: object) -> None:
    shown = show(held)
    assert CANARY not in shown
    assert "Secret(…)" in shown or r"Secret(\u2026)" in shown


@pytest.mark.parametrize("dump", DUMPERS)
def test_it_is_never_copied_or_written(dump: Callable[[object], object]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 # each tool refuses in its own way
        dump(SECRET)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("dump", TAKERS_APART)
def test_a_record_that_holds_one_is_never_taken_apart(dump: Callable[[Any], object]) -> None:
    for record in (HOLDER, TOKEN):
        with pytest.raises(TypeError, match="never"):
            dump(record)


def test_it_has_no_attribute_that_shows_by_itself() -> None:
    with pytest.raises(TypeError):
        vars(SECRET)
    assert not hasattr(SECRET, "__dict__")
    with pytest.raises(AttributeError):
        SECRET.other = 1  # pyright: ignore[reportAttributeAccessIssue] # slots: nothing can be hung on it


def test_no_log_shows_it(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("login with %s and %r", SECRET, HOLDER)
        for renderer in (
            structlog.processors.JSONRenderer(),
            structlog.processors.KeyValueRenderer(),
            structlog.processors.LogfmtRenderer(),
            structlog.dev.ConsoleRenderer(),
        ):
            log = structlog.wrap_logger(structlog.PrintLogger(), processors=[renderer])
            log.info("login", password=SECRET, holder=HOLDER, nested={"deep": [SECRET]})
    printed = capsys.readouterr().out
    assert "login" in printed
    assert CANARY not in printed + caplog.text


def test_no_traceback_shows_it() -> None:
    def fail(password: Secret) -> None:
        raise RuntimeError(f"cannot log in with {password}")

    with pytest.raises(RuntimeError) as caught:
        fail(SECRET)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert CANARY not in "".join(shown)


anything = st.text(st.characters(exclude_categories=()))  # half characters too: JSON can say them


@given(anything, anything)
def test_two_are_equal_exactly_if_their_values_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) == (one == other)
    assert Secret(one) == Secret(one)


def test_it_equals_nothing_that_is_no_secret() -> None:
    assert SECRET != CANARY
    assert CANARY != SECRET
    assert SECRET != None  # noqa: E711 # the operator is what is tested
    assert SECRET not in (CANARY, CANARY.encode(), 1)


def test_it_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        calls.append((one, other))
        return one == other

    monkeypatch.setattr("controlplane.model.secret.hmac.compare_digest", compare)
    assert Secret("a") != Secret("b")
    assert calls == [(b"a", b"b")]
