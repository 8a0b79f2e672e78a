"""Honest tokens of every kind of issuer, and an issuer of the kind to sign them, changed at will."""

from collections.abc import Mapping
from typing import Any, Final

from controlplane.issuers import github, gitlab, kubernetes, oidc, spiffe, vault
from controlplane.issuers.trust.kind import Kind
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, IssuerKey

CLOCK: Final = FakeClock()
"""What time it is for all of them."""

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


class Sample:
    """One issuer of one kind, pinned by its keys, and tokens that it signs."""

    def __init__(self, kind: Kind[Any], honest: Mapping[str, Any], url: str, **settings: Any) -> None:
        key = IssuerKey()
        key.jwk["use"] = kind.key_use
        self.issuer = FakeIssuer(url, clock=CLOCK, keys=[key])
        self.honest = dict(honest)
        self.configured = self.issuer.of_kind(kind, **settings)
        self.trust = TrustedIssuers([self.configured], CLOCK)

    def proves(self, without: Any = (), **changes: Any) -> VerifiedClaims:  # noqa: ANN401 # `**` may be any of them
        """Whom the honest token with these `changes`, and `without` some claims, proves.

        Raises: NotAuthenticatedError: nobody.
        """
        claims = {**self.honest, **changes}
        return self.trust.verify(self.issuer.mint(claims.pop("sub"), without=without, **claims))

    def refusal(self, without: Any = (), **changes: Any) -> str:  # noqa: ANN401 # same
        """Why such a token proves nobody. Raises: AssertionError: it proves somebody."""
        try:
            who = self.proves(without, **changes)
        except NotAuthenticatedError as error:
            return error.detail
        raise AssertionError(f"the token proves {who.subject}")


_HONEST: Final[Mapping[str, tuple[Kind[Any], Mapping[str, Any], str]]] = {
    "oidc": (oidc.KIND, {"sub": "agent-1"}, "https://idp.example"),
    "github": (github.KIND, GITHUB, github.URL),
    "gitlab": (gitlab.KIND, GITLAB, gitlab.URL),
    "kubernetes": (kubernetes.KIND, KUBERNETES, "https://kubernetes.default.svc"),
    "spiffe": (spiffe.KIND, SPIFFE, "spiffe://acme.example"),
    "vault": (vault.KIND, VAULT, "https://bao.example:8200/v1/identity/oidc"),
}


def sample(word: str, **settings: Any) -> Sample:
    """An issuer of the kind called `word`; `settings` are its kind's options."""
    bundle = {"jwks_file": "bundle.json"} if word == "spiffe" else {}
    return Sample(*_HONEST[word], **{**bundle, **settings})
