"""What ends access does not wait for the audit log to be writable (P6, L01)."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import cast

import httpx
import pytest

from controlplane.model.errors import NotFoundError, StoreUnavailableError
from controlplane.model.grant import GrantId, State, Why
from controlplane.model.secret import Secret
from controlplane.stores.sql import open_store
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.testing.store import FakeStore


def token_lives(plane: FakePlane, id: GrantId) -> bool:
    accessor = plane.grant(id).accessor
    assert accessor is not None
    return plane.vault.logins.facts(accessor) is not None


@pytest.mark.parametrize("ends", ["finish", "worker"])
def test_an_audit_log_that_cannot_be_written_keeps_no_token_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: Callable[..., httpx.Response], ends: str
) -> None:  # P6, L01
    monkeypatch.setattr("controlplane.testing.plane._WatchedStore", _as_it_is)
    file = tmp_path / "store.db"
    with closing(open_store(f"sqlite:///{file}", audit_key=Secret("ab" * 32))) as store:
        plane = FakePlane(compiled_entitlement(), store=cast("FakeStore", store))
        id = plane.ask().grant.id
        with closing(sqlite3.connect(file)) as intruder:
            (seal,) = intruder.execute("SELECT seal FROM audit_head").fetchone()
            intruder.execute("UPDATE audit_head SET seal = '00'")
            intruder.commit()
            if ends == "finish":
                headers = {"Authorization": f"Bearer {plane.issuer.mint(AGENT).reveal()}"}
                answer = http(plane, "POST", f"/v1/grants/{id}/finish", headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (503, StoreUnavailableError.code)
            else:
                plane.clock.advance(timedelta(minutes=20))
                with pytest.raises(StoreUnavailableError):
                    plane.work()
            assert not token_lives(plane, id)
            assert plane.grant(id).state is State.ACTIVE  # nothing could be saved
            intruder.execute("UPDATE audit_head SET seal = ?", (seal,))
            intruder.commit()
        plane.wait(timedelta(minutes=20))
        ended = plane.grant(id)
        assert ended.state is State.REVOKED
        assert ended.receipt is not None
        assert ended.receipt.verified
        assert plane.alive() == []


def test_a_vault_that_is_down_as_well_hides_nothing_and_it_ends_when_both_are_back() -> None:  # P6
    plane = FakePlane(compiled_entitlement())
    id = plane.ask().grant.id
    plane.vault.faults.sealed = True
    plane.journal.fail("before", "commit grant.ended", StoreUnavailableError)
    with pytest.raises(StoreUnavailableError):
        plane.finish(plane.agent(), id, Why.COMPLETED)
    plane.vault.faults.sealed = False
    assert token_lives(plane, id)
    assert plane.end(id).state is State.REVOKED


def test_without_an_audit_log_nobody_ends_another_workload_s_grant() -> None:  # L01
    plane = FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "agent-*"}}]))
    id = plane.ask(plane.agent("agent-1")).grant.id
    plane.journal.fail("before", "commit grant.ended", StoreUnavailableError)
    with pytest.raises(NotFoundError):
        plane.finish(plane.agent("agent-2"), id, Why.COMPLETED)
    assert token_lives(plane, id)


def _as_it_is(store: object, _journal: object) -> object:
    """A real store, whose commits no journal watches."""
    return store
