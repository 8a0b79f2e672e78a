"""The development issuer, as somebody sees it who trusts it by its URL only."""

import json
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any

import jwt
import pytest

from controlplane.dev.issuer import DevIssuer, mint, nested
from controlplane.dev.loopback import HOST
from controlplane.world import RandomIds

pytestmark = pytest.mark.servers


def test_a_minted_token_verifies_against_what_discovery_names(issuer: DevIssuer) -> None:
    before = datetime.now(UTC).timestamp()
    token = mint(
        issuer.key,
        issuer.url,
        "repo:acme/agent:ref:refs/heads/main",
        now=datetime.now(UTC),
        ids=RandomIds(),
        claims=nested({"environment": "prod", "kubernetes.io/namespace": "agents"}),
    )
    discovery = _get(f"{issuer.url}/.well-known/openid-configuration")
    keys = jwt.PyJWKSet.from_dict(_get(discovery["jwks_uri"]))
    key = keys[jwt.get_unverified_header(token.reveal())["kid"]]
    claims = jwt.decode(
        token.reveal(),
        key,
        algorithms=discovery["id_token_signing_alg_values_supported"],
        audience="shorthold",
        issuer=discovery["issuer"],
        options={"require": ["exp", "iat", "aud", "sub", "iss", "jti"]},
    )
    assert claims["sub"] == "repo:acme/agent:ref:refs/heads/main"
    assert claims["environment"] == "prod"
    assert claims["kubernetes.io"] == {"namespace": "agents"}
    assert claims["exp"] - claims["iat"] == 600
    assert abs(claims["iat"] - before) < 5


def test_the_key_set_holds_no_private_half_and_nothing_else_is_served(issuer: DevIssuer) -> None:
    document = _get(f"{issuer.url}/jwks.json")
    assert [sorted(key) for key in document["keys"]] == [["alg", "crv", "kid", "kty", "use", "x", "y"]]
    for path in ("/key.pem", "/../issuer/key.pem", "/", "/jwks.json?x=1", "/documents.json"):
        assert _status(f"{issuer.url}{path}") == 404


def _status(url: str) -> int:
    return _answer(url)[0]


def _get(url: str) -> dict[str, Any]:
    status, body = _answer(url)
    assert status == 200
    return json.loads(body)


def _answer(url: str) -> tuple[int, bytes]:
    address, _, path = url.removeprefix("http://").partition("/")
    host, port = address.split(":")
    assert host == HOST
    connection = HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("GET", f"/{path}")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
