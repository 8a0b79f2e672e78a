"""Leases the store never learned of: an interrupted grant ends its own, never those of a rival (P3; vault-facts 3)."""

from datetime import timedelta

import pytest

from controlplane.model.errors import VaultUnavailableError
from controlplane.model.grant import Grant, State
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import SETTLING, FakePlane

MINUTE = timedelta(minutes=1)
LATER_THAN_ANY_CLOCK = timedelta(seconds=6)


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def test_a_stray_is_ended_by_its_id_and_stands_in_the_receipt_as_not_verified(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    (stray,) = plane.vault.leases.under(grant.paths[0])
    assert grant.accessor is not None
    plane.vault.make_zombie(grant.accessor)  # its token will not take it along
    plane.work()
    assert plane.vault.target.users == set()
    assert plane.grant(grant.id).state is State.REVOKING
    plane.wait(SETTLING)
    plane.work()
    assert plane.grant(grant.id).state is State.REVOKED
    assert f"'{stray}'" not in repr(plane.store.leases(grant.id))


def test_a_stray_that_shows_up_at_the_last_moment_is_in_the_receipt(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    plane.clock.advance(SETTLING)
    stray = plane.vault.plant_lease(grant.paths[0], "v-late", MINUTE)
    plane.work()
    revoked = plane.grant(grant.id)
    assert revoked.state is State.REVOKED
    assert revoked.receipt is not None
    (end,) = [end for end in revoked.receipt.ended if end.lease == stray]
    assert (end.method, end.verified, end.principal) == ("stray lease revoked by its id", False, "")
    assert not revoked.receipt.verified
    assert plane.vault.target.users == set()


def test_a_stray_that_resists_keeps_the_grant_revoking(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    plane.vault.target.down = True
    plane.wait(SETTLING * 2)
    waiting = plane.grant(grant.id)
    assert waiting.state is State.REVOKING
    assert "the target does not answer" in str(waiting.failing)
    plane.vault.target.down = False
    plane.wait(MINUTE * 2)
    assert (plane.grant(grant.id).state, plane.alive()) == (State.REVOKED, [])


def test_the_leases_of_grants_that_were_issued_well_are_never_strays(plane: FakePlane) -> None:
    before = plane.ask(task="T-before").leases[0]
    grant = _interrupted(plane)
    after = plane.ask(task="T-after").leases[0]
    plane.work()
    assert plane.vault.target.users == {before.principal, after.principal}
    plane.clock.advance(SETTLING)
    assert plane.revoke(plane.grant(grant.id)).state is State.REVOKED
    assert plane.vault.target.users == {before.principal, after.principal}


def test_a_rival_s_lease_that_is_not_saved_yet_is_left_alone_and_waited_for(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    rival = _in_the_middle_of_issuing(plane)
    assert grant.accessor is not None
    plane.vault.leases.revoke_token(grant.accessor)
    (theirs,) = plane.vault.leases.under(rival.paths[0])
    waiting = plane.revoke(plane.grant(grant.id))
    assert (waiting.state, waiting.failing) == (
        State.REVOKING,
        f"{theirs} may belong to a grant that is being issued right now",
    )
    assert plane.vault.leases.facts(theirs) is not None


def test_a_rival_that_begins_while_we_look_is_left_alone_too(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    assert grant.accessor is not None
    plane.vault.leases.revoke_token(grant.accessor)
    plane.journal.before["leases.under"] = lambda: _in_the_middle_of_issuing(plane)
    waiting = plane.revoke(plane.grant(grant.id))
    assert waiting.state is State.REVOKING
    assert len(plane.vault.target.users) == 1


def test_a_rival_that_saves_its_lease_while_we_look_is_left_alone_too(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    assert grant.accessor is not None
    plane.vault.leases.revoke_token(grant.accessor)
    plane.journal.before["leases.under"] = lambda: plane.ask(task="T-rival")
    plane.revoke(plane.grant(grant.id))
    assert len(plane.vault.target.users) == 1


def test_what_is_certainly_a_stray_is_ended_although_something_else_is_doubtful(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    assert grant.accessor is not None
    plane.vault.make_zombie(grant.accessor)
    (stray,) = plane.vault.leases.under(grant.paths[0])
    plane.clock.advance(LATER_THAN_ANY_CLOCK)
    _in_the_middle_of_issuing(plane)
    assert plane.revoke(plane.grant(grant.id)).state is State.REVOKING
    assert plane.vault.leases.facts(stray) is None
    assert len(plane.vault.target.users) == 1


def test_rivals_that_come_without_end_do_not_keep_an_old_grant_from_its_end(plane: FakePlane) -> None:
    grant = _interrupted(plane)
    plane.clock.advance(SETTLING + LATER_THAN_ANY_CLOCK)
    _in_the_middle_of_issuing(plane)
    assert plane.revoke(plane.grant(grant.id)).state is State.REVOKED
    assert len(plane.vault.target.users) == 1


def test_what_was_there_long_before_the_grant_was_asked_for_is_not_its_own(plane: FakePlane) -> None:
    asked = plane.ask().grant
    older = plane.vault.plant_lease(asked.paths[0], "v-older", timedelta(hours=1))
    plane.end(asked.id)
    plane.clock.advance(LATER_THAN_ANY_CLOCK)
    grant = _interrupted(plane)
    plane.wait(SETTLING)
    plane.work()
    assert plane.grant(grant.id).state is State.REVOKED
    assert plane.vault.leases.facts(older) is not None


def test_a_grant_whose_effects_are_all_known_sweeps_nothing(plane: FakePlane) -> None:
    grant = plane.ask().grant
    other = plane.vault.plant_lease(grant.paths[0], "v-other", timedelta(hours=1))
    plane.end(grant.id)
    assert plane.vault.leases.facts(other) is not None
    assert "leases.under" not in plane.journal.steps


def _interrupted(plane: FakePlane) -> Grant:
    """A grant whose only credential was made, but the answer never came."""
    plane.vault.faults.lose_read = True
    with pytest.raises(VaultUnavailableError):
        plane.ask(task="T-interrupted")
    return plane.newest()


def _in_the_middle_of_issuing(plane: FakePlane) -> Grant:
    """A grant of somebody else, who has a credential and has not saved its lease yet."""
    plane.journal.fail("after", "logins.read", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        plane.ask(task="T-rival")
    return plane.newest()
