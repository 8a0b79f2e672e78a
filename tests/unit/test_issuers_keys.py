"""Keys that issuers publish: the weak, the private and the foreign never get in."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controlplane.issuers.jose.jwk import MAX_KEYS, parse_key_set
from controlplane.issuers.jose.keystore import FileKeys, static_keys
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, IssuerKey, base64url, trusting

CLOCK = FakeClock()
P25519 = (1 << 255) - 19


def why_refused(jwk: object) -> str:
    """What is said of a key that stands beside a sound one."""
    sound = IssuerKey().jwk
    keys = parse_key_set({"keys": [sound, jwk]})  # pyright: ignore[reportArgumentType] # spoiled on purpose
    assert [key.kid for key in keys.keys] == [sound["kid"]]
    assert len(keys.refused) == 1
    return keys.refused[0]


def rsa_jwk(modulus: int, exponent: int) -> dict[str, Any]:
    def octets(number: int) -> str:
        return base64url(number.to_bytes((number.bit_length() + 7) // 8 or 1, "big"))

    return {"kty": "RSA", "kid": "r", "n": octets(modulus), "e": octets(exponent)}


def test_j09_of_two_keys_with_one_kid_none_wins_by_standing_first() -> None:
    wrong, right = IssuerKey(kid="k"), IssuerKey(kid="k")
    token = FakeIssuer(clock=CLOCK, keys=[right]).mint()
    for keys in ([wrong, right], [right, wrong]):
        assert trusting(FakeIssuer(clock=CLOCK, keys=keys), clock=CLOCK).verify(token)
    with pytest.raises(NotAuthenticatedError, match="signature"):
        trusting(FakeIssuer(clock=CLOCK, keys=[wrong, IssuerKey("RS256", kid="k")]), clock=CLOCK).verify(token)


def test_j10_weak_rsa_is_refused() -> None:
    sound = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    weak = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505 # weak on purpose
    assert parse_key_set({"keys": [rsa_jwk(sound.n, sound.e)]}).keys[0].algorithm == "RS256"
    for modulus, exponent in (
        (weak.n, weak.e),
        (sound.n, 1),
        (sound.n, 3),
        (sound.n, 65536),
        (sound.n, (1 << 40) + 1),
        (sound.n + 1, sound.e),
        (sound.n << 6145 | 1, sound.e),
        (0, 0),
    ):
        assert "RSA" in why_refused(rsa_jwk(modulus, exponent))


def test_j10_foreign_curves_and_points_off_the_curve_are_refused() -> None:
    jwk = IssuerKey().jwk
    for crv in ("P-192", "P-521", "secp256k1", "P-384", "", None, 1, ["P-256"]):
        why_refused({**jwk, "crv": crv})
    assert "not a point" in why_refused({**jwk, "x": jwk["y"], "y": jwk["x"]})
    assert "not a point" in why_refused({**jwk, "x": base64url(bytes(32)), "y": base64url(bytes(32))})
    assert "length" in why_refused({**jwk, "x": base64url(bytes(31))})
    assert "length" in why_refused({**jwk, "y": base64url(bytes(33))})


def test_j10_a_shared_or_private_key_is_refused() -> None:
    assert "shared secret" in why_refused({"kty": "oct", "k": base64url(b"secret" * 8), "alg": "HS256"})
    for private in ("d", "p", "q", "dp", "dq", "qi", "oth"):
        assert "private half" in why_refused({**IssuerKey().jwk, private: "AA"})


def test_j11_an_ed25519_point_of_small_order_is_refused() -> None:
    # Under the identity as public key, R = identity and S = 0 is a signature of everything.
    identity = (1).to_bytes(32, "little")
    ed25519.Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"anything")
    for raw in small_order_points():
        for sign in (0, 0x80):
            spelled = raw[:31] + bytes([raw[31] | sign])
            assert "small order" in why_refused({"kty": "OKP", "crv": "Ed25519", "x": base64url(spelled)})


def test_j11_an_ed25519_point_of_a_second_spelling_is_refused() -> None:
    for y in (P25519, P25519 + 1, P25519 + 3, (1 << 255) - 1):
        raw = y.to_bytes(32, "little")
        assert "not canonical" in why_refused({"kty": "OKP", "crv": "Ed25519", "x": base64url(raw)})


def small_order_points() -> list[bytes]:
    """The y of the points of order 1, 2, 4 and 8, found by arithmetic (RFC 8032 5.1.4), not copied from a list."""
    d = -121665 * pow(121666, -1, P25519) % P25519

    def add(p: tuple[int, int], q: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = p, q
        k = d * x1 * x2 * y1 * y2
        x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P25519)
        y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P25519)
        return x % P25519, y % P25519

    def times(n: int, p: tuple[int, int]) -> tuple[int, int]:
        result = (0, 1)
        while n:
            if n & 1:
                result = add(result, p)
            p, n = add(p, p), n >> 1
        return result

    order = (1 << 252) + 27742317777372353535851937790883648493
    found: set[int] = set()
    y = 2
    while len(found) < 5:  # each random point, times the large prime order, lands on one of the eight
        y += 1
        square = (y * y - 1) * pow(d * y * y + 1, -1, P25519) % P25519
        x = pow(square, (P25519 + 3) // 8, P25519)
        if x * x % P25519 != square:
            x = x * pow(2, (P25519 - 1) // 4, P25519) % P25519
        if x * x % P25519 == square:
            found.add(times(order, (x, y))[1])
    return [value.to_bytes(32, "little") for value in sorted(found)]


@pytest.mark.parametrize(
    "spoil",
    [
        {"kid": 1},
        {"kid": ["k"]},
        {"kty": None},
        {"kty": "ec"},
        {"kty": ["EC"]},
        {"x": None},
        {"x": 1},
        {"x": "!!!"},
        {"x": "AA=="},
        {"x": "é"},
        {"x": ""},
        {"alg": 1},
        {"alg": None},
        {"use": None},
        {"use": ["sig"]},
        {"key_ops": {"verify": 1}},
    ],
)
def test_a_key_of_a_wrong_form_is_left_out(spoil: dict[str, Any]) -> None:
    why_refused({**IssuerKey().jwk, **spoil})


def test_an_octet_key_is_ed25519_of_32_bytes_and_nothing_else() -> None:
    jwk = IssuerKey("EdDSA").jwk
    for crv in ("X25519", "Ed448", "", None):
        assert "no Ed25519 key" in why_refused({**jwk, "crv": crv})
    for length in (0, 31, 33, 57):
        assert "no Ed25519 key of 32 bytes" in why_refused({**jwk, "x": base64url(b"\x09" * length)})


def test_a_key_has_one_spelling_only() -> None:
    jwk = IssuerKey("EdDSA", kid="k").jwk  # 32 bytes: the last of 43 characters carries two bits that mean nothing
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = jwk["x"][:-1] + alphabet[alphabet.index(jwk["x"][-1]) | 1]
    assert "not canonical base64url" in why_refused({**jwk, "x": other})


@pytest.mark.parametrize("entry", [None, "key", 1, [], ["kty"], {}])
def test_what_is_no_key_is_left_out(entry: object) -> None:
    why_refused(entry)


def test_an_algorithm_beside_the_key_is_not_needed() -> None:
    for algorithm in ("ES256", "ES384", "RS256", "EdDSA"):
        key = IssuerKey(algorithm)
        bare = {name: value for name, value in key.jwk.items() if name not in {"alg", "use", "kid"}}
        assert [found.algorithm for found in parse_key_set({"keys": [bare]}).keys] == [algorithm]


@pytest.mark.parametrize(
    "document", ["{}", '{"keys":null}', '{"keys":{}}', '{"keys":[]}', '{"keys":[{}]}', '{"keys":"k"}']
)
def test_a_set_without_a_sound_key_is_no_set(document: str) -> None:
    with pytest.raises(ConfigurationError, match="key set"):
        static_keys(json.loads(document))


def test_a_set_of_very_many_keys_is_no_set() -> None:
    keys: list[Any] = [IssuerKey().jwk] * MAX_KEYS
    assert len(parse_key_set({"keys": keys}).keys) == MAX_KEYS
    with pytest.raises(ValueError, match=f"at most {MAX_KEYS}"):
        parse_key_set({"keys": [*keys, keys[0]]})


def test_a_refused_key_is_named_when_somebody_uses_it() -> None:
    issuer = FakeIssuer(clock=CLOCK, keys=[IssuerKey(), IssuerKey(private=ec.generate_private_key(ec.SECP256R1()))])
    issuer.keys[0].jwk["use"] = "enc"
    with pytest.raises(NotAuthenticatedError, match=r"left out: key 1 is not for signatures"):
        trusting(issuer, clock=CLOCK).verify(issuer.mint())


def test_keys_from_a_file_verify_and_a_broken_file_is_a_clear_error(tmp_path: Path) -> None:
    issuer, path = FakeIssuer(clock=CLOCK), tmp_path / "jwks.json"
    path.write_text(json.dumps(issuer.jwks), encoding="utf-8")
    assert trusting(issuer, clock=CLOCK, keys=FileKeys(path)).verify(issuer.mint())
    for content in ("", "{", "[]", '{"keys":[],"keys":[]}', '{"keys":[]}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=r"jwks\.json|key set"):
            FileKeys(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        FileKeys(tmp_path / "none.json")
