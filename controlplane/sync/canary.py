"""A login that is open to the canary only: what a new revision's JWT role is until its canary was proved gone."""

from dataclasses import replace
from typing import Final

from controlplane.model.canary import ISSUER, SUBJECT
from controlplane.model.canonical import JsonObject
from controlplane.model.plan import VaultObject

_WORKLOADS: Final = [f"{ISSUER} {SUBJECT}"]


def closed(login: VaultObject) -> VaultObject:
    """The same JWT role, to which only the canary can log in: same policies, same spans."""
    bound = login.data["bound_claims"]
    claims = {**(bound if isinstance(bound, dict) else {}), "workload": [*_WORKLOADS]}
    return replace(login, data={**login.data, "bound_claims_type": "string", "bound_claims": claims})


def is_closed(data: JsonObject) -> bool:
    """Whether this is a JWT role to which only the canary can log in."""
    bound = data.get("bound_claims")
    return isinstance(bound, dict) and bound.get("workload") == _WORKLOADS
