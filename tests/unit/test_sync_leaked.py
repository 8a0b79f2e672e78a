"""Secrets in a file are found by their shapes, wherever they stand, and are never quoted (S)."""

from pathlib import Path

import pytest

from controlplane.engines import scope_models
from controlplane.sync.leaked import leaked
from controlplane.sync.load import load

SECRETS = [
    "hvs.CAESIJ" + "x4" * 20,
    "s." + "aB3" * 8,
    "AKIA" + "ABCDEFGH12345678",
    "ghp_" + "a1" * 20,
    "glpat-" + "a1" * 12,
    "xoxb-" + "1234567890-abcdef",
    "eyJhbGciOiJFUzI1NiJ9" + ".eyJzdWIiOiJhZ2VudCJ9" + ".c2lnbmF0dXJl",
    "-----BEGIN " + "EC PRIVATE KEY-----",
    "postgres://app:" + "hunter2@db.acme.example/orders",
    "password: " + "hunter2hunter2",
    'API_KEY="' + 'k3k3k3k3k3"',
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("line", ["purpose: '{}'", "owner: x # {}", "# {}", "unknown: {}", "{}"])
def test_a_secret_is_found_in_values_keys_and_comments_and_never_quoted(tmp_path: Path, secret: str, line: str) -> None:
    (tmp_path / "some.yaml").write_text("entitlement: some\n" + line.format(secret) + "\n", encoding="utf-8")
    (problem,) = load(tmp_path, scope_models()).problems
    assert (problem.rule, problem.line) == ("secret-in-file", 2)
    assert secret not in problem.message


@pytest.mark.parametrize(
    "line",
    [
        "purpose: Rotate the password: it is old",
        "path: payments/gateway",
        "fields: [api_key]",
        "subject: system:serviceaccount:agents:token-rotator",
        "from: ['group:secret-keepers-2024']",
        "url: https://github.acme.example/_services/token",
        "connection_url: postgres://{{username}}:{{password}}@db/orders",
        "role: arn:aws:iam::123456789012:role/shorthold-reports",
        "key: ec-p256",
    ],
)
def test_what_only_speaks_of_secrets_is_none(line: str) -> None:
    assert list(leaked(line)) == []


def test_the_shipped_entitlements_and_documents_hold_none() -> None:
    root = Path(__file__).parents[2]
    for file in sorted((root / "roles").rglob("*.*")):
        assert list(leaked(file.read_text(encoding="utf-8"))) == [], file
