"""Tokens that try to choose their own key, algorithm or format. Sockets are off: an outbound call fails the test."""

import base64
import hashlib
import hmac
import json
import time
import tracemalloc
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.secret import Secret
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, IssuerKey, base64url, trusting

CLOCK = FakeClock()
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def issuer() -> FakeIssuer:
    return FakeIssuer(clock=CLOCK)


@pytest.fixture(scope="module")
def trust(issuer: FakeIssuer) -> TrustedIssuers:
    return trusting(issuer, clock=CLOCK)


def refusal(trust: TrustedIssuers, token: Secret) -> str:
    """Why `token` is refused: one short printable line that holds nothing of the token."""
    with pytest.raises(NotAuthenticatedError) as caught:
        trust.verify(token)
    detail = caught.value.detail
    assert detail.isprintable()
    assert len(detail) < 400
    assert not any(len(part) > 20 and part in detail for part in token.reveal().split("."))
    return detail


def test_an_honest_token_proves_its_workload(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    who = trust.verify(issuer.mint("repo:acme/agent", environment="prod"))
    assert (who.issuer, who.subject) == ("acme", "repo:acme/agent")
    assert who.claim("environment") == "prod"
    assert who.issued_at == CLOCK.now()
    assert (who.expires_at - who.issued_at).total_seconds() == 300


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "EdDSA"])
def test_every_algorithm_that_settings_allow_verifies(algorithm: str) -> None:
    issuer = FakeIssuer(clock=CLOCK, keys=[IssuerKey(algorithm)])
    trust = trusting(issuer, clock=CLOCK)
    assert trust.verify(issuer.mint()).subject == "agent-1"
    stranger = IssuerKey(algorithm, kid=issuer.keys[0].kid)
    assert "signature" in refusal(trust, issuer.mint(key=stranger))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", "HS256", "ES256K", "es256", None, 1, ["ES256"]]
)
@pytest.mark.parametrize("signature", [None, b"\x00"])
def test_j01_no_algorithm_is_not_an_algorithm(
    issuer: FakeIssuer, trust: TrustedIssuers, algorithm: object, signature: bytes | None
) -> None:
    header = json.dumps({"alg": algorithm, "kid": issuer.keys[0].kid}).encode()
    assert "alg" in refusal(trust, issuer.forge(header, signature=signature))


