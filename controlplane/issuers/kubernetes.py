"""Kubernetes: projected tokens of a `ServiceAccount`, which are bound to a pod, an audience and a time."""

from typing import Final

from pydantic import field_validator

from controlplane.issuers.trust.kind import REGISTERED, Kind, ignored, refuse_unless, required, said, verified
from controlplane.issuers.trust.options import Algorithm, IssuerOptions, Replay
from controlplane.model.identity import VerifiedClaims

_LEGACY_ISSUER: Final = "kubernetes/serviceaccount"
_LEGACY_CLAIM: Final = "kubernetes.io/serviceaccount/"


class KubernetesOptions(IssuerOptions):
    """`url` is the API server's `--service-account-issuer`.

    The kubelet renews the token in the pod's file when most of its time has passed and hands out the same one until
    then: it cannot be single-use.
    """

    kind: str = "kubernetes"
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256")
    replay: Replay = "reusable"

    @field_validator("url")
    @classmethod
    def _not_legacy(cls, url: str) -> str:
        if url == _LEGACY_ISSUER:
            raise ValueError("is the issuer of legacy tokens, which live in a Secret for ever; use projected ones")
        return url


def _check(who: VerifiedClaims, options: KubernetesOptions) -> None:
    del options
    legacy = [name for name in (*who.claims, *who.others) if name.startswith(_LEGACY_CLAIM)]
    refuse_unless(not legacy, "it is a legacy service-account token, not a projected one")
    named = f"{said(who, 'kubernetes.io/namespace')}:{said(who, 'kubernetes.io/serviceaccount/name')}"
    refuse_unless(who.subject == f"system:serviceaccount:{named}", "sub names another account than kubernetes.io")


KIND = Kind(
    word="kubernetes",
    options=KubernetesOptions,
    check=_check,
    # Source: Kubernetes docs, "Managing Service Accounts", "Bound service account token"; KEP-1205, KEP-4193
    claims={
        **REGISTERED,
        "kubernetes.io/namespace": required(),
        "kubernetes.io/serviceaccount/name": required(),
        "kubernetes.io/serviceaccount/uid": required(),
        "kubernetes.io/pod/name": verified(),
        "kubernetes.io/pod/uid": verified(),
        "kubernetes.io/node/name": verified(),
        "kubernetes.io/node/uid": verified(),
        "kubernetes.io/secret/name": verified(),
        "kubernetes.io/secret/uid": verified(),
        "kubernetes.io/warnafter": ignored("when the kubelet should have renewed it"),
    },
)
