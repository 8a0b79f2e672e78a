"""What an operator does once: mounts, trust in our keys, and the identities' policies and roles.

One list of wanted objects is compared with what stands there; applying does exactly the differences, so a second
run does nothing. It is the same on the embedded server and on somebody else's.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from pydantic import JsonValue

from controlplane.engines import engines
from controlplane.model.canonical import JsonObject, canonical
from controlplane.model.errors import ConfigurationError
from controlplane.model.plan import Layout
from controlplane.ports import Engine
from controlplane.vault.census import epoch_path
from controlplane.vault.client import VaultClient, part
from controlplane.vault.policies import IDENTITIES, identity_name, policy_of
from controlplane.vault.prober import connections, prober_role

SESSION_TTL: Final = 3600
"""Seconds that a token of one of our identities lives; it is never renewed, a new login follows."""

CEILING: Final = 8 * 3600
"""Seconds; no task token lives longer, whatever a role says. The same as `model.entitlement.MAX_TTL`."""

WISHED: Final = frozenset({"param", "rotate"})
"""Identities that not everybody needs."""

Action = Literal["create", "change", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The public keys (PEM) that Vault shall believe, each at a mount of its own."""

    task_key_pem: str
    broker_key_pem: str
    sync_key_pem: str
    responder_key_pem: str
    drift_key_pem: str
    param_key_pem: str | None = None
    """None where no entitlement has parameters: then nobody may make roles for single grants."""
    rotate_key_pem: str | None = None
    """None where no secret is rotated when a grant ends: then nobody may change one."""

    @property
    def keys(self) -> Mapping[str, str]:
        """The key of each of `IDENTITIES` that there is to be."""
        known = {
            "broker": self.broker_key_pem,
            "sync": self.sync_key_pem,
            "responder": self.responder_key_pem,
            "drift": self.drift_key_pem,
        }
        wished = {"param": self.param_key_pem, "rotate": self.rotate_key_pem}
        return known | {name: pem for name, pem in wished.items() if pem is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapItem:
    """One object in Vault: where it is, what it is for, and what has to be done about it."""

    path: str
    what: str
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One object as it shall stand; `current` is what stands there now in the form of `body`, None for nothing."""

    path: str
    what: str
    body: JsonObject
    current: JsonObject | None

    @property
    def action(self) -> Action:
        if self.current is None:
            return "create"
        return "none" if all(_same(self.current.get(key), value) for key, value in self.body.items()) else "change"


def bootstrap(client: VaultClient, layout: Layout, trust: Trust, *, apply: bool) -> list[BootstrapItem]:
    """What there is to do, in its order; with `apply` it is done. `client` needs an operator's token.

    Repeating it changes nothing. Existing mounts of secrets engines are used as they are.

    Raises:
        ConfigurationError: a name of the layout is no good, or a mount of ours is something else already.
        VaultRefusedError, VaultUnavailableError: how far it came stands in Vault: run it again.
    """
    policies = {identity: policy_of(layout, identity) for identity in IDENTITIES if identity in trust.keys}
    items: list[BootstrapItem] = []
    for wanted in _everything(client, layout, trust, policies):
        items.append(BootstrapItem(path=wanted.path, what=wanted.what, action=wanted.action))
        if apply and wanted.action != "none":
            client.write(wanted.path, wanted.body)
    return items


def made(client: VaultClient, layout: Layout) -> Sequence[str]:
    """The identities that there have to be: those of `WISHED` only where somebody has made them."""

    def exists(name: str) -> bool:
        return client.read(f"sys/policies/acl/{identity_name(layout, name)}") is not None

    return [name for name in IDENTITIES if name not in WISHED or exists(name)]


def identities(client: VaultClient, layout: Layout) -> Iterator[BootstrapItem]:
    """Policies and roles of our identities, probers among them, held against what bootstrap writes; nothing is written.

    Raises: ConfigurationError, VaultRefusedError, VaultUnavailableError: the rest was not looked at.
    """
    wanted: list[_Wanted] = []
    for identity in made(client, layout):
        mount = identity_name(layout, identity)
        wanted.append(_policy(client, mount, f"what {identity} may do", policy_of(layout, identity)))
        wanted.append(_identity_role(client, mount, identity, exists=True))
    if (database := layout.mounts.get("database")) is not None:
        wanted += _probers(client, layout, database, exists=True)
    for item in wanted:
        yield BootstrapItem(path=item.path, what=item.what, action=item.action)


def _everything(client: VaultClient, layout: Layout, trust: Trust, policies: Mapping[str, str]) -> Iterator[_Wanted]:
    """Every object, looked at just before it is its turn: what an earlier one made is there by then."""
    mounts = part(client.read("sys/mounts"), "data")
    for word, engine in sorted(engines().items()):
        if word in layout.mounts:
            yield _secret_mount(mounts, layout.mounts[word], engine)
    auths = part(client.read("sys/auth"), "data")
    yield from _auth(
        client, auths, layout.auth_mount, what="where tasks log in", key=trust.task_key_pem, ceiling=CEILING
    )
    for identity in policies:
        mount = identity_name(layout, identity)
        yield from _auth(
            client, auths, mount, what=f"where {identity} logs in", key=trust.keys[identity], ceiling=SESSION_TTL
        )
        yield _policy(client, mount, f"what {identity} may do", policies[identity])
        yield _identity_role(client, mount, identity, exists=f"{mount}/" in auths)
    yield _epoch(client, layout)
    if (database := layout.mounts.get("database")) is not None:
        yield from _probers(client, layout, database, exists=f"{database}/" in mounts)


def _secret_mount(mounts: Mapping[str, JsonValue], mount: str, engine: Engine) -> _Wanted:
    found = _typed(mounts, mount, str(engine.mounting["type"]))
    body: JsonObject = {**engine.mounting, "description": "Shorthold issues credentials from here."}
    # An existing mount is its owner's: it keeps its description and its limits.
    return _Wanted(
        path=f"sys/mounts/{mount}", what=f"secrets engine {engine.word}", body=body, current=body if found else None
    )


def _auth(
    client: VaultClient, auths: Mapping[str, JsonValue], mount: str, *, what: str, key: str, ceiling: int
) -> Iterator[_Wanted]:
    found = _typed(auths, mount, "jwt")
    limits: dict[str, JsonValue] = {"default_lease_ttl": ceiling, "max_lease_ttl": ceiling}
    if found is None:
        body: JsonObject = {"type": "jwt", "description": f"Shorthold: {what}.", "config": limits}
        yield _Wanted(path=f"sys/auth/{mount}", what=f"JWT mount, {what}", body=body, current=None)
    else:
        config = cast("JsonObject", found.get("config") or {})
        yield _Wanted(path=f"sys/auth/{mount}/tune", what=f"JWT mount, {what}", body=limits, current=config)
    yield _Wanted(
        path=f"auth/{mount}/config",
        what=f"the only key that signs for {mount}",
        # Every other source of trust is named, so that one which somebody added is taken out again.
        body={
            "jwt_validation_pubkeys": [key.strip()],
            "jwt_supported_algs": ["ES256"],
            "jwks_url": "",
            "oidc_discovery_url": "",
            "bound_issuer": "",
            "default_role": "",
        },
        current=_trimmed(_data(client, f"auth/{mount}/config")) if found else None,
    )


def _policy(client: VaultClient, name: str, what: str, text: str) -> _Wanted:
    path = f"sys/policies/acl/{name}"
    current = _data(client, path)
    if current is not None:
        current = {"policy": _canonical_policy(current.get("policy"))}
    return _Wanted(path=path, what=what, body={"policy": text}, current=current)


def _epoch(client: VaultClient, layout: Layout) -> _Wanted:
    path = epoch_path(layout)
    return _Wanted(
        path=path,
        what="where the broker notes how far its store is: an entity that nobody can be",
        body={"policies": [], "disabled": True},  # the broker's metadata is not ours to change
        current=_data(client, path),
    )


def _identity_role(client: VaultClient, mount: str, identity: str, *, exists: bool) -> _Wanted:
    path = f"auth/{mount}/role/{identity}"
    body: JsonObject = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_subject": identity,
        "bound_audiences": [mount],
        "bound_claims": {},
        "claim_mappings": {},
        "groups_claim": "",
        "clock_skew_leeway": -1,  # none at all; 0 would mean a minute
        "expiration_leeway": -1,
        "not_before_leeway": -1,
        "token_type": "service",
        "token_policies": [mount],
        "token_no_default_policy": True,
        "token_ttl": SESSION_TTL,
        "token_max_ttl": SESSION_TTL,
        "token_explicit_max_ttl": SESSION_TTL,
        "token_period": 0,
        "token_num_uses": 0,
    }
    return _Wanted(
        path=path,
        what=f"the role as which {identity} logs in",
        body=body,
        current=_data(client, path) if exists else None,
    )


def _probers(client: VaultClient, layout: Layout, mount: str, *, exists: bool) -> Iterator[_Wanted]:
    for connection in connections(client, mount) if exists else ():
        role = prober_role(layout, connection)
        path = f"{mount}/roles/{role.name}"
        what = f"how the prober asks {connection.name} who is logged in"
        if not connection.allows(role.name):
            what += f" (of no use yet: allowed_roles of {mount}/config/{connection.name} must name {role.name})"
        yield _Wanted(path=path, what=what, body=role.body, current=_data(client, path))


def _typed(mounts: Mapping[str, JsonValue], mount: str, wanted: str) -> Mapping[str, JsonValue] | None:
    found = mounts.get(f"{mount}/")
    if found is None:
        return None
    if not isinstance(found, dict) or found.get("type") != wanted:
        raise ConfigurationError(
            f"the mount {mount} exists and is not of type {wanted}: choose another name in vault.*"
        )
    return found


def _data(client: VaultClient, path: str) -> JsonObject | None:
    answer = client.read(path)
    return None if answer is None else part(answer, "data")


def _trimmed(config: JsonObject | None) -> JsonObject | None:
    keys = (config or {}).get("jwt_validation_pubkeys")
    if config is None or not isinstance(keys, list):
        return config
    return {**config, "jwt_validation_pubkeys": [key.strip() if isinstance(key, str) else key for key in keys]}


def _canonical_policy(text: JsonValue) -> JsonValue:
    """A policy that says the same is the same, however it is written."""
    try:
        return canonical(json.loads(str(text))).decode()
    except ValueError:
        return text


def _same(current: JsonValue, wanted: JsonValue) -> bool:
    """Whether Vault's value is the wanted one; it shows an empty value as null, `[]`, `{}`, `""`, or not at all."""
    return current == wanted or (not current and not wanted)


__all__ = ["BootstrapItem", "Trust", "bootstrap", "identities"]
