"""Drift: hold what was seen in Vault and at targets against what entitlements and bootstrap say. Pure but for looking.

A revision of which nothing stands was never applied; one of which something stands and something is missing was
taken apart. What only waits for its leases is no drift.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from controlplane.engines import places
from controlplane.engines.dialects import DatabaseScope
from controlplane.engines.dialects.terms.group import Group
from controlplane.model.canonical import JsonObject
from controlplane.model.drift import Code, Connection, Finding, Seen
from controlplane.model.plan import Action, Compiled, Layout, ObjectKind
from controlplane.sync.acl import opens, rules
from controlplane.sync.canary import is_closed
from controlplane.sync.diff import difference, drift
from controlplane.sync.ours import origin

_CHANGED: Final = {
    ObjectKind.SECRET_ROLE: Code.ROLE_CHANGED,
    ObjectKind.POLICY: Code.POLICY_CHANGED,
    ObjectKind.JWT_ROLE: Code.LOGIN_CHANGED,
}
_APPLY: Final = "shorthold sync apply"
_BOOTSTRAP: Final = "shorthold vault bootstrap"
_READS: Final = frozenset({"read", "create", "update", "patch"})
_WRITES: Final = frozenset({"create", "update", "patch", "delete"})


class Lookout(Protocol):
    """Looks at everything that drift is looked for in, and changes nothing."""

    def __call__(self, wanted: Sequence[Compiled]) -> Seen:
        """What stands there now; of `wanted` it takes the names of connections to ask for.

        Raises: VaultUnavailableError, VaultRefusedError: not even our own objects can be seen.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What settings know of the world besides entitlements; what they do not know is not held against anything."""

    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    """The only key (PEM) that each of our JWT mounts trusts."""
    targets: Mapping[str, tuple[str, int, str]] = field(default_factory=dict[str, tuple[str, int, str]])
    """Host, port and database of each connection."""
    own_policies: frozenset[str] = frozenset()
    """The policies of our identities, which bootstrap writes."""
    known: frozenset[str] = frozenset()
    """Paths that somebody has looked at and accepts as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDrift:
    """Look, and tell what is not as it should be. Nothing is changed; repeating it looks again."""

    look: Lookout
    layout: Layout
    expected: Expected

    def __call__(self, wanted: Sequence[Compiled]) -> Sequence[Finding]:
        """All findings, by code and path; empty where all is as it should be.

        Raises: VaultUnavailableError, VaultRefusedError: not even our own objects can be seen.
        """
        return findings(self.layout, wanted, self.look(wanted), self.expected)


def findings(layout: Layout, wanted: Sequence[Compiled], seen: Seen, expected: Expected) -> Sequence[Finding]:
    """What is not as it should be, by code and path."""
    found = {
        *_objects(layout, wanted, seen),
        *_strangers(seen),
        *_policies(layout, seen, expected),
        *_identities(seen, expected),
        *_connections(wanted, seen, expected),
        *_groups(layout, wanted, seen),
        *_audit(seen),
        *(
            Finding(code=Code.NOT_SEEN, path=path, detail=why, repair="let the identity vault.drift look")
            for path, why in seen.unseen.items()
        ),
    }
    return sorted(finding for finding in found if finding.path not in expected.known)


def _objects(layout: Layout, wanted: Sequence[Compiled], seen: Seen) -> Iterator[Finding]:
    for compiled in wanted:
        missing = [item for item in compiled.objects if item.path not in seen.objects]
        if len(missing) == len(compiled.objects):
            name = compiled.entitlement.name
            detail = f"nothing of revision {compiled.revision} of {name} stands in Vault"
            yield Finding(code=Code.NOT_APPLIED, path=compiled.objects[-1].path, detail=detail, repair=_APPLY)
            continue
        for item in missing:
            detail = "somebody deleted it, or an apply broke off before it"
            yield Finding(code=Code.OBJECT_MISSING, path=item.path, detail=detail, repair=_APPLY)
        for item in compiled.objects:
            if item.path in seen.objects and is_closed(seen.objects[item.path].data):
                detail = "an apply broke off while it was open to its canary only"
                yield Finding(code=Code.OBJECT_MISSING, path=item.path, detail=detail, repair=_APPLY)
            elif item.path in seen.objects and (fields := drift(item, seen.objects[item.path].data)):
                detail = f"somebody changed {', '.join(fields)}"
                yield Finding(code=_CHANGED[item.kind], path=item.path, detail=detail, repair=_APPLY)
    for change in difference(layout, wanted, seen.objects, leases=seen.leases).changes:
        if change.after is None and change.action is not Action.DRAIN:
            login = change.kind is ObjectKind.JWT_ROLE
            code = Code.LOGIN_LEFT if login else Code.OBJECT_LEFT
            cause = change.why.partition(":")[0]  # what comes behind it tells what an apply will do
            yield Finding(code=code, path=change.path, detail=cause, repair=_APPLY)


def _strangers(seen: Seen) -> Iterator[Finding]:
    for path in seen.strange_logins:
        detail = "somebody else wrote a role at the mount where tasks log in"
        yield Finding(code=Code.LOGIN_FOREIGN, path=path, detail=detail, repair=_delete(path))
    for path in seen.strange_roles:
        detail = "its name has our prefix, and is no revision of ours"
        yield Finding(code=Code.ROLE_FOREIGN, path=path, detail=detail, repair=_delete(path))


