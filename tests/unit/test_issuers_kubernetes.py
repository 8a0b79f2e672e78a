"""Kubernetes: nested claims, subjects that must agree with them, legacy tokens (C2, C3)."""

import pytest

from controlplane.issuers import kubernetes
from controlplane.testing.kinds import KUBERNETES, Sample, sample


def test_kubernetes_nested_claims_can_be_selected_by_and_unknown_ones_cannot() -> None:
    who = sample("kubernetes").proves()
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
    assert "another account" in sample("kubernetes").refusal(sub=subject)


@pytest.mark.parametrize("path", ["namespace", "serviceaccount"])
def test_a_kubernetes_token_without_its_nested_names_proves_nobody(path: str) -> None:
    nested = {name: value for name, value in KUBERNETES["kubernetes.io"].items() if name != path}
    assert f"kubernetes.io/{path}" in sample("kubernetes").refusal(**{"kubernetes.io": nested})
    assert sample("kubernetes").refusal(**{"kubernetes.io": {**nested, path: 7}})


def test_j20_j42_a_legacy_kubernetes_token_proves_nobody() -> None:
    legacy = {
        "sub": "system:serviceaccount:agents:refund",
        "kubernetes.io/serviceaccount/namespace": "agents",
        "kubernetes.io/serviceaccount/secret.name": "refund-token-x",
        "kubernetes.io/serviceaccount/service-account.name": "refund",
        "kubernetes.io/serviceaccount/service-account.uid": "5c1a",
    }
    of = sample("kubernetes")
    assert "legacy" in of.refusal(**legacy)
    assert "aud" in of.refusal(without=("aud",))
    assert "exp" in of.refusal(without=("exp",))
    with pytest.raises(ValueError, match="legacy tokens"):
        Sample(kubernetes.KIND, KUBERNETES, "kubernetes/serviceaccount")
