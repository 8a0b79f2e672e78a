"""One token, or one key, asks for one grant: before any effect, whatever becomes of it (J40, J42, J44, C13, C14)."""

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.utils import base64url_decode, der_to_raw_signature, raw_to_der_signature

from controlplane.grants.identify import RECORDED_PER_SECOND
from controlplane.grants.issue import Delivered
from controlplane.model.errors import (
    ConflictError,
    DeniedError,
    KeyNeededError,
    NotAuthenticatedError,
    TokenReplayedError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId, State, TaskId, Why
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
        ready.wait(60)
        try:
            made.append(plane.ask(who).grant.id)
        except TokenReplayedError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
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


def reusable(plane: FakePlane, token: Secret) -> VerifiedClaims:
    """The same token from an issuer that hands it out again."""
    issuers = trusting(plane.issuer, clock=plane.clock, replay="reusable")
    return replace(plane.identify, issuers=issuers)(token)


def test_a_reusable_token_asks_for_one_task_after_the_other(plane: FakePlane, token: Secret) -> None:
    who = reusable(plane, token)
    assert who.single_use is None
    first = plane.ask(who, key="k-1", task=TaskId("T-1"))
    second = plane.ask(who, key="k-2", task=TaskId("T-2"))
    assert first.grant.id != second.grant.id
    assert first.wrapping_token is not None
    assert second.wrapping_token is not None


def test_c14_with_a_reusable_token_a_request_without_a_key_is_refused_before_anything(
    plane: FakePlane, token: Secret
) -> None:
    for entitlement in ("orders-read", "no-such-thing"):
        with pytest.raises(KeyNeededError) as caught:
            plane.ask(reusable(plane, token), entitlement=entitlement)
        assert (caught.value.code, caught.value.status) == ("idempotency-key-needed", 400)
    assert plane.journal.steps == []


def test_c14_a_captured_request_of_a_reusable_token_sent_again_word_for_word_opens_nothing(
    plane: FakePlane, token: Secret
) -> None:
    first = plane.ask(reusable(plane, token), key="k-1")
    assert first.wrapping_token is not None
    for _ in range(3):
        replayed = plane.ask(reusable(plane, token), key="k-1")
        assert (replayed.grant.id, replayed.wrapping_token, replayed.credentials) == (first.grant.id, None, {})
    plane.end(first.grant.id)
    replayed = plane.ask(reusable(plane, token), key="k-1")  # not after its end either: a tombstone stays
    assert (replayed.grant.state, replayed.wrapping_token) == (State.REVOKED, None)
    assert plane.journal.steps.count("logins.login") == 1


def test_c14_not_even_the_first_answer_is_repeated_where_credentials_are_inline() -> None:
    plane = FakePlane(compiled_entitlement(delivery="inline"))
    first = plane.ask(reusable(plane, plane.issuer.mint(AGENT)), key="k-1")
    assert first.credentials
    again = plane.ask(reusable(plane, plane.issuer.mint(AGENT)), key="k-1")
    assert (again.grant.id, again.credentials, again.wrapping_token) == (first.grant.id, {}, None)


@pytest.mark.parametrize(
    "other",
    [{"task": TaskId("T-2")}, {"reason": "another"}, {"ttl": timedelta(minutes=6)}, {"entitlement": "orders-other"}],
)
def test_c13_the_key_of_one_task_is_a_conflict_in_any_other_request(other: dict[str, Any]) -> None:
    plane = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-other"))
    token = plane.issuer.mint(AGENT)
    plane.ask(reusable(plane, token), key="k-1")
    with pytest.raises(ConflictError):
        plane.ask(reusable(plane, token), key="k-1", **other)
    assert len(plane.store.grants()) == 1


def test_c13_a_key_is_its_workload_s_own() -> None:
    plane = FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "agent-*"}}]))
    one, other = (reusable(plane, plane.issuer.mint(f"agent-{name}")) for name in "ab")
    mine, theirs = plane.ask(one, key="k-1"), plane.ask(other, key="k-1", task=TaskId("T-2"))
    assert mine.grant.id != theirs.grant.id
    assert theirs.wrapping_token is not None


def test_j40_sixteen_requests_with_one_reusable_token_and_one_key_at_once_open_one_credential(
    plane: FakePlane, token: Secret
) -> None:
    who, ready = reusable(plane, token), threading.Barrier(16)
    answers = list[Delivered]()

    def ask() -> None:
        ready.wait(60)
        answers.append(plane.ask(who, key="k-1"))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({answer.grant.id for answer in answers}) == 1
    assert sum(answer.wrapping_token is not None for answer in answers) == 1
    assert plane.journal.steps.count("logins.login") == 1


def test_c14_a_flood_of_replays_leaves_few_events_and_its_number(plane: FakePlane, token: Secret) -> None:
    who = plane.identify(token)
    plane.ask(who)
    for _ in range(200):
        with pytest.raises(TokenReplayedError):
            plane.ask(who)
    assert len(plane.events(Kind.TOKEN_REPLAYED)) == RECORDED_PER_SECOND
    plane.clock.advance(timedelta(seconds=1))
    with pytest.raises(TokenReplayedError):
        plane.ask(who)
    assert plane.events(Kind.TOKEN_REPLAYED)[-1].body["left_out_before"] == 200 - RECORDED_PER_SECOND


def test_c14_a_flood_of_bad_tokens_hides_no_replay(plane: FakePlane, token: Secret) -> None:
    who = plane.identify(token)
    plane.ask(who)
    for _ in range(2 * RECORDED_PER_SECOND):
        with pytest.raises(NotAuthenticatedError):
            plane.identify(Secret("x"))
    with pytest.raises(TokenReplayedError):
        plane.ask(who)
    assert len(plane.events(Kind.TOKEN_REPLAYED)) == 1


MINUTES = st.integers(0, 20).map(lambda number: timedelta(minutes=number))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(MINUTES, st.sampled_from(["mint", "prune", "replay"])), max_size=25))
def test_j42_whatever_is_pruned_and_when_no_token_that_is_still_taken_asks_twice(
    steps: list[tuple[timedelta, str]],
) -> None:
    plane = FakePlane(compiled_entitlement(ttl={"default": "5s", "max": "15m"}))
    spent = list[Secret]()
    for wait, act in steps:
        plane.clock.advance(wait)
        match act:
            case "mint":
                spent.append(plane.issuer.mint(AGENT, jti=f"t-{len(spent)}", ttl=timedelta(minutes=1 + len(spent))))
                plane.ask(plane.identify(spent[-1]))
            case "prune":
                plane.store.forget_tokens(plane.clock.now())
            case _:
                for token in spent:
                    with pytest.raises(NotAuthenticatedError):  # too old, or replayed: which is one of these
                        plane.ask(plane.identify(token))
    assert len(plane.store.grants(limit=100)) == len(spent)
