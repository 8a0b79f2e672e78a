"""A token that proves nobody: the same words to everybody, the reason in the audit log, and no flood of it (J47)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.grants.identify import RECORDED_PER_SECOND, Identify
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.event import Kind
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane


class Nobody:
    def verify(self, token: Secret) -> VerifiedClaims:
        raise NotAuthenticatedError(f"the signature of {len(token.reveal())} characters does not hold")


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def identify(plane: FakePlane) -> Identify:
    return replace(plane.identify, issuers=Nobody())


def test_the_reason_is_in_the_audit_log_and_nowhere_else(plane: FakePlane) -> None:
    with pytest.raises(NotAuthenticatedError, match=r"^the bearer token is not valid here$"):
        identify(plane)(Secret("x"))
    (event,) = plane.events(Kind.TOKEN_REJECTED)
    assert event.body == {"reason": "the signature of 1 characters does not hold"}


def test_no_token_at_all_leaves_no_event(plane: FakePlane) -> None:
    with pytest.raises(NotAuthenticatedError, match="no bearer token"):
        identify(plane)(None)
    assert plane.events(Kind.TOKEN_REJECTED) == []


def test_a_flood_of_bad_tokens_leaves_few_events_and_its_number(plane: FakePlane) -> None:
    door = identify(plane)
    for _ in range(500):
        with pytest.raises(NotAuthenticatedError):
            door(Secret("x"))
    assert len(plane.events(Kind.TOKEN_REJECTED)) == RECORDED_PER_SECOND
    plane.clock.advance(timedelta(seconds=1))
    with pytest.raises(NotAuthenticatedError):
        door(Secret("x"))
    assert plane.events(Kind.TOKEN_REJECTED)[-1].body["left_out_before"] == 500 - RECORDED_PER_SECOND
