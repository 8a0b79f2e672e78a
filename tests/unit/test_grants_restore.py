"""A restored store neither ends what is alive and legitimate nor loses what is not (G18); Vault may be restored too."""

from datetime import timedelta

import pytest

from controlplane.model.errors import StoreBehindError, VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import State, TaskId, Why
from controlplane.model.orphan import Epoch
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.testing.store import FakeStore

ROUND = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)
MADE = compiled_entitlement()


@pytest.fixture
def plane() -> FakePlane:
    plane = FakePlane(MADE)
    plane.reconcile()
    return plane


def restored(plane: FakePlane, store: FakeStore) -> FakePlane:
    """The control plane over a store of before; what it issues next has other ids."""
    return FakePlane(MADE, store=store, vault=plane.vault, clock=plane.clock, ids=plane.ids, started=True)


def again(plane: FakePlane) -> bool:
    plane.clock.advance(ROUND)
    return plane.reconcile()


def test_g18_a_store_of_yesterday_grants_nothing_and_ends_nothing_it_does_not_know(plane: FakePlane) -> None:
    backup = plane.store.backup()
    plane.ask()
    again(plane)
    alive = plane.alive()
    after = restored(plane, backup)
    assert not again(after)
    with pytest.raises(StoreBehindError):
        after.ask(task=TaskId("T-2"))
    assert after.store.grants() == []
    assert plane.alive() == alive
    (found,) = after.events(Kind.RESTORE_FOUND)
    assert found.body["what"] == "store"


def test_g18_revoking_of_known_grants_goes_on(plane: FakePlane) -> None:
    known = plane.ask().grant
    again(plane)
    backup = plane.store.backup()
    plane.ask(task=TaskId("T-2"))
    again(plane)
    after = restored(plane, backup)
    assert not again(after)
    assert after.end(known.id).state is State.REVOKED


def test_an_empty_store_beside_living_tokens_grants_nothing(plane: FakePlane) -> None:
    grant = plane.ask().grant
    again(plane)
    after = restored(plane, FakeStore())
    with pytest.raises(StoreBehindError, match="Vault remembers record"):
        after.ask()
    plane.vault.census._state.epoch = None  # pyright: ignore[reportPrivateUsage] # an upgrade from a release without it
    without = restored(plane, FakeStore())
    with pytest.raises(StoreBehindError, match="knows no grant at all"):
        without.ask()
    assert grant.accessor in plane.vault.tokens


def test_a_first_start_is_no_restore() -> None:
    plane = FakePlane(MADE, started=True)
    assert plane.ask().grant.state is State.ACTIVE
    assert plane.events(Kind.RESTORE_FOUND) == []


def test_a_store_that_was_restored_and_written_to_again_is_found_by_the_record_itself(plane: FakePlane) -> None:
    backup = plane.store.backup()
    plane.ask()
    again(plane)
    noted = plane.vault.census.epoch()
    assert noted is not None
    after = restored(plane, backup)
    for _ in range(noted.seq + 5):  # refusals are written down too: the chain grows past the noted place
        with after.store.transaction() as tx:
            tx.append(*plane.events()[:1])
    with pytest.raises(StoreBehindError, match="went another way"):
        after.ask()


def test_while_vault_cannot_be_asked_nothing_is_granted_until_it_was_once() -> None:
    plane = FakePlane(MADE, started=True)
    who = plane.agent()
    plane.vault.faults.sealed = True
    with pytest.raises(VaultUnavailableError):
        plane.ask(who)
    assert plane.store.grants() == []


def test_after_ending_what_the_store_does_not_know_is_gone_and_grants_go_on(plane: FakePlane) -> None:
    backup = plane.store.backup()
    plane.ask()
    again(plane)
    after = restored(plane, backup)
    difference = after.restore.difference()
    assert difference.compared.behind is not None
    assert [token.metadata["task"] for token in difference.unknown] == ["T-1"]
    after.restore.end(difference)
    assert again(after)
    assert after.vault.target.users == set()
    assert after.ask(task=TaskId("T-2")).grant.state is State.ACTIVE
    assert len(after.events(Kind.RESTORE_CONFIRMED)) == 1


def test_what_is_adopted_lives_on_and_its_owner_can_finish_it(plane: FakePlane) -> None:
    backup = plane.store.backup()
    grants = [plane.ask(task=TaskId(f"T-{number}")).grant for number in (1, 2)]
    again(plane)
    after = restored(plane, backup)
    difference = after.restore.difference()
    assert after.restore.adopt(difference) == 2
    again(after)
    again(after)
    assert after.events(Kind.ORPHAN_FOUND) == []
    assert len(after.vault.target.users) == 2
    adopted = [after.grant(grant.id) for grant in grants]
    assert [(grant.state, grant.task, grant.workload) for grant in adopted] == [
        (State.ACTIVE, grant.task, grant.workload) for grant in grants
    ]
    assert len(after.events(Kind.GRANT_ADOPTED)) == 2
    for grant in grants:
        after.end(grant.id)
    after.wait(MINUTE * 2)
    assert [after.grant(grant.id).state for grant in grants] == [State.REVOKED] * 2
    assert after.vault.target.users == set()


def test_ending_one_adopted_grant_leaves_the_other_ones_credential_alone(plane: FakePlane) -> None:
    backup = plane.store.backup()
    first, second = (plane.ask(task=TaskId(f"T-{number}")).grant for number in (1, 2))
    again(plane)
    (kept,) = plane.store.leases(second.id)
    after = restored(plane, backup)
    after.restore.adopt(after.restore.difference())
    after.end(first.id)
    again(after)
    assert after.vault.target.users == {kept.principal}


def test_an_adopted_grant_ends_when_its_token_would_have(plane: FakePlane) -> None:
    backup = plane.store.backup()
    grant = plane.ask().grant
    again(plane)
    after = restored(plane, backup)
    after.restore.adopt(after.restore.difference())
    after.wait(MINUTE * 20)
    over = after.grant(grant.id)
    assert (over.state, over.why) == (State.REVOKED, Why.EXPIRED)
    assert after.alive() == []


def test_a_vault_that_was_restored_is_reported_and_noted_anew(plane: FakePlane) -> None:
    first = plane.vault.census.epoch()
    plane.ask()
    again(plane)
    plane.ask(task=TaskId("T-2"))
    again(plane)
    plane.vault.census.note(first or Epoch(seq=1, mac="0" * 64))
    if first is None:
        plane.vault.census._state.epoch = None  # pyright: ignore[reportPrivateUsage] # as it was before the first note
    assert again(plane)
    (found,) = plane.events(Kind.RESTORE_FOUND)
    assert found.body["what"] == "vault"
    assert again(plane)
    assert len(plane.events(Kind.RESTORE_FOUND)) == 1
    assert not plane.epochs.compare().vault_lost
