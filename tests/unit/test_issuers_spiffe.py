"""SPIFFE: ids of one trust domain, tokens without iss, bundles and the use of their keys (C2, C3)."""

import json
from pathlib import Path

import pytest

from controlplane.issuers import kinds, spiffe
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import NotAuthenticatedError
from controlplane.settings import load
from controlplane.testing.issuer import FakeIssuer, IssuerKey
from controlplane.testing.kinds import CLOCK, SPIFFE, sample


@pytest.mark.parametrize(
    "subject",
    [
        "spiffe://acme.example",
        "spiffe://acme.example/",
        "spiffe://acme.example//a",
        "spiffe://acme.example/a/",
        "spiffe://acme.example/a//b",
        "spiffe://acme.example/./a",
        "spiffe://acme.example/a/..",
        "spiffe://acme.example/a/../b",
        "spiffe://acme.example/a?b",
        "spiffe://acme.example/a#b",
        "spiffe://acme.example/a%2fb",
        "spiffe://acme.example/ä",
        "spiffe://acme.example:443/a",
        "spiffe://user@acme.example/a",
        "spiffe://ACME.example/a",
        "SPIFFE://acme.example/a",
        "spiffe://acme.example.evil/a",
        "spiffe://evil/acme.example/a",
        "https://acme.example/a",
        "acme.example/a",
    ],
)
def test_a_subject_that_is_no_workload_of_the_trust_domain_proves_nobody(subject: str) -> None:
    assert sample("spiffe").refusal(sub=subject)


@pytest.mark.parametrize("path", ["/a", "/.a", "/...", "/a..b", "/ns/agents/sa/refund-1_2.3"])
def test_a_spiffe_id_may_have_any_sound_path(path: str) -> None:
    assert sample("spiffe").proves(sub=f"spiffe://acme.example{path}")


def test_an_svid_needs_no_iss_and_no_iat_and_whatever_its_iss_says_proves_nothing() -> None:
    of = sample("spiffe")
    assert of.proves(without=("iss", "iat"))
    assert of.proves(iss="https://anybody.example").claim("iss") is None
    assert of.trust.verify(of.issuer.forge({"typ": "JOSE"}, of.issuer.claims(**{**SPIFFE, "subject": SPIFFE["sub"]})))


def test_j21_an_svid_without_iat_lives_no_longer_than_others() -> None:
    of = sample("spiffe")
    now = int(CLOCK.now().timestamp())
    assert of.proves(without=("iat",), exp=now + 3500)
    assert "lives longer" in of.refusal(without=("iat",), exp=now + 3700)


def test_j19_only_issuers_of_kind_spiffe_are_chosen_by_their_subject() -> None:
    mine, plain = sample("spiffe"), FakeIssuer("https://idp.example", clock=CLOCK, name="plain")
    both = TrustedIssuers([mine.configured, plain.configured], CLOCK)
    own, others = mine.issuer.mint(SPIFFE["sub"], without=["iss"]), plain.mint(SPIFFE["sub"])
    assert both.verify(own).issuer == "acme"
    # A configured iss wins: the same words as subject are somebody else, because issuer and subject are one identity.
    assert (both.verify(others).issuer, both.verify(others).workload) != ("acme", both.verify(own).workload)
    for forged in (plain.mint(SPIFFE["sub"], without=["iss"]), mine.issuer.mint(SPIFFE["sub"], iss=plain.url)):
        with pytest.raises(NotAuthenticatedError, match="key"):
            both.verify(forged)
    with pytest.raises(NotAuthenticatedError, match="not a configured issuer"):
        both.verify(plain.mint("spiffe://other.example/a", without=["iss"]))
    with pytest.raises(NotAuthenticatedError, match="not a configured issuer"):
        both.verify(mine.issuer.mint("agent-1", without=["iss"]))


@pytest.mark.parametrize("use", ["sig", "x509-svid", None])
def test_j04_a_key_of_a_bundle_that_is_not_for_svids_verifies_none(use: str | None) -> None:
    key, other = IssuerKey(), IssuerKey()
    key.jwk.pop("use") if use is None else key.jwk.update(use=use)
    other.jwk["use"] = "jwt-svid"
    issuer = FakeIssuer("spiffe://acme.example", clock=CLOCK, keys=[key, other])
    trust = TrustedIssuers([issuer.of_kind(spiffe.KIND, jwks_file="bundle.json")], CLOCK)
    assert trust.verify(issuer.mint(SPIFFE["sub"], key=other))
    with pytest.raises(NotAuthenticatedError, match="left out: key 1 is not for jwt-svid"):
        trust.verify(issuer.mint(SPIFFE["sub"]))


def test_a_bundle_file_is_read_anew_when_it_changes_and_fails_closed_when_it_is_gone(tmp_path: Path) -> None:
    of, path = sample("spiffe"), tmp_path / "bundle.json"

    def publish() -> None:
        draft = tmp_path / "draft.json"
        draft.write_text(json.dumps(of.issuer.jwks), encoding="utf-8")
        draft.replace(path)

    publish()
    given = {"name": "mesh", "kind": "spiffe", "url": "spiffe://acme.example", "audiences": ["shorthold"]}
    (options,) = load(issuers=[{**given, "jwks_file": str(path)}]).issuers
    trust = TrustedIssuers([issuer_of(kinds()["spiffe"], options)], CLOCK)
    old = of.issuer.mint(SPIFFE["sub"])
    assert trust.verify(old)
    of.issuer.rotate().jwk["use"] = "jwt-svid"
    publish()
    assert trust.verify(of.issuer.mint(SPIFFE["sub"]))
    with pytest.raises(NotAuthenticatedError):
        trust.verify(old)
    path.unlink()
    with pytest.raises(NotAuthenticatedError, match="cannot be read"):
        trust.verify(of.issuer.mint(SPIFFE["sub"]))
