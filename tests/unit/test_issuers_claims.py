"""Claims of correctly signed tokens: who, for whom, until when. Every one must be exactly right."""

import json
from datetime import timedelta
from typing import Any

import pytest

from controlplane.issuers.jose.compact import MAX_CHARS, take_apart
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.model.secret import Secret
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, trusting

NOW = int(FakeClock().now().timestamp())
LEEWAY = 30


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def issuer(clock: FakeClock) -> FakeIssuer:
    return FakeIssuer("https://issuer.example", clock=clock)


@pytest.fixture
def trust(issuer: FakeIssuer, clock: FakeClock) -> TrustedIssuers:
    return trusting(issuer, clock=clock)


def refusal(trust: TrustedIssuers, token: Secret) -> str:
    with pytest.raises(NotAuthenticatedError) as caught:
        trust.verify(token)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 400
    return caught.value.detail


def passes(trust: TrustedIssuers, token: Secret) -> bool:
    try:
        trust.verify(token)
    except NotAuthenticatedError:
        return False
    return True


def raw(issuer: FakeIssuer, name: str, text: str) -> Secret:
    """A token whose claim `name` is written as `text`, whatever JSON thinks of it."""
    others = json.dumps({key: value for key, value in issuer.claims().items() if key != name})
    return issuer.forge({}, f'{{"{name}":{text},{others[1:]}'.encode())


def test_a_missing_claim_is_never_assumed(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    for name in ("iss", "sub", "aud", "iat", "exp"):
        assert name in refusal(trust, issuer.mint(without=[name]))


@pytest.mark.parametrize(
    "audience",
    [
        None,
        [],
        {},
        "",
        [""],
        [["shorthold"]],
        1,
        True,
        "Shorthold",
        "shorthold ",
        "shorthold-tasks",
        "short",
        "shorthold,other",
        {"shorthold": 1},
        [None],
        ["shorthold", None],
        ["shorthold", 1],
    ],
)
def test_j17_only_our_audience_is_our_audience(issuer: FakeIssuer, trust: TrustedIssuers, audience: object) -> None:
    assert "aud" in refusal(trust, issuer.mint(aud=audience))


def test_j17_a_token_that_is_also_for_others_is_refused(issuer: FakeIssuer, clock: FakeClock) -> None:
    trust = trusting(issuer, clock=clock, audiences=frozenset({"shorthold", "shorthold-eu"}))
    for audience in ("shorthold", ["shorthold-eu"], ["shorthold", "shorthold-eu"]):
        assert trust.verify(issuer.mint(aud=audience))
    assert "somebody else's" in refusal(trust, issuer.mint(aud=["shorthold", "https://api.example"]))


@pytest.mark.parametrize(
    "claimed",
    [
        "https://issuer.example/",
        "https://issuer.example.evil",
        "https://issuer.exampl",
        "https://issuer@issuer.example",
        "https://issuer.example@evil.example",
        "HTTPS://issuer.example",
        "https://ISSUER.example",
        "https://xn--issuer-.example",
        "https://issuer%2eexample",
        "https://issuer.example:443",
        "https://issuer.example#",
        "https://issuer.example?",
        " https://issuer.example",
        "https://issuer.example\n",
        "http://issuer.example",
        "\uff48ttps://issuer.example",
        "",
        None,
        1,
        ["https://issuer.example"],
        {"https://issuer.example": 1},
    ],
)
def test_j18_an_issuer_that_looks_like_ours_is_not_ours(
    issuer: FakeIssuer, trust: TrustedIssuers, claimed: object
) -> None:
    assert "iss" in refusal(trust, issuer.mint(iss=claimed))


def test_j18_the_issuer_that_signed_must_be_the_issuer_that_is_named(issuer: FakeIssuer, clock: FakeClock) -> None:
    """Nothing rests on how the issuer was found: it holds `iss` against its own address once more."""
    other = take_apart(issuer.mint(iss="https://other.example"))
    with pytest.raises(NotAuthenticatedError, match="iss is not"):
        issuer.configured.verify(other, clock.now())


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "text",
    [
        "null",
        f'"{NOW}"',
        f"{NOW}.0",
        f"{NOW}.5",
        "true",
        "-1",
        "-0.0",
        "NaN",
        "Infinity",
        "1e400",
        "1e9",
        "9" * 5000,
        "9" * 19,
        f"[{NOW}]",
        "{}",
        '""',
        "253402300800",
    ],
)
def test_j20_an_instant_is_a_whole_number_of_seconds(
    issuer: FakeIssuer, trust: TrustedIssuers, name: str, text: str
) -> None:
    refusal(trust, raw(issuer, name, text))


