"""Whatever comes in as a token: it is believed or it is NotAuthenticatedError, and nothing else ever."""

import json
from datetime import timedelta
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model.canonical import canonical
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, trusting

CLOCK: Final = FakeClock()
ISSUER: Final = FakeIssuer(clock=CLOCK)
TRUST: Final = trusting(ISSUER, clock=CLOCK)
HONEST: Final = ISSUER.mint().reveal()

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(ISSUER.url) | st.just("shorthold")
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
names = st.sampled_from(["alg", "kid", "typ", "crit", "iss", "sub", "aud", "exp", "iat", "nbf", "jti", "act", "x"])
patient = settings(deadline=timedelta(seconds=30), max_examples=300)


def believed(token: Secret) -> VerifiedClaims | None:
    try:
        return TRUST.verify(token)
    except NotAuthenticatedError:
        return None


@patient
@given(st.text() | st.text(alphabet="abcAB01-_.=") | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_refused(text: str) -> None:
    assert believed(Secret(text)) is None


@patient
@given(st.integers(0, len(HONEST) - 1), st.characters())
def test_a_token_with_one_character_changed_is_refused(place: int, char: str) -> None:
    changed = HONEST[:place] + char + HONEST[place + 1 :]
    assert (believed(Secret(changed)) is not None) == (changed == HONEST)


@patient
@given(st.integers(0, len(HONEST)), st.integers(0, len(HONEST)))
def test_a_piece_of_a_token_is_refused(start: int, end: int) -> None:
    piece = HONEST[start:end]
    assert (believed(Secret(piece)) is not None) == (piece == HONEST)


@patient
@given(st.binary(), st.binary(), st.binary(max_size=200))
def test_any_bytes_in_the_segments_are_refused(header: bytes, payload: bytes, signature: bytes) -> None:
    assert believed(ISSUER.forge(header, payload, signature=signature)) is None
    assert believed(ISSUER.forge({}, payload)) is None
    assert believed(ISSUER.forge(header)) is None


@patient
@given(st.binary(max_size=200).filter(lambda raw: raw != ISSUER.keys[0].sign(b"")))
def test_j12_any_bytes_as_signature_are_refused(signature: bytes) -> None:
    assert believed(ISSUER.forge({}, signature=signature)) is None


@patient
@given(st.dictionaries(names, documents, max_size=4))
def test_j08_any_header_is_refused_or_changes_nothing(header: dict[str, object]) -> None:
    who = believed(ISSUER.forge(header))
    if who is not None:
        assert who.subject == "agent-1"
        assert header.get("crit") is None  # None leaves a name out
        assert header.get("alg") in {None, "ES256"}
        assert header.get("kid") in {None, ISSUER.keys[0].kid}


@patient
@given(st.dictionaries(names, documents, max_size=4))
def test_j17_j18_j20_j24_any_claims_are_refused_or_exactly_right(others: dict[str, object]) -> None:
    who = believed(ISSUER.forge({}, {**ISSUER.claims(), **others}))
    if who is not None:
        assert who.claims["iss"] == ISSUER.url
        assert who.claims["aud"] == "shorthold" or set(who.claims["aud"]) == {"shorthold"}  # pyright: ignore[reportArgumentType] # checked just now
        assert isinstance(who.subject, str)
        assert who.subject.encode()
        assert type(who.claims["exp"]) is int
        assert who.expires_at > CLOCK.now() - timedelta(seconds=30)
        assert json.loads(canonical(who.claims)) == who.claims  # what was believed can be written down


@patient
@given(st.text(max_size=300))
def test_j25_any_text_as_subject_is_refused_or_can_be_stored_and_logged(subject: str) -> None:
    who = believed(ISSUER.forge({}, {**ISSUER.claims(), "sub": subject}))
    if who is None:
        return
    assert who.subject == subject
    assert "\x00" not in subject
    assert len(subject.encode("utf-8").decode("utf-8").splitlines()) == 1
