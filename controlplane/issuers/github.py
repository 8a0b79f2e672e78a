"""GitHub Actions: a job of a workflow, by repository, ref and workflow file; pull requests only where they are wanted.

Anybody with a repository on GitHub gets tokens of this issuer, so `owner_ids` says whose are looked at at all.
"""

from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from controlplane.issuers.trust.kind import (
    REGISTERED,
    Kind,
    flag,
    ignored,
    maybe_text,
    number,
    refuse_unless,
    required,
    said,
    verified,
)
from controlplane.issuers.trust.options import Algorithm, IssuerOptions
from controlplane.model.identity import VerifiedClaims

URL: Final = "https://token.actions.githubusercontent.com"

_PULL_REQUEST: Final = frozenset(
    {"pull_request", "pull_request_target", "pull_request_review", "pull_request_review_comment"}
)


class GithubOptions(IssuerOptions):
    """`url` differs for an enterprise's own issuer and for GitHub Enterprise Server."""

    kind: str = "github"
    url: str = URL
    algorithms: tuple[Algorithm, ...] = ("RS256",)
    owner_ids: tuple[Annotated[str, Field(pattern=r"^[0-9]{1,20}$")], ...] = ()
    """The accounts whose repositories are looked at (`repository_owner_id`); empty: all there are."""
    pull_requests: bool = False
    """Whether jobs that a pull request started may prove anything: its author chose what they run, or on what."""

    @property
    @override
    def open_to_all(self) -> bool:
        return self.url == URL and not self.owner_ids


def _check(who: VerifiedClaims, options: GithubOptions) -> None:
    owner, repository = said(who, "repository_owner"), said(who, "repository")
    owner_id, repository_id = said(who, "repository_owner_id"), said(who, "repository_id")
    refuse_unless(repository.startswith(f"{owner}/"), "repository is not one of repository_owner")
    refuse_unless(
        not options.owner_ids or owner_id in options.owner_ids, f"repository_owner_id {owner_id} is not configured"
    )
    words, _, rest = who.subject.removeprefix("repo:").partition(":")
    if who.subject.startswith("repo:"):
        # The second form is never given to another repository after a deletion.
        lasting = f"{owner}@{owner_id}/{repository.partition('/')[2]}@{repository_id}"
        refuse_unless(words in {repository, lasting}, "sub names another repository than repository")
    # Not by `sub` alone: with an environment it is `…:environment:prod`, and for pull_request_target that of the base.
    by_pull_request = said(who, "event_name") in _PULL_REQUEST or rest.split(":", 1)[0] == "pull_request"
    refuse_unless(options.pull_requests or not by_pull_request, "a pull request started it (pull_requests = false)")


_OF_THE_RUN: Final = ignored("it tells runs apart, not what runs")
_A_PERSON: Final = ignored("who pressed the button is not what runs")
_OF_A_PULL_REQUEST: Final = ignored("the author of a pull request chose it")

KIND = Kind(
    word="github",
    options=GithubOptions,
    check=_check,
    # Source: GitHub Docs, "OpenID Connect reference", "OIDC token claims"
    claims={
        **REGISTERED,
        "jti": required(),
        "repository": required(),
        "repository_id": required(number),
        "repository_owner": required(),
        "repository_owner_id": required(number),
        "event_name": required(),
        "ref": required(maybe_text),  # empty for a deployment of a single commit
        "workflow_ref": required(),
        "job_workflow_ref": required(),
        "ref_type": verified(),
        "ref_protected": verified(flag),
        "sha": verified(),
        "workflow_sha": verified(),
        "job_workflow_sha": verified(),
        "environment": verified(),
        "repository_visibility": verified(),
        "runner_environment": verified(),
        "enterprise": verified(),
        "enterprise_id": verified(number),
        "environment_node_id": ignored("environment is its name"),
        "workflow": ignored("a display name that any file may have; workflow_ref names the file"),
        "actor": _A_PERSON,
        "actor_id": _A_PERSON,
        "head_ref": _OF_A_PULL_REQUEST,
        "base_ref": _OF_A_PULL_REQUEST,
        "run_id": _OF_THE_RUN,
        "run_number": _OF_THE_RUN,
        "run_attempt": _OF_THE_RUN,
        "check_run_id": _OF_THE_RUN,
    },
)