def _policies(layout: Layout, seen: Seen, expected: Expected) -> Iterator[Finding]:
    guarded = tuple(_guarded(layout))
    for name, text in seen.policies.items():
        path = f"sys/policies/acl/{name}"
        if name in expected.own_policies or origin(layout, ObjectKind.POLICY, path) is not None:
            continue  # held against what they have to be, word for word
        given = rules(text)
        if given is None:
            detail = "it is not written in JSON or HCL as we know it"
            yield Finding(code=Code.POLICY_UNREAD, path=path, detail=detail, repair=f"bao read {shlex.quote(path)}")
            continue
        opened = [
            f"{', '.join(sorted(said))} {where}*" for where, caps in guarded if (said := opens(given, where, caps))
        ]
        if opened:
            repair = f"take it out: bao policy write {shlex.quote(name)} FILE; or accept it in drift.known"
            yield Finding(code=Code.POLICY_GRANTS, path=path, detail=f"it allows {'; '.join(opened)}", repair=repair)


def _guarded(layout: Layout) -> Iterator[tuple[str, frozenset[str]]]:
    """Beginnings of paths that nobody but us has to do with, and what nobody else may do there."""
    for where in places(layout):
        if where.leases is not None:
            yield f"{where.leases}/{layout.prefix}-", _READS
        if where.roles is not None:
            yield f"{where.roles}/{layout.prefix}-", _WRITES
    yield f"auth/{layout.auth_mount}/role/", _WRITES
    yield f"auth/{layout.auth_mount}/config", _WRITES
    yield f"sys/policies/acl/{layout.prefix}-", _WRITES
    yield f"sys/policy/{layout.prefix}-", _WRITES
    if (database := layout.mounts.get("database")) is not None:
        yield f"{database}/config/", _WRITES


def _identities(seen: Seen, expected: Expected) -> Iterator[Finding]:
    for path in seen.identities:
        detail = "it is not as bootstrap writes it"
        yield Finding(code=Code.IDENTITY_CHANGED, path=path, detail=detail, repair=_BOOTSTRAP)
    for mount, config in seen.trust.items():
        if wrong := _distrust(config, expected.keys.get(mount)):
            path = f"auth/{mount}/config"
            yield Finding(code=Code.TRUST_CHANGED, path=path, detail=wrong, repair=_BOOTSTRAP)


def _distrust(config: JsonObject, key: str | None) -> str:
    keys = config.get("jwt_validation_pubkeys")
    trusted = [str(one).strip() for one in keys] if isinstance(keys, list) else []
    elsewhere = [name for name in ("jwks_url", "oidc_discovery_url") if config.get(name)]
    if elsewhere:
        return f"it believes whoever is at {', '.join(elsewhere)}"
    if len(trusted) != 1:
        return f"it trusts {len(trusted)} keys"
    return "it trusts another key than ours" if key is not None and trusted != [key.strip()] else ""


def _connections(wanted: Sequence[Compiled], seen: Seen, expected: Expected) -> Iterator[Finding]:
    if seen.connections is None:
        return
    there = {connection.path for connection in seen.connections}
    for path in sorted(_named(wanted) - there):
        detail, repair = "an entitlement names it, and Vault does not have it", f"bao write {path} …"
        yield Finding(code=Code.CONNECTION_MISSING, path=path, detail=detail, repair=repair)
    for connection in seen.connections:
        target = expected.targets.get(connection.name)
        if target is not None and (moved := _moved(connection, target)):
            repair = f"bao write {shlex.quote(connection.path)} connection_url=…; see docs: drift"
            yield Finding(code=Code.CONNECTION_MOVED, path=connection.path, detail=moved, repair=repair)
        if excess := seen.excess.get(connection.name):
            detail = f"its user {connection.user} {', '.join(excess)}"
            repair = f'at the target: ALTER ROLE "{connection.user}", REVOKE; or accept it in drift.known'
            yield Finding(code=Code.CONNECTION_POWER, path=connection.path, detail=detail, repair=repair)


def _named(wanted: Sequence[Compiled]) -> set[str]:
    """The connections that roles of the database engine need: by path."""
    return {
        f"{item.path.partition('/roles/')[0]}/config/{item.data['db_name']}"
        for compiled in wanted
        for item in compiled.objects
        if item.kind is ObjectKind.SECRET_ROLE and "db_name" in item.data
    }


def _moved(connection: Connection, target: tuple[str, int, str]) -> str:
    """How it differs from where our own prober asks; what Vault does not tell is not held against it."""
    told = (connection.host, connection.port, connection.database)
    differing = [f"{was}, not {right}" for was, right in zip(told, target, strict=True) if was not in {None, right}]
    return f"it points at {' and '.join(differing)}, where our prober asks" if differing else ""


def _groups(layout: Layout, wanted: Sequence[Compiled], seen: Seen) -> Iterator[Finding]:
    """What somebody granted to a group role by hand; those of old revisions nobody can hold against anything."""
    for compiled in wanted:
        name, revision = compiled.entitlement.name, compiled.revision
        for scope in compiled.entitlement.scopes:
            if not isinstance(scope, DatabaseScope) or (right := scope.given()) is None:
                continue
            group = Group(prefix=layout.prefix, entitlement=name, revision=revision, scope=scope.name).name
            for extra in sorted(seen.given.get(scope.connection, {}).get(group, frozenset()) - right):
                detail = f"it has {extra}, which {name} does not say"
                repair = f'at the target: REVOKE it FROM "{group}"; if it is meant, write it into {name}'
                yield Finding(code=Code.GROUP_RIGHTS, path=f"{scope.connection}/{group}", detail=detail, repair=repair)


def _audit(seen: Seen) -> Iterator[Finding]:
    if seen.audit_devices == 0:
        repair = "bao audit enable file file_path=…; two, on two file systems"
        yield Finding(code=Code.AUDIT_OFF, path="sys/audit", detail="no audit device is enabled", repair=repair)


def _delete(path: str) -> str:
    return f"bao delete {shlex.quote(path)}"
