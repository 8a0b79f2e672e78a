"""A real OpenID Connect issuer that is not ours (npm `oidc-provider`): discovery, keys, rotation, audiences, DPoP."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlencode

import jwt
import pytest
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.issuers import kinds
from controlplane.issuers.jose.fetch import Fetcher
from controlplane.issuers.jose.keystore import COOL_DOWN, LIFETIME, DiscoveredKeys
from controlplane.issuers.trust.issuer import Issuer, issuer_of
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.secret import Secret
from controlplane.settings import load
from controlplane.testing.issuer import IssuerKey
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

PACKAGE: Final = "oidc-provider@8.8.1"
SCRIPT: Final = Path(__file__).parent / "oidc_provider" / "serve.mjs"
UNREACHABLE: Final = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
    "EHOSTUNREACH",
)


@dataclass(frozen=True)
class Provider:
    """The issuer in its process, and its token endpoint as a client of it uses it."""

    process: "subprocess.Popen[str]"
    url: str
    secret: str

    def token(self, client: str = "agent", *, resource: str = "urn:shorthold", proof: str | None = None) -> Secret:
        form = urlencode({"grant_type": "client_credentials", "resource": resource, "scope": "ask"})
        headers = {
            "Authorization": f"Basic {base64.b64encode(f'{client}:{self.secret}'.encode()).decode()}",
            "Content-Type": "application/x-www-form-urlencoded",
            **({"DPoP": proof} if proof else {}),
        }
        with urllib3.PoolManager(retries=False, timeout=60) as http:
            answer = http.request("POST", f"{self.url}/token", body=form, headers=headers)
        told: dict[str, Any] = json.loads(answer.data)
        assert answer.status == 200, told
        assert told["token_type"] == ("DPoP" if proof else "Bearer")
        return Secret(told["access_token"])

    def rotate(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("rotate\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "rotated\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm, directory = shutil.which("npm"), tmp_path_factory.mktemp("oidc-provider")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm is not there")
    words = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=30000"]
    try:
        done = subprocess.run(
            [npm, "install", *words, PACKAGE], cwd=directory, capture_output=True, text=True, check=False, timeout=120
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer within two minutes")
    if done.returncode and (why := next((code for code in UNREACHABLE if code in done.stderr), None)):
        pytest.skip(f"npm's registry does not answer ({why})")
    assert done.returncode == 0, done.stderr
    shutil.copy(SCRIPT, directory)
    return directory


@pytest.fixture(scope="module")
def provider(installed: Path) -> Generator[Provider]:
    with (installed / "log").open("w") as log:
        process = subprocess.Popen(
            ["node", SCRIPT.name],
            cwd=installed,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, (installed / "log").read_text()
        told = json.loads(said)
        yield Provider(process, told["issuer"], told["secret"])
    finally:
        process.communicate(timeout=60)  # closes its input, which ends it
    assert process.returncode == 0


class Monotonic:
    """Seconds that pass when they are told to, besides those that do."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> float:
        return time.monotonic() + self.ahead.total_seconds()


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def trust(provider: Provider, monotonic: Monotonic) -> TrustedIssuers:
    """As settings make it of the URL alone, but for the clock of its keys."""
    (options,) = load(issuers=[{"name": "idp", "url": provider.url, "audiences": ["shorthold"]}]).issuers
    plain = issuer_of(kinds()["oidc"], options)
    keys = DiscoveredKeys(provider.url, fetch=Fetcher(), monotonic=monotonic)
    return TrustedIssuers([Issuer(kind=plain.kind, options=plain.options, keys=keys)], SystemClock())


def refusal(trust: TrustedIssuers, token: Secret) -> str:
    with pytest.raises(NotAuthenticatedError) as caught:
        trust.verify(token)
    return caught.value.detail


def test_an_access_token_proves_the_client_that_it_was_made_for(trust: TrustedIssuers, provider: Provider) -> None:
    token = provider.token()
    who = trust.verify(token)
    assert (who.issuer, who.subject) == ("idp", "agent")
    assert (who.claim("team"), who.claim("client_id"), who.claim("scope")) == ("billing", "agent", "ask")
    assert who.expires_at - who.issued_at == timedelta(minutes=5)
    assert trust.verify(provider.token("other-agent")).workload != who.workload


def test_j40_every_token_has_an_id_of_its_own(trust: TrustedIssuers, provider: Provider) -> None:
    one, other = trust.verify(provider.token()).single_use, trust.verify(provider.token()).single_use
    assert one is not None
    assert other is not None
    assert one.id.startswith("jti:")
    assert one.id != other.id


def test_j17_j21_tokens_for_others_and_for_too_long_prove_nobody(trust: TrustedIssuers, provider: Provider) -> None:
    assert "aud" in refusal(trust, provider.token(resource="urn:somebody-else"))
    assert "lives longer" in refusal(trust, provider.token(resource="urn:long:shorthold"))


def test_j19_j01_a_token_that_somebody_else_signed_proves_nobody(trust: TrustedIssuers, provider: Provider) -> None:
    claims = jwt.decode(provider.token().reveal(), options={"verify_signature": False})
    kid = jwt.get_unverified_header(provider.token().reveal())["kid"]
    forged = jwt.encode(claims, cast("Any", IssuerKey().private), algorithm="ES256", headers={"kid": kid})
    assert "signature" in refusal(trust, Secret(forged))


def test_j46_a_token_that_is_bound_by_dpop_is_refused_though_it_is_genuine(
    trust: TrustedIssuers, provider: Provider
) -> None:
    key = IssuerKey()
    assert isinstance(key.private, ec.EllipticCurvePrivateKey)
    public = {name: key.jwk[name] for name in ("kty", "crv", "x", "y")}
    now = int(SystemClock().now().timestamp())
    proof = jwt.encode(
        {"jti": RandomIds().new("pf"), "htm": "POST", "htu": f"{provider.url}/token", "iat": now},
        key.private,
        algorithm="ES256",
        headers={"typ": "dpop+jwt", "jwk": public},
    )
    assert "bound to a key" in refusal(trust, provider.token(proof=proof))
    assert refusal(trust, Secret(proof))  # nor is the proof itself a token


def test_j33_a_rotated_key_is_followed_and_the_old_one_is_refused(
    trust: TrustedIssuers, provider: Provider, monotonic: Monotonic
) -> None:
    old = provider.token()
    assert trust.verify(old)
    provider.rotate()
    new = provider.token()
    assert "no ES256 key" in refusal(trust, new)  # the issuer was asked a moment ago
    monotonic.ahead += COOL_DOWN
    assert trust.verify(new)
    assert "no ES256 key" in refusal(trust, old)


def test_j32_an_issuer_that_has_gone_is_trusted_by_its_keys_until_they_are_stale(
    installed: Path, monotonic: Monotonic
) -> None:
    with subprocess.Popen(
        ["node", SCRIPT.name],
        cwd=installed,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        own = Provider(process, told["issuer"], told["secret"])
        (options,) = load(issuers=[{"name": "idp", "url": own.url, "audiences": ["shorthold"]}]).issuers
        keys = DiscoveredKeys(own.url, fetch=Fetcher(timeout=timedelta(seconds=20)), monotonic=monotonic)
        trust = TrustedIssuers([Issuer(kind=kinds()["oidc"], options=options, keys=keys)], SystemClock())
        token = own.token()
        assert trust.verify(token)
        process.communicate(timeout=60)
    monotonic.ahead += LIFETIME + timedelta(seconds=1)
    assert trust.verify(token)
    monotonic.ahead += timedelta(hours=1)
    assert "did not answer" in refusal(trust, token)