def test_the_last_second_that_a_calendar_knows_is_compared_without_a_fault(
    issuer: FakeIssuer, trust: TrustedIssuers
) -> None:
    assert "lives longer" in refusal(trust, issuer.mint(exp=253402300799))
    assert "future" in refusal(trust, issuer.mint(iat=253402300798, exp=253402300799))


def test_j21_a_token_that_lives_too_long_is_refused(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    hour = 3600
    assert trust.verify(issuer.mint(exp=NOW + hour))
    for lifetime in (hour + 1, 10 * 365 * 24 * hour):
        assert "lives longer" in refusal(trust, issuer.mint(exp=NOW + lifetime))


def test_j22_a_token_is_refused_when_it_is_too_old_or_not_yet_begun(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    for iat in (0, 1, NOW - 2 * 3600):
        assert "lives longer" in refusal(trust, issuer.mint(iat=iat))
    assert trust.verify(issuer.mint(iat=NOW + LEEWAY))
    assert "future" in refusal(trust, issuer.mint(iat=NOW + LEEWAY + 1))
    assert trust.verify(issuer.mint(nbf=NOW + LEEWAY))
    assert "future" in refusal(trust, issuer.mint(nbf=NOW + LEEWAY + 1))
    assert "ends before it begins" in refusal(trust, issuer.mint(iat=NOW, exp=NOW))
    assert "ends before it begins" in refusal(trust, issuer.mint(iat=NOW + 20, exp=NOW + 10))


def test_a_token_expires_to_the_second_with_the_leeway_that_is_set(issuer: FakeIssuer, clock: FakeClock) -> None:
    token = issuer.mint(ttl=timedelta(minutes=5))
    exact, kind = trusting(issuer, clock=clock, leeway=timedelta()), trusting(issuer, clock=clock)
    clock.advance(timedelta(minutes=5, microseconds=-1))
    assert exact.verify(token)
    clock.advance(timedelta(microseconds=1))
    assert "expired" in refusal(exact, token)
    clock.advance(timedelta(seconds=LEEWAY, microseconds=-1))
    assert kind.verify(token)
    clock.advance(timedelta(microseconds=1))
    assert "expired" in refusal(kind, token)


@pytest.mark.parametrize("subject", [None, "", 1, True, [], ["agent-1"], {}, 1.5])
def test_j24_a_subject_is_a_name(issuer: FakeIssuer, trust: TrustedIssuers, subject: object) -> None:
    assert "sub" in refusal(trust, issuer.mint(sub=subject))


@pytest.mark.parametrize(
    "text",
    [
        r"a\u0000b",
        r"\ud800",
        r"a\udfff\ud800b",
        r"a\nb",
        r"a\rb",
        r"\u001b[31mred",
        r"\u007f",
        r"\u0085",
        r"\u2028",
        r"\u202e",
        r"\u2066",
        r"\u200b",
        r"\ufeff",
        r"\udb40\udc41",  # U+E0041, an invisible tag character
        "a" * 256,
        "a" * 10_000,
    ],
)
def test_j25_a_subject_is_one_visible_line(issuer: FakeIssuer, trust: TrustedIssuers, text: str) -> None:
    refusal(trust, raw(issuer, "sub", f'"{text}"'))
    refusal(trust, raw(issuer, "jti", f'"{text}"'))


@pytest.mark.parametrize("subject", ["a" * 255, "repo:acme/agent:ref:refs/heads/main", "Zoë Ωmega 漢字", "'\";--"])
def test_any_visible_name_is_a_subject(issuer: FakeIssuer, trust: TrustedIssuers, subject: str) -> None:
    who = trust.verify(issuer.mint(subject))
    assert who.subject == subject
    assert who.workload.removeprefix("wl_").isalnum()


@pytest.mark.parametrize("text", [r"\ud83d", r"\ud800", r"\udfff", r"a\u0000", r"x\udc00\ud800"])
def test_text_that_no_store_can_hold_is_refused_in_every_claim(
    issuer: FakeIssuer, trust: TrustedIssuers, text: str
) -> None:
    refusal(trust, raw(issuer, "note", f'"{text}"'))
    refusal(trust, raw(issuer, "note", f'{{"deep": [{{"{text}": 1}}]}}'))
    for sound in (r"\ud83d\ude00", "\ud7ff", "\ue000"):
        assert trust.verify(raw(issuer, "note", f'"{sound}"'))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 21, "-" + "9" * 20])
