"""A control plane whose clock is off grants nothing, and ends what is open as ever (J45)."""

from datetime import timedelta

import pytest

from controlplane.model.errors import ClockOffError
from controlplane.model.grant import State
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(minutes=-5), timedelta(seconds=31)])
def test_j45_a_clock_that_is_off_grants_nothing_and_revoking_goes_on(ahead: timedelta) -> None:
    plane = FakePlane(compiled_entitlement())
    grant = plane.ask(key="k-1").grant
    plane.ahead = ahead
    who = plane.agent()
    with pytest.raises(ClockOffError, match="ahead of Vault's" if ahead > timedelta(0) else "behind Vault's") as caught:
        plane.ask(who)
    assert (caught.value.status, caught.value.code) == (503, "clock-off")
    assert len(plane.store.grants()) == 1
    assert plane.ask(key="k-1").grant.id == grant.id  # telling goes on
    assert plane.end(grant.id).state is State.REVOKED
    plane.ahead = timedelta(0)
    assert plane.ask(who).wrapping_token  # its token was not spent


@pytest.mark.parametrize("ahead", [None, timedelta(seconds=30), timedelta(seconds=-30)])
def test_j45_a_clock_that_is_near_enough_or_that_nobody_knows_of_grants(ahead: timedelta | None) -> None:
    plane = FakePlane(compiled_entitlement())
    plane.ahead = ahead
    assert plane.ask().wrapping_token
