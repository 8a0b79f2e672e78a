"""Every kind of issuer: good tokens of it prove somebody, and each claim that is wrong proves nobody."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from controlplane.issuers import github, kinds, oidc
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.issuers.trust.kind import REGISTERED
from controlplane.model.errors import ConfigurationError
from controlplane.settings import load
from controlplane.testing.kinds import KUBERNETES, sample

WORDS = sorted(kinds())
MISSHAPEN: Final[list[Any]] = [7, True, {"x": 1}, [[]]]


@pytest.mark.parametrize("word", WORDS)
def test_an_honest_token_proves_its_subject(word: str) -> None:
    of = sample(word)
    who = of.proves()
    assert who.subject == of.honest["sub"]


@pytest.mark.parametrize("word", WORDS)
def test_every_claim_is_accounted_for_once_and_every_ignored_one_says_why(word: str) -> None:
    table = kinds()[word].claims
    assert table.keys() >= REGISTERED.keys()
    for path, claim in table.items():
        assert not (claim.ignored and claim.needed), path


@pytest.mark.parametrize("word", WORDS)
def test_a_required_claim_that_is_missing_or_null_proves_nobody(word: str) -> None:
    of = sample(word)
    for path, claim in kinds()[word].claims.items():
        if claim.needed and "/" not in path:
            missing = of.refusal(without=(path,))
            assert path in missing or "not a configured issuer" in missing, path
            assert of.refusal(**{path: None})


@pytest.mark.parametrize("word", WORDS)
def test_a_claim_of_another_shape_proves_nobody(word: str) -> None:
    of = sample(word)
    for path, claim in kinds()[word].claims.items():
        if "/" in path or claim.ignored or path in REGISTERED:
            continue
        for wrong in MISSHAPEN:
            assert path in of.refusal(**{path: wrong}), path


@pytest.mark.parametrize("word", [word for word in WORDS if word != "oidc"])
def test_what_no_table_knows_is_kept_and_never_selected_by(word: str) -> None:
    who = sample(word).proves(admin="yes", **{"https://x.example/role": "owner"})
    assert who.claim("admin") is None
    assert who.claim("https://x.example/role") is None
    assert (who.others["admin"], who.others["https://x.example/role"]) == ("yes", "owner")


@pytest.mark.parametrize("word", WORDS)
def test_what_an_operator_names_can_be_selected_by(word: str) -> None:
    who = sample(word, claims=["team", "https://x.example/role", "deep/er"]).proves(
        team="billing", deep={"er": "1", "st": "2"}, **{"https://x.example/role": "owner"}
    )
    assert [who.claim(path) for path in ("team", "https://x.example/role", "deep/er")] == ["billing", "owner", "1"]
    assert (who.claim("deep/st"), who.others["deep"]) == (None, {"st": "2"})


@pytest.mark.parametrize("word", WORDS)
def test_what_is_ignored_is_never_selected_by_though_it_is_signed(word: str) -> None:
    of = sample(word)
    for path, claim in kinds()[word].claims.items():
        if claim.ignored and "/" not in path and path not in REGISTERED:
            who = of.proves(**{path: "x"})
            assert (who.claim(path), who.others[path]) == (None, "x")


@pytest.mark.parametrize("word", ["github", "gitlab", "kubernetes", "spiffe"])
def test_an_operator_cannot_select_by_what_proves_nothing(word: str) -> None:
    kind = kinds()[word]
    ignored = next(path for path, claim in kind.claims.items() if claim.ignored)
    options = sample(word, claims=[ignored]).configured.options
    with pytest.raises(ConfigurationError, match=f"nothing can be selected by {ignored}"):
        issuer_of(kind, options)


def test_an_oidc_issuer_can_be_told_which_of_its_claims_count() -> None:
    assert sample("oidc").proves(team="billing").claim("team") == "billing"
    assert sample("oidc", claims=["groups"]).proves(team="billing").claim("team") is None


def test_a_claim_that_settings_require_must_be_there() -> None:
    of = sample("github", required=["environment"])
    assert "environment" in of.refusal()
    assert of.proves(environment="prod").claim("environment") == "prod"
    nested = sample("kubernetes", required=["kubernetes.io/pod/uid"])
    bare = {**KUBERNETES["kubernetes.io"]}
    assert nested.proves()
    del bare["pod"]
    assert "kubernetes.io/pod/uid" in nested.refusal(**{"kubernetes.io": bare})


def wrong(**issuer: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(issuers=[{"name": "one", "audiences": ["shorthold"], **issuer}])
    return caught.value.detail


def test_the_kind_picks_the_file_and_its_options() -> None:
    given = {"name": "hub", "kind": "github", "audiences": ["shorthold"], "owner_ids": ["1"], "pull_requests": True}
    (options,) = load(issuers=[given]).issuers
    assert isinstance(options, github.GithubOptions)
    assert (options.url, options.algorithms, options.pull_requests) == (github.URL, ("RS256",), True)
    (plain,) = load(issuers=[{"name": "one", "url": "https://idp.example", "audiences": ["x"]}]).issuers
    assert isinstance(plain, oidc.OidcOptions)


def test_a_wrong_kind_or_option_is_named_without_its_value() -> None:
    assert "kind must be one of: github, gitlab, kubernetes, oidc, spiffe, vault" in wrong(kind="jose", url="x")
    assert "kind must be one of" in wrong(kind=7)
    for detail in (
        wrong(kind="github", owner_id=["s3cret"]),
        wrong(kind="github", owner_ids=["s3cret"]),
        wrong(kind="gitlab", pull_requests=True),
        wrong(kind="oidc"),
        wrong(kind="spiffe", url="https://s3cret.example", jwks_file="bundle.json"),
        wrong(kind="spiffe", url="spiffe://acme.example"),
        wrong(kind="vault", url="https://s3cret.example"),
        wrong(kind="kubernetes", url="kubernetes/serviceaccount"),
        wrong(url="https://idp.example", replay="never"),
        wrong(url="https://idp.example", algorithms=["HS256"]),
        wrong(url="https://idp.example", audiences=[]),
    ):
        assert detail.startswith("shorthold.toml or the environment: issuers.0")
        assert "s3cret" not in detail


def test_every_example_of_the_documentation_is_read_and_there_is_one_of_each_kind() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "issuers.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    read = [options for block in blocks for options in load(**tomllib.loads(block)).issuers]
    assert {options.kind for options in read} == set(kinds())
    for word in kinds():
        assert re.search(rf"^## .*`{word}`$", page, re.MULTILINE)
