"""Every kind of issuer: good tokens of it prove somebody, and each claim that is wrong proves nobody."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from controlplane.issuers import github, gitlab, kinds, kubernetes, oidc, spiffe, vault
from controlplane.issuers.trust.issuer import issuer_of
from controlplane.issuers.trust.kind import REGISTERED, Kind
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims
from controlplane.settings import load
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, IssuerKey

CLOCK = FakeClock()

GITHUB: Final[Mapping[str, Any]] = {
    "sub": "repo:acme/agent:ref:refs/heads/main",
    "jti": "9b1deb4d",
    "repository": "acme/agent",
    "repository_id": "456789",
    "repository_owner": "acme",
    "repository_owner_id": "123456",
    "event_name": "push",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "ref_protected": "true",
    "workflow": "deploy",
    "workflow_ref": "acme/agent/.github/workflows/deploy.yml@refs/heads/main",
    "job_workflow_ref": "acme/agent/.github/workflows/deploy.yml@refs/heads/main",
    "actor": "octocat",
    "actor_id": "1",
    "head_ref": "",
    "base_ref": "",
    "run_id": "7",
    "run_number": "1",
    "run_attempt": "1",
    "runner_environment": "github-hosted",
    "repository_visibility": "private",
    "sha": "0a1b",
}
GITLAB: Final[Mapping[str, Any]] = {
    "sub": "project_path:acme/agents/one:ref_type:branch:ref:main",
    "jti": "9b1deb4d",
    "project_id": "20",
    "project_path": "acme/agents/one",
    "namespace_id": "72",
    "namespace_path": "acme/agents",
    "pipeline_source": "push",
    "ref": "main",
    "ref_type": "branch",
    "ref_path": "refs/heads/main",
    "ref_protected": "true",
    "environment": None,
    "groups_direct": ["acme/agents"],
    "user_login": "somebody",
    "user_access_level": "developer",
    "pipeline_id": "574",
    "job_id": "302",
}
KUBERNETES: Final[Mapping[str, Any]] = {
    "sub": "system:serviceaccount:agents:refund",
    "jti": "9b1deb4d",
    "kubernetes.io": {
        "namespace": "agents",
        "serviceaccount": {"name": "refund", "uid": "5c1a"},
        "pod": {"name": "refund-0", "uid": "77aa"},
        "node": {"name": "n1", "uid": "88bb"},
        "warnafter": 1767605407,
        "new-in-2030": {"x": 1},
    },
}
SPIFFE: Final[Mapping[str, Any]] = {"sub": "spiffe://acme.example/ns/agents/sa/refund"}
VAULT: Final[Mapping[str, Any]] = {
    "sub": "5c1a9b1d-eb4d-3b7d-9bad-9bdd2b0d7b3d",
    "namespace": "root",
    "team": "billing",
}


class Stage:
    """One issuer of one kind, pinned by its keys, and tokens that it signs."""

    def __init__(self, kind: Kind[Any], honest: Mapping[str, Any], url: str, **settings: Any) -> None:
        key = IssuerKey()
        key.jwk["use"] = kind.key_use
        self.issuer = FakeIssuer(url, clock=CLOCK, keys=[key])
        self.honest = dict(honest)
        self.configured = self.issuer.of_kind(kind, **settings)
        self.trust = TrustedIssuers([self.configured], CLOCK)

    def proves(self, without: Any = (), **changes: Any) -> VerifiedClaims:  # noqa: ANN401 # `**` may be any of them
        claims = {**self.honest, **changes}
        subject = claims.pop("sub")
        return self.trust.verify(self.issuer.mint(subject, without=without, **claims))

    def refusal(self, without: Any = (), **changes: Any) -> str:  # noqa: ANN401 # same
        with pytest.raises(NotAuthenticatedError) as caught:
            self.proves(without, **changes)
        return caught.value.detail


def stage(word: str, **settings: Any) -> Stage:
    unbundled = {"jwks_file": "bundle.json"}
    return {
        "oidc": lambda: Stage(oidc.KIND, {"sub": "agent-1"}, "https://idp.example", **settings),
        "github": lambda: Stage(github.KIND, GITHUB, github.URL, **settings),
        "gitlab": lambda: Stage(gitlab.KIND, GITLAB, gitlab.URL, **settings),
        "kubernetes": lambda: Stage(kubernetes.KIND, KUBERNETES, "https://kubernetes.default.svc", **settings),
        "spiffe": lambda: Stage(spiffe.KIND, SPIFFE, "spiffe://acme.example", **unbundled, **settings),
        "vault": lambda: Stage(vault.KIND, VAULT, "https://bao.example:8200/v1/identity/oidc", **settings),
    }[word]()


WORDS = sorted(kinds())
MISSHAPEN: Final[list[Any]] = [7, True, {"x": 1}, [[]]]


@pytest.mark.parametrize("word", WORDS)
def test_an_honest_token_proves_its_subject(word: str) -> None:
    of = stage(word)
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
    of = stage(word)
    for path, claim in kinds()[word].claims.items():
        if claim.needed and "/" not in path:
            missing = of.refusal(without=(path,))
            assert path in missing or "not a configured issuer" in missing, path
            assert of.refusal(**{path: None})


@pytest.mark.parametrize("word", WORDS)
def test_a_claim_of_another_shape_proves_nobody(word: str) -> None:
    of = stage(word)
    for path, claim in kinds()[word].claims.items():
        if "/" in path or claim.ignored or path in REGISTERED:
            continue
        for wrong in MISSHAPEN:
            assert path in of.refusal(**{path: wrong}), path


@pytest.mark.parametrize("word", [word for word in WORDS if word != "oidc"])
def test_what_no_table_knows_is_kept_and_never_selected_by(word: str) -> None:
    who = stage(word).proves(admin="yes", **{"https://x.example/role": "owner"})
    assert who.claim("admin") is None
    assert who.claim("https://x.example/role") is None
    assert (who.others["admin"], who.others["https://x.example/role"]) == ("yes", "owner")


@pytest.mark.parametrize("word", WORDS)
def test_what_an_operator_names_can_be_selected_by(word: str) -> None:
    who = stage(word, claims=["team", "https://x.example/role", "deep/er"]).proves(
        team="billing", deep={"er": "1", "st": "2"}, **{"https://x.example/role": "owner"}
    )
    assert [who.claim(path) for path in ("team", "https://x.example/role", "deep/er")] == ["billing", "owner", "1"]
    assert (who.claim("deep/st"), who.others["deep"]) == (None, {"st": "2"})


@pytest.mark.parametrize("word", WORDS)
def test_what_is_ignored_is_never_selected_by_though_it_is_signed(word: str) -> None:
    of = stage(word)
    for path, claim in kinds()[word].claims.items():
        if claim.ignored and "/" not in path and path not in REGISTERED:
            who = of.proves(**{path: "x"})
            assert (who.claim(path), who.others[path]) == (None, "x")


@pytest.mark.parametrize("word", ["github", "gitlab", "kubernetes", "spiffe"])
def test_an_operator_cannot_select_by_what_proves_nothing(word: str) -> None:
    kind = kinds()[word]
    ignored = next(path for path, claim in kind.claims.items() if claim.ignored)
    options = stage(word, claims=[ignored]).configured.options
    with pytest.raises(ConfigurationError, match=f"nothing can be selected by {ignored}"):
        issuer_of(kind, options)


def test_an_oidc_issuer_can_be_told_which_of_its_claims_count() -> None:
    assert stage("oidc").proves(team="billing").claim("team") == "billing"
    assert stage("oidc", claims=["groups"]).proves(team="billing").claim("team") is None


def test_a_claim_that_settings_require_must_be_there() -> None:
    of = stage("github", required=["environment"])
    assert "environment" in of.refusal()
    assert of.proves(environment="prod").claim("environment") == "prod"
    nested = stage("kubernetes", required=["kubernetes.io/pod/uid"])
    bare = {**KUBERNETES["kubernetes.io"]}
    assert nested.proves()
    del bare["pod"]
    assert "kubernetes.io/pod/uid" in nested.refusal(**{"kubernetes.io": bare})


# GitHub -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "repo:acme/agent:environment:prod", "environment": "prod"},
        {"sub": "repo:acme@123456/agent@456789:ref:refs/heads/main"},
        {"sub": "repository_owner_id:123456:job_workflow_ref:acme/ci/.github/workflows/x.yml@refs/heads/main"},
        {"ref": "", "event_name": "deployment"},
        {"event_name": "workflow_dispatch"},
    ],
)
def test_github_subjects_in_all_their_forms(changes: dict[str, Any]) -> None:
    assert stage("github").proves(**changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sub": "repo:acme/other:ref:refs/heads/main"}, "another repository"),
        ({"sub": "repo:acme/agent-2:ref:refs/heads/main"}, "another repository"),
        ({"sub": "repo:acme/agent@456789:ref:refs/heads/main"}, "another repository"),
        ({"sub": "repo:acme@1/agent@456789:ref:refs/heads/main"}, "another repository"),
        ({"sub": "repo:acme@123456/agent@1:ref:refs/heads/main"}, "another repository"),
        ({"repository": "mallory/agent"}, "not one of repository_owner"),
        ({"repository_owner": "acm"}, "not one of repository_owner"),
        ({"repository_id": "4x"}, "repository_id"),
        ({"repository_owner_id": "12345678901234567890123"}, "repository_owner_id"),
        ({"ref_protected": "yes"}, "ref_protected"),
    ],
)
def test_github_claims_that_contradict_each_other_prove_nobody(changes: dict[str, Any], why: str) -> None:
    assert why in stage("github").refusal(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "repo:acme/agent:pull_request", "event_name": "pull_request"},
        {"sub": "repo:acme/agent:pull_request"},
        {"sub": "repo:acme@123456/agent@456789:pull_request", "event_name": "pull_request"},
        # With an environment, or from the base's own workflow, `sub` does not show it.
        {"sub": "repo:acme/agent:environment:prod", "environment": "prod", "event_name": "pull_request"},
        {"event_name": "pull_request_target"},
        {"event_name": "pull_request_review"},
        {"event_name": "pull_request_review_comment"},
    ],
)
def test_a_pull_request_is_one_whatever_its_subject_looks_like(changes: dict[str, Any]) -> None:
    assert "pull request" in stage("github").refusal(**changes)
    assert stage("github", pull_requests=True).proves(**changes)


def test_only_the_configured_owners_repositories_are_looked_at() -> None:
    assert stage("github", owner_ids=["123456"]).proves()
    assert "123456 is not configured" in stage("github", owner_ids=["12345", "1234567"]).refusal()


# GitLab -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sub": "project_path:acme/agents/two:ref_type:branch:ref:main"}, "another project"),
        ({"sub": "project_path:acme/agents/one-two:ref_type:branch:ref:main"}, "another project"),
        ({"project_path": "mallory/one"}, "not one of namespace_path"),
        ({"namespace_path": "acme/agent"}, "not one of namespace_path"),
        ({"ref_protected": True}, "ref_protected"),
        ({"project_id": 20}, "project_id"),
    ],
)
def test_gitlab_claims_that_contradict_each_other_prove_nobody(changes: dict[str, Any], why: str) -> None:
    assert why in stage("gitlab").refusal(**changes)


@pytest.mark.parametrize("source", ["merge_request_event", "external_pull_request_event"])
def test_a_merge_request_is_one_though_its_subject_is_that_of_a_branch(source: str) -> None:
    assert "merge request" in stage("gitlab").refusal(pipeline_source=source)
    assert stage("gitlab", merge_requests=True).proves(pipeline_source=source)


def test_gitlab_subjects_may_be_configured_and_namespaces_restricted() -> None:
    assert stage("gitlab").proves(sub="project_path:acme/agents/one")
    assert stage("gitlab").proves(sub="project_id:20:ref:main")
    assert stage("gitlab", namespace_ids=["72"]).proves()
    assert "72 is not configured" in stage("gitlab", namespace_ids=["7"]).refusal()


# Kubernetes -------------------------------------------------------------------------------------------------------


def test_kubernetes_nested_claims_can_be_selected_by_and_unknown_ones_cannot() -> None:
    who = stage("kubernetes").proves()
    assert who.claim("kubernetes.io/namespace") == "agents"
    assert who.claim("kubernetes.io/pod/uid") == "77aa"
    assert who.claim("kubernetes.io/warnafter") is None
    assert who.claim("kubernetes.io/new-in-2030/x") is None
    assert who.others["kubernetes.io"] == {"warnafter": 1767605407, "new-in-2030": {"x": 1}}


@pytest.mark.parametrize(
    "subject",
    [
        "system:serviceaccount:agents:other",
        "system:serviceaccount:other:refund",
        "system:serviceaccount:agents:refund:x",
        "system:serviceaccount:agents",
        "agents:refund",
    ],
)
def test_a_kubernetes_subject_agrees_with_the_nested_names(subject: str) -> None:
    assert "another account" in stage("kubernetes").refusal(sub=subject)


@pytest.mark.parametrize("path", ["namespace", "serviceaccount"])
def test_a_kubernetes_token_without_its_nested_names_proves_nobody(path: str) -> None:
    nested = {name: value for name, value in KUBERNETES["kubernetes.io"].items() if name != path}
    assert f"kubernetes.io/{path}" in stage("kubernetes").refusal(**{"kubernetes.io": nested})
    assert stage("kubernetes").refusal(**{"kubernetes.io": {**nested, path: 7}})


def test_j20_j42_a_legacy_kubernetes_token_proves_nobody() -> None:
    legacy = {
        "sub": "system:serviceaccount:agents:refund",
        "kubernetes.io/serviceaccount/namespace": "agents",
        "kubernetes.io/serviceaccount/secret.name": "refund-token-x",
        "kubernetes.io/serviceaccount/service-account.name": "refund",
        "kubernetes.io/serviceaccount/service-account.uid": "5c1a",
    }
    of = stage("kubernetes")
    assert "legacy" in of.refusal(**legacy)
    assert "aud" in of.refusal(without=("aud",))
    assert "exp" in of.refusal(without=("exp",))
    with pytest.raises(ValueError, match="legacy tokens"):
        Stage(kubernetes.KIND, KUBERNETES, "kubernetes/serviceaccount")


# SPIFFE -----------------------------------------------------------------------------------------------------------


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
    assert stage("spiffe").refusal(sub=subject)


@pytest.mark.parametrize("path", ["/a", "/.a", "/...", "/a..b", "/ns/agents/sa/refund-1_2.3"])
def test_a_spiffe_id_may_have_any_sound_path(path: str) -> None:
    assert stage("spiffe").proves(sub=f"spiffe://acme.example{path}")


def test_an_svid_needs_no_iss_and_no_iat_and_whatever_its_iss_says_proves_nothing() -> None:
    of = stage("spiffe")
    assert of.proves(without=("iss", "iat"))
    assert of.proves(iss="https://anybody.example").claim("iss") is None
    assert of.trust.verify(of.issuer.forge({"typ": "JOSE"}, of.issuer.claims(**{**SPIFFE, "subject": SPIFFE["sub"]})))


def test_j21_an_svid_without_iat_lives_no_longer_than_others() -> None:
    of = stage("spiffe")
    now = int(CLOCK.now().timestamp())
    assert of.proves(without=("iat",), exp=now + 3500)
    assert "lives longer" in of.refusal(without=("iat",), exp=now + 3700)


def test_j19_only_issuers_of_kind_spiffe_are_chosen_by_their_subject() -> None:
    mine, plain = stage("spiffe"), FakeIssuer("https://idp.example", clock=CLOCK, name="plain")
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


# Vault ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["agent", "5c1a9b1d", VAULT["sub"].upper(), f"{VAULT['sub']} "])
def test_a_vault_subject_is_the_id_of_an_entity(subject: str) -> None:
    assert "entity" in stage("vault").refusal(sub=subject)


@pytest.mark.parametrize(
    "url",
    ["https://bao.example", "https://bao.example/v1/identity/oidc/", "https://bao.example/v1/identity/oidc/provider/x"],
)
def test_a_vault_issuer_is_the_one_of_identity_tokens(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Stage(vault.KIND, VAULT, url)
    assert Stage(vault.KIND, VAULT, "https://bao.example/v1/team/a/identity/oidc").proves()


# Settings ---------------------------------------------------------------------------------------------------------


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


def test_a_bundle_file_is_read_anew_when_it_changes_and_fails_closed_when_it_is_gone(tmp_path: Path) -> None:
    of, path = stage("spiffe"), tmp_path / "bundle.json"

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