def test_a_number_that_json_or_others_cannot_hold_is_refused_in_every_claim(
    issuer: FakeIssuer, trust: TrustedIssuers, number: str
) -> None:
    assert "payload has" in refusal(trust, raw(issuer, "note", number))
    for sound in ("1.5", "1e300", "9" * 20, "-" + "9" * 19):
        assert trust.verify(raw(issuer, "note", sound))


def test_claims_may_be_nested_but_not_without_end(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    assert trust.verify(raw(issuer, "note", "[" * 31 + "]" * 31))
    assert "nested too deeply" in refusal(trust, raw(issuer, "note", "[" * 32 + "]" * 32))


def test_a_token_may_be_long_but_not_without_end(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    room = MAX_CHARS - len(issuer.mint(note="").reveal())
    lengths = range(room * 3 // 4 - 4, room * 3 // 4 + 5)
    accepted = {
        len(token.reveal()) for token in (issuer.mint(note="x" * length) for length in lengths) if passes(trust, token)
    }
    assert max(accepted) in {MAX_CHARS, MAX_CHARS - 1}  # base64url never gives every length
    assert "longer than" in refusal(trust, issuer.mint(note="x" * max(lengths)))


@pytest.mark.parametrize("token_id", [None, "", 1, [], "a" * 256])
def test_an_id_of_a_token_can_be_compared(issuer: FakeIssuer, trust: TrustedIssuers, token_id: object) -> None:
    assert "jti" in refusal(trust, issuer.mint(jti=token_id))
    assert trust.verify(issuer.mint(jti="a" * 255))


@pytest.mark.parametrize(
    "cnf", [{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, {"x5t#S256": "x"}, {}, None, ""]
)
def test_j46_a_token_that_is_bound_to_a_key_is_no_bearer_token(
    issuer: FakeIssuer, trust: TrustedIssuers, cnf: object
) -> None:
    """DPoP and mutual TLS are no options here: nothing could check the proof, so the token proves nobody."""
    assert "bound to a key" in refusal(trust, issuer.mint(cnf=cnf))


def test_required_claims_must_be_there_however_deep(issuer: FakeIssuer, clock: FakeClock) -> None:
    trust = trusting(issuer, clock=clock, required=("environment", "kubernetes.io/namespace"))
    place: dict[str, Any] = {"kubernetes.io": {"namespace": "agents"}}
    assert trust.verify(issuer.mint(environment="prod", **place))
    assert "missing: environment" in refusal(trust, issuer.mint(**place))
    assert "missing: environment" in refusal(trust, issuer.mint(environment=None, **place))
    place["kubernetes.io"] = "agents"
    assert "kubernetes.io/namespace" in refusal(trust, issuer.mint(environment="prod", **place))


def test_two_issuers_never_share_a_name_or_an_address(clock: FakeClock) -> None:
    a = FakeIssuer("https://a.example", clock=clock, name="idp-a")
    for other in (
        FakeIssuer("https://a.example", clock=clock, name="idp-b"),
        FakeIssuer("https://b.example", clock=clock, name="idp-a"),
        FakeIssuer("https://a.example/", clock=clock, name="idp-b"),
        FakeIssuer("https://A.example", clock=clock, name="idp-b"),
    ):
        with pytest.raises(ConfigurationError, match="same name or the same url"):
            trusting(a, other, clock=clock)


def test_without_issuers_nobody_is_believed(issuer: FakeIssuer, clock: FakeClock) -> None:
    assert "not a configured issuer" in refusal(TrustedIssuers([], clock), issuer.mint())


def test_who_is_behind_a_token_must_be_said_where_the_issuer_is_asked_for_it(clock: FakeClock) -> None:
    """A08: two identities of one person are told by a claim that both issuers sign."""
    issuer = FakeIssuer("https://issuer.example", clock=clock)
    trust = trusting(issuer, clock=clock, person="email")
    who = trust.verify(issuer.mint("u-1", email="Ann@acme.example"))
    assert who.names == {"u-1", "ann@acme.example"}
    assert "email is missing" in refusal(trust, issuer.mint("u-1"))
    assert "email has control" in refusal(trust, issuer.mint("u-1", email="ann\u200b@acme.example"))
    assert trusting(issuer, clock=clock).verify(issuer.mint("U-1", email="a@b")).names == {"u-1"}
