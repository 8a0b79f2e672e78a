"""One token asks for one grant: before any effect, whatever becomes of it (J40, J42, J44, C13, C14)."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from jwt.utils import base64url_decode, der_to_raw_signature, raw_to_der_signature

from controlplane.model.errors import ConflictError, DeniedError, NotAuthenticatedError, TokenReplayedError
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId, State, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.issuer import base64url, trusting
from controlplane.testing.plane import AGENT, FakePlane

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


@pytest.fixture
def token(plane: FakePlane) -> Secret:
    return plane.issuer.mint(AGENT, jti="mine-1")


def test_j40_a_token_asks_for_one_grant_and_the_second_makes_nothing(plane: FakePlane, token: Secret) -> None:
    plane.ask(plane.identify(token))
    steps = list(plane.journal.steps)
    others: tuple[dict[str, Any], ...] = ({}, {"task": "T-2"}, {"key": "k-1"})
    for asked in others:
        with pytest.raises(TokenReplayedError):
            plane.ask(plane.identify(token), **asked)
    assert plane.journal.steps == [*steps, *["commit token.replayed"] * 3]
    assert len(plane.store.grants()) == 1
    told = plane.events(Kind.TOKEN_REPLAYED)[1]
    assert (told.body["task"], told.body["subject"], told.grant) == ("T-2", AGENT, None)


def test_the_same_request_with_its_key_may_be_repeated_with_the_same_token_or_a_new_one(
    plane: FakePlane, token: Secret
) -> None:
    first = plane.ask(plane.identify(token), key="k-1")
    fresh = plane.issuer.mint(AGENT, jti="mine-2")
    for again in (token, fresh):
        repeated = plane.ask(plane.identify(again), key="k-1")
        assert (repeated.grant.id, repeated.wrapping_token) == (first.grant.id, None)
    with pytest.raises(ConflictError):
        plane.ask(plane.identify(token), key="k-1", task="T-2")
    plane.ask(plane.identify(fresh), key="k-2")  # what was only told of a grant is not spent


def test_a_spent_token_still_looks_and_finishes(plane: FakePlane, token: Secret) -> None:
    grant = plane.ask(plane.identify(token)).grant
    assert plane.show(plane.identify(token), grant.id)[0].state is State.ACTIVE
    plane.finish(plane.identify(token), grant.id, Why.COMPLETED)
    plane.work()
    assert plane.grant(grant.id).state is State.REVOKED


def test_what_was_denied_spends_nothing(plane: FakePlane, token: Secret) -> None:
    with pytest.raises(DeniedError):
        plane.ask(plane.identify(token), ttl=timedelta(hours=1))
    assert plane.ask(plane.identify(token)).wrapping_token


def test_j44_a_token_stays_burnt_when_its_grant_fails_and_a_new_one_may_try_again(
    plane: FakePlane, token: Secret
) -> None:
    plane.vault.faults.sealed = True
    with pytest.raises(Exception, match="sealed"):
        plane.ask(plane.identify(token))
    plane.vault.faults.sealed = False
    with pytest.raises(TokenReplayedError):
        plane.ask(plane.identify(token))
    assert plane.ask(plane.identify(plane.issuer.mint(AGENT, jti="mine-2"))).wrapping_token


def test_a_token_is_burnt_before_anything_is_signed(plane: FakePlane, token: Secret) -> None:
    seen: list[bool] = []

    def replay() -> None:
        with pytest.raises(TokenReplayedError):
            plane.ask(plane.identify(token))
        seen.append(True)

    plane.journal.before["signer.sign"] = replay
    plane.ask(plane.identify(token))
    assert seen == [True]


def test_j40_sixteen_requests_with_one_token_at_once_make_one_grant(plane: FakePlane, token: Secret) -> None:
    who, ready = plane.identify(token), threading.Barrier(16)
    made, refused = list[GrantId](), list[str]()

    def ask() -> None:
        ready.wait(10)
        try:
            made.append(plane.ask(who).grant.id)
        except TokenReplayedError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len(made), len(refused)) == (1, 15)
    assert plane.journal.steps.count("logins.login") == 1


def test_j42_a_token_is_remembered_until_it_is_refused_for_its_age(plane: FakePlane, token: Secret) -> None:
    who = plane.identify(token)
    assert who.single_use is not None
    plane.ask(who)
    plane.clock.advance(who.single_use.until - plane.clock.now() - timedelta(seconds=1))
    assert plane.store.forget_tokens(plane.clock.now()) == 0
    with pytest.raises(TokenReplayedError):
        plane.ask(plane.identify(token))
    plane.clock.advance(timedelta(seconds=1))
    with pytest.raises(NotAuthenticatedError, match="not valid"):
        plane.identify(token)
    assert plane.store.forget_tokens(plane.clock.now()) == 1


def test_without_a_jti_a_token_is_what_was_signed_not_its_signature(plane: FakePlane) -> None:
    """Whoever has (r, s) of ECDSA also has (r, n - s): a second spelling of the same token."""
    token = plane.issuer.mint(AGENT)
    message, _, signature = token.reveal().rpartition(".")
    key = plane.issuer.keys[0].private
    curve = getattr(key, "curve")  # noqa: B009 # only the EC key of this issuer has one
    r, s = decode_dss_signature(raw_to_der_signature(base64url_decode(signature), curve))
    other = der_to_raw_signature(encode_dss_signature(r, P256_ORDER - s), curve)
    twin = Secret(f"{message}.{base64url(other)}")
    assert twin.reveal() != token.reveal()
    plane.ask(plane.identify(token))
    with pytest.raises(TokenReplayedError):
        plane.ask(plane.identify(twin))
    plane.ask(plane.identify(plane.issuer.mint(AGENT, hello="a token that says something else")))


def test_a_jti_is_its_own_issuers(plane: FakePlane, token: Secret) -> None:
    who = plane.identify(token)
    assert who.single_use is not None
    assert (who.single_use.issuer, who.single_use.id) == ("dev", "jti:mine-1")


def test_the_tokens_of_a_reusable_issuer_ask_again(plane: FakePlane, token: Secret) -> None:
    reusable = trusting(plane.issuer, clock=plane.clock, replay="reusable")
    who: VerifiedClaims = replace(plane.identify, issuers=reusable)(token)
    assert who.single_use is None
    assert plane.ask(who).grant.id != plane.ask(who).grant.id