def test_j01_an_empty_signature_is_refused(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    unsigned = issuer.forge({"alg": "none"}, signature=b"").reveal()
    assert unsigned.endswith(".")
    assert "three segments" in refusal(trust, Secret(unsigned))
    assert "three segments" in refusal(trust, Secret(unsigned.removesuffix(".")))


def test_j02_the_public_key_is_no_shared_secret(issuer: FakeIssuer) -> None:
    public = issuer.keys[0].private.public_key()
    spellings = (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(issuer.keys[0].jwk).encode(),
    )
    allowed = trusting(issuer, clock=CLOCK, algorithms=frozenset({"ES256", "HS256"}))
    for secret in spellings:
        unsigned = issuer.forge({"alg": "HS256"}, signature=b"x").reveal().rpartition(".")[0]
        forged = Secret(f"{unsigned}.{base64url(hmac.digest(secret, unsigned.encode(), hashlib.sha256))}")
        assert "alg" in refusal(trusting(issuer, clock=CLOCK), forged)
        assert "no HS256 key" in refusal(allowed, forged)  # even where an operator's list were to name it


def test_j03_only_the_algorithms_of_the_issuer_are_tried() -> None:
    keys = [IssuerKey("ES256"), IssuerKey("RS256")]
    issuer = FakeIssuer(clock=CLOCK, keys=keys)
    only_es256 = trusting(issuer, clock=CLOCK, algorithms=frozenset({"ES256"}))
    assert only_es256.verify(issuer.mint(key=keys[0]))
    assert "alg" in refusal(only_es256, issuer.mint(key=keys[1]))
    both = trusting(issuer, clock=CLOCK, algorithms=frozenset({"RS256", "PS256"}))
    assert both.verify(issuer.mint(key=keys[1]))
    assert "no PS256 key" in refusal(both, issuer.forge({}, key=keys[1], algorithm="PS256"))
    assert "signature" in refusal(
        both, issuer.forge({"alg": "RS256"}, key=keys[1], algorithm="PS256")
    )  # a PS256 signature under another name


@pytest.mark.parametrize(
    "spoil", [{"alg": "ES384"}, {"alg": "HS256"}, {"use": "enc"}, {"key_ops": ["sign"]}, {"key_ops": "verify"}]
)
def test_j04_a_key_is_used_only_for_what_it_says_it_is_for(spoil: dict[str, Any]) -> None:
    other = IssuerKey()
    issuer = FakeIssuer(clock=CLOCK, keys=[IssuerKey(), other])
    issuer.keys[0].jwk.update(spoil)
    assert "no ES256 key" in refusal(trusting(issuer, clock=CLOCK), issuer.mint())


def test_j05_a_key_in_the_header_is_never_looked_at(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    attacker = IssuerKey(kid=issuer.keys[0].kid)
    assert "jwk" in refusal(trust, issuer.forge({"jwk": attacker.jwk}, key=attacker))
    assert "jwk" in refusal(trust, issuer.forge({"jwk": issuer.keys[0].jwk}))  # though the signature is good


@pytest.mark.parametrize("name", ["jku", "x5u", "x5c"])
def test_j06_no_address_in_a_header_is_followed(issuer: FakeIssuer, trust: TrustedIssuers, name: str) -> None:
    for value in ("http://127.0.0.1:9/jwks", ["http://127.0.0.1:9/"], "", None):
        header = json.dumps({"alg": "ES256", "kid": issuer.keys[0].kid, name: value}).encode()
        assert name in refusal(trust, issuer.forge(header))


@pytest.mark.parametrize(
    "kid",
    [
        "../../etc/passwd",
        "' OR 1=1 --",
        "a\nb",
        "\x1b[31m",
        "\u202e",
        "k" * 4000,
        "",
        "\x00",
        "\ud800",
        "x" * 1_000_000,
    ],
)
def test_j07_a_strange_kid_is_only_unknown(issuer: FakeIssuer, trust: TrustedIssuers, kid: str) -> None:
    refusal(trust, issuer.forge({"kid": kid}))


@pytest.mark.parametrize("kid", [1, 0, True, [], ["k"], {}, {"k": 1}, 1.5])
def test_j08_a_kid_that_is_no_string_is_refused(issuer: FakeIssuer, trust: TrustedIssuers, kid: object) -> None:
    assert "kid is not a string" in refusal(trust, issuer.forge({"kid": kid}))


def test_without_a_kid_the_key_set_must_leave_no_choice() -> None:
    issuer = FakeIssuer(clock=CLOCK, keys=[IssuerKey("ES256"), IssuerKey("RS256")])
    token = issuer.forge({"kid": None})
    assert trusting(issuer, clock=CLOCK).verify(token)
    issuer.keys.append(IssuerKey("ES256"))
    assert "no choice" in refusal(trusting(issuer, clock=CLOCK), token)


def test_j12_signatures_of_a_wrong_form_are_refused(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    order = P256_ORDER.to_bytes(32, "big")
    good = base64.urlsafe_b64decode(issuer.mint().reveal().rpartition(".")[2] + "==")
    r, s = int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big")
    for signature in (
        bytes(64),
        order + order,
        order + (1).to_bytes(32, "big"),
        good[:63],
        good[:32],
        good + b"\x00",
        b"\x00",
        encode_dss_signature(r, s),
    ):
        assert "signature" in refusal(trust, issuer.forge({}, signature=signature))


def test_j15_a_key_of_another_curve_does_not_verify() -> None:
    issuer = FakeIssuer(clock=CLOCK, keys=[IssuerKey("ES384"), IssuerKey("ES256")])
    trust = trusting(issuer, clock=CLOCK)
    wrong = IssuerKey("ES256", kid=issuer.keys[0].kid, private=ec.generate_private_key(ec.SECP256R1()))
    assert "no ES256 key" in refusal(trust, issuer.forge({}, key=wrong))
    assert "signature" in refusal(trust, issuer.forge({"alg": "ES384"}, key=wrong))


def test_j19_the_key_of_one_trusted_issuer_does_not_speak_for_another() -> None:
    ours = FakeIssuer("https://a.example", clock=CLOCK, name="idp-a", keys=[IssuerKey(kid="k1")])
    other = FakeIssuer("https://b.example", clock=CLOCK, name="idp-b", keys=[IssuerKey(kid="k1")])
    trust = trusting(ours, other, clock=CLOCK)
    assert trust.verify(ours.mint()).issuer == "idp-a"
    assert trust.verify(other.mint()).issuer == "idp-b"
    assert "signature" in refusal(trust, ours.mint(key=other.keys[0]))


def test_j27_a_key_that_stands_twice_is_refused(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    kid, now = issuer.keys[0].kid, int(CLOCK.now().timestamp())
    assert "twice" in refusal(trust, issuer.forge(f'{{"alg":"none","alg":"ES256","kid":"{kid}"}}'.encode()))
    honest = json.dumps(issuer.claims())
    for twice in ('"sub":"admin",', f'"exp":{now - 9},', '"aud":"x",', r'"\u0073ub":"admin",', '"x":{"a":1,"a":1},'):
        assert "twice" in refusal(trust, issuer.forge({}, ("{" + twice + honest[1:]).encode()))


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], "b64", None, {}, [1]])
def test_j28_no_critical_extension_is_understood(issuer: FakeIssuer, trust: TrustedIssuers, crit: object) -> None:
    header = {"alg": "ES256", "kid": issuer.keys[0].kid, "crit": crit}
    assert "crit" in refusal(trust, issuer.forge(json.dumps(header).encode()))
    for b64 in (False, True, "false"):
        assert "b64" in refusal(trust, issuer.forge(json.dumps({**header, "b64": b64}).encode()))
        del header["crit"]
        assert "b64" in refusal(trust, issuer.forge(json.dumps({**header, "b64": b64}).encode()))
        header["crit"] = crit


@pytest.mark.parametrize(
    "payload",
    [
        b"\xef\xbb\xbf{}",
        json.dumps({"sub": "a"}).encode("utf-16"),
        b'{"sub":"\xff"}',
        b'{"sub":"\xed\xa0\x80"}',
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"{",
        b"",
        b" ",
        b"[" * 5000,
        b'{"a":' * 1500,
        b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"\\u0000":1}',
        b"{'a':1}",
        b'{"a":1}{"a":1}',
    ],
)
def test_j31_a_payload_that_two_parsers_could_read_differently_is_refused(
    issuer: FakeIssuer, trust: TrustedIssuers, payload: bytes
) -> None:
    refusal(trust, issuer.forge({}, payload))
    refusal(trust, issuer.forge(payload))


