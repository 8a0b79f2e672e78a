"""GitHub Actions: subjects in all their forms, claims that contradict each other, pull requests, owners (C2, C3)."""

from typing import Any

import pytest

from controlplane.testing.kinds import sample


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
    assert sample("github").proves(**changes)


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
    assert why in sample("github").refusal(**changes)


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
    assert "pull request" in sample("github").refusal(**changes)
    assert sample("github", pull_requests=True).proves(**changes)


def test_only_the_configured_owners_repositories_are_looked_at() -> None:
    assert sample("github", owner_ids=["123456"]).proves()
    assert "123456 is not configured" in sample("github", owner_ids=["12345", "1234567"]).refusal()
