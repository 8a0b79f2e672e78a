"""The table of transitions: what must hold of any such table, and that the database enforces the same one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from controlplane.model.errors import IllegalTransitionError
from controlplane.model.grant import INITIAL, TERMINAL, TRANSITIONS, Grant, State, Step, Why
from controlplane.model.lease import Accessor, Receipt
from controlplane.stores.sql import open_store
from controlplane.testing.clock import START
from controlplane.testing.store import AUDIT_KEY, sample_event, sample_grant

MOVES = {(before, after) for (before, _), after in TRANSITIONS.items()}
MADE = frozenset({State.ISSUING, State.ACTIVE, State.REVOKING, State.IRREVOCABLE})
"""States in which a credential may exist."""


def reachable(start: frozenset[State], *, without: frozenset[State] = frozenset()) -> frozenset[State]:
    """Every state on a way from `start` that touches none of `without`."""
    seen, ahead = set[State](), set(start - without)
    while ahead:
        seen |= ahead
        ahead = {after for before, after in MOVES if before in ahead} - seen - without
    return frozenset(seen)


# Invariants of the table ------------------------------------------------------------------------------------------


def test_the_tombstones_are_denied_lapsed_and_revoked() -> None:
    assert {State.DENIED, State.LAPSED, State.REVOKED} == TERMINAL


def test_every_state_can_be_reached() -> None:
    assert reachable(INITIAL) == set(State)


def test_from_every_state_there_is_a_way_to_a_tombstone() -> None:
    for state in State:
        assert reachable(frozenset({state})) & TERMINAL, state


def test_no_way_from_issuing_ends_without_revoking() -> None:
    assert not reachable(frozenset({State.ISSUING}), without=frozenset({State.REVOKING})) & TERMINAL


def test_once_a_credential_may_exist_the_only_tombstone_is_revoked() -> None:
    assert reachable(MADE) & TERMINAL == {State.REVOKED}


def test_only_what_began_revoking_can_be_revoked() -> None:
    assert {before for before, after in MOVES if after is State.REVOKED} == {State.REVOKING}


def test_whatever_waits_for_people_is_not_issued_without_their_approval() -> None:
    without = reachable(frozenset({State.PENDING}), without=frozenset({State.APPROVED}))
    assert not without & MADE


def test_nothing_comes_back_from_ending() -> None:
    assert reachable(frozenset({State.REVOKING})) == {State.REVOKING, State.IRREVOCABLE, State.REVOKED}


def test_nothing_returns_to_issuing() -> None:
    assert {before for before, after in MOVES if after is State.ISSUING} == {State.APPROVED}


def test_the_same_step_always_leads_to_the_same_state() -> None:
    # A step's name says what becomes true; that must not depend on where it was taken.
    for step in Step:
        assert len({after for (_, taken), after in TRANSITIONS.items() if taken is step}) == 1, step


def test_a_grant_is_open_exactly_while_a_credential_may_exist() -> None:
    assert {state for state in State if in_state(state).open} == MADE


@pytest.mark.parametrize(("state", "step"), list(product(State, Step)))
def test_a_grant_takes_exactly_the_steps_of_the_table(state: State, step: Step) -> None:
    grant = in_state(state)
    if (state, step) in TRANSITIONS:
        moved = grant.after(step, attempts=7)
        assert (moved.state, moved.version, moved.attempts) == (TRANSITIONS[state, step], grant.version + 1, 7)
    else:
        with pytest.raises(IllegalTransitionError, match=str(state)):
            grant.after(step)


# The same table in the database -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """The tables and triggers of a store, without our code before them."""
    path = tmp_path_factory.mktemp("store") / "store.db"
    open_store(f"sqlite:///{path}", audit_key=AUDIT_KEY).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def in_state(state: State) -> Grant:
    """A grant that may stand in that state."""
    ending = state in {State.REVOKING, State.IRREVOCABLE, State.REVOKED}
    return sample_grant(
        state=state,
        due_at=None if state in TERMINAL else START,
        accessor=Accessor("acc"),
        issued_at=START,
        why=Why.COMPLETED if ending else None,
        revoking_at=START if ending else None,
        revoked_at=START if state is State.REVOKED else None,
        receipt=Receipt(ended=()) if state is State.REVOKED else None,
    )


def way_to(goal: State) -> list[State]:
    """States from a beginning to `goal`, each a legal move from the one before."""
    ways = [[state] for state in sorted(INITIAL)]
    while True:
        way = ways.pop(0)
        if way[-1] is goal:
            return way
        ways += [[*way, after] for before, after in sorted(MOVES) if before is way[-1] and after not in way]


def put(database: sqlite3.Connection, state: State) -> None:
    grant = in_state(state)
    database.execute(
        "UPDATE grants SET state = ?, due_at = ?, accessor = ?, issued_at = ?, why = ?, revoking_at = ?,"
        " revoked_at = ?, receipt = ?",
        (
            grant.state.value,
            grant.due_at and grant.due_at.isoformat(),
            grant.accessor,
            "2026-01-05",
            grant.why and grant.why.value,
            grant.revoking_at and "2026-01-05",
            grant.revoked_at and "2026-01-05",
            "{}" if grant.receipt else None,
        ),
    )


def begin(database: sqlite3.Connection, state: State) -> None:
    database.execute(
        "INSERT INTO grants (id, state, version, entitlement, revision, issuer, subject, workload, task, intent,"
        " reason, ttl, request_digest, paths, requested_at, expires_at, attempts)"
        " VALUES ('gr_1', ?, 1, 'e', 'r', 'i', 's', 'w', 't', 'i', '', 1, '', '[]', '2026', '2026', 0)",
        (state.value,),
    )


def test_the_database_knows_the_same_moves(database: sqlite3.Connection) -> None:
    rows = set(database.execute("SELECT before, after FROM grant_transitions"))
    assert rows == {(before.value, after.value) for before, after in MOVES}


@pytest.mark.parametrize("state", list(State))
def test_in_the_database_a_grant_begins_where_one_begins(database: sqlite3.Connection, state: State) -> None:
    database.execute("BEGIN")
    try:
        if state in INITIAL:
            begin(database, state)
        else:
            with pytest.raises(sqlite3.IntegrityError, match="a_grant_begins"):
                begin(database, state)
    finally:
        database.execute("ROLLBACK")


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_the_database_makes_exactly_the_moves_of_the_table(
    database: sqlite3.Connection, before: State, after: State
) -> None:
    database.execute("BEGIN")
    try:
        first, *rest = way_to(before)
        begin(database, first)
        for state in rest:
            put(database, state)
        if (before, after) in MOVES or (before is after and before not in TERMINAL):
            put(database, after)
        else:
            with pytest.raises(sqlite3.IntegrityError, match=r"a_grant_moves_along|a_tombstone_never_changes"):
                put(database, after)
    finally:
        database.execute("ROLLBACK")


@pytest.mark.parametrize("statement", ["DELETE FROM grants", "DELETE FROM events", "UPDATE events SET body = '{}'"])
def test_the_database_lets_nobody_remove_a_grant_or_touch_an_event(path_of: Path, statement: str) -> None:
    database = sqlite3.connect(path_of, isolation_level=None)
    with closing(database), pytest.raises(sqlite3.IntegrityError, match="never"):
        database.execute(statement)


@pytest.fixture
def path_of(tmp_path: Path) -> Path:
    """A store with one grant and one event."""
    store = open_store(f"sqlite:///{tmp_path}/store.db", audit_key=AUDIT_KEY)
    with store.transaction() as tx:
        tx.add(sample_grant(), sample_event())
    store.close()
    return tmp_path / "store.db"