@pytest.mark.parametrize(
    "compact", ["x" * 20_000_000, ".".join(["e30"] * 10_000), "." * 20_000, "e30." * 3, "[" * 100_000, "é.e30.e30"]
)
def test_j31_huge_tokens_cost_next_to_nothing(trust: TrustedIssuers, compact: str) -> None:
    token, begun = Secret(compact), time.process_time()
    refusal(trust, token)
    assert time.process_time() - begun < 0.05


def test_j31_a_token_of_twenty_megabytes_takes_no_memory_of_its_size(trust: TrustedIssuers) -> None:
    token = Secret("e30." * 5_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(NotAuthenticatedError):
            trust.verify(token)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_a_type_that_is_a_jwt_is_accepted(issuer: FakeIssuer, trust: TrustedIssuers, typ: str | None) -> None:
    assert trust.verify(issuer.forge({"typ": typ}))


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "secevent+jwt", "JOSE", "", 1, ["JWT"], {}])
def test_a_token_of_another_type_is_refused(issuer: FakeIssuer, trust: TrustedIssuers, typ: object) -> None:
    assert "typ" in refusal(trust, issuer.forge({"typ": typ}))


def test_j39_nested_encrypted_detached_and_json_tokens_are_refused(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    honest = issuer.mint().reveal()
    header, payload, signature = honest.split(".")
    refusal(trust, issuer.forge({}, honest.encode()))
    assert "cty" in refusal(trust, issuer.forge({"cty": "JWT"}))
    assert "enc" in refusal(trust, issuer.forge({"enc": "A256GCM"}))
    assert "zip" in refusal(trust, issuer.forge({"zip": "DEF"}))
    for other in (
        f"{header}..{signature}",
        f"{honest}.{payload}.{signature}",
        json.dumps({"payload": payload, "protected": header, "signature": signature}),
        json.dumps({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}),
        honest + "=",
        f"{header}=.{payload}.{signature}",
        f" {honest}",
        f"{honest}\n",
        f"Bearer {honest}",
        honest.replace("-", "+").replace("_", "/") + "/+",
        "",
        "hvs.CAESIJ",
    ):
        assert "three segments" in refusal(trust, Secret(other))


def test_one_token_has_one_spelling_only(issuer: FakeIssuer, trust: TrustedIssuers) -> None:
    compact = issuer.mint().reveal()  # 64 bytes of signature: the last character carries four bits that mean nothing
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(compact[-1])
    for bits in range(1, 16):
        other = compact[:-1] + alphabet[last | bits]
        assert base64.urlsafe_b64decode(other.rpartition(".")[2] + "==")
        assert "canonical" in refusal(trust, Secret(other))
