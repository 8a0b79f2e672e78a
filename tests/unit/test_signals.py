"""Security events of issuers: a revoked session is frozen at once, and nobody else's word freezes anybody (I09)."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.issuers import kinds
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.model.access import Role, Standing
from controlplane.model.errors import (
    ConfigurationError,
    DeniedError,
    FrozenError,
    NotAuthenticatedError,
    SignalRefusedError,
)
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.grant import State, TaskId
from controlplane.model.secret import Secret
from controlplane.model.signal import SESSION_REVOKED
from controlplane.testing.clock import FakeClock
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.issuer import FakeIssuer, IssuerKey, trusting
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]
RESPONDER = Standing(roles=frozenset({Role.RESPONDER}))
OTHER = "repo:acme/agent:ref:refs/heads/other"
SET = {"Content-Type": "application/secevent+jwt"}
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"


@pytest.fixture
def plane() -> FakePlane:
    eligible = [{"issuer": "dev", "subject": AGENT}, {"issuer": "dev", "subject": OTHER}]
    return FakePlane(compiled_entitlement(eligibility=eligible))


def push(http: Http, plane: FakePlane, token: Secret) -> httpx.Response:
    return http(plane, "POST", "/v1/signals", headers=SET, content=token.reveal())


def asks(plane: FakePlane, subject: str, task: str) -> State:
    return plane.ask(who=plane.agent(subject), task=TaskId(task)).grant.state


def test_i09_a_revoked_session_gets_nothing_new_and_others_do(http: Http, plane: FakePlane) -> None:
    held = plane.ask().grant
    answer = push(http, plane, plane.issuer.signal(AGENT))
    assert (answer.status_code, answer.content) == (202, b"")
    with pytest.raises(FrozenError) as refused:
        asks(plane, AGENT, "T-2")
    assert "your session is over" in refused.value.reasons[0].detail.lower()
    assert asks(plane, OTHER, "T-3") is State.ACTIVE
    assert plane.grant(held.id).state is State.ACTIVE  # to end what lives is for a responder: a cut

    (freeze,) = plane.freezes(RESPONDER)
    assert freeze.selection == f"issuer=dev,subject={AGENT}"
    assert (freeze.issuer, freeze.subject) == ("dev", "security-events")
    (told,) = plane.events(Kind.SIGNAL_RECEIVED)
    assert told.body == {
        "issuer": "dev",
        "signal": "signal-1",
        "event": SESSION_REVOKED,
        "subject": AGENT,
        "freeze": freeze.id,
    }


def test_i09_it_ends_when_no_token_of_before_is_good_any_more(http: Http, plane: FakePlane) -> None:
    before = plane.issuer.mint(AGENT, ttl=timedelta(hours=1))
    push(http, plane, plane.issuer.signal(AGENT))
    plane.clock.advance(timedelta(hours=1))
    with pytest.raises(FrozenError):
        asks(plane, AGENT, "T-1")
    plane.clock.advance(timedelta(seconds=30))
    with pytest.raises(NotAuthenticatedError):
        plane.identify(before)
    assert asks(plane, AGENT, "T-2") is State.ACTIVE


def test_i09_the_same_signal_again_does_nothing_even_when_it_was_thawed(http: Http, plane: FakePlane) -> None:
    signal = plane.issuer.signal(AGENT)
    assert [push(http, plane, signal).status_code for _ in range(3)] == [202] * 3
    (freeze,) = plane.freezes(RESPONDER)
    assert len(plane.events(Kind.SIGNAL_RECEIVED)) == 1
    plane.thaw(plane.agent("ann"), RESPONDER, freeze.id, reason="a false alarm")
    assert push(http, plane, signal).status_code == 202
    assert not plane.freezes(RESPONDER)
    assert asks(plane, AGENT, "T-1") is State.ACTIVE
    assert push(http, plane, plane.issuer.signal(AGENT, jti="signal-2")).status_code == 202
    assert len(plane.freezes(RESPONDER)) == 1


def test_two_replicas_that_hear_it_at_once_make_one_freeze(plane: FakePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = plane.hear(plane.issuer.signal(AGENT))
    made, found = plane.heed(signal), plane.store.freeze
    too_early = [None]

    def look(name: FreezeId) -> Freeze | None:
        return too_early.pop() if too_early else found(name)  # at first, before the other one has saved

    monkeypatch.setattr(plane.store, "freeze", look)
    assert plane.heed(signal) == made
    assert plane.freezes(RESPONDER) == [made]
    assert len(plane.events(Kind.SIGNAL_RECEIVED)) == 1


def test_what_freezes_nothing_is_heard_and_told_of(http: Http, plane: FakePlane) -> None:
    asked = plane.issuer.signal(events={VERIFICATION: {"state": "x"}}, sub_id={"format": "opaque", "id": "stream-1"})
    assert push(http, plane, asked).status_code == 202
    assert not plane.freezes(RESPONDER)
    assert [event.body["freeze"] for event in plane.events(Kind.SIGNAL_RECEIVED)] == [None]


FOREIGN = {"format": "iss_sub", "iss": "https://other.example", "sub": AGENT}
REFUSED: Mapping[str, Mapping[str, Any]] = {
    "another issuer": {"iss": "https://other.example"},
    "no issuer": {"iss": None},
    "an issuer that is a list": {"iss": ["https://dev.example"]},
    "the audience of workloads": {"aud": "shorthold"},
    "no audience": {"aud": None},
    "also somebody else's": {"aud": ["shorthold-signals", "other"]},
    "it logs somebody in": {"sub": AGENT},
    "it expires": {"exp": 4_000_000_000},
    "no time": {"iat": None},
    "a time in words": {"iat": "now"},
    "no id": {"jti": None},
    "an id with a line break": {"jti": "a\nb"},
    "no events": {"events": None},
    "events that are a list": {"events": [SESSION_REVOKED]},
    "two events": {"events": {SESSION_REVOKED: {}, VERIFICATION: {}}},
    "an event that says nothing": {"events": {SESSION_REVOKED: None}},
    "an event with a line break": {"events": {"a\nb": {}}},
    "nobody": {"sub_id": None},
    "somebody else's subject": {"sub_id": FOREIGN},
    "a subject of another form": {"sub_id": {"format": "email", "email": "ann@acme.example"}},
    "a subject without a name": {"sub_id": {**FOREIGN, "iss": "https://issuer.example", "sub": ""}},
    "a subject that no selection can write": {
        "sub_id": {"format": "iss_sub", "iss": "https://issuer.example", "sub": "no\N{NO-BREAK SPACE}break"}
    },
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED.keys())
def test_i09_a_signal_that_is_not_as_it_should_be_freezes_nobody(
    http: Http, plane: FakePlane, changed: Mapping[str, Any]
) -> None:
    answer = push(http, plane, plane.issuer.signal(AGENT, **changed))
    refused(plane, answer)


def refused(plane: FakePlane, answer: httpx.Response) -> str:
    """Why: in the audit log, and in the same words for everybody at the door."""
    assert (answer.status_code, answer.json()["code"]) == (400, "signal-refused")
    assert answer.json()["detail"] == "the security event token is not valid here"
    assert not plane.freezes(RESPONDER)
    assert not plane.events(Kind.SIGNAL_RECEIVED)
    return str(plane.events(Kind.SIGNAL_REFUSED)[-1].body["reason"])


def test_i09_forged_it_freezes_nobody(http: Http, plane: FakePlane) -> None:
    issuer = plane.issuer
    stranger = IssuerKey(kid=issuer.keys[0].kid)
    assert "signature" in refused(plane, push(http, plane, issuer.signal(AGENT, key=stranger)))
    honest = issuer.signal(AGENT).reveal()
    head, body, _ = honest.split(".")
    for token in ("", "x", "é", "a.b.c", f"{head}.{body}.", honest + "x", honest + "\n", "x" * 60_000):
        refused(plane, push(http, plane, Secret(token)))
    assert push(http, plane, issuer.signal(AGENT)).status_code == 202


def test_i09_old_or_of_the_future_it_freezes_nobody(http: Http, plane: FakePlane) -> None:
    kept, now = plane.issuer.signal(AGENT), int(plane.clock.now().timestamp())
    assert "future" in refused(plane, push(http, plane, plane.issuer.signal(AGENT, iat=now + 31)))
    plane.clock.advance(timedelta(hours=1, seconds=30))
    assert "older" in refused(plane, push(http, plane, kept))
    late = plane.issuer.signal(AGENT, iat=now + 60)
    assert push(http, plane, late).status_code == 202


def test_neither_token_passes_for_the_other(http: Http, plane: FakePlane) -> None:
    issuer = plane.issuer
    body = {**issuer.claims(AGENT), "aud": "shorthold-signals"}
    assert "typ" in refused(plane, push(http, plane, issuer.forge({}, body)))
    logs_in: dict[str, Any] = {"sub": AGENT, "aud": "shorthold", "exp": issuer.claims()["exp"]}
    with pytest.raises(NotAuthenticatedError):
        plane.identify(issuer.signal(AGENT, **logs_in))
    assert "typ" in str(plane.events(Kind.TOKEN_REJECTED)[-1].body["reason"])


def test_an_issuer_whose_signals_nobody_configured_is_not_heard() -> None:
    clock = FakeClock()
    issuer = FakeIssuer(clock=clock)
    with pytest.raises(NotAuthenticatedError, match="no audience for this issuer's signals"):
        trusting(issuer, clock=clock).signal(issuer.signal())


def test_an_issuer_without_iss_cannot_be_configured_to_signal() -> None:
    kind = kinds()["spiffe"]
    options = kind.options.model_validate(
        {
            "name": "mesh",
            "kind": "spiffe",
            "url": "spiffe://acme.example",
            "audiences": ["a"],
            "signals": ["s"],
            "jwks_uri": "https://acme.example/bundle",
        }
    )
    with pytest.raises(ConfigurationError, match="no iss to signal by"):
        issuer_of(kind, options)


@pytest.mark.parametrize("kind", ["application/json", "application/jwt", "text/plain", ""])
def test_it_comes_as_what_it_is_and_nowhere_else(http: Http, plane: FakePlane, kind: str) -> None:
    token = plane.issuer.signal(AGENT).reveal()
    answer = http(plane, "POST", "/v1/signals", headers={"Content-Type": kind}, content=token)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    elsewhere = http(plane, "POST", "/v1/grants", headers=SET, content=token)
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (415, "unsupported-media-type")
    assert not plane.events(Kind.SIGNAL_REFUSED)


@given(subject=st.text(min_size=1, max_size=40))
def test_whoever_it_names_only_he_is_frozen(subject: str) -> None:
    plane = FakePlane(compiled_entitlement())
    try:
        plane.heed(plane.hear(plane.issuer.signal(subject)))
    except SignalRefusedError:
        assert not plane.freezes(RESPONDER)
        return
    for other in (AGENT, f"{subject}x", subject.swapcase()):
        try:
            asks(plane, other, "T-1")
        except FrozenError:
            assert other == subject
        except DeniedError:
            assert other != AGENT


def test_a_flood_of_refusals_leaves_no_flood_of_events(plane: FakePlane) -> None:
    for _ in range(100):
        with pytest.raises(SignalRefusedError):
            plane.hear(Secret("x"))
    assert len(plane.events(Kind.SIGNAL_REFUSED)) == 20
