"""Audit events are made small, printable and serialisable, whatever others wrote into them (attack L06)."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.audit.record import MAX_BODY, MAX_TEXT, Record, one_line
from controlplane.model.canonical import JsonValue, canonical
from controlplane.model.event import Event, Kind
from controlplane.model.grant import GrantId, Why

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Still:
    def now(self) -> datetime:
        return NOW


@dataclass(frozen=True)
class Fixed:
    def new(self, prefix: str) -> str:
        return f"{prefix}_1"


record = Record(clock=Still(), ids=Fixed())


def test_an_event_is_of_now_and_has_a_new_id() -> None:
    made = record(Kind.GRANT_ENDED, GrantId("gr_1"), why=Why.COMPLETED)
    assert made == Event(id="ev_1", at=NOW, kind=Kind.GRANT_ENDED, grant="gr_1", body={"why": "completed"})
    assert type(made.body["why"]) is str


hostile = st.text(alphabet=st.characters(), max_size=200) | st.sampled_from(
    ["\n", "\r\n", "\x00", "\x1b[2J", "\u2028", "\u202e", "\u200b", "\ud800", '"}\n{"seq":9', "\x85", "\ufeff"]
)
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(hostile, inner, max_size=5),
    max_leaves=30,
)


@given(bodies)
def test_l06_any_body_becomes_one_printable_line_that_reads_back(body: JsonValue) -> None:
    made = record(Kind.TOKEN_REJECTED, reason=body)
    line = canonical(made.body).decode()
    assert line.isprintable()
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("T-1 café 東京", "T-1 café 東京"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\u2028b", r"a\u2028b"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
        ("nul\x00", r"nul\x00"),
    ],
)
def test_l06_what_a_terminal_would_obey_is_shown_instead(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_l06_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert one_line("x" * (MAX_TEXT + 7)) == "x" * MAX_TEXT + "…[7 more]"
    assert one_line("x" * MAX_TEXT) == "x" * MAX_TEXT


def test_l06_a_megabyte_in_every_field_stays_a_small_event() -> None:
    made = record(Kind.TOKEN_REJECTED, **{f"field{n}": "é" * 1_000_000 for n in range(20)})
    assert len(canonical(made.body)) <= MAX_BODY


def test_a_bottomless_body_is_cut_at_a_depth() -> None:
    deep: JsonValue = "end"
    for _ in range(900):
        deep = [deep]
    assert b"deeper" in canonical(record(Kind.TOKEN_REJECTED, claims=deep).body)


def test_a_wide_body_is_cut_and_says_by_how_much() -> None:
    wide: JsonValue = {str(n): n for n in range(1_000)}
    assert b"800 more" in canonical(record(Kind.TOKEN_REJECTED, claims=wide, more=list(range(1_000))).body)


def test_numbers_that_json_cannot_say_are_kept_as_text() -> None:
    made = record(Kind.TOKEN_REJECTED, exp=float("nan"), nbf=float("inf"), iat=10**5_000, ok=2**53)
    assert made.body["exp"] == "nan"
    assert made.body["nbf"] == "inf"
    assert str(made.body["iat"]).startswith("0x")
    assert made.body["ok"] == 2**53
