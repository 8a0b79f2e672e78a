"""GitLab CI/CD: a job's ID token, by project, ref and environment; merge requests only where they are wanted."""

from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from controlplane.issuers.trust.kind import (
    REGISTERED,
    Kind,
    flag,
    ignored,
    number,
    refuse_unless,
    required,
    said,
    verified,
    words,
)
from controlplane.issuers.trust.options import Algorithm, IssuerOptions
from controlplane.model.identity import VerifiedClaims

URL: Final = "https://gitlab.com"

_MERGE_REQUEST: Final = frozenset({"merge_request_event", "external_pull_request_event"})


class GitlabOptions(IssuerOptions):
    """`url` is that of the instance."""

    kind: str = "gitlab"
    url: str = URL
    algorithms: tuple[Algorithm, ...] = ("RS256",)
    namespace_ids: tuple[Annotated[str, Field(pattern=r"^[0-9]{1,20}$")], ...] = ()
    """The groups and users whose projects are looked at (`namespace_id`); empty: all there are."""
    merge_requests: bool = False
    """Whether jobs of a merge request may prove anything: its author chose what they run, perhaps in a fork."""

    @property
    @override
    def open_to_all(self) -> bool:
        return self.url == URL and not self.namespace_ids


def _check(who: VerifiedClaims, options: GitlabOptions) -> None:
    project, namespace_id = said(who, "project_path"), said(who, "namespace_id")
    refuse_unless(project.startswith(f"{said(who, 'namespace_path')}/"), "project_path is not one of namespace_path")
    refuse_unless(
        not options.namespace_ids or namespace_id in options.namespace_ids,
        f"namespace_id {namespace_id} is not configured",
    )
    if who.subject.startswith("project_path:"):
        refuse_unless(
            f"{who.subject}:".startswith(f"project_path:{project}:"), "sub names another project than project_path"
        )
    # Not by `sub`: that of a merge request's job is the one of its source branch.
    refuse_unless(
        options.merge_requests or said(who, "pipeline_source") not in _MERGE_REQUEST,
        "a merge request started it (merge_requests = false)",
    )


_OF_THE_RUN: Final = ignored("it tells jobs apart, not what runs")
_A_PERSON: Final = ignored("who pressed the button is not what runs")
_CONFIGURED: Final = ignored("project_path and ref say which project; this says where its job was run")

KIND = Kind(
    word="gitlab",
    options=GitlabOptions,
    check=_check,
    # Source: GitLab Docs, "OpenID Connect (OIDC) Authentication Using ID Tokens", "Token payload"
    claims={
        **REGISTERED,
        "jti": required(),
        "project_id": required(number),
        "project_path": required(),
        "namespace_id": required(number),
        "namespace_path": required(),
        "pipeline_source": required(),
        "ref": required(),
        "ref_type": required(),
        "ref_protected": required(flag),
        "ref_path": verified(),
        "environment": verified(),
        "environment_protected": verified(flag),
        "deployment_tier": verified(),
        "deployment_action": verified(),
        "project_visibility": verified(),
        "ci_config_ref_uri": verified(),
        "ci_config_sha": verified(),
        "sha": verified(),
        "runner_environment": verified(),
        "groups_direct": verified(words),
        "runner_id": ignored("a number that a runner gets anew whenever it registers"),
        "environment_action": ignored("deployment_action is its later name"),
        "pipeline_id": _OF_THE_RUN,
        "job_id": _OF_THE_RUN,
        "job_source": _OF_THE_RUN,
        "job_project_id": _CONFIGURED,
        "job_project_path": _CONFIGURED,
        "job_namespace_id": _CONFIGURED,
        "job_namespace_path": _CONFIGURED,
        "user_id": _A_PERSON,
        "user_login": _A_PERSON,
        "user_email": _A_PERSON,
        "user_access_level": _A_PERSON,
        "user_identities": _A_PERSON,
    },
)
