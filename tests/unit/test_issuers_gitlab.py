"""GitLab CI/CD: subjects, claims that contradict each other, merge requests, namespaces (C2, C3)."""

from typing import Any

import pytest

from controlplane.testing.kinds import sample


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
    assert why in sample("gitlab").refusal(**changes)


@pytest.mark.parametrize("source", ["merge_request_event", "external_pull_request_event"])
def test_a_merge_request_is_one_though_its_subject_is_that_of_a_branch(source: str) -> None:
    assert "merge request" in sample("gitlab").refusal(pipeline_source=source)
    assert sample("gitlab", merge_requests=True).proves(pipeline_source=source)


def test_gitlab_subjects_may_be_configured_and_namespaces_restricted() -> None:
    assert sample("gitlab").proves(sub="project_path:acme/agents/one")
    assert sample("gitlab").proves(sub="project_id:20:ref:main")
    assert sample("gitlab", namespace_ids=["72"]).proves()
    assert "72 is not configured" in sample("gitlab", namespace_ids=["7"]).refusal()
