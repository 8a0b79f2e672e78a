"""Compile an entitlement into Vault objects: secret roles, one ACL policy, one JWT role. Pure; equal in, equal out.

The revision is a digest of the compiled content, so names tell content: a change is a new name, never an edit.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from controlplane.model.canonical import JsonObject, JsonValue, canonical
from controlplane.model.duration import format_duration
from controlplane.model.entitlement import Eligibility, Entitlement, Glob, Scope
from controlplane.model.grant import Revision
from controlplane.model.parameter import opened, parse, placeholders
from controlplane.model.plan import Compiled, Layout, Naming, ObjectKind, VaultObject
from controlplane.ports import Engine

METADATA = ("grant", "issuer", "subject", "entitlement", "revision", "task", "intent")
"""Claims of a task JWT that become metadata of the task token, so that Vault's own audit log names them."""

_BLANK = Revision("0" * 8)
_CLOCK_SKEW = 5  # seconds between our clock and Vault's; a task JWT lives 15 s besides


def compiled(entitlement: Entitlement, layout: Layout, engines: Mapping[str, Engine]) -> Compiled:
    """What `entitlement` means in Vault.

    Raises: KeyError: an engine of its scopes has no mount in `layout` (lint says so first).
    """
    narrowed = frozenset(scope.name for scope in entitlement.scopes if scope.parameters)
    blank = Naming(layout=layout, entitlement=entitlement.name, revision=_BLANK, narrowed=narrowed)
    content = [_content(item) for item in _objects(entitlement, blank, engines)]
    digest = hashlib.sha256(canonical(content + _templates(entitlement, blank, engines))).hexdigest()
    naming = replace(blank, revision=Revision(digest[:8]))
    return Compiled(entitlement=entitlement, naming=naming, objects=_objects(entitlement, naming, engines))


def _content(item: VaultObject) -> JsonValue:
    return {"path": item.path, "data": dict(item.data)}


def _templates(entitlement: Entitlement, naming: Naming, engines: Mapping[str, Engine]) -> list[JsonValue]:
    """What roles of single grants are made from, and what becomes of it: a change of either is another revision."""
    sample = {name: parse(parameter.pattern).shortest for name, parameter in entitlement.parameters.items()}
    patterns: JsonValue = {name: parameter.pattern for name, parameter in sorted(entitlement.parameters.items())}
    return [
        {
            "scope": scope.model_dump(mode="json"),
            "parameters": patterns,
            "roles": [_content(role) for role in _roles(entitlement, scope.bound(sample), naming, engines)],
        }
        for scope in sorted(entitlement.scopes, key=lambda scope: scope.name)
        if scope.parameters
    ]


def _roles(
    entitlement: Entitlement, scope: Scope, naming: Naming, engines: Mapping[str, Engine]
) -> Sequence[VaultObject]:
    lives = entitlement.ttl
    return engines[scope.engine].roles(scope, naming, default=lives.default, maximum=lives.max)


def _objects(entitlement: Entitlement, naming: Naming, engines: Mapping[str, Engine]) -> tuple[VaultObject, ...]:
    roles = [
        role
        for scope in sorted(entitlement.scopes, key=lambda scope: scope.name)
        if not scope.parameters  # its role is made for each grant
        for role in _roles(entitlement, scope, naming, engines)
    ]
    return (
        *roles,
        VaultObject(
            kind=ObjectKind.POLICY,
            path=f"sys/policies/acl/{naming.base}",
            entitlement=entitlement.name,
            data={"policy": canonical({"path": _rules(entitlement, naming, engines)}).decode()},
        ),
        VaultObject(
            kind=ObjectKind.JWT_ROLE,
            path=f"auth/{naming.layout.auth_mount}/role/{naming.base}",
            entitlement=entitlement.name,
            data=_jwt_role(entitlement, naming),
        ),
    )


def _rules(entitlement: Entitlement, naming: Naming, engines: Mapping[str, Engine]) -> dict[str, JsonValue]:
    """Exactly the paths that issuing needs: make each credential, and wrap once for no longer than ours."""
    longest = format_duration(naming.layout.wrap_ttl)
    rules: dict[str, JsonValue] = {
        "sys/wrapping/wrap": {"capabilities": ["update"], "min_wrapping_ttl": "1s", "max_wrapping_ttl": longest}
    }
    for scope in entitlement.scopes:
        for path, rule in engines[scope.engine].capabilities(scope, naming).items():
            rules[_opened_path(path)] = _opened(dict(rule))
    return rules


def _opened_path(path: str) -> str:
    """`path` for every value of its parameters: Vault's `+` is one segment, whatever stands in it."""
    return "/".join("+" if placeholders(segment) else segment for segment in path.split("/"))


def _opened(rule: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """`rule` with Vault's pattern where a value is, as narrow as it can say; the role of the grant says it exactly."""
    allowed = rule.get("allowed_parameters")
    if not isinstance(allowed, dict) or not placeholders(allowed):
        return rule
    return {**rule, "allowed_parameters": {name: _opened_values(values) for name, values in allowed.items()}}


def _opened_values(values: JsonValue) -> JsonValue:
    texts = [opened(text) if placeholders(text) else text for text in cast("list[str]", values)]
    return [] if None in texts else cast("JsonValue", texts)  # an empty list is any value


def _jwt_role(entitlement: Entitlement, naming: Naming) -> JsonObject:
    """Every field is written, so that none is left to a default. Source: OpenBao docs, api/auth/jwt, "Create role"."""
    workloads = sorted({_workload(entry) for entry in entitlement.eligibility})
    globs = any(isinstance(entry.subject, Glob) for entry in entitlement.eligibility)
    return {
        "role_type": "jwt",
        "bound_audiences": [naming.layout.audience],
        "bound_subject": "",
        # An outer ceiling: Vault's `*` crosses ':' and '/'. The exact check is ours, in `decide`.
        "bound_claims_type": "glob" if globs else "string",
        "bound_claims": {
            "entitlement": entitlement.name,
            "revision": naming.revision,
            "workload": [*workloads],
        },
        "claim_mappings": {claim: claim for claim in METADATA},
        "user_claim": "sub",
        "user_claim_json_pointer": False,
        "groups_claim": "",
        # -1 switches a leeway off, 0 would be the server's default of minutes.
        "clock_skew_leeway": _CLOCK_SKEW,
        "expiration_leeway": -1,
        "not_before_leeway": -1,
        "token_type": "service",
        "token_policies": [naming.base],
        "token_no_default_policy": True,
        "token_ttl": int(entitlement.ttl.default.total_seconds()),
        "token_max_ttl": int(entitlement.ttl.max.total_seconds()),
        "token_explicit_max_ttl": int(entitlement.ttl.max.total_seconds()),
        "token_num_uses": 0,
        "token_period": 0,
        "token_bound_cidrs": [],
        "token_strictly_bind_ip": False,
        "token_policies_template_claims": False,
        "allowed_redirect_uris": [],
        "oidc_scopes": [],
        "oauth2_metadata": [],
        "verbose_oidc_logging": False,
        "max_age": 0,
    }


def _workload(entry: Eligibility) -> str:
    # Issuer and subject in one claim, because Vault checks claims one by one: it would pair any with any.
    # No issuer's name has a space, so the pairing cannot be read in two ways.
    subject = entry.subject.glob if isinstance(entry.subject, Glob) else entry.subject
    return f"{entry.issuer} {subject}"
