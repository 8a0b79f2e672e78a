"""What an export looks like to those who read it."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.audit.chain import GENESIS, Unreadable, extend, seal_head
from controlplane.audit.export import COLUMNS, csv_lines, jsonl
from controlplane.model.canonical import canonical
from controlplane.model.event import Event, Kind, Link
from controlplane.testing.clock import START
from controlplane.testing.store import AUDIT_KEY, sample_event


def chained(*events: Event) -> list[Link]:
    return extend(AUDIT_KEY, seal_head(AUDIT_KEY, GENESIS.seq, GENESIS.mac), events)[0]


def cells(*links: Link | Unreadable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(csv_lines(links)))))


def test_a_line_of_json_is_canonical_and_has_everything_that_the_mac_covers() -> None:
    (link,) = chained(Event(id="ev_1", at=START, kind=Kind.LEASE_ISSUED, grant="gr_1", body={"b": 1, "a": "é\n"}))
    (line,) = jsonl([link])
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert line == canonical(json.loads(line)).decode() + "\n"
    assert json.loads(line) == {
        "seq": 1,
        "at": "2026-01-05T09:30:00.000000Z",
        "kind": "lease.issued",
        "grant": "gr_1",
        "id": "ev_1",
        "body": {"a": "é\n", "b": 1},
        "mac": link.mac,
    }


def test_a_record_that_cannot_be_read_keeps_its_place() -> None:
    links = [*chained(sample_event(1)), Unreadable(seq=2, what="its body is gone")]
    assert json.loads(list(jsonl(links))[1]) == {"seq": 2, "unreadable": "its body is gone"}
    assert cells(*links)[1]["unreadable"] == "its body is gone"


def test_csv_has_the_same_columns_in_every_line() -> None:
    (row,) = cells(*chained(sample_event(1, Kind.GRANT_ENDED)))
    assert tuple(row) == COLUMNS
    assert row["kind"] == "grant.ended"
    assert row["grant"] == ""
    assert json.loads(row["body"]) == {"number": 1}


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_l08_a_cell_that_a_spreadsheet_would_run_is_neutralised(start: str) -> None:
    formula = f"{start}cmd|' /C calc'!A0"
    (row,) = cells(*chained(Event(id=formula, at=START, kind=Kind.GRANT_ENDED, grant=start, body={})))
    assert (row["id"], row["grant"]) == (f"'{formula}", f"'{start}")


@pytest.mark.parametrize("start", ["\t", "\r", "\n"])
def test_l08_white_space_before_a_formula_is_shown(start: str) -> None:
    (row,) = cells(*chained(Event(id=f"{start}=1+1", at=START, kind=Kind.GRANT_ENDED, grant=None, body={})))
    assert row["id"] == repr(start).strip("'") + "=1+1"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_l08_no_cell_ever_begins_like_a_formula_and_every_line_parses(text: str) -> None:
    rows = cells(*chained(Event(id=text, at=START, kind=Kind.GRANT_ENDED, grant=text, body={"text": text})))
    assert len(rows) == 1
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in rows[0].values())
